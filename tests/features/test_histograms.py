"""Sums and counts of activations against numpy, at the ends of intervals too."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pattern_lens.features.parts.histograms import (
    ActivationSums,
    IntervalCounts,
    edges_of,
    interval_of,
)


def entries(seed=0, n=300, n_features=6):
    """Of features 0 to 4, asymmetric; feature 5 never fires."""
    rng = np.random.default_rng(seed)
    features = rng.choice(n_features - 1, n, p=[0.5, 0.2, 0.2, 0.06, 0.04])
    return features, (rng.exponential(size=n) * (features + 1)).astype(np.float32)


def test_sums_are_those_of_numpy_for_any_blocks():
    features, values = entries()
    sums = ActivationSums(6)
    for first in range(0, 300, 70):
        sums.add(features[first : first + 70], values[first : first + 70])
    for one in range(5):
        own = values[features == one].astype(np.float64)
        assert sums.n_active[one] == len(own)
        assert sums.maximum[one] == own.max()
        assert sums.mean[one] == pytest.approx(own.mean(), rel=1e-12)
        assert sums.squares[one] == pytest.approx((own**2).sum(), rel=1e-12)
    assert sums.n_active[5] == 0
    assert np.isnan([sums.maximum[5], sums.mean[5]]).all()


@pytest.mark.parametrize("n_intervals", [1, 10, 40])
def test_counts_are_those_between_the_edges(n_intervals):
    features, values = entries()
    values[features == 1] -= 1
    values[features == 4] *= -1
    low = np.array([values[features == one].min(initial=0) for one in range(6)], float)
    high = np.array([values[features == one].max(initial=0) for one in range(6)], float)
    sums = ActivationSums(6)
    sums.add(features, values)
    np.testing.assert_array_equal(sums.span, [[*low[:5], np.nan], [*high[:5], np.nan]])
    counts = IntervalCounts(sums.span, n_intervals)
    for first in range(0, 300, 70):
        counts.add(features[first : first + 70], values[first : first + 70])
    edges = counts.edges
    assert (low[[1, 4]] < 0).all()
    assert high[4] == 0
    for one in range(5):
        np.testing.assert_allclose(edges[one], np.linspace(low[one], high[one], n_intervals + 1))
        own = values[features == one].astype(np.float64)
        expected = [
            ((own > start) & (own <= stop)).sum()
            for start, stop in zip(edges[one], edges[one][1:], strict=False)
        ]
        expected[0] += (own == low[one]).sum()  # the lowest of all, where that is below 0
        assert counts.counts[one].tolist() == expected
        np.testing.assert_allclose(counts.shares[one], np.array(expected) / len(own))
    assert not counts.counts[5].any()
    assert np.isnan(counts.shares[5]).all()
    assert np.isnan(edges[5]).all()


@given(st.floats(2**-60, 2**60, width=32), st.integers(1, 50), st.integers(0, 50))
def test_an_end_is_in_the_interval_below_it(high, n, i):
    i, zero = min(i, n), np.zeros(1)
    end = edges_of(zero, np.array([high]), n)[0, i]
    above = np.nextafter(end, np.inf)
    if i:
        assert interval_of(np.array([end]), zero, np.array([high]), n)[0] == i - 1
    if i < n:
        assert interval_of(np.array([above]), zero, np.array([high]), n)[0] == i


def test_the_largest_is_in_the_last_interval():
    values = np.array([0.3, 0.1, 0.7], np.float32)
    assert interval_of(values, np.zeros(3), values, 10).tolist() == [9, 9, 9]
