"""Plots of what the residual stream's analyses give: bars, curves and the logit lens' table."""

import numpy as np
import pytest
import xarray as xr
from bokeh.models import GlyphRenderer, MultiLine, Quad, Scatter, Segment, Text

import pattern_lens as pl
from pattern_lens.errors import (
    DimensionError,
    PlotError,
    PlotTypeError,
    UnknownColourMapError,
)
from pattern_lens.residual.readings import Attribution

HOSTILE = "</script><b>x"
TOKENS = ["<BOS>", " the", HOSTILE, "@image", "$$x$$"]


def attribution(unit="head", n_prompts=0, *, softcap=0.0, closure=2e-6):
    """2 layers of 3 heads and the remainder, embeddings and layers, or streams; of one prompt or several."""
    rng = np.random.default_rng(5)
    if unit == "head":
        labels = [f"L{i}H{j}" for i in range(2) for j in range(3)] + ["remainder"]
        coords = {"layer": [0, 0, 0, 1, 1, 1, -1], "head": [0, 1, 2, 0, 1, 2, -1]}
    else:
        labels = ["embed", "0_attn_out", "0_mlp_out", "1_attn_out", "1_mlp_out"]
        coords = {"layer": [-1, 0, 0, 1, 1]}
    if unit == "layer":
        labels, coords = (
            ["0_pre", "0_mid", "1_pre", "1_mid", "final_post"],
            {"layer": [0, 0, 1, 1, 2]},
        )
    lead = ("prompt",) if n_prompts else ()
    values = rng.normal(0, 2, (n_prompts, len(labels)) if n_prompts else len(labels))
    where = {"component": labels} | {k: ("component", v) for k, v in coords.items()}
    where |= {"prompt": [f"p{i}" for i in range(n_prompts)]} if n_prompts else {}
    about = {"model": "tiny", "text": "<b>the</b> text" + HOSTILE}
    scores = xr.DataArray(values.astype("f4"), where, (*lead, "component"), "attribution", about)
    bias = xr.full_like(scores.isel(component=0, drop=True), 0.25)
    total = scores.isel(component=-1, drop=True) if unit == "layer" else scores.sum("component")
    return Attribution(scores, total + bias, bias, xr.full_like(bias, closure), unit, softcap)


def lens(n_pos=5, k=2, *, answer=True):
    """3 streams, 5 positions, 2 tokens each."""
    rng = np.random.default_rng(7)
    shape, dims = (3, n_pos), ("component", "pos")
    chances = np.sort(rng.uniform(0.01, 0.5, (*shape, k)))[..., ::-1]
    texts = np.array(TOKENS, dtype=object)
    ids = rng.integers(0, 5, (*shape, k))
    found = {
        "top_id": ((*dims, "rank"), ids),
        "top_token": ((*dims, "rank"), texts[ids]),
        "top_probability": ((*dims, "rank"), chances.astype("f4")),
        "kl_to_final": (dims, np.float32(rng.uniform(0, 9, shape))),
        "closure_error": ("pos", np.full(n_pos, np.nan)),
    }
    if answer:
        found["answer_rank"] = (dims, np.float32(rng.integers(0, 300, shape)))
        found["answer_probability"] = (dims, np.float32(rng.uniform(0, 1, shape)))
    coords = {
        "component": ["0_pre", "1_pre", "final_post"],
        "pos": np.arange(n_pos),
        "token": ("pos", np.resize(texts, n_pos)),
        "rank": np.arange(k),
    }
    return xr.Dataset(found, coords, {"model": "tiny", "text": "<b>the</b> text" + HOSTILE})


def source(figure, glyph):
    """Data of the first glyph of a kind."""
    found = [r for r in figure.select({"type": GlyphRenderer}) if isinstance(r.glyph, glyph)]
    return found[0].data_source.data if found else None


# --- attribution ---------------------------------------------------------------------------------


def test_bars_are_the_largest_by_amount(seen):
    found = attribution("component")
    (figure,) = seen.figures(pl.plot_attribution(found, n=3))
    order = np.argsort(-abs(found.scores.values))[:3]
    quads = source(figure, Quad)
    np.testing.assert_allclose(quads["color"], found.scores.values[order])
    assert quads["label"] == found.scores["component"].values[order].tolist()
    np.testing.assert_allclose(quads["left"], np.minimum(found.scores.values[order], 0))
    assert len(source(figure, Segment)["from"]) == 0
    assert figure.xaxis[0].axis_label == "logit"


