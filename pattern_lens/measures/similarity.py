"""Every head of a prompt compared with every other one: matrices over components.

A component is a head with its label, ``L3H5``; both dims carry `layer` and `head` as coordinates.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.errors import DimensionError
from pattern_lens.measures.apply import check_dims, in_blocks, measured, without_nan
from pattern_lens.measures.rows import row_sums, sum_p_log_p
from pattern_lens.names import COMPONENT, COMPONENT_OTHER, HEAD, KEY, LAYER, QUERY, head_label

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from pattern_lens.measures.apply import Array


def cosine_similarity(pattern: xr.DataArray) -> xr.DataArray:
    """Cosine of the angle between the patterns of each two heads.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., layer, head, query, key) or (..., component, query, key), any
        float dtype; `layer` or `head` may be one number instead of a dim.

    Returns
    -------
    Dims (..., component, component_other), float32 or wider, range [0, 1] without unit, symmetric, 1 on the
    diagonal. Under a causal mask all heads have query 0 in common, so no two are entirely different;
    ``pattern.isel(query=slice(1, None))`` leaves it out. NaN for a head without attention. Lazy if
    `pattern` is on dask; all heads of a prompt are then one chunk.

    Raises
    ------
    DimensionError
        `pattern` has no dim query or key, or does not say which heads it holds.

    Notes
    -----
    <a, b> / (|a| |b|), with the whole patterns as vectors: queries that attend to few keys weigh
    more than those that attend to many. NaN counts as 0.

    Examples
    --------
    >>> import xarray as xr
    >>> heads = [[[0.0, 1.0, 0.0]], [[0.0, 0.6, 0.8]]]
    >>> pattern = xr.DataArray(heads, dims=("head", "query", "key"), coords={"layer": 3})
    >>> similarity = cosine_similarity(pattern)
    >>> round(float(similarity.sel(component="L3H0", component_other="L3H1")), 3)
    0.6
    """
    return _compared(
        pattern, _cosines, name="cosine_similarity", long_name="cosine similarity", units="1"
    )


def jensen_shannon_divergence(pattern: xr.DataArray) -> xr.DataArray:
    """Jensen-Shannon divergence between the rows of each two heads, mean over queries, in bits.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., layer, head, query, key) or (..., component, query, key), any
        float dtype; not negative. `layer` or `head` may be one number instead of a dim.

    Returns
    -------
    Dims (..., component, component_other), float32 or wider, range [0, 1] in bits, symmetric, 0 on the
    diagonal: 0 for heads that agree at each query, 1 for heads that have no key in common. The mean over
    the queries at which both have attention; NaN without any. Under a causal mask query 0 counts with
    its 0 bits. Lazy if `pattern` is on dask; all heads of a prompt are then one chunk.

    Raises
    ------
    DimensionError
        `pattern` has no dim query or key, or does not say which heads it holds.

    Notes
    -----
    H((p + q) / 2) - (H(p) + H(q)) / 2, each row divided by its sum first: Lin 1991, Divergence Measures Based
    on the Shannon Entropy. Clark et al. 2019, What Does BERT Look At?, section 6, sum it over tokens to
    cluster heads. Its square root is a metric. NaN counts as 0. In float32 good to about 1e-6; takes
    time with the square of the number of heads.

    Examples
    --------
    >>> import xarray as xr
    >>> heads = [[[0.0, 1.0, 0.0]], [[0.0, 0.5, 0.5]]]
    >>> pattern = xr.DataArray(heads, dims=("head", "query", "key"), coords={"layer": 3})
    >>> divergence = jensen_shannon_divergence(pattern)
    >>> round(float(divergence.sel(component="L3H0", component_other="L3H1")), 3)
    0.311
    """
    return _compared(
        pattern,
        _divergences,
        name="jensen_shannon_divergence",
        long_name="Jensen-Shannon divergence",
        units="bits",
    )


def _compared(
    pattern: xr.DataArray, function: Callable[[Array], Array], *, name: str, **labels: Any
) -> xr.DataArray:
    check_dims(pattern, QUERY, KEY)
    names = [COMPONENT] if COMPONENT in pattern.dims else [LAYER, HEAD]
    heads = tuple(dim for dim in names if dim in pattern.dims)
    coords = _components(pattern)
    places = np.arange(len(coords[COMPONENT][1]))
    result = measured(
        pattern.drop_vars([coord for coord in coords if coord in pattern.coords]),
        partial(_flattened, function, n_dims=len(heads)),
        over=(*heads, QUERY, KEY),
        gives={COMPONENT: places, COMPONENT_OTHER: places},
        name=name,
        **labels,
    )
    others = {f"{coord}_other": (COMPONENT_OTHER, of) for coord, (_, of) in coords.items()}
    return result.assign_coords({**coords, **others})


def _flattened(function: Callable[[Array], Array], values: Array, *, n_dims: int) -> Array:
    """`function` of (..., component, query, key), from an array with any number of dims of heads."""
    lead, heads = np.split(np.array(values.shape[:-2], int), [values.ndim - 2 - n_dims])
    return function(without_nan(values).reshape(*lead, heads.prod(), *values.shape[-2:]))


def _components(pattern: xr.DataArray) -> dict[str, tuple[str, Any]]:
    """Coordinates along `component`: its labels, and layers and heads if they are known."""
    if COMPONENT in pattern.dims and COMPONENT in pattern.coords:
        names = [coord for coord in (COMPONENT, LAYER, HEAD) if coord in pattern.coords]
        along = [coord for coord in names if pattern[coord].dims == (COMPONENT,)]
        return {coord: (COMPONENT, pattern[coord].values) for coord in along}
    has_both = all(dim in pattern.dims or dim in pattern.coords for dim in (LAYER, HEAD))
    if COMPONENT in pattern.dims or not has_both:
        raise DimensionError(
            f"cannot compare the heads of {pattern.name!r}: expected 'layer' and 'head' as dims or coordinates, or a "
            f"labelled dim 'component', got dims {pattern.dims}; add what is missing, such as .assign_coords(layer=0)"
        )
    numbers = (np.atleast_1d(pattern[dim].values) for dim in (LAYER, HEAD))
    layers, heads = (grid.ravel() for grid in np.meshgrid(*numbers, indexing="ij"))
    labels = np.array([head_label(*pair) for pair in zip(layers, heads, strict=True)], dtype="U")
    return {
        COMPONENT: (COMPONENT, labels),
        LAYER: (COMPONENT, layers),
        HEAD: (COMPONENT, heads),
    }


def _cosines(values: Array) -> Array:
    flat = values.reshape(*values.shape[:-2], values.shape[-2] * values.shape[-1])
    products = flat @ flat.swapaxes(-1, -2)
    norms = np.sqrt(np.diagonal(products, axis1=-2, axis2=-1))
    cosines = products / (norms[..., :, np.newaxis] * norms[..., np.newaxis, :])
    return np.asarray(np.clip(cosines, 0, 1))


def _divergences(values: Array) -> Array:
    lead, n_heads = values.shape[:-3], values.shape[-3]
    out = np.empty((*lead, n_heads, n_heads), values.dtype)
    for at in np.ndindex(lead):
        _divergences_of_one(values[at], out[at])
    return out


def _divergences_of_one(values: Array, out: Array) -> None:
    """Of (component, query, key) into (component, component).

    With rows p and q that sum to 1 and s = p + q, the divergence is
    1 + (sum(p log p) + sum(q log q) - sum(s log s)) / 2.
    """
    sums = row_sums(values)
    counts = sums > 0
    rows = values / np.where(counts, sums, 1)[..., np.newaxis]
    own = sum_p_log_p(rows)
    for i in range(len(rows)):
        of_sums = in_blocks(partial(_of_sums, row=rows[i]), rows[i:], n_core=2)
        bits = 1 + (own[i] + own[i:] - of_sums) / 2
        both = counts[i] & counts[i:]
        mean = np.where(both, np.maximum(bits, 0), 0).sum(-1) / both.sum(-1, dtype=values.dtype)
        out[i, i:] = out[i:, i] = np.minimum(mean, 1)
        out[i, i] *= 0  # what rounding left there; stays NaN


def _of_sums(others: Array, *, row: Array) -> Array:
    return sum_p_log_p(others + row)
