"""The first few of many numbers, in an order that is the same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pattern_lens.features.parts.histograms import Array


def first_ranks(values: Array, k: int, *, largest: bool) -> tuple[Array, Array]:
    """The `k` largest or smallest numbers of each row, the first of them first.

    Parameters
    ----------
    values
        Dims (row, column); NaN is in no row's ranks.

    Returns
    -------
    Their columns (int32) and they themselves (float32), dims (row, rank); -1 and NaN where a row has fewer. Of equal
    numbers the one in the lower column is first.

    Examples
    --------
    >>> first_ranks(np.array([[1.0, 3.0, np.nan, 3.0]]), 2, largest=True)[0].tolist()
    [[1, 3]]
    """
    n_rows, n_columns = values.shape
    keys = -values if largest else values
    places = np.full((n_rows, k), -1, np.int32)
    found = np.full((n_rows, k), np.nan, np.float32)
    n_found = min(k, n_columns)
    if not n_found:
        return places, found
    # what is equal to the last rank may stand anywhere: it is ranked together with the rest
    last = np.partition(keys, n_found - 1, axis=1)[:, n_found - 1 : n_found]  # NaN is last
    rows, columns = np.nonzero((keys <= last) | (np.isnan(last) & ~np.isnan(keys)))
    own = keys[rows, columns]
    order = np.lexsort((columns, own, rows))
    rows, columns = rows[order], columns[order]
    ranks = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = ranks < n_found
    places[rows[kept], ranks[kept]] = columns[kept]
    found[rows[kept], ranks[kept]] = values[rows[kept], columns[kept]]
    return places, found