def test_heads_have_a_map_and_the_remainder_is_in_words(seen):
    found = attribution("head", 4)
    plot = pl.plot_attribution(found, n=2, title="' Mary' - ' John'")
    overview, detail = seen.figures(plot)
    mean = found.scores.mean("prompt").values
    np.testing.assert_allclose(seen.image(overview), mean[:6].reshape(2, 3), rtol=1e-6)
    assert seen.ticks(overview) == (["L0", "L1"], ["H0", "H1", "H2"])
    assert overview.title.text == "' Mary' - ' John'"
    order = np.argsort(-abs(mean[:6]))
    shown, others = mean[order[:2]].sum(), mean[order[2:6]].sum()
    assert detail.title.text.split("\n") == [
        f"mean logit {float(found.logit.mean()):.3g}",
        f"= {shown:.3g} (2 heads shown) + {others:.3g} (4 others)",
        f"+ {mean[6]:.3g} (remainder) + 0.25 (b_U)",
        "closure error at most 2.0e-06",
    ]
    assert "remainder" not in plot.data["component"].values
    np.testing.assert_allclose(
        plot.data["std"], found.scores.std("prompt").values[order], rtol=1e-5
    )


def test_the_line_of_a_bar_is_one_standard_deviation(seen):
    found = attribution("head", 4)
    _, detail = seen.figures(pl.plot_attribution(found, n=3))
    lines, quads = source(detail, Segment), source(detail, Quad)
    data = pl.plot_attribution(found).data.isel(component=slice(3))
    np.testing.assert_allclose(lines["from"], data["attribution"] - data["std"])
    np.testing.assert_allclose(lines["to"], data["attribution"] + data["std"])
    low, high = data["least"].values[0], data["largest"].values[0]
    assert quads["more"][0] == f"std {data['std'].values[0]:.3g}, {low:.3g} to {high:.3g}"


def test_colours_have_0_in_the_middle(seen):
    found = attribution("head")
    found.scores[:] = abs(found.scores)
    overview, _ = seen.figures(pl.plot_attribution(found))
    mapper = seen.mapper(overview)
    assert mapper.low == -mapper.high


def test_what_the_model_s_logit_is_not_known_for_is_said(seen):
    (figure,) = seen.figures(
        pl.plot_attribution(attribution("component", closure=np.nan, softcap=30.0))
    )
    assert "logit before the soft cap" in figure.title.text
    assert figure.title.text.endswith("closure error not known")


def test_positions_are_averaged_like_prompts(seen):
    found = attribution("component", 3)
    whole = found.scores.expand_dims(pos=[0, 1]).transpose("prompt", "pos", "component").copy()
    whole[0, 1] = np.nan  # a shorter prompt
    more = Attribution(whole, found.logit, found.unembed_bias, found.closure_error, "component")
    data = pl.plot_attribution(more).data
    expected = whole.mean(["prompt", "pos"])
    np.testing.assert_allclose(
        data["attribution"], expected.sel(component=data["component"]), rtol=1e-5
    )


# --- along the streams ---------------------------------------------------------------------------


def test_each_prompt_is_a_line_and_the_mean_stands_out(seen):
    found = attribution("layer", 4)
    plot = pl.plot_accumulated(found)
    (figure,) = seen.figures(plot)
    values = found.scores.values + 0.25
    assert source(figure, MultiLine)["label"] == ["p0", "p1", "p2", "p3"]
    np.testing.assert_allclose(source(figure, MultiLine)["ys"][2], values[2], rtol=1e-6)
    np.testing.assert_allclose(source(figure, Scatter)["value"], values.mean(0), rtol=1e-5)
    assert source(figure, Scatter)["label"] == ["0_pre", "0_mid", "1_pre", "1_mid", "final_post"]
    np.testing.assert_allclose(plot.data["value"][:, -1], found.logit, rtol=1e-6)
    assert (
        figure.title.text
        == "tiny · 4 prompts · <b>the</b> text</script><b>x\nclosure error at most 2.0e-06"
    )


def test_one_prompt_is_one_line(seen):
    (figure,) = seen.figures(pl.plot_accumulated(attribution("layer"), title="' Mary'"))
    assert not source(figure, MultiLine) or not len(source(figure, MultiLine)["xs"])
    assert figure.title.text.startswith("' Mary'\n")


def test_numbers_of_the_lens_are_curves_too(seen):
    rank = lens()["answer_rank"]
    (figure,) = seen.figures(pl.plot_accumulated(rank))
    assert figure.yaxis[0].axis_label == "answer_rank"
    assert source(figure, MultiLine)["label"][1] == "1: ␣the"
    np.testing.assert_allclose(source(figure, Scatter)["value"], rank.mean("pos"), rtol=1e-6)


def test_of_many_lines_some_are_drawn(seen):
    found = attribution("layer", 431)
    (figure,) = seen.figures(pl.plot_accumulated(found))
    assert len(source(figure, MultiLine)["xs"]) == 200
    assert "200 of 431 lines drawn, mean of all" in figure.title.text
    expected = found.scores.mean("prompt") + 0.25
    np.testing.assert_allclose(source(figure, Scatter)["value"], expected, rtol=1e-4)


