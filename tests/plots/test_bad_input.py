"""Every sentence that a plot function answers to what it cannot plot."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import pattern_lens as pl
from pattern_lens.errors import (
    DimensionError,
    HeadSelectionError,
    OutOfRangeError,
    PlotError,
    PlotTypeError,
    UnknownColourMapError,
    UnknownTokensError,
)

OF_PATTERNS = [pl.plot_pattern, pl.plot_heads, pl.plot_tokens]
ONE_ARRAY = [*OF_PATTERNS, pl.plot_scores]


@pytest.mark.parametrize("function", ONE_ARRAY, ids=lambda f: f.__name__)
def test_something_else(function):
    with pytest.raises(PlotTypeError, match=f"{function.__name__} cannot plot a ndarray: expected"):
        function(np.eye(3))


def test_a_whole_collection(demo_file):
    with pl.open_patterns(demo_file) as patterns:
        with pytest.raises(PlotTypeError, match=r"cannot plot a Patterns: .*patterns\[hash\] is"):
            pl.plot_pattern(patterns)
        with pytest.raises(PlotTypeError, match=r"compare cannot plot a Patterns"):
            pl.compare(patterns, patterns)


@pytest.mark.parametrize("function", ONE_ARRAY, ids=lambda f: f.__name__)
def test_text_instead_of_numbers(function, patterns):
    with pytest.raises(PlotTypeError, match="of dtype <U3: expected real numbers"):
        function(patterns.astype("U3"))


@pytest.mark.parametrize("function", [pl.plot_pattern, pl.plot_tokens], ids=lambda f: f.__name__)
def test_more_than_one_head(function, patterns):
    with pytest.raises(DimensionError, match=r"choose with .sel\(layer=0, head=0\); pl.plot_heads"):
        function(patterns)
    with pytest.raises(DimensionError, match=r"choose with .sel\(prompt='p'\)$"):
        function(patterns[0, 0].expand_dims(prompt=["p", "q"]))


def test_heads_of_many_prompts(patterns):
    with pytest.raises(DimensionError, match=r"expected \(layer, head, query, key\)"):
        pl.plot_heads(patterns.expand_dims(prompt=["p"]))


@pytest.mark.parametrize("function", OF_PATTERNS, ids=lambda f: f.__name__)
def test_no_key_dim(function, patterns):
    with pytest.raises(DimensionError, match=r"cannot plot 'pattern' with dims"):
        function(patterns[0, 0].isel(key=0))


@pytest.mark.parametrize("function", OF_PATTERNS, ids=lambda f: f.__name__)
def test_no_tokens(function, patterns):
    with pytest.raises(PlotError, match="'pattern' has no query and no key"):
        function(patterns[:1, :1, :0, :0])


@pytest.mark.parametrize("function", [pl.plot_pattern, pl.plot_heads], ids=lambda f: f.__name__)
def test_nothing_but_nan(function, patterns):
    with pytest.raises(PlotError, match="there is no finite number in the array"):
        function(patterns[:1, :1] * np.nan)


@pytest.mark.parametrize("function", OF_PATTERNS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", [0, -5, 1e3, True, "wide", 10**6])
def test_a_size_that_is_none(function, patterns, size):
    with pytest.raises(PlotError, match=r"expected a number of pixels, from 50 to 10,000"):
        function(patterns[:1, :1], size=size)


@pytest.mark.parametrize("function", OF_PATTERNS, ids=lambda f: f.__name__)
def test_an_unknown_colour_map(function, patterns):
    with pytest.raises(UnknownColourMapError, match="no colour map 'sunshine': list"):
        function(patterns[:1, :1], cmap="sunshine")


def test_unknown_options_are_refused_by_name(pattern):
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        pl.plot_pattern(pattern, colour="red")


def test_bos_that_is_not_there(pattern):
    with pytest.raises(DimensionError, match="bos=False leaves out key 0, which is not among"):
        pl.plot_pattern(pattern.isel(key=slice(1, None)), bos=False)


@pytest.mark.parametrize(
    ("large", "error", "words"),
    [
        ("L9H0", OutOfRangeError, "the model has layers 0-1"),
        ((0, 7), OutOfRangeError, "the model has heads 0-2"),
        ("best", HeadSelectionError, "'best' .* is not a head"),
        ("L0H1", OutOfRangeError, "L0H1 is not among the heads that are plotted"),
    ],
)
def test_a_large_head_that_is_not_there(patterns, large, error, words):
    array = patterns.isel(head=[0, 2]) if large == "L0H1" else patterns
    with pytest.raises(error, match=words):
        pl.plot_heads(array, large=large)


def test_scores_with_more_dims(patterns):
    with pytest.raises(
        DimensionError, match=r"reduce or choose first, .*\.mean\(\['query', 'key'\]\)"
    ):
        pl.plot_scores(patterns)


def test_scores_of_no_head(patterns):
    with pytest.raises(
        DimensionError, match=r"expected \(prompt, layer, head\) or \(layer, head\)"
    ):
        pl.plot_scores(patterns[0, 0].mean("key"))


def test_an_unknown_statistic(scores):
    with pytest.raises(PlotError, match="over_prompts='mode': expected one of 'mean', 'median'"):
        pl.plot_scores(scores, over_prompts="mode")


def test_patterns_of_different_sizes(pattern):
    words = (
        r"query 5 and 3, key 5 and 3; .* cut both with .isel\(query=slice\(3\), key=slice\(3\)\)"
    )
    with pytest.raises(PlotError, match=words):
        pl.compare(pattern, pattern[:3, :3])


def test_models_of_different_shape(patterns):
    with pytest.raises(PlotError, match=r"different sizes: layer 2 and 1, head 3 and 2"):
        pl.compare(patterns, patterns[:1, :2])


def test_a_pattern_and_a_score(pattern, scores):
    with pytest.raises(DimensionError, match="compare"):
        pl.compare(pattern, scores)


@pytest.mark.parametrize("names", ["ab", ("a",), ("a", 2)])
def test_names_that_are_not_two(pattern, names):
    with pytest.raises(PlotError, match="expected two strings, one for each array"):
        pl.compare(pattern, pattern, names=names)


def test_tokens_unknown(pattern):
    with pytest.raises(UnknownTokensError, match="needs a coordinate key_token along key"):
        pl.plot_tokens(pattern.drop_vars("key_token"))


def test_other_queries_than_keys(pattern):
    with pytest.raises(DimensionError, match="the same positions as queries and as keys, got 4"):
        pl.plot_tokens(pattern[1:])


def test_a_token_that_is_not_there(pattern):
    with pytest.raises(OutOfRangeError, match="token=5 is out of range: the prompt has 5 tokens"):
        pl.plot_tokens(pattern, token=5)
    with pytest.raises(PlotError, match="token='the': expected the place of a token"):
        pl.plot_tokens(pattern, token="the")  # noqa: S106 - no password


def test_an_unknown_direction(pattern):
    with pytest.raises(PlotError, match="direction='up': expected 'keys' or 'queries'"):
        pl.plot_tokens(pattern, direction="up")


def test_too_many_tokens_for_a_page():
    array = xr.DataArray(np.broadcast_to(np.float32(0), (2049, 2049)), dims=("query", "key"))
    with pytest.raises(PlotError, match="shows up to 2,048 tokens, got 2,049: cut both"):
        pl.plot_tokens(array)


@pytest.mark.parametrize("package", ["holoviews", "bokeh"])
def test_without_the_extra(package):
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "import pattern_lens as pl\n"
        "try: pl.plot_pattern\n"
        "except ImportError as err: print(err)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    words = f"cannot plot: {package} is not installed; run: pip install 'pattern-lens[plots]'"
    assert done.stdout.strip() == words


def test_chosen_components(demo_file):
    with pl.open_patterns(demo_file) as patterns:
        some = patterns.sel(head="L0H6-7, L1H3")
        array = some[next(iter(some))]
        with pytest.raises(
            DimensionError, match=r"plot_heads shows layers and heads, .* a dim component"
        ):
            pl.plot_heads(array)
        with pytest.raises(DimensionError, match=r"choose with .sel\(component='L0H6'\)"):
            pl.plot_pattern(array)
        with pytest.raises(
            DimensionError, match=r"plot_scores shows layers and heads, .* a dim component"
        ):
            pl.plot_scores(array.mean(["query", "key"]))
        assert pl.plot_pattern(array.sel(component="L1H3")).title.startswith("L1H3")
