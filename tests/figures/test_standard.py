"""The standard figures, asserted without pixels: what they show, and that they can be drawn."""

import numpy as np
import pytest
import xarray as xr

from pattern_lens.figures import Picture, figure_functions, produce
from pattern_lens.figures import standard as std

NAMES = ["raw", "log_scale", "query_entropy", "attention_by_distance", "singular_values"]
HEAT_MAPS = NAMES[:2]


def tick_texts(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fmt", ["png", "svgz"])
def test_each_can_be_drawn(name, fmt, pattern):
    from dataclasses import replace

    entry = replace(figure_functions()[name], format=fmt)
    (made,) = produce(entry, pattern)
    assert isinstance(made, Picture), made.traceback
    assert (made.name, made.format) == (name, fmt)
    assert produce(entry, pattern) == (made,)


@pytest.mark.parametrize("name", NAMES)
def test_the_title_names_the_head(name, pattern):
    title = getattr(std, name)(pattern).axes[0].get_title()
    assert title.startswith("L3H5 · ")
    bare = getattr(std, name)(pattern.drop_vars(["layer", "head"])).axes[0].get_title()
    assert bare == title.removeprefix("L3H5 · ")


@pytest.mark.parametrize("name", HEAT_MAPS)
def test_heat_maps_show_tokens_of_short_prompts(name, pattern):
    axes, bar = getattr(std, name)(pattern).axes
    expected = ["0: <|endoftext|>", "1: The", "2: ␣$x_1$", "3: ⏎", r"4: ␣\u4f60\u597d"]
    assert tick_texts(axes.xaxis) == tick_texts(axes.yaxis) == expected
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("key position", "query position")
    assert bar.get_ylabel() == "attention (probability)"
    assert not any(label.get_parse_math() for label in axes.get_xticklabels())


def test_the_heat_map_shows_the_values(pattern):
    axes, _ = std.raw(pattern).axes
    (image,) = axes.get_images()
    np.testing.assert_array_equal(image.get_array(), pattern.values)
    assert image.cmap.name == "Blues"
    assert image.get_clim() == (0, pattern.values.max())


def test_the_log_scale_shows_no_attention_as_absent(pattern):
    axes, _ = std.log_scale(pattern).axes
    (image,) = axes.get_images()
    np.testing.assert_array_equal(image.get_array().mask, pattern.values == 0)
    assert image.get_clim()[1] == pytest.approx(pattern.values.max())


def test_long_prompts_have_numbers(pattern):
    n = 31
    values = np.tril(np.ones((n, n)))
    values /= values.sum(1, keepdims=True)
    long = xr.DataArray(
        values,
        dims=("query", "key"),
        coords={"query": np.arange(n) + 100, "query_token": ("query", ["x"] * n)},
    )
    axes = std.raw(long).axes[0]
    axes.figure.draw_without_rendering()
    assert {"100", "116"} <= set(tick_texts(axes.yaxis))
    assert {"0", "16"} <= set(tick_texts(axes.xaxis))


def test_the_entropy_and_its_bound(pattern):
    axes = std.query_entropy(pattern).axes[0]
    bound, own = (line.get_ydata() for line in axes.get_lines())
    p = np.where(pattern.values > 0, pattern.values, 1).astype(float)
    np.testing.assert_allclose(own, -(p * np.log2(p)).sum(1), atol=1e-6)
    np.testing.assert_allclose(bound, np.log2([1, 2, 3, 4, 5]))
    assert axes.get_ylabel() == "entropy (bits)"


def test_the_bound_without_a_causal_mask(pattern):
    axes = std.query_entropy(pattern.copy(data=pattern.values[::-1])).axes[0]
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), np.log2([5] * 5))


def test_attention_by_distance_with_and_without_the_first_key(pattern):
    axes = std.attention_by_distance(pattern).axes[0]
    every, others = axes.get_lines()
    values = pattern.values.astype(float)
    expected = [np.diagonal(values, -d).mean() for d in range(5)]
    np.testing.assert_allclose(every.get_ydata(), expected, rtol=1e-5)
    expected = [np.diagonal(values, -d)[1:].mean() for d in range(4)]
    np.testing.assert_allclose(others.get_ydata(), expected, rtol=1e-5)
    assert every.get_xdata().tolist() == [0, 1, 2, 3, 4]


def test_positions_are_those_of_the_coordinates(pattern):
    axes = std.attention_by_distance(pattern.isel(query=[3, 4], key=[1, 2])).axes[0]
    assert len(axes.get_lines()) == 2
    assert axes.get_lines()[0].get_xdata().tolist() == [1, 2, 3]


def test_an_array_without_positions_begins_at_0(pattern):
    bare = std.attention_by_distance(pattern.drop_vars(["query", "key"])).axes[0]
    full = std.attention_by_distance(pattern).axes[0]
    for found, expected in zip(bare.get_lines(), full.get_lines(), strict=True):
        np.testing.assert_array_equal(found.get_xydata(), expected.get_xydata())


def test_the_singular_values(pattern):
    axes = std.singular_values(pattern).axes[0]
    (line,) = axes.get_lines()
    expected = np.linalg.svd(pattern.values.astype(float), compute_uv=False)
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-4)
    assert axes.get_yscale() == "log"


ODD = {
    "one token": np.ones((1, 1), np.float32),
    "one key": np.ones((3, 1), np.float32),
    "cross-attention": np.random.default_rng(0).random((3, 7)),
    "zeros": np.zeros((4, 4)),
    "float16": np.eye(4, dtype=np.float16),
    "with NaN": np.where(np.eye(4) > 0, 0.5, np.nan),
    "all NaN": np.full((3, 3), np.nan),
    "scores": np.where(np.tri(4) > 0, -3.0, -np.inf),
    "tiny": np.full((3, 3), 1e-30, np.float32),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ODD)
def test_odd_patterns(name, kind):
    (made,) = produce(getattr(std, name), ODD[kind])
    if kind == "scores" and name not in HEAT_MAPS:
        return  # no probabilities: the measures may refuse them
    assert isinstance(made, Picture), made.traceback
