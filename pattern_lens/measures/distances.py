"""How far back a query looks: attention by the distance between query and key, in tokens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pattern_lens.measures.apply import measured, without_nan, working
from pattern_lens.measures.places import places
from pattern_lens.measures.rows import row_sums
from pattern_lens.names import DISTANCE

if TYPE_CHECKING:
    import xarray as xr

    from pattern_lens.measures.apply import Array


def mean_attention_distance(pattern: xr.DataArray) -> xr.DataArray:
    """Distance from query to key, weighted by attention, in tokens.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., query, key), any float dtype; not negative.

    Returns
    -------
    Dims (...), float32 or wider, range [0, n_ctx - 1] in tokens. Under a causal mask query 0 counts with
    distance 0. Without one, keys after the query count with their distance too. NaN without any
    attention. Lazy if `pattern` is on dask.

    Raises
    ------
    DimensionError
        `pattern` has no dim query or key, or positions that are no distinct integers from 0.

    Notes
    -----
    sum(a |query - key|) / sum(a) over all pairs; NaN counts as 0. Vig & Belinkov 2019, Analyzing the
    Structure of Attention in a Transformer Language Model. A head that rests on the first token looks far by this
    measure: ``pattern.isel(key=slice(1, None))`` leaves that key out.

    Examples
    --------
    >>> import xarray as xr
    >>> rows = [[0.25, 0.75, 0.0], [0.5, 0.125, 0.375]]
    >>> pattern = xr.DataArray(rows, dims=("query", "key"), coords={"query": [1, 2]})
    >>> float(mean_attention_distance(pattern))  # (0.25 + 2 * 0.5 + 0.125) / 2
    0.6875
    """
    queries, keys = places(pattern)
    return measured(
        pattern,
        partial(_mean_distance, distances=abs(queries - keys)),
        name="mean_attention_distance",
        long_name="mean distance of attention",
        units="tokens",
    )


def attention_by_distance(pattern: xr.DataArray) -> xr.DataArray:
    """Mean attention between a query and the key at each distance from it.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., query, key), any float dtype.

    Returns
    -------
    Dims (..., distance), float32 or wider, range [0, 1] as an attention probability: the mean over the
    pairs of that distance. `distance` is query minus key in tokens, ascending, all that there are; without the
    negative ones where the attribute ``causal`` of the pattern says that they hold nothing. Distance 1
    is `previous_token_score`; distance 0 counts query 0, which `current_token_score` does not. NaN where
    every pair is. Lazy if `pattern` is on dask.

    Raises
    ------
    DimensionError
        `pattern` has no dim query or key, or positions that are no distinct integers from 0.

    Notes
    -----
    A pair whose attention is NaN is left out. Large distances are means over few pairs. The relative
    positions of Clark et al. 2019, What Does BERT Look At?, section 3.1, for all of them.

    Examples
    --------
    >>> import xarray as xr
    >>> pattern = xr.DataArray([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]], dims=("query", "key"))
    >>> profile = attention_by_distance(pattern)
    >>> profile.distance.values.tolist()
    [-2, -1, 0, 1]
    >>> profile.values.tolist()
    [0.25, 0.1875, 0.625, 0.125]
    """
    queries, keys = places(pattern)
    distances, place = np.unique(queries - keys, return_inverse=True)
    first = int(np.searchsorted(distances, 0)) if pattern.attrs.get("causal") else 0
    return measured(
        pattern,
        partial(_profile, place=place, first=first, n_distances=len(distances)),
        name="attention_by_distance",
        long_name="mean attention by distance",
        units="probability",
        gives={DISTANCE: distances[first:]},
    )


def _mean_distance(values: Array, *, distances: Array) -> Array:
    values = without_nan(values)
    weighted = np.vecdot(values, distances.astype(values.dtype)).sum(-1)
    return np.asarray(weighted / row_sums(values).sum(-1))


def _profile(values: Array, *, place: Array, first: int, n_distances: int) -> Array:
    fold = partial(_fold, place=place, n_distances=n_distances)
    values = working(values)
    sums = fold(values)
    if not np.isnan(sums).any():
        return np.asarray(sums / np.bincount(place.ravel()).astype(sums.dtype))[..., first:]
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean = fold(np.where(present, values, 0)) / fold(present.astype(values.dtype))
        return np.asarray(mean)[..., first:]


def _fold(values: Array, *, place: Array, n_distances: int) -> Array:
    """Sums over the pairs of each distance; `place` (query, key) says where each pair goes."""
    out = np.zeros((*values.shape[:-2], n_distances), values.dtype)
    if not place.size:
        return out
    is_whole = (np.diff(place) == -1).all()  # no key left out: slices are 10 times faster
    for row, to in enumerate(place):
        if is_whole:
            out[..., to[-1] : to[0] + 1] += values[..., row, ::-1]
        else:
            out[..., to] += values[..., row, :]
    return out
