"""What every measure has in common, on every measure."""

import pickle
import subprocess
import sys

import dask.array
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import pattern_lens as pl
from pattern_lens import measures
from pattern_lens.errors import DimensionError
from pattern_lens.measures.apply import in_blocks
from pattern_lens.measures.half import widened
from pattern_lens.testing import write_random_file

ALL = [getattr(measures, name) for name in measures.__all__ if name != "HEAD_SCORES"]
COMPARED = [measures.cosine_similarity, measures.jensen_shannon_divergence]
NEW_DIMS = {
    measures.entropy: ("query",),
    measures.attention_by_distance: ("distance",),
    measures.singular_values: ("singular_value",),
}
UNITS = {
    "entropy": "bits",
    "mean_entropy": "bits",
    "jensen_shannon_divergence": "bits",
    "mean_attention_distance": "tokens",
    "sparsity": "1",
    "singular_values": "1",
    "cosine_similarity": "1",
}
EACH = pytest.mark.parametrize("measure", ALL, ids=lambda measure: measure.__name__)


@pytest.fixture(scope="module")
def random_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("measures") / "random.h5"
    write_random_file(path, layers=(0, 2), names=("pattern",), n_tokens=(9, 1, 12))
    return path


def test_what_is_promised():
    assert sorted(measures.__all__) == measures.__all__
    public = {name for name, value in vars(measures).items() if callable(value)}
    public -= {"MappingProxyType", "Final"}
    assert public | {"HEAD_SCORES"} == set(measures.__all__)


def test_import_is_light():
    code = "import pattern_lens.measures, sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "transformer_lens", "h5py", "matplotlib", "hvplot", "bokeh"}


def test_head_scores_give_one_number_a_head(make_pattern):
    pattern = make_pattern(6)
    for name, score in measures.HEAD_SCORES.items():
        found = score(pattern)
        assert found.name == name == score.__name__
        assert found.dims == ("layer", "head")
        assert np.isfinite(found.values).all()
        assert pickle.loads(pickle.dumps(score)) is score  # noqa: S301 - our own bytes
    with pytest.raises(TypeError):
        measures.HEAD_SCORES["mine"] = len


@EACH
def test_labels_survive(measure, make_pattern):
    found = measure(make_pattern(6))
    assert found.name == measure.__name__
    units = UNITS.get(measure.__name__, "probability")
    kept = {"model": "random", "hash": "a-hash", "units": units}
    assert found.attrs.items() >= kept.items()
    assert found.attrs["long_name"]
    assert found.prompt.item() == "a-hash"
    if measure in COMPARED:
        return
    assert found.dims == ("layer", "head", *NEW_DIMS.get(measure, ()))
    assert found.layer.values.tolist() == [3, 5]
    assert found.kind.values.tolist() == ["early", "late"]
    assert not {"key", "key_token"} & set(found.coords)
    assert ("query_token" in found.coords) == (measure is measures.entropy)


@EACH
def test_scalar_coordinates_and_bare_patterns(measure, make_pattern):
    one = measure(make_pattern(6).sel(layer=5, head=1))
    whole = measure(make_pattern(6))
    if measure in COMPARED:
        assert one.component.values.tolist() == ["L5H1"]
        return
    assert (one["layer"].item(), one["head"].item()) == (5, 1)
    np.testing.assert_allclose(one.values, whole.sel(layer=5, head=1).values, rtol=1e-5, atol=1e-7)


@EACH
def test_a_pattern_is_not_changed(measure, pattern):
    before = pattern.copy(deep=True)
    measure(pattern)
    xr.testing.assert_identical(pattern, before)


@EACH
@pytest.mark.parametrize("place", [0, 1, 2])
def test_lazy_equals_eager(measure, random_file, place):
    with pl.open_patterns(random_file) as patterns:
        lazy = patterns.isel(prompt=place)
        expected = measure(lazy.load().copy())
        xr.testing.assert_identical(measure(lazy), expected)


@EACH
@pytest.mark.parametrize("place", [0, 1])
def test_dask_equals_eager_and_stays_lazy(measure, random_file, place):
    with (
        pl.open_patterns(random_file, chunks={}) as chunked,
        pl.open_patterns(random_file) as patterns,
    ):
        expected = measure(patterns.isel(prompt=place))
        for chunks in ({}, {"head": 3, "query": 2, "key": 5}):
            found = measure(chunked.isel(prompt=place).chunk(chunks))
            assert found.chunks is not None
            assert found.dtype == expected.dtype
            computed = found.compute()
            np.testing.assert_allclose(computed, expected, rtol=1e-5, atol=1e-6)
            xr.testing.assert_identical(computed.coords.to_dataset(), expected.coords.to_dataset())


@EACH
def test_nothing_is_computed_before_it_is_asked_for(measure, make_pattern):
    def fail(block):
        raise RuntimeError("computed")

    pattern = make_pattern(4)
    array = dask.array.map_blocks(
        fail, dask.array.zeros(pattern.shape), dtype="f4", meta=np.empty(0)
    )
    found = measure(pattern.copy(data=array))
    with pytest.raises(RuntimeError, match="computed"):
        found.compute()


@EACH
def test_dims_in_any_order(measure, pattern):
    found = measure(pattern.transpose("key", "head", "query", "layer"))
    expected = measure(pattern)
    np.testing.assert_allclose(
        found.transpose(*expected.dims).values, expected.values, rtol=1e-5, atol=1e-6
    )


