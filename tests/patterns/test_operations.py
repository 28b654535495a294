import operator

import numpy as np
import pytest
import xarray as xr

import pattern_lens as pl
from pattern_lens import errors
from pattern_lens.patterns import blocks
from pattern_lens.testing import write_random_file

REDUCTIONS = ["mean", "sum", "max", "min", "std", "var", "median", "prod"]


@pytest.fixture(params=[None, {}, {"prompt": 2}], ids=str)
def patterns(stored, request):
    with pl.open_patterns(stored[0], chunks=request.param) as found:
        yield found


@pytest.fixture
def dense(stored):
    return stored[1]["pattern"]


def check(collection, expected):
    """Every array of a collection, one by one, against NumPy."""
    for prompt_hash, array in collection.items():
        np.testing.assert_allclose(array.values, expected[prompt_hash], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_the_ragged_dims_give_one_array(patterns, dense, name):
    result = getattr(patterns.sel(layer=2), name)(["query", "key"])
    expected = [getattr(np, name)(values[1], axis=(-2, -1)) for values in dense.values()]
    assert isinstance(result, xr.DataArray)
    assert result.dims == ("prompt", "head")
    assert (result.chunks is None) == (patterns.chunks is None)
    assert result.prompt.values.tolist() == list(dense)
    assert result.layer.item() == 2
    np.testing.assert_allclose(result.values, expected, rtol=1e-5, atol=1e-7)


def test_prompts_of_a_dask_chunk_can_be_said(stored):
    result = pl.open_patterns(stored[0], chunks={"prompt": 4}).mean()
    assert result.chunks == ((4, 2),)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_other_reductions_give_a_collection(patterns, dense, name):
    result = getattr(patterns, name)("head")
    assert isinstance(result, pl.Patterns)
    assert result.dims == ("layer", "query", "key")
    check(result, {h: getattr(np, name)(v, axis=1) for h, v in dense.items()})


def test_without_dim_over_all_but_the_prompt(patterns, dense):
    expected = [v.max() for v in dense.values()]
    np.testing.assert_array_equal(patterns.max().values, expected)
    np.testing.assert_array_equal(patterns.max(...).values, expected)


def test_arg_reductions_and_quantile(patterns, dense):
    check(patterns.argmax("key"), {h: v.argmax(-1) for h, v in dense.items()})
    check(patterns.argmin(dim="key").astype("f8"), {h: v.argmin(-1) for h, v in dense.items()})
    found = patterns.quantile([0.25, 0.5], ["query", "key"])
    assert found.dims == ("prompt", "quantile", "layer", "head")
    expected = [np.quantile(v, [0.25, 0.5], axis=(2, 3)) for v in dense.values()]
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(errors.DimensionError, match="argmax takes one dim"):
        patterns.argmax()


def test_arguments_are_passed_on(patterns, dense):
    found = patterns.std(["query", "key"], ddof=1).values[2]
    np.testing.assert_allclose(found, list(dense.values())[2].std(axis=(2, 3), ddof=1), rtol=1e-5)
    np.testing.assert_array_equal(
        patterns.where(patterns > 0.5).count(["query", "key"]).values,
        [(v > 0.5).sum((2, 3)) for v in dense.values()],
    )


BINARY = [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
]


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero):RuntimeWarning")
def test_operators(patterns, dense, name):
    function = getattr(operator, name)
    check(function(patterns, 0.3), {h: function(v, np.float32(0.3)) for h, v in dense.items()})
    check(function(0.3, patterns), {h: function(np.float32(0.3), v) for h, v in dense.items()})
    check(
        function(patterns, patterns.max("key")),
        {h: function(v, v.max(-1)[..., None]) for h, v in dense.items()},
    )


def test_logic_and_signs(patterns, dense):
    check(
        (patterns > 0.2) & (patterns < 0.5) | ~(patterns != 1),
        {h: (v > 0.2) & (v < 0.5) | (v == 1) for h, v in dense.items()},
    )
    check((patterns > 0.2) ^ (patterns > 0.4), {h: (v > 0.2) ^ (v > 0.4) for h, v in dense.items()})
    check(abs(-patterns) + +patterns, {h: 2 * v for h, v in dense.items()})
    assert (patterns > 0.2).any(["query", "key"]).dtype == bool
    np.testing.assert_array_equal((patterns >= 0).all().values, [True] * 6)


def test_elementwise_methods(patterns, dense):
    check(patterns.where(patterns > 0.3, 0), {h: np.where(v > 0.3, v, 0) for h, v in dense.items()})
    check(
        patterns.where(patterns > 0.3).fillna(-1),
        {h: np.where(v > 0.3, v, -1) for h, v in dense.items()},
    )
    check(patterns.where(patterns > 0.3).isnull(), {h: ~(v > 0.3) for h, v in dense.items()})
    check(patterns.where(patterns > 0.3).notnull(), {h: v > 0.3 for h, v in dense.items()})
    check(patterns.clip(0.1, 0.4), {h: v.clip(0.1, 0.4) for h, v in dense.items()})
    check(patterns.round(1), {h: v.round(1) for h, v in dense.items()})
    assert patterns.astype("float16").dtype == np.float16
    check(np.exp(patterns), {h: np.exp(v) for h, v in dense.items()})
    check(np.maximum(0.3, patterns), {h: np.maximum(0.3, v) for h, v in dense.items()})


