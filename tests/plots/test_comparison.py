import numpy as np
import pytest

import pattern_lens as pl
from pattern_lens.plots.bos import without_bos


def test_two_heads_and_their_difference(patterns, seen):
    a, b = patterns[1, 2], patterns[0, 1]
    plot = pl.compare(a, b)
    first, second, third = seen.figures(plot)
    np.testing.assert_array_equal(seen.image(first), a.values)
    np.testing.assert_array_equal(seen.image(second), b.values)
    np.testing.assert_array_equal(seen.image(third), a.values - b.values)
    assert [f.title.text for f in (first, second)] == ["L1H2", "L0H1"]
    np.testing.assert_array_equal(plot.data["difference"], a.values - b.values)


def test_one_scale_for_both_and_0_in_the_middle_of_the_difference(patterns, seen):
    figures = seen.figures(pl.compare(patterns[1, 2] * 0.5, patterns[0, 1]))
    first, second, third = map(seen.mapper, figures)
    assert (first.low, first.high) == (second.low, second.high) == (0, 1)
    assert third.low == -third.high
    assert third.palette != first.palette


def test_axes_are_shared(patterns, seen):
    first, second, third = seen.figures(pl.compare(patterns[1, 2], patterns[0, 1]))
    assert first.x_range is second.x_range is third.x_range
    assert first.y_range is second.y_range is third.y_range


def test_prompts_of_one_length_show_both_tokens(pattern, seen):
    tokens = ["<BOS>", " a", "\n", " cat", " the"]
    other = pattern.assign_coords(key_token=("key", tokens), query_token=("query", tokens))
    other.attrs["text"] = "a cat"
    figures = seen.figures(pl.compare(pattern, other))
    assert seen.ticks(figures[2])[1][:2] == ["0: <BOS>", "1: ␣the | 1: ␣a"]
    assert [f.title.text for f in figures[:2]] == ["<b>the</b> text", "a cat"]


def test_two_models(patterns, seen):
    other = (patterns * 0.5).assign_attrs(patterns.attrs | {"model": "other"})
    figures = seen.figures(pl.compare(patterns, other))
    assert [f.title.text.split(" · ")[0] for f in figures[:2]] == ["tiny", "other"]
    np.testing.assert_allclose(seen.image(figures[2])[8:13, 15:20], patterns.values[1, 2] / 2)


def test_different_layers_show_both_numbers(patterns, seen):
    figures = seen.figures(pl.compare(patterns.isel(layer=[0]), patterns.isel(layer=[1])))
    assert seen.ticks(figures[0])[0] == ["L0 | 1"]


def test_the_difference_of_a_pooled_mosaic_is_the_largest_either_way(patterns, monkeypatch):
    monkeypatch.setattr("pattern_lens.plots.comparison.step_of", lambda *_: 2)
    plot = pl.compare(patterns, patterns[::-1].assign_coords(layer=[0, 1]))
    difference = patterns.values - patterns.values[::-1]
    block = difference[1, 2, 2:4, 0:2]
    expected = block.ravel()[np.abs(block).argmax()]
    assert plot.data["difference"].values[1, 2, 1, 0] == expected


def test_results(scores, seen):
    other = scores.isel(prompt=slice(8)).rename("other")
    figures = seen.figures(pl.compare(scores, other))
    expected = scores.mean("prompt") - other.mean("prompt")
    np.testing.assert_allclose(seen.image(figures[2]), expected, atol=1e-6)
    assert [f.title.text.split(" · ")[0] for f in figures[:2]] == ["induction_score", "other"]


def test_without_bos(patterns):
    plot = pl.compare(patterns[1, 2], patterns[0, 1], bos=False, names=("x", "y"))
    np.testing.assert_array_equal(plot.data["a"], without_bos(patterns[1, 2]))
    assert plot.title == "x and y"


def test_masked_scores(pattern):
    masked = pattern.where(pattern > 0, -np.inf)
    assert np.isnan(pl.compare(masked, masked).data["difference"].values[0, 1])


@pytest.mark.slow
def test_hover_in_all_three(patterns, look):
    a, b = patterns[1, 2], patterns[0, 1]
    said = look(pl.compare(a, b), "return [await hover(first,1,3), await hover(third,1,3)]")
    assert str(a.values[3, 1]) in said[0]
    assert str((a.values - b.values)[3, 1]) in said[1]


@pytest.mark.slow
def test_hover_on_a_mosaic(patterns, look):
    other = patterns[::-1].assign_coords(layer=[0, 1])
    said = look(pl.compare(patterns, other), "return await hover(third, 2, 1)")
    assert said.startswith("head: L1H2 query: 2: ⏎ key: 2: ⏎ first minus second: ")