@EACH
def test_prompts_of_one_size_at_once(measure, make_pattern):
    prompts = [make_pattern(6, seed=seed).drop_vars("prompt") for seed in (5, 6, 7)]
    tokens = {name: prompts[0][name] for name in ("query_token", "key_token")}
    prompts = [prompt.assign_coords(tokens) for prompt in prompts]
    found = measure(xr.concat(prompts, "prompt"))
    for one, prompt in zip(found, prompts, strict=True):
        np.testing.assert_allclose(one, measure(prompt), rtol=1e-5, atol=1e-6)


@EACH
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes(measure, pattern, dtype):
    given = pattern.astype(dtype)
    found = measure(given)
    assert found.dtype == ("float64" if dtype == "float64" else "float32")
    exact = measure(given.astype("f8"))
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=2e-6)


@EACH
def test_other_numbers(measure):
    counts = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    pattern = xr.DataArray(counts, dims=("query", "key"), coords={"layer": 0, "head": 0})
    pattern = pattern.assign_coords(
        query_token=("query", list("aba")), key_token=("key", list("aba"))
    )
    expected = measure(pattern.astype("f8"))
    for dtype in ("bool", "int8", "int64"):
        np.testing.assert_allclose(measure(pattern.astype(dtype)), expected, atol=1e-6)


@EACH
def test_prompts_of_one_token(measure, make_pattern):
    found = measure(make_pattern(1))
    assert found.values.size == (36 if measure in COMPARED else 6)


@EACH
@pytest.mark.parametrize(
    "chosen", [{"query": []}, {"key": []}, {"query": [], "key": []}, {"head": []}], ids=str
)
def test_empty_selections(measure, make_pattern, chosen):
    found = measure(make_pattern(4).isel(chosen))
    values = np.nan_to_num(found.values)
    assert not values.any()
    if measure in measures.HEAD_SCORES.values():
        assert np.isnan(found.values).all()


@given(seed=st.integers(0, 99), n=st.integers(1, 6), more=st.integers(1, 3))
def test_padding_with_nan_changes_no_score(make_pattern, seed, n, more):
    pattern = make_pattern(n, seed=seed)
    padded = pattern.drop_vars(["query_token", "key_token"]).pad(query=(0, more), key=(0, more))
    padded = padded.assign_coords(query=np.arange(n + more), key=np.arange(n + more))
    ids = np.random.default_rng(seed).integers(0, 3, n + more)
    for measure in [*measures.HEAD_SCORES.values(), *COMPARED]:
        named = measure in (measures.duplicate_token_score, measures.induction_score)
        options = {"token_ids": ids} if named else {}
        found, expected = measure(padded, **options), measure(pattern, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@EACH
def test_a_missing_dim_is_refused(measure, make_pattern):
    pattern = make_pattern(4)
    with pytest.raises(
        DimensionError, match=r"cannot measure 'pattern'.*chosen as a list, .isel\(key"
    ):
        measure(pattern.isel(key=0))
    with pytest.raises(
        DimensionError, match=r"expected dims \(\.\.\., query, key\), got \('layer'"
    ):
        measure(pattern.mean("query"))


@EACH
def test_what_is_no_labelled_array_is_refused(measure, make_pattern, random_file):
    with pytest.raises(TypeError, match=r"type 'ndarray'.*use xarray.DataArray\(values, dims="):
        measure(make_pattern(4).values)
    with (
        pl.open_patterns(random_file) as patterns,
        pytest.raises(TypeError, match=r"type 'Patterns'.*use its \.map\(measure\)"),
    ):
        measure(patterns)


@pytest.mark.parametrize("measure", [*NEW_DIMS, *measures.HEAD_SCORES.values()])
@pytest.mark.parametrize("labels", [["a", "b", "c"], [0.5, 1, 2], [-1, 0, 1], [1, 1, 2]], ids=str)
def test_positions_that_are_none_are_refused(measure, make_pattern, labels):
    needs_none = (measures.entropy, measures.mean_entropy, measures.singular_values)
    pattern = make_pattern(3).assign_coords(query=labels)
    if measure in needs_none:
        assert np.isfinite(measure(pattern).values).all()
        return
    with pytest.raises(DimensionError, match=r"coordinate 'query' of 'pattern' holds \["):
        measure(pattern)


@given(shape=st.lists(st.integers(1, 3), min_size=2, max_size=4), limit=st.integers(0, 300))
def test_blocks_change_nothing(shape, limit):
    values = np.random.default_rng(0).random(shape)
    seen = []

    def function(part):
        seen.append(part.nbytes)
        return part.sum((-2, -1))

    found = in_blocks(function, values, n_core=2, limit_bytes=limit)
    np.testing.assert_allclose(found, values.sum((-2, -1)))
    assert all(n <= max(limit, shape[-1] * shape[-2] * 8) for n in seen)


def test_every_float16_is_widened_exactly():
    every = np.arange(2**16, dtype="u2").view("f2")
    known = every[~np.isnan(every)]
    finite, with_infinity = every[:0x7C00], every[:0x7C01]
    for part in (known, finite, with_infinity, finite[::3][::-1], finite[finite < 1e-4]):
        found = widened(part)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.view("u4"), part.astype("f4").view("u4"))
    assert np.isnan(widened(every[np.isnan(every)])).all()
    assert widened(every[:0]).shape == (0,)
