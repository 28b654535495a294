"""How the attention of one query is spread over its keys.

Each row is divided by its sum first: rows that sum to less than 1, because a model has attention sinks
or because keys were cut, are judged by how the rest is spread.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pattern_lens.measures.apply import check_dims, mean_of_known, measured, without_nan
from pattern_lens.measures.places import places
from pattern_lens.names import KEY, QUERY

if TYPE_CHECKING:
    import xarray as xr

    from pattern_lens.measures.apply import Array


def entropy(pattern: xr.DataArray) -> xr.DataArray:
    """Entropy of each attention row, in bits.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., query, key), any float dtype; not negative.

    Returns
    -------
    Dims (..., query), float32 or wider, range [0, log2(n_key)] in bits. Under a causal mask query *q*
    has at most log2(*q* + 1) bits, and query 0 has none. NaN for a row without attention. Lazy if
    `pattern` is on dask.

    Raises
    ------
    DimensionError
        `pattern` has no dim query or key.

    Notes
    -----
    -sum(p log2 p) over keys, with 0 log 0 = 0 and p the row divided by its sum; NaN counts as 0.
    Used on attention by Vig & Belinkov 2019, Analyzing the Structure of Attention in a Transformer Language
    Model, and Clark et al. 2019, What Does BERT Look At?, section 3.3. Bits times 0.6931 are nats.

    Examples
    --------
    >>> import xarray as xr
    >>> pattern = xr.DataArray([[0.25, 0.75, 0.0], [0.5, 0.25, 0.25]], dims=("query", "key"))
    >>> entropy(pattern).values.round(3).tolist()
    [0.811, 1.5]
    """
    check_dims(pattern, QUERY, KEY)
    return measured(
        pattern,
        _entropy,
        name="entropy",
        long_name="entropy of attention",
        units="bits",
        over=(KEY,),
    )


def mean_entropy(pattern: xr.DataArray) -> xr.DataArray:
    """Mean over queries of the entropy of each attention row, in bits.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., query, key), any float dtype; not negative.

    Returns
    -------
    Dims (...), float32 or wider, range [0, log2(n_key)] in bits: the mean of `entropy` over the queries
    that have attention. Under a causal mask query 0 counts with its 0 bits. NaN without any. Lazy if
    `pattern` is on dask.

    Raises
    ------
    DimensionError
        `pattern` has no dim query or key.

    Notes
    -----
    The entropy of a head in Clark et al. 2019, What Does BERT Look At?, section 3.3.

    Examples
    --------
    >>> import xarray as xr
    >>> pattern = xr.DataArray([[0.25, 0.75, 0.0], [0.5, 0.25, 0.25]], dims=("query", "key"))
    >>> round(float(mean_entropy(pattern)), 3)
    1.156
    """
    check_dims(pattern, QUERY, KEY)
    return measured(
        pattern,
        _mean_entropy,
        name="mean_entropy",
        long_name="mean entropy of attention",
        units="bits",
    )


def sparsity(pattern: xr.DataArray) -> xr.DataArray:
    """Mean over queries of Hoyer's sparseness of each attention row.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., query, key), any float dtype; not negative.

    Returns
    -------
    Dims (...), float32 or wider, range [0, 1] without unit: 0 if each query spreads its attention evenly
    over the keys it can see, 1 if it has one key only. The mean over the queries that have attention and
    see at least two keys; NaN if there is none. Lazy if `pattern` is on dask.

    Raises
    ------
    DimensionError
        `pattern` has no dim query or key, or positions that are no distinct integers from 0.

    Notes
    -----
    (sqrt(n) - L1 / L2) / (sqrt(n) - 1), with n the number of keys that the query can see, and L1 and L2
    norms of the row: Hoyer 2004, Non-negative Matrix Factorization with Sparseness Constraints, JMLR 5.
    A head that gives no attention at all to a later key is taken to be under a causal mask:
    its query *q* sees the keys up to *q* only, so query 0 is left out. NaN counts as 0.

    Examples
    --------
    >>> import xarray as xr
    >>> pattern = xr.DataArray([[0.25, 0.5, 0.25], [0.0, 1.0, 0.0]], dims=("query", "key"))
    >>> round(float(sparsity(pattern)), 3)  # 0.135 and 1
    0.568
    """
    queries, keys = places(pattern)
    return measured(
        pattern,
        partial(_mean_hoyer, queries=queries, keys=keys),
        name="sparsity",
        long_name="mean Hoyer sparsity of attention",
        units="1",
    )


def row_sums(rows: Array) -> Array:
    """Sums along the last dim, by BLAS."""
    return np.asarray(rows @ np.ones(rows.shape[-1], rows.dtype))


def sum_p_log_p(rows: Array) -> Array:
    """Sums of p log2 p along the last dim, 0 log 0 being 0."""
    logs = np.maximum(rows, np.finfo(rows.dtype).tiny)
    np.log2(logs, out=logs)
    return np.asarray(np.vecdot(rows, logs))


def _entropy(values: Array) -> Array:
    """Of rows that sum to any s: log2(s) - sum(p log2 p) / s."""
    rows = without_nan(values)
    sums = row_sums(rows)
    return np.asarray(np.maximum(np.log2(sums) - sum_p_log_p(rows) / sums, 0))  # some are -1e-8


def _mean_entropy(values: Array) -> Array:
    return mean_of_known(_entropy(values))


def _mean_hoyer(values: Array, *, queries: Array, keys: Array) -> Array:
    values = without_nan(values)
    is_later = (keys > queries).astype(values.dtype)
    sees_later = (np.vecdot(values, is_later) > 0).any(-1, keepdims=True)
    n_seen = np.where(sees_later, values.shape[-1], (keys <= queries).sum(-1))
    root = np.sqrt(n_seen, dtype=values.dtype)
    ratio = row_sums(values) / np.sqrt(np.vecdot(values, values))
    hoyer = np.where(n_seen > 1, (root - ratio) / (root - 1), np.nan)
    return mean_of_known(np.clip(hoyer, 0, 1))