def test_operands_that_cannot_be(patterns):
    with pytest.raises(TypeError, match="cannot add an array without labels"):
        patterns + np.ones(4)
    with pytest.raises(
        TypeError, match=r"cannot add an array without labels .* write np\.add\(array, collection\)"
    ):
        np.ones(4) + patterns
    with pytest.raises(TypeError, match="unsupported operand"):
        patterns + "a"
    with pytest.raises(TypeError, match="NotImplemented"):
        np.add(patterns, 1, out=np.ones(3))
    other = patterns.isel(prompt=[0, 1])
    with pytest.raises(
        errors.PromptError,
        match="the other collection has 2 prompts, and these are 6, of which it lacks",
    ):
        patterns + other
    with pytest.raises(errors.PromptError, match="the array has 2 prompts"):
        patterns + other.mean()


def test_operands_are_matched_by_prompt(patterns, dense):
    shuffled = patterns.isel(prompt=[5, 3, 0, 1, 2, 4])
    check(patterns - shuffled, {h: v - v for h, v in dense.items()})
    mean = shuffled.mean(["query", "key"])
    centred = patterns - mean
    check(centred, {h: v - v.mean((2, 3))[:, :, None, None] for h, v in dense.items()})
    np.testing.assert_allclose(centred.mean(), np.zeros(6), atol=1e-6)
    np.testing.assert_allclose(centred.isel(prompt=[4, 2]).mean(), np.zeros(2), atol=1e-6)
    assert np.subtract(mean, shuffled).dims == ("layer", "head", "query", "key")


def test_operands_with_labels_are_matched_by_label(patterns, dense):
    scale = xr.DataArray([1.0, 10.0, 100.0, 1000.0], dims="head", coords={"head": [3, 2, 1, 0]})
    factors = np.array([1000.0, 100.0, 10.0, 1.0])[:, None, None]
    check(patterns * scale, {h: v * factors for h, v in dense.items()})
    np.testing.assert_allclose(
        np.multiply(scale, patterns).sum(), [(v * factors).sum() for v in dense.values()], rtol=1e-5
    )


def test_two_activations_of_the_same_prompts(stored):
    path, values = stored
    scores, patterns = pl.open_activations(path, "attn_scores"), pl.open_patterns(path)
    found = (scores * patterns).sum(["query", "key"])
    expected = [(values["attn_scores"][h] * v).sum((2, 3)) for h, v in values["pattern"].items()]
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)


def test_transpose_and_rename(patterns, dense):
    check(
        patterns.transpose("key", ..., "layer"),
        {h: v.transpose(3, 1, 2, 0) for h, v in dense.items()},
    )
    check(patterns.transpose(), {h: v.T for h, v in dense.items()})
    renamed = patterns.rename(query="destination", key="source")
    assert renamed.dims == ("layer", "head", "destination", "source")
    assert renamed.sizes["destination"] == (1, 8)
    np.testing.assert_allclose(
        renamed.max("source").sum("destination").values,
        [v.max(-1).sum(-1) for v in dense.values()],
        rtol=1e-5,
    )
    with pytest.raises(
        errors.DimensionError, match=r"cannot transpose to \('key',\): expected all of"
    ):
        patterns.transpose("key")
    with pytest.raises(errors.DimensionError, match="cannot transpose: no dim 'pos'"):
        patterns.transpose("pos")
    with pytest.raises(errors.DimensionError, match="cannot rename: no dim 'pos'"):
        patterns.rename(pos="x")


def test_choosing_after_an_operation_is_choosing_before(patterns, dense):
    ratio = patterns / patterns.max("key")
    later = ratio.sel(layer=[3, 0], head=-1).isel(query=slice(1, None), key=0)
    check(later, {h: (v / v.max(-1, keepdims=True))[[2, 0], -1, 1:, 0] for h, v in dense.items()})
    pushed = patterns.mean("key").sel(layer=3)
    assert len(pushed.steps) == 1
    check(pushed, {h: v[2].mean(-1) for h, v in dense.items()})
    assert (patterns * 2).sel(head="L3H1").dims == ("query", "key")
    check((patterns * 2).sel(head="L3H1"), {h: 2 * v[2, 1] for h, v in dense.items()})
    with pytest.raises(errors.OutOfRangeError, match="no layer 1"):
        ratio.sel(layer=1)


