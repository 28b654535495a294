"""Entropy and sparsity of rows, against loops."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pattern_lens.measures import entropy, mean_entropy, sparsity


def entropy_of(row):
    total = sum(row)
    return -sum(p / total * math.log2(p / total) for p in row if p > 0) if total else math.nan


def hoyer_of(row):
    n, l1, l2 = len(row), sum(row), math.sqrt(sum(p * p for p in row))
    return (math.sqrt(n) - l1 / l2) / (math.sqrt(n) - 1) if n > 1 and l2 else math.nan


def by_row(pattern, function):
    rows = pattern.values.astype("f8").reshape(-1, pattern.shape[-1]).tolist()
    return np.array([function(row) for row in rows]).reshape(pattern.shape[:-1])


def test_entropy_against_a_loop(pattern):
    found = entropy(pattern)
    assert found.dims == ("layer", "head", "query")
    np.testing.assert_allclose(found.values, by_row(pattern, entropy_of), atol=2e-6)


def test_mean_entropy_against_a_loop(pattern):
    expected = by_row(pattern, entropy_of).mean(-1)
    np.testing.assert_allclose(mean_entropy(pattern).values, expected, rtol=1e-5)


@given(seed=st.integers(0, 99), n=st.integers(1, 9), share=st.floats(0.01, 1))
def test_entropy_sees_only_the_shares_of_a_row(make_pattern, seed, n, share):
    pattern = make_pattern(n, n + 2, causal=False, seed=seed)
    found = entropy(pattern)
    order = np.random.default_rng(seed).permutation(n + 2)
    np.testing.assert_allclose(entropy(share * pattern.isel(key=order)), found, atol=1e-5)
    assert (found.values >= 0).all()
    assert (found.values <= math.log2(n + 2) + 1e-6).all()


def test_entropy_of_extremes():
    rows = [
        [0.25, 0.25, 0.25, 0.25],
        [0, 1, 0, 0],
        [0, 0.5, 0, 0.5],
        [0, 0, 0, 0],
        [1e-40, 0, 0, 0],
    ]
    found = entropy(xr.DataArray(np.array(rows, "f4"), dims=("query", "key")))
    np.testing.assert_array_equal(found.values, [2, 0, 1, np.nan, 0])
    assert float(mean_entropy(xr.DataArray(rows[:4], dims=("query", "key")))) == 1


def test_query_0_counts_with_0_bits_under_a_causal_mask(make_pattern):
    pattern = make_pattern(4)
    assert (entropy(pattern).sel(query=0) == 0).all()
    expected = 0.75 * mean_entropy(pattern.isel(query=slice(1, None)))
    np.testing.assert_allclose(mean_entropy(pattern), expected, rtol=1e-6)


def test_a_row_without_values_has_no_entropy(make_pattern):
    pattern = make_pattern(5)
    pattern[1, 2, 3] = np.nan
    pattern[1, 2, 4, 1] = np.nan
    found = entropy(pattern)
    expected = by_row(pattern.fillna(0), entropy_of)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert np.isnan(found.values).sum() == 1
    np.testing.assert_allclose(mean_entropy(pattern), np.nanmean(expected, -1), rtol=1e-5)


def sparsity_by_loop(pattern, *, causal):
    queries, keys = pattern["query"].values, pattern["key"].values
    out = np.empty(pattern.shape[:2])
    for at in np.ndindex(out.shape):
        rows = [
            row[keys <= query] if causal else row
            for query, row in zip(queries, pattern.values[at].astype("f8"), strict=True)
        ]
        found = [hoyer_of(row.tolist()) for row in rows]
        out[at] = np.mean([one for one in found if not math.isnan(one)])
    return out


def test_sparsity_against_a_loop(pattern):
    causal = not ((pattern["key"] > pattern["query"]) & (pattern > 0)).any()
    expected = sparsity_by_loop(pattern, causal=causal)
    np.testing.assert_allclose(sparsity(pattern).values, expected, rtol=1e-5)


def test_a_mask_is_not_sparsity():
    even = np.tril(np.ones((6, 6))) / np.arange(1, 7)[:, None]
    without_mask = np.full((6, 6), 1 / 6)
    first = np.eye(1, 6) * np.ones((6, 1))
    heads = xr.DataArray(np.stack([even, without_mask, first]), dims=("head", "query", "key"))
    np.testing.assert_allclose(sparsity(heads).values, [0, 0, 1], atol=1e-7)


def test_keys_out_of_order_do_not_matter(make_pattern):
    pattern = make_pattern(6)
    shuffled = pattern.isel(key=[3, 0, 5, 1, 4, 2], query=[2, 5, 0, 1, 4, 3])
    np.testing.assert_allclose(sparsity(shuffled), sparsity(pattern), rtol=1e-5)


@given(seed=st.integers(0, 99), n=st.integers(2, 9), scale=st.floats(0.01, 1))
def test_sparsity_is_in_range_whatever_the_scale(make_pattern, seed, n, scale):
    pattern = make_pattern(n, seed=seed)
    found = sparsity(pattern)
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(sparsity(scale * pattern), found, atol=1e-5)


def test_rows_without_attention_are_left_out_of_sparsity(make_pattern):
    pattern = make_pattern(6)
    expected = sparsity(pattern.isel(query=[0, 1, 2, 4, 5])).values[0, 1]
    for nothing in (0, np.nan):
        holed = pattern.copy()
        holed[0, 1, 3] = nothing
        assert sparsity(holed).values[0, 1] == pytest.approx(expected, rel=1e-6)
    part = pattern.copy()
    part[0, 1, 4, 2] = np.nan
    np.testing.assert_allclose(sparsity(part), sparsity(part.fillna(0)), rtol=1e-6)


def test_one_visible_key_says_nothing_of_sparsity(make_pattern):
    assert np.isnan(sparsity(make_pattern(1)).values).all()
    first = make_pattern(5).isel(query=[0])
    for share in (1e-30, *np.linspace(0.1, 1, 20)):
        assert np.isnan(sparsity(first * np.float32(share)).values).all()
