"""Heads compared with each other, against loops over pairs of heads."""

import itertools
import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pattern_lens.errors import DimensionError
from pattern_lens.measures import cosine_similarity, jensen_shannon_divergence

BOTH = pytest.mark.parametrize(
    "measure", [cosine_similarity, jensen_shannon_divergence], ids=lambda m: m.__name__
)
LABELS = ["L3H0", "L3H1", "L3H2", "L5H0", "L5H1", "L5H2"]


def cosine(a, b):
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def divergence(a, b):
    """Mean over queries of the divergence, from its definition by Kullback and Leibler's."""
    found = []
    for row, other in zip(a, b, strict=True):
        if row.sum() > 0 and other.sum() > 0:
            p, q = row / row.sum(), other / other.sum()
            mixed = [*(p + q) / 2] * 2
            terms = zip([*p, *q], mixed, strict=True)
            found.append(sum(x * math.log2(x / m) for x, m in terms if x > 0) / 2)
    return np.mean(found) if found else math.nan


def by_loop(pattern, function):
    heads = pattern.values.astype("f8").reshape(-1, *pattern.shape[-2:])
    return np.array([[function(a, b) for b in heads] for a in heads])


def test_cosines_against_a_loop(pattern):
    np.testing.assert_allclose(cosine_similarity(pattern), by_loop(pattern, cosine), rtol=1e-5)


def test_divergences_against_a_loop(pattern):
    found = jensen_shannon_divergence(pattern)
    np.testing.assert_allclose(found, by_loop(pattern, divergence), atol=2e-6)


@BOTH
def test_components_are_labelled(measure, make_pattern):
    found = measure(make_pattern(5))
    assert found.dims == ("component", "component_other")
    for other in ("", "_other"):
        assert found[f"component{other}"].values.tolist() == LABELS
        assert found[f"layer{other}"].values.tolist() == [3, 3, 3, 5, 5, 5]
        assert found[f"head{other}"].values.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.sel(component="L5H1", component_other="L3H0").shape == ()


@BOTH
def test_labels_follow_the_heads(measure, make_pattern):
    pattern = make_pattern(5)
    whole = measure(pattern)
    turned = measure(pattern.transpose("query", "head", "key", "layer"))
    np.testing.assert_allclose(turned, whole, atol=1e-6)
    assert turned.component.equals(whole.component)
    part = measure(pattern.isel(layer=[1], head=[2, 0]))
    chosen = ["L5H2", "L5H0"]
    assert part.component.values.tolist() == chosen
    expected = whole.sel(component=chosen, component_other=chosen)
    np.testing.assert_allclose(part.values, expected.values, atol=1e-6)
    for one, labels in (({"layer": 5}, LABELS[3:]), ({"head": 2}, ["L3H2", "L5H2"])):
        found = measure(pattern.sel(one))
        assert found.component.values.tolist() == labels
        expected = whole.sel(component=labels, component_other=labels)
        np.testing.assert_allclose(found.values, expected.values, atol=1e-6)


@BOTH
def test_chosen_components_keep_their_labels(measure, make_pattern):
    pattern = make_pattern(5)
    places = {"layer": ("component", [1, 0]), "head": ("component", [2, 1])}
    chosen = pattern.isel({dim: xr.DataArray(v[1], dims="component") for dim, v in places.items()})
    with pytest.raises(DimensionError, match="or a labelled dim 'component'"):
        measure(chosen)
    chosen = chosen.assign_coords(component=["L5H2", "L3H1"])
    found = measure(chosen)
    labels = ["L5H2", "L3H1"]
    expected = measure(pattern).sel(component=labels, component_other=labels)
    assert found.dims == ("component", "component_other")
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
    assert found.layer_other.values.tolist() == [5, 3]


@BOTH
@given(seed=st.integers(0, 99), n_query=st.integers(1, 5), n_key=st.integers(1, 6))
def test_matrices_are_symmetric_and_in_range(measure, make_pattern, seed, n_query, n_key):
    pattern = make_pattern(n_query, n_key, causal=False, seed=seed)
    found = measure(pattern).values
    np.testing.assert_array_equal(found, found.T)
    assert ((found >= 0) & (found <= 1)).all()
    if measure is cosine_similarity:
        np.testing.assert_allclose(np.diagonal(found), 1, atol=1e-6)
    else:
        np.testing.assert_array_equal(np.diagonal(found), 0)


def test_extremes():
    one, other = np.eye(1, 4) * np.ones((3, 1)), np.eye(1, 4, k=2) * np.ones((3, 1))
    heads = xr.DataArray([one, other, one], dims=("head", "query", "key"), coords={"layer": 0})
    np.testing.assert_array_equal(cosine_similarity(heads), [[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    found = jensen_shannon_divergence(heads)
    np.testing.assert_array_equal(found, [[0, 1, 0], [1, 0, 1], [0, 1, 0]])


@given(seed=st.integers(0, 99))
def test_heads_without_a_common_key_differ_by_one_bit(seed):
    values = np.random.default_rng(seed).random((2, 1, 9), np.float32)
    values[0, :, ::2] = values[1, :, 1::2] = 0
    heads = xr.DataArray(values, dims=("head", "query", "key"), coords={"layer": 0})
    found = float(jensen_shannon_divergence(heads)[0, 1])
    assert found == pytest.approx(1, abs=1e-6)
    assert found <= 1
    assert float(cosine_similarity(heads)[0, 1]) == 0


def test_the_square_root_of_the_divergence_is_a_metric(make_pattern):
    root = np.sqrt(jensen_shannon_divergence(make_pattern(1, 8, causal=False).astype("f8")).values)
    for a, b, c in itertools.permutations(range(6), 3):
        assert root[a, c] <= root[a, b] + root[b, c] + 1e-9


def test_queries_without_attention_are_left_out_of_the_divergence(make_pattern):
    pattern = make_pattern(5)
    for nothing in (0, np.nan):
        holed = pattern.copy()
        holed[0, 1, 3] = nothing
        found = jensen_shannon_divergence(holed)
        expected = by_loop(holed.fillna(0), divergence)
        np.testing.assert_allclose(found, expected, atol=2e-6)


@BOTH
def test_a_head_without_attention_is_like_no_other(measure, make_pattern):
    for nothing in (0, np.nan):
        pattern = make_pattern(4)
        pattern[0, 1] = nothing
        found = measure(pattern)
        assert np.isnan(found.sel(component="L3H1")).all()
        assert np.isnan(found.sel(component_other="L3H1")).all()
        assert np.isnan(found).sum() == 11


@BOTH
def test_other_dims_stay(measure, make_pattern):
    prompts = [make_pattern(4, seed=seed).drop_vars("prompt") for seed in (1, 2)]
    found = measure(xr.concat(prompts, "prompt").transpose("layer", "prompt", ...))
    assert found.dims == ("prompt", "component", "component_other")
    for one, prompt in zip(found, prompts, strict=True):
        np.testing.assert_allclose(one, measure(prompt), atol=1e-6)


@BOTH
def test_heads_without_a_name_are_refused(measure, make_pattern):
    pattern = make_pattern(3).sel(layer=3, drop=True)
    with pytest.raises(
        DimensionError, match=r"expected 'layer' and 'head'.*\.assign_coords\(layer"
    ):
        measure(pattern)
    with pytest.raises(DimensionError, match="or a labelled dim 'component', got dims"):
        measure(pattern.rename(head="component").drop_vars("component"))
    assert measure(pattern.assign_coords(layer=8)).component.values.tolist()[0] == "L8H0"
