"""Packed triangles, against NumPy's own tril_indices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pattern_lens.store.packing import pack_triangle, triangle_length, unpack_rows


def square(n: int) -> np.ndarray:
    return np.random.default_rng(n).random((2, 3, n, n), np.float32) + 1


def packed(values: np.ndarray) -> np.ndarray:
    rows, columns = np.tril_indices(values.shape[-1])
    return values[..., rows, columns]


@given(st.integers(0, 40))
def test_packing_is_the_lower_triangle_row_by_row(n):
    out = np.empty((2, 3, triangle_length(n)), np.float32)
    pack_triangle(square(n), out)
    assert np.array_equal(out, packed(square(n)))


def test_packing_into_a_part_of_a_larger_array():
    out = np.zeros((2, 3, 20), np.float32)
    pack_triangle(square(3), out[..., 7:13])
    assert np.array_equal(out[..., 7:13], packed(square(3)))
    assert not out[..., :7].any()
    assert not out[..., 13:].any()


@given(st.data(), st.integers(1, 30), st.sampled_from([0.0, -np.inf, 7.5]))
def test_any_rows_come_back(data, n, fill):
    first = data.draw(st.integers(0, n))
    last = data.draw(st.integers(first, n))
    n_key = data.draw(st.sampled_from([last, n, n + 3]))
    part = packed(square(n))[..., triangle_length(first) : triangle_length(last)]
    expected = np.full((2, 3, last - first, n_key), fill, np.float32)
    lower = np.tril(np.ones((n, n), bool))[first:last, :last]
    expected[..., :last][..., lower] = square(n)[..., first:last, :last][..., lower]
    got = unpack_rows(part, first, last, n_key, fill)
    assert got.dtype == part.dtype
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("n", [255, 256, 257, 300])
def test_both_sides_of_the_gather_limit(n):
    values = np.random.default_rng(n).random((1, 2, n, n), np.float32)
    got = unpack_rows(packed(values), 0, n, n, -1.0)
    assert np.array_equal(got, np.where(np.tril(np.ones((n, n), bool)), values, np.float32(-1)))