# --- the logit lens ------------------------------------------------------------------------------


def test_a_cell_is_the_most_probable_token(seen):
    found = lens()
    (figure,) = seen.figures(pl.plot_logit_lens(found))
    quads, words = source(figure, Quad), source(figure, Text)
    np.testing.assert_allclose(quads["color"], found["top_probability"][..., 0].values.ravel())
    assert quads["stream"][:6] == ["0_pre"] * 5 + ["1_pre"]
    assert quads["at"][1] == "1: ␣the"
    first = str(found["top_token"].values[2, 3, 1])
    assert quads["top_1"][2 * 5 + 3].split("  ")[0].startswith(first.replace(" ", "␣")[:5])
    assert words["text"][:1] == [str(found["top_token"].values[0, 0, 0]).replace(" ", "␣")[:10]]
    assert "final_post" in words["text"]


@pytest.mark.parametrize("colour", ["answer_probability", "answer_rank", "kl_to_final"])
def test_another_number_as_colour(colour, seen):
    found = lens()
    (figure,) = seen.figures(pl.plot_logit_lens(found, colour=colour))
    expected = found[colour].values.ravel() + (colour == "answer_rank")
    np.testing.assert_allclose(source(figure, Quad)["color"], expected, rtol=1e-6)
    np.testing.assert_allclose(source(figure, Quad)[colour], found[colour].values.ravel())


def test_a_long_prompt_is_broken_into_blocks(seen):
    (figure,) = seen.figures(pl.plot_logit_lens(lens(25), size=500))
    quads = source(figure, Quad)
    left, top = np.asarray(quads["left"]) + 0.47, np.asarray(quads["bottom"]) + 0.47
    assert left.max() == 4  # 5 columns of 74 pixels beside the names
    assert (left[6], top[6]) == (1, 5)  # position 6 of the first stream, in the second block
    assert len(set(zip(left.round(3), top.round(3), strict=True))) == 75
    assert figure.frame_height == (5 * 5 - 1) * 22


def test_one_position_and_many_prompts(seen):
    one = lens().isel(pos=2)
    (figure,) = seen.figures(pl.plot_logit_lens(one))
    assert source(figure, Quad)["at"][0].startswith("2: ")
    many = xr.concat(
        [lens().isel(pos=-1), lens().isel(pos=1)],
        dim="prompt",
        join="outer",
        coords="minimal",
        compat="override",
    )
    many = many.drop_vars(["pos", "token"]).assign_coords(prompt=["first-hash-of-all", "b"])
    (figure,) = seen.figures(pl.plot_logit_lens(many))
    assert source(figure, Quad)["at"][:2] == ["first-hash-of-all", "b"]
    assert "first-has…" in source(figure, Text)["text"]


def test_without_texts_ids_are_shown(seen):
    found = lens().drop_vars("top_token")
    (figure,) = seen.figures(pl.plot_logit_lens(found))
    assert source(figure, Text)["text"][0] == f"<{found['top_id'].values[0, 0, 0]}>"


def test_ink_can_be_read_on_its_cell(seen):
    found = lens()
    (figure,) = seen.figures(pl.plot_logit_lens(found))
    chances = found["top_probability"].values[..., 0].ravel()
    inks = source(figure, Text)["text_color"]
    assert inks[int(chances.argmax())] == "#ffffff"
    assert inks[int(chances.argmin())] == "#222222"


# --- pages ---------------------------------------------------------------------------------------

PLOTS = {
    "bars": lambda: pl.plot_attribution(attribution("component")),
    "heads": lambda: pl.plot_attribution(attribution("head", 3)),
    "curves": lambda: pl.plot_accumulated(attribution("layer", 3)),
    "lens": lambda: pl.plot_logit_lens(lens()),
}


@pytest.mark.parametrize("kind", PLOTS)
def test_text_is_no_markup_and_nothing_is_loaded(kind, tmp_path, caplog):
    html = PLOTS[kind]().save(tmp_path / "page.html").read_text("utf-8")
    assert "</script><b>" not in html
    assert "<b>the</b>" not in html
    assert caplog.text == ""
    assert "<iframe " in PLOTS[kind]()._repr_html_()


@pytest.mark.slow
@pytest.mark.usefixtures("needs_browser")
@pytest.mark.parametrize("kind", PLOTS)
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_pictures(kind, ending, tmp_path):
    assert PLOTS[kind]().save(tmp_path / f"x.{ending}").stat().st_size > 3000


