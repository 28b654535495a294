"""Attention to a key that is known by its token: an earlier copy, or what followed an earlier copy.

Only keys before the query are targets. A causal mask allows no others; without one, attention to
later copies is not counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.errors import UnknownTokensError
from pattern_lens.measures.places import places, score
from pattern_lens.names import KEY, QUERY, TOKEN_COORDS

if TYPE_CHECKING:
    import xarray as xr

    from pattern_lens.measures.apply import Array

_UNKNOWN = -1


def duplicate_token_score(pattern: xr.DataArray, *, token_ids: Any = None) -> xr.DataArray:
    """Mean attention of each token that was there before to its earlier copies, all together.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., query, key), any float dtype, of one prompt.
    token_ids
        Token ids of the whole prompt, the BOS included, by position. Without them the texts in
        `query_token` and `key_token` are compared; two ids with one text then count as equal.

    Returns
    -------
    Dims (...), float32 or wider, range [0, 1] as an attention probability: the mean over the queries
    that have an earlier copy among the keys. NaN if no token comes twice. Lazy if `pattern` is on dask.

    Raises
    ------
    DimensionError
        `pattern` has no dim query or key, or positions that are no distinct integers from 0.
    UnknownTokensError
        The array does not say which token stands at some position, or `token_ids` is too short.

    Notes
    -----
    A query whose targets all are NaN is left out. Described by Wang et al. 2022, Interpretability in the
    Wild (duplicate token heads). TransformerLens' `duplicate_token_head` with ``error_measure="mul"`` sums
    the same pairs and divides by the attention of all queries, repeated or not: its score grows with the
    number of repetitions in the prompt, this one does not.

    Examples
    --------
    >>> import xarray as xr
    >>> rows = [[0.25, 0.75, 0.0], [0.5, 0.125, 0.375]]
    >>> pattern = xr.DataArray(rows, dims=("query", "key"), coords={"query": [1, 2]})
    >>> float(duplicate_token_score(pattern, token_ids=[7, 4, 7]))  # query 2 to key 0
    0.5
    """
    queries, keys = places(pattern)
    tokens = _tokens(pattern, token_ids, queries[:, 0], keys)
    return score(
        pattern,
        (tokens[queries] == tokens[keys]) & (keys < queries),
        name="duplicate_token_score",
        long_name="mean attention to earlier copies of the token",
    )


def induction_score(pattern: xr.DataArray, *, token_ids: Any = None) -> xr.DataArray:
    """Mean attention of each token that was there before to what followed its earlier copies.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., query, key), any float dtype, of one prompt.
    token_ids
        Token ids of the whole prompt, the BOS included, by position. Without them the texts in
        `query_token` and `key_token` are compared; two ids with one text then count as equal.

    Returns
    -------
    Dims (...), float32 or wider, range [0, 1] as an attention probability: the mean over the queries
    that have such a key, of the attention to all of them together. NaN if there is none. A key whose
    preceding token is not known, because the keys and queries were cut, is no target. Lazy if `pattern`
    is on dask.

    Raises
    ------
    DimensionError
        `pattern` has no dim query or key, or positions that are no distinct integers from 0.
    UnknownTokensError
        The array does not say which token stands at some position, or `token_ids` is too short.

    Notes
    -----
    A query whose targets all are NaN is left out. This is the prefix-matching score of Olsson et al. 2022,
    In-context Learning and Induction Heads, which they take on random tokens that are repeated; on
    ordinary text it is taken over the repetitions that there are. TransformerLens' `induction_head`
    with ``error_measure="mul"`` divides by the attention of all queries, and where a token comes twice in a
    row also counts the second one's attention to itself; with ``exclude_current_token`` it does not.

    Examples
    --------
    >>> import xarray as xr
    >>> rows = [[0.25, 0.75, 0.0], [0.5, 0.125, 0.375]]
    >>> pattern = xr.DataArray(rows, dims=("query", "key"), coords={"query": [1, 2]})
    >>> float(induction_score(pattern, token_ids=[7, 4, 7]))  # query 2 to key 1
    0.125
    """
    queries, keys = places(pattern)
    tokens = _tokens(pattern, token_ids, queries[:, 0], keys)
    before = np.where(keys > 0, tokens[keys - 1], _UNKNOWN)
    return score(
        pattern,
        (tokens[queries] == before) & (keys < queries),
        name="induction_score",
        long_name="mean attention to what followed earlier copies of the token",
    )


def _tokens(pattern: xr.DataArray, token_ids: Any, queries: Array, keys: Array) -> Array:
    """A number for the token at each position, equal for equal tokens; -1 where it is not known."""
    size = max(queries.max(initial=-1), keys.max(initial=-1)) + 1
    if token_ids is None:
        return _from_texts(pattern, queries, keys, size)
    ids = np.asarray(token_ids)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or len(ids) < size:
        raise UnknownTokensError(
            f"token_ids has shape {ids.shape} and dtype {ids.dtype}: expected at least {size} integers, "
            f"because {pattern.name!r} has position {size - 1}; pass the ids of the whole prompt, cut or not"
        )
    return np.unique(ids, return_inverse=True)[1]


def _from_texts(pattern: xr.DataArray, queries: Array, keys: Array, size: int) -> Array:
    numbers: dict[str, int] = {}
    tokens = np.full(size, _UNKNOWN)
    for dim, at in ((QUERY, queries), (KEY, keys)):
        texts = _texts(pattern, dim)
        found = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.intp)
        differ = np.flatnonzero((tokens[at] != _UNKNOWN) & (tokens[at] != found))
        if len(differ):
            raise UnknownTokensError(
                f"cannot compare tokens of {pattern.name!r}: key {at[differ[0]]} is {texts[differ[0]]!r}, but the "
                "query there is another token; expected queries and keys of one text"
            )
        tokens[at] = found
    return tokens


def _texts(pattern: xr.DataArray, dim: str) -> list[str]:
    name = TOKEN_COORDS[dim]
    if name not in pattern.coords or pattern[name].dims != (dim,):
        has = f"with dims {pattern[name].dims}" if name in pattern.coords else "not there"
        raise UnknownTokensError(
            f"cannot compare tokens of {pattern.name!r}: expected a coordinate {name!r} along {dim!r}, "
            f"but it is {has}; pass token_ids="
        )
    texts: list[str] = pattern[name].values.tolist()
    return texts
