"""Singular values, against an eigenvalue problem and known matrices."""

import numpy as np
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pattern_lens.measures import singular_values


def test_singular_values_against_eigenvalues(pattern):
    found = singular_values(pattern)
    n = min(pattern.sizes["query"], pattern.sizes["key"])
    assert found.dims == ("layer", "head", "singular_value")
    assert found.singular_value.values.tolist() == list(range(n))
    for at in np.ndindex(found.shape[:2]):
        one = pattern.values[at].astype("f8")
        squares = np.linalg.eigvalsh(one @ one.T)[::-1][:n]
        expected = np.sqrt(np.maximum(squares, 0))
        np.testing.assert_allclose(found.values[at], expected, atol=1e-5)


@given(seed=st.integers(0, 99), n_query=st.integers(1, 6), n_key=st.integers(1, 6))
def test_squares_sum_to_the_squared_pattern(make_pattern, seed, n_query, n_key):
    pattern = make_pattern(n_query, n_key, causal=False, seed=seed)
    found = singular_values(pattern)
    total = (pattern.astype("f8") ** 2).sum(["query", "key"])
    np.testing.assert_allclose((found.astype("f8") ** 2).sum("singular_value"), total, rtol=1e-5)
    assert (found.diff("singular_value") <= 0).all()
    assert (found >= 0).all()
    assert (found <= np.sqrt(n_query) + 1e-6).all()


def test_singular_values_of_extremes():
    same = np.eye(4)
    first = np.eye(1, 4) * np.ones((4, 1))
    even = np.tril(np.ones((4, 4))) / np.arange(1, 5)[:, None]
    heads = xr.DataArray(np.stack([same, first, even]), dims=("head", "query", "key"))
    found = singular_values(heads).values
    np.testing.assert_allclose(found[:2], [[1, 1, 1, 1], [2, 0, 0, 0]], atol=1e-12)
    assert (found[2] > 0.1).all()  # a causal mask raises the rank


def test_nan_counts_as_0_unless_there_is_nothing_else(make_pattern):
    pattern = make_pattern(5)
    holed = pattern.copy()
    holed[0, 1, 2] = np.nan
    expected = pattern.copy()
    expected[0, 1, 2] = 0
    np.testing.assert_array_equal(singular_values(holed), singular_values(expected))
    holed[0, 1] = np.nan
    assert np.isnan(singular_values(holed)[0, 1]).all()
    np.testing.assert_array_equal(singular_values(holed)[1], singular_values(pattern)[1])
