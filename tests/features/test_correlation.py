"""Running correlations against numpy on all samples at once, zeros included."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pattern_lens.features.correlation import CoActivation, RunningCorrelation, most_correlated


def of_numpy(x, y):
    """Pearson and cosine of each pair of columns, one pair at a time."""
    pearson = np.full((x.shape[1], y.shape[1]), np.nan)
    cosine = pearson.copy()
    for i, one in enumerate(x.T.astype(np.float64)):
        for j, other in enumerate(y.T.astype(np.float64)):
            if np.ptp(one) > 0 and np.ptp(other) > 0:
                pearson[i, j] = np.corrcoef(one, other)[0, 1]
            if one.any() and other.any():
                cosine[i, j] = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    return pearson, cosine


def sparse(rng, n, n_columns, share=0.2):
    """Values that are mostly zero; the first column always is, the second never."""
    values = rng.exponential(size=(n, n_columns)) * (rng.random((n, n_columns)) < share)
    values[:, 0] = 0
    values[:, 1] += 0.5
    return values.astype(np.float32)


def entries(values, start=0):
    sample, column = np.nonzero(values)
    return sample + start, column, values[sample, column]


@given(st.integers(0, 99), st.lists(st.integers(0, 9), max_size=5))
def test_blocks_of_any_size_give_what_numpy_gives(seed, sizes):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 4)) + 3
    running = RunningCorrelation(3, 4)
    ends = np.minimum(np.cumsum([0, *sizes, 40]), 40)
    for first, last in pairwise(ends):
        running.update(x[first:last], y[first:last])
    assert running.n == 40
    np.testing.assert_allclose(running.pearson, of_numpy(x, y)[0], rtol=1e-10)
    np.testing.assert_allclose(running.cosine, of_numpy(x, y)[1], rtol=1e-10)


def test_columns_far_from_zero_keep_their_digits():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(500, 2)) + 1e7, rng.normal(size=(500, 2)) - 1e8
    y[:, 0] += x[:, 0] - 1e7
    running = RunningCorrelation(2, 2)
    for first in range(0, 500, 70):
        running.update(x[first : first + 70], y[first : first + 70])
    np.testing.assert_allclose(running.pearson, of_numpy(x, y)[0], rtol=1e-7)


@pytest.mark.parametrize("n_block", [1, 7, 60])
def test_entries_with_dense_columns_give_what_numpy_gives(n_block):
    rng = np.random.default_rng(2)
    x, y = sparse(rng, 60, 5), rng.normal(size=(60, 3)).astype(np.float32) + 100
    running = RunningCorrelation(5, 3)
    for first in range(0, 60, n_block):
        some = slice(first, first + n_block)
        running.update_entries(*entries(x[some]), y[some])
    pearson, cosine = of_numpy(x, y)
    np.testing.assert_allclose(running.pearson, pearson, rtol=1e-9)
    np.testing.assert_allclose(running.cosine, cosine, rtol=1e-9)
    np.testing.assert_allclose(running.pearson_of(slice(1, 3)), pearson[1:3], rtol=1e-9)


@pytest.mark.parametrize("n_block", [1, 7, 60])
def test_entries_with_entries_give_what_numpy_gives(n_block, monkeypatch):
    monkeypatch.setattr("pattern_lens.features.correlation._PAIRS", 11)
    rng = np.random.default_rng(3)
    x, y = sparse(rng, 60, 4), sparse(rng, 60, 6)
    running = CoActivation(4, 6, 60)
    for first in range(0, 60, n_block):
        some = slice(first, first + n_block)
        running.update(entries(x[some], start=5), entries(y[some], start=5))
    pearson, cosine = of_numpy(x, y)
    every = np.broadcast_to(np.arange(6), (4, 6))
    np.testing.assert_allclose(running.pearson_of(slice(None)), pearson, rtol=1e-9)
    np.testing.assert_allclose(running.cosine_at(slice(None), every), cosine, rtol=1e-9)


def test_blocks_without_entries_are_samples_too():
    x = np.array([[0.0], [1.0], [2.0]])
    running, both = RunningCorrelation(1, 1), CoActivation(1, 1, 7)
    nothing = (np.empty(0, int), np.empty(0, int), np.empty(0))
    for block in (x, np.zeros((4, 1)), np.zeros((0, 1))):
        running.update_entries(*entries(block), block + 1)
        both.update(entries(block), nothing)
        both.update(nothing, nothing)
    assert running.n == 7
    assert running.pearson[0, 0] == pytest.approx(1)
    assert np.isnan(both.pearson_of(slice(None))).all()


def test_a_constant_column_has_no_correlation():
    running = CoActivation(1, 2, 3)
    values = np.array([[0.1, 0.3], [0.1, 0.7], [0.1, 0.2]])
    running.update(entries(values[:, :1]), entries(values))
    assert np.isnan(running.pearson_of(slice(None))).all()
    assert running.cosine_at(slice(None), np.array([[0]])) == pytest.approx(1)


def test_no_samples_no_correlation():
    assert np.isnan(RunningCorrelation(2, 3).pearson).all()
    assert RunningCorrelation(2, 3).cosine.shape == (2, 3)


def test_the_highest_are_ranked_without_the_column_itself():
    rng = np.random.default_rng(5)
    y = rng.normal(size=(50, 5)) + 1
    y[:, 2] = 3
    running = RunningCorrelation(2, 5)
    running.update(y[:, [1, 4]], y)
    columns, found, angle = most_correlated(running, slice(None), 4, own=np.array([1, 4]))
    pearson, cosine = of_numpy(y[:, [1, 4]], y)
    pearson[[0, 1], [1, 4]] = np.nan
    for i in range(2):
        order = np.argsort(-pearson[i])[:3]  # of five one is constant, and one itself
        assert columns[i].tolist() == [*order, -1]
        np.testing.assert_allclose(found[i], [*pearson[i, order], np.nan], rtol=1e-6)
        np.testing.assert_allclose(angle[i], [*cosine[i, order], np.nan], rtol=1e-6)
    nothing = most_correlated(RunningCorrelation(2, 0), slice(None), 3)
    assert (nothing[0] == -1).all()
    assert np.isnan(nothing[2]).all()