@pytest.mark.slow
def test_hover_says_the_tokens_as_text(look):
    found = lens()
    found["top_token"][0, 1] = ["<img src=x onerror=alert(1)>", "@image"]
    script = "return [await hover(first, 1, 0), all(document, 'bk-tooltip-content')[0].querySelectorAll('img, b').length]"
    said, n_tags = look(pl.plot_logit_lens(found), script)
    assert said.startswith("stream: 0_pre at: 1: ␣the 1st: <img␣src=x␣onerror=alert(1)>")
    assert "2nd: @image" in said
    assert n_tags == 0


@pytest.mark.slow
def test_hover_says_the_exact_number_of_a_bar(look):
    found = attribution("component")
    largest = found.scores[int(np.abs(found.scores.values).argmax())]
    said = look(pl.plot_attribution(found), f"return await hover(first, {float(largest) / 2}, 0)")
    assert said == f"component: {largest['component'].item()} logit: {largest.values[()]!s}"


# --- what cannot be plotted ----------------------------------------------------------------------


def test_something_else():
    with pytest.raises(
        PlotTypeError, match="plot_attribution cannot plot a DataArray: expected an"
    ):
        pl.plot_attribution(attribution().scores)
    with pytest.raises(PlotTypeError, match="plot_accumulated cannot plot a list: expected what"):
        pl.plot_accumulated([1.0])
    with pytest.raises(
        PlotTypeError, match="plot_logit_lens cannot plot a DataArray: expected the"
    ):
        pl.plot_logit_lens(lens()["top_id"])


def test_a_lens_of_many_prompts():
    from pattern_lens.residual.attribution_over import LogitLens

    with pytest.raises(
        PlotTypeError, match=r"cannot plot a LogitLens: .*lens\[hash\] is the Dataset"
    ):
        pl.plot_logit_lens(LogitLens({}, None))
    with pytest.raises(DimensionError, match=r"choose with .isel\(prompt=0\) or .isel\(pos=-1\)"):
        pl.plot_logit_lens(lens().expand_dims(prompt=["a", "b"]))


def test_streams_and_parts_are_not_mixed_up():
    with pytest.raises(
        DimensionError, match=r"unit='layer' are whole streams: pl.plot_accumulated"
    ):
        pl.plot_attribution(attribution("layer"))
    with pytest.raises(DimensionError, match="an attribution by head: direct_logit_attribution"):
        pl.plot_accumulated(attribution("head"))


def test_curves_with_more_dims():
    with pytest.raises(
        DimensionError, match=r"cannot plot dims \(component, pos, rank\): expected"
    ):
        pl.plot_accumulated(lens()["top_probability"])
    with pytest.raises(PlotError, match="there is no finite number"):
        pl.plot_accumulated(lens()["kl_to_final"] * np.nan)


@pytest.mark.parametrize("n", [0, -1, True, 2.0, 201])
def test_a_number_of_bars_that_is_none(n):
    with pytest.raises(PlotError, match="expected a number of bars, from 1 to 200"):
        pl.plot_attribution(attribution(), n=n)


def test_an_empty_attribution():
    found = attribution("head", 2)
    none = Attribution(
        found.scores[:0], found.logit[:0], found.unembed_bias[:0], found.closure_error[:0], "head"
    )
    with pytest.raises(PlotError, match="plot_attribution has nothing to plot"):
        pl.plot_attribution(none)


def test_a_number_that_the_lens_has_not():
    with pytest.raises(PlotError, match="colour='rank': expected one of 'top_probability'"):
        pl.plot_logit_lens(lens(), colour="rank")
    with pytest.raises(PlotError, match="colour='answer_rank' needs an answer: logit_lens"):
        pl.plot_logit_lens(lens(answer=False), colour="answer_rank")


def test_a_table_without_cells_or_with_too_many():
    with pytest.raises(PlotError, match="plot_logit_lens has nothing to plot: there is no pos"):
        pl.plot_logit_lens(lens().isel(pos=slice(0)))
    with pytest.raises(
        PlotError, match=r"which are 4,000 columns of 3 .*\(pos=slice\(-4000, None\)\)"
    ):
        pl.plot_logit_lens(lens(4001))


@pytest.mark.parametrize("kind", PLOTS)
def test_sizes_and_colour_maps_that_are_none(kind):
    function, what = {
        "bars": (pl.plot_attribution, attribution("component")),
        "heads": (pl.plot_attribution, attribution()),
        "curves": (pl.plot_accumulated, attribution("layer")),
        "lens": (pl.plot_logit_lens, lens()),
    }[kind]
    with pytest.raises(PlotError, match="expected a number of pixels"):
        function(what, size=True)
    if kind != "curves":
        with pytest.raises(UnknownColourMapError, match="no colour map 'sunshine'"):
            function(what, cmap="sunshine")
