"""Distances between query and key, against loops over pairs."""

from collections import defaultdict

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pattern_lens.measures import attention_by_distance, mean_attention_distance


def pairs(pattern):
    """Signed distance and attention (layer, head) of each pair."""
    for i, query in enumerate(pattern["query"].values.tolist()):
        for j, key in enumerate(pattern["key"].values.tolist()):
            yield query - key, pattern.values[..., i, j].astype("f8")


def test_mean_distance_against_a_loop(pattern):
    weighted = sum(abs(distance) * attention for distance, attention in pairs(pattern))
    total = sum(attention for _, attention in pairs(pattern))
    found = mean_attention_distance(pattern)
    np.testing.assert_allclose(found.values, weighted / total, rtol=1e-5)


def test_profile_against_a_loop(pattern):
    found = attention_by_distance(pattern)
    expected = defaultdict(list)
    for distance, attention in pairs(pattern):
        expected[distance].append(attention)
    assert found.dims == ("layer", "head", "distance")
    assert found.distance.values.tolist() == sorted(expected)
    means = np.stack([np.mean(expected[d], axis=0) for d in sorted(expected)], axis=-1)
    np.testing.assert_allclose(found.values, means, rtol=1e-5, atol=1e-7)


@given(seed=st.integers(0, 99), n_query=st.integers(1, 8), n_key=st.integers(1, 8))
def test_the_profile_knows_the_mean_distance(make_pattern, seed, n_query, n_key):
    pattern = make_pattern(n_query, n_key, causal=False, seed=seed)
    profile = attention_by_distance(pattern)
    distances = np.subtract.outer(np.arange(n_query), np.arange(n_key)).ravel()
    n_pairs = np.unique(distances, return_counts=True)[1]
    mean = (profile * n_pairs * abs(profile.distance)).sum("distance") / n_query
    np.testing.assert_allclose(mean_attention_distance(pattern), mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose((profile * n_pairs).sum("distance"), n_query, rtol=1e-5)


def test_a_causal_mask_leaves_nothing_at_negative_distances(make_pattern):
    profile = attention_by_distance(make_pattern(5))
    assert profile.distance.values.tolist() == [-4, -3, -2, -1, 0, 1, 2, 3, 4]
    assert (profile.sel(distance=slice(None, -1)) == 0).all()
    assert (profile.sel(distance=slice(0, None)) > 0).all()


def test_nothing_is_where_no_values_are(make_pattern):
    pattern = make_pattern(5)
    holed = pattern.copy()
    holed[0, 1, 4, 0] = np.nan  # the only pair at distance 4
    holed[0, 1, 3, 2] = np.nan  # one of four at distance 1
    profile = attention_by_distance(holed)[0, 1]
    assert np.isnan(profile.sel(distance=4))
    expected = pattern.values[0, 1][[1, 2, 4], [0, 1, 3]].mean()
    assert float(profile.sel(distance=1)) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(
        attention_by_distance(holed)[1], attention_by_distance(pattern)[1]
    )
    np.testing.assert_allclose(
        mean_attention_distance(holed), mean_attention_distance(holed.fillna(0)), rtol=1e-6
    )


def test_no_attention_no_distance(make_pattern):
    assert np.isnan(mean_attention_distance(0 * make_pattern(4)).values).all()


def test_long_prompts_stay_precise():
    values = np.tril(np.random.default_rng(0).random((1, 1500, 1500), np.float32))
    values /= values.sum(-1, keepdims=True)
    pattern = xr.DataArray(values, dims=("head", "query", "key"))
    for measure in (mean_attention_distance, attention_by_distance):
        np.testing.assert_allclose(measure(pattern), measure(pattern.astype("f8")), rtol=3e-6)
