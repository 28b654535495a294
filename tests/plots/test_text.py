import numpy as np
import pytest
from bokeh.models import GlyphRenderer, Quad, Text

import pattern_lens as pl
from pattern_lens.plots.bos import without_bos
from pattern_lens.plots.lines import place


def columns(figure):
    glyphs = {type(r.glyph): r.data_source.data for r in figure.select({"type": GlyphRenderer})}
    return glyphs[Quad], glyphs[Text]


def test_every_token_once_with_its_attention(pattern, seen):
    plot = pl.plot_tokens(pattern)
    (figure,) = seen.figures(plot)
    boxes, texts = columns(figure)
    assert list(texts["text"]) == ["<BOS>", " the", "⏎", "<script>alert(1)</script>", " the"]
    np.testing.assert_array_equal(boxes["color"], pattern.values[4])
    np.testing.assert_array_equal(plot.data["attention"], pattern.values[4])
    assert boxes["label"][4] == "4: ␣the"
    assert figure.title.text == "L1H2 · 4: ␣the looks at, most at 0: <BOS> (0.285)"


def test_the_other_direction(pattern, seen):
    plot = pl.plot_tokens(pattern, token=1, direction="queries")
    (figure,) = seen.figures(plot)
    np.testing.assert_array_equal(columns(figure)[0]["color"], pattern.values[:, 1])
    assert figure.title.text.startswith("L1H2 · 1: ␣the is looked at by, most by 1: ␣the")


def test_without_bos(pattern, seen):
    (figure,) = seen.figures(pl.plot_tokens(pattern, bos=False))
    np.testing.assert_array_equal(columns(figure)[0]["color"], without_bos(pattern)[4])


def test_the_chosen_token_is_framed(pattern, seen):
    (figure,) = seen.figures(pl.plot_tokens(pattern, token=-2))
    assert columns(figure)[0]["line_width"].tolist() == [1, 1, 1, 2.5, 1]


def test_long_prompts_wrap():
    placed = place([" word"] * 50, 33)
    assert placed.n_lines == 9
    assert placed.right.max() <= 33
    for line in range(placed.n_lines):
        on = placed.line == line
        assert (placed.left[on][1:] >= placed.right[on][:-1]).all()


def test_a_line_of_the_prompt_ends_a_line():
    assert place(["a", "\n", "b", ".\n\n", "c"], 50).line.tolist() == [0, 0, 1, 1, 2]


def test_a_token_longer_than_a_line_is_cut():
    placed = place(["x" * 100], 10)
    assert placed.texts == ["x" * 9 + "…"]


def test_spaces_alone_are_visible():
    assert place(["  ", " a", "\udc80"], 20).texts == ["␣␣", " a", r"\udc80"]


def test_right_to_left_tokens_keep_their_places(pattern, seen):
    tokens = ["<BOS>", "שלום", " עולם", "!", "a"]
    array = pattern.assign_coords(key_token=("key", tokens))
    (figure,) = seen.figures(pl.plot_tokens(array))
    left = columns(figure)[0]["left"]
    assert (np.diff(left) > 0).all()
    assert columns(figure)[1]["text"][1] == "\u2068שלום\u2069"  # noqa: RUF001


def test_the_first_row_of_a_pattern_without_bos_is_empty(pattern, seen):
    (figure,) = seen.figures(pl.plot_tokens(pattern, token=0, bos=False))
    assert np.isnan(columns(figure)[0]["color"]).all()
    assert figure.title.text == "L1H2 · 0: <BOS> looks at"


MIDDLE = "const b = () => glyph(first, 'Quad').data_source.data, x = i => (b().left[i] + b().right[i]) / 2, y = i => b().line[i];"


@pytest.mark.slow
def test_hover_previews_click_locks_click_again_unlocks(pattern, look):
    script = f"""{MIDDLE} const said = [], say = () => said.push(first.model.title.text)
    await hover(first, x(1), y(1)); say()
    await tap(first, x(3), y(3)); say()
    const locked = [...b().color]
    await hover(first, x(1), y(1)); say()
    await tap(first, x(3), y(3)); say()
    await hover(first, x(2), y(2)); say()
    return [said, locked]"""
    said, locked = look(pl.plot_tokens(pattern), script)
    assert [words.split(" looks at")[0] for words in said] == [
        "L1H2 · 1: ␣the",
        "L1H2 · 3: <script>alert(1…",
        "L1H2 · 3: <script>alert(1…",
        "L1H2 · 3: <script>alert(1…",
        "L1H2 · 2: ⏎",
    ]
    assert [words.endswith("locked") for words in said] == [False, True, True, False, False]
    np.testing.assert_array_equal(np.float32(locked), pattern.values[3])


@pytest.mark.slow
def test_buttons_turn_the_direction_and_leave_out_the_first_key(pattern, look):
    script = f"""{MIDDLE} await tap(first, x(1), y(1))
    await press("is looked at by"); const by = [...b().color]
    await press("leave out key 0"); const without = [...b().color]
    await press("looks at"); return [by, without, [...b().color]]"""
    by, without, at = look(pl.plot_tokens(pattern), script)
    expected = without_bos(pattern).values
    np.testing.assert_array_equal(np.float32(by), pattern.values[:, 1])
    np.testing.assert_allclose(np.array(without[1:], float), expected[1:, 1], rtol=1e-6)
    np.testing.assert_allclose(np.array(at[1:], float), expected[1, 1:], rtol=1e-6)
