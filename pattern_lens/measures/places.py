"""Attention to a key that is known by its place: the one before, the query itself, the first.

Under a causal mask query 0 sees nothing but itself, whatever the head does, so no score counts it. Of a
cross-attention, whose queries and keys are positions in two texts, the scores compare positions only.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pattern_lens.measures.apply import check_dims, measured, positions, working
from pattern_lens.names import KEY, QUERY

if TYPE_CHECKING:
    import xarray as xr

    from pattern_lens.measures.apply import Array


def previous_token_score(pattern: xr.DataArray) -> xr.DataArray:
    """Mean attention of each query to the token before it.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., query, key), any float dtype.

    Returns
    -------
    Dims (...), float32 or wider, range [0, 1] as an attention probability: the mean over the queries
    whose previous token is among the keys, so query 0 is left out, with and without a causal mask.
    NaN if there is no such query, as in a prompt of one token. Lazy if `pattern` is on dask.

    Raises
    ------
    DimensionError
        `pattern` has no dim query or key, or positions that are no distinct integers from 0.

    Notes
    -----
    A pair whose attention is NaN is left out. Heads that do this are half of an induction circuit
    (Elhage et al. 2021, A Mathematical Framework for Transformer Circuits). TransformerLens'
    `previous_token_head` with ``error_measure="mul"`` divides the same sum by the attention of all
    queries, that is by `n_ctx` and not by `n_ctx` - 1; its ``exclude_bos`` and
    ``exclude_current_token`` divide by the attention that goes to other keys, which makes the score of
    a head that mostly rests on the BOS large.

    Examples
    --------
    >>> import xarray as xr
    >>> rows = [[0.25, 0.75, 0.0], [0.5, 0.125, 0.375]]
    >>> pattern = xr.DataArray(rows, dims=("query", "key"), coords={"query": [1, 2]})
    >>> float(previous_token_score(pattern))  # 0.25 at query 1, 0.125 at query 2
    0.1875
    """
    queries, keys = places(pattern)
    return score(
        pattern,
        keys == queries - 1,
        name="previous_token_score",
        long_name="mean attention to the previous token",
    )


def current_token_score(pattern: xr.DataArray) -> xr.DataArray:
    """Mean attention of each query to its own token.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., query, key), any float dtype.

    Returns
    -------
    Dims (...), float32 or wider, range [0, 1] as an attention probability: the mean over the queries
    from 1 on that are among the keys. Query 0 is left out: under a causal mask it has nothing but
    itself. NaN if there is no such query. Lazy if `pattern` is on dask.

    Raises
    ------
    DimensionError
        `pattern` has no dim query or key, or positions that are no distinct integers from 0.

    Notes
    -----
    A pair whose attention is NaN is left out. Clark et al. 2019, What Does BERT Look At?, section 3.1,
    average attention to the current token in this way, over all queries.

    Examples
    --------
    >>> import xarray as xr
    >>> rows = [[0.25, 0.75, 0.0], [0.5, 0.125, 0.375]]
    >>> pattern = xr.DataArray(rows, dims=("query", "key"), coords={"query": [1, 2]})
    >>> float(current_token_score(pattern))  # 0.75 at query 1, 0.375 at query 2
    0.5625
    """
    queries, keys = places(pattern)
    return score(
        pattern,
        (keys == queries) & (queries > 0),
        name="current_token_score",
        long_name="mean attention to the current token",
    )


def first_token_score(pattern: xr.DataArray) -> xr.DataArray:
    """Mean attention of each query to the first token of the prompt, which is the BOS if it has one.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., query, key), any float dtype.

    Returns
    -------
    Dims (...), float32 or wider, range [0, 1] as an attention probability: the mean over the queries
    from 1 on. Query 0 is left out: under a causal mask it has nothing but the first token. NaN if there
    is no such query, or if key 0 was not chosen. Lazy if `pattern` is on dask.

    Raises
    ------
    DimensionError
        `pattern` has no dim query or key, or positions that are no distinct integers from 0.

    Notes
    -----
    A pair whose attention is NaN is left out. That heads rest on the first token when they have nothing
    to do is described by Vig & Belinkov 2019 (Analyzing the Structure of Attention in a Transformer
    Language Model) and, as attention sinks, by Xiao et al. 2023 (Efficient Streaming Language Models with
    Attention Sinks).

    Examples
    --------
    >>> import xarray as xr
    >>> rows = [[0.25, 0.75, 0.0], [0.5, 0.125, 0.375]]
    >>> pattern = xr.DataArray(rows, dims=("query", "key"), coords={"query": [1, 2]})
    >>> float(first_token_score(pattern))  # 0.25 at query 1, 0.5 at query 2
    0.375
    """
    queries, keys = places(pattern)
    return score(
        pattern,
        (keys == 0) & (queries > 0),
        name="first_token_score",
        long_name="mean attention to the first token",
    )


def places(pattern: xr.DataArray) -> tuple[Array, Array]:
    """Positions of the queries, (query, 1), and of the keys, (key,)."""
    check_dims(pattern, QUERY, KEY)
    return positions(pattern, QUERY)[:, np.newaxis], positions(pattern, KEY)


def score(pattern: xr.DataArray, is_target: Array, *, name: str, long_name: str) -> xr.DataArray:
    """Attention of each query to its targets together, mean over the queries that have any.

    Parameters
    ----------
    is_target
        Dims (query, key), bool.
    """
    rows, columns = np.nonzero(is_target)
    function = partial(_attention_to, rows=rows, columns=columns)
    return measured(pattern, function, name=name, long_name=long_name, units="probability")


def _attention_to(values: Array, *, rows: Array, columns: Array) -> Array:
    """`rows` and `columns` of the targets, sorted by row."""
    found = working(values[..., rows, columns])
    first_of_row = np.flatnonzero(np.diff(rows, prepend=-1))
    if not len(rows):
        return np.full(found.shape[:-1], np.nan, found.dtype)
    mean = found.sum(-1) / len(first_of_row)
    return _mean_of_present(found, first_of_row) if np.isnan(mean).any() else np.asarray(mean)


def _mean_of_present(found: Array, first_of_row: Array) -> Array:
    """The same where some attention is NaN: a query whose targets all are is not counted."""
    present = ~np.isnan(found)
    n_rows = np.logical_or.reduceat(present, first_of_row, axis=-1).sum(-1, dtype=found.dtype)
    return np.asarray(np.where(present, found, 0).sum(-1) / n_rows)