def test_reducing_over_prompts_comes_last(patterns, dense):
    with pytest.raises(
        errors.DimensionError,
        match=r"cannot reduce over 'prompt': prompts differ in the size of 'query', 'key'.*padded",
    ):
        patterns.mean("prompt")
    with pytest.raises(errors.DimensionError, match="cannot reduce: no dim 'pos'"):
        patterns.mean("pos")
    result = patterns.mean(["query", "key"]).mean("prompt")
    np.testing.assert_allclose(
        result.values, np.mean([v.mean((2, 3)) for v in dense.values()], axis=0), rtol=1e-5
    )


@pytest.mark.parametrize("limit", [1, 2000, 1 << 30])
def test_the_size_of_a_block_changes_nothing(stored, monkeypatch, limit):
    patterns = pl.open_patterns(stored[0])
    whole = patterns.sel(layer=2).max("key").mean("query")
    monkeypatch.setattr(blocks, "WINDOW_BYTES", limit)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", limit // 2 + 1)
    order = [4, 0, 2, 5, 1, 3]
    part = patterns.isel(prompt=order).sel(layer=2).max("key").mean("query")
    xr.testing.assert_identical(part, whole.isel(prompt=order))


def test_xarray_is_called_once_for_prompts_of_one_size(tmp_path, monkeypatch):
    path = tmp_path / "many.h5"
    write_random_file(path, n_tokens=[3, 4] * 30, names=("pattern",), layers=(0,), n_heads=1)
    calls = []
    mean = xr.DataArray.mean
    monkeypatch.setattr(xr.DataArray, "mean", lambda *a, **k: calls.append(1) or mean(*a, **k))
    pl.open_patterns(path).mean()
    assert len(calls) <= 2 + 1  # two sizes, and the template


def test_padded(patterns, dense):
    for collection, expected in (
        (patterns, dense),
        (patterns.max("head") - 1, {h: v.max(1) - 1 for h, v in dense.items()}),
    ):
        array = collection.padded()
        assert (array.chunks is None) == (patterns.chunks is None)
        assert array.dims == ("prompt", *collection.dims)
        assert array["query"].values.tolist() == list(range(8))
        for i, values in enumerate(expected.values()):
            n = values.shape[-1]
            np.testing.assert_allclose(array[i, ..., :n, :n].values, values, rtol=1e-6)
            assert np.isnan(array[i, ..., n:, :].values).all()
            assert np.isnan(array[i, ..., n:].values).all()
    part = patterns.padded(fill_value=0).sel(layer=2, query=[6, 1]).isel(prompt=[2, 0])
    second = np.zeros((4, 8))
    second[:, :5] = next(iter(dense.values()))[1, :, 1]
    np.testing.assert_array_equal(part.values[1, :, 1], second)
    np.testing.assert_array_equal(part.values[0], list(dense.values())[2][1][:, [6, 1]])
    assert (patterns > 0.5).padded(fill_value=False).dtype == bool


def test_padded_after_a_cut(stored, dense):
    patterns = pl.open_patterns(stored[0])
    assert patterns.isel(query=slice(1, 4)).padded()["query"].values.tolist() == [1, 2, 3]
    assert patterns.isel(query=slice(-2, None)).padded()["query"].values.tolist() == [0, 1]
    with pytest.raises(
        errors.DimensionError, match="cannot pad 'query': it was cut after an operation"
    ):
        (patterns - patterns).isel(query=slice(2)).padded()


def test_datatree(patterns, dense):
    tree = patterns.sel(layer=2).to_datatree()
    assert list(tree.children) == list(dense)
    one = list(dense)[2]
    np.testing.assert_array_equal(tree[one]["pattern"].values, dense[one][1])
    assert tree[one].attrs["hash"] == one


def test_template_falls_back_to_real_sizes(tmp_path):
    path = tmp_path / "same.h5"
    values = write_random_file(path, n_tokens=(5, 5), names=("pattern",))["pattern"]
    weights = xr.DataArray(np.arange(5.0), dims="key")
    found = (pl.open_patterns(path) * weights).sum("key").max()
    np.testing.assert_allclose(
        found, [(v * np.arange(5.0)).sum(-1).max() for v in values.values()], rtol=1e-5
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dask_graphs_are_named_by_what_they_hold(stored):
    from dask.base import tokenize

    one, two = pl.open_patterns(stored[0]), pl.open_patterns(stored[0])
    assert tokenize(one.sel(layer=2)) == tokenize(two.sel(layer=2))
    assert tokenize(one.sel(layer=2)) != tokenize(one.sel(layer=3))
    assert tokenize(one > 0.5) != tokenize(one > 0.6)
    chunked = pl.open_patterns(stored[0], chunks={})
    names = {array.data.name for array in chunked.values()}
    assert len(names) == len(chunked)
    assert (
        next(iter(chunked.values())).data.name
        == next(iter(pl.open_patterns(stored[0], chunks={}).values())).data.name
    )
