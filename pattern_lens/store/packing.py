"""Causal patterns as their lower triangle, row-major, and back.

Element (q, k) of a packed triangle is at q(q+1)/2 + k, so a block of queries is one contiguous slice.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_GATHER_LIMIT = 256


def triangle_length(n: int) -> int:
    """Number of elements in the lower triangle of an n x n matrix, the diagonal included.

    Examples
    --------
    >>> triangle_length(3)
    6
    """
    return n * (n + 1) // 2


def pack_triangle(square: Array, out: Array) -> None:
    """Write the lower triangle of `square` into `out`.

    Parameters
    ----------
    square
        Dims (..., query, key), query and key of one size n.
    out
        Dims (..., n(n+1)/2), with the same leading dims; need not be contiguous.
    """
    start = 0
    for query in range(square.shape[-1]):
        stop = start + query + 1
        out[..., start:stop] = square[..., query, : query + 1]
        start = stop


@lru_cache(maxsize=64)
def _gather_index(first: int, last: int) -> Array:
    """For rows first..last: where each (query, key) lies in their packed slice, else its end."""
    rows = np.arange(first, last)[:, None]
    keys = np.arange(last)[None, :]
    base = triangle_length(first)
    end = triangle_length(last) - base
    return np.where(keys <= rows, rows * (rows + 1) // 2 + keys - base, end)


def unpack_rows(packed: Array, first: int, last: int, n_key: int, fill_value: float) -> Array:
    """Queries first..last of a packed triangle as a dense block.

    Parameters
    ----------
    packed
        Dims (..., element): the contiguous slice that holds those queries and nothing else.
    first, last
        Queries, `last` not included.
    n_key
        Keys of the dense block, at least `last`.
    fill_value
        What stands above the diagonal.

    Returns
    -------
    Dims (..., last - first, n_key), the dtype of `packed`.
    """
    lead = packed.shape[:-1]
    if n_key == last <= _GATHER_LIMIT:
        # one gather for short prompts: a copy a row would cost more than the bytes it moves
        padded = np.empty((*lead, packed.shape[-1] + 1), packed.dtype)
        padded[..., :-1] = packed
        padded[..., -1] = fill_value
        return np.asarray(padded.take(_gather_index(first, last), axis=-1))
    dense = np.full((*lead, last - first, n_key), fill_value, packed.dtype)
    start = 0
    for row, query in enumerate(range(first, last)):
        stop = start + query + 1
        dense[..., row, : query + 1] = packed[..., start:stop]
        start = stop
    return dense
