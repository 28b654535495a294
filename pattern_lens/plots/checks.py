"""What came, as the array that a plot needs; or a sentence about what to give instead.

The rule: nothing is read here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pattern_lens.errors import DimensionError, PlotError, PlotTypeError
from pattern_lens.names import COMPONENT, HEAD, KEY, LAYER, PROMPT, QUERY

if TYPE_CHECKING:
    from collections.abc import Sequence

PAIR = (QUERY, KEY)
MOSAIC = (LAYER, HEAD, QUERY, KEY)


def as_array(what: Any, function: str) -> xr.DataArray:
    """A labelled array of real numbers.

    Raises
    ------
    PlotTypeError
        Anything else.
    """
    if not isinstance(what, xr.DataArray):
        kind = type(what).__name__
        hint = {
            "Patterns": "patterns[hash] is the array of one prompt",
            "Activations": "activations[hash] is the array of one prompt",
            "Dataset": "dataset['name'] is one of its arrays",
        }.get(
            kind, "pl.open_patterns(path)[hash] and pl.open_results(path)['name'] are such arrays"
        )
        raise PlotTypeError(
            f"{function} cannot plot a {kind}: expected an xarray.DataArray; {hint}"
        )
    if what.dtype.kind not in "fiub":
        raise PlotTypeError(
            f"{function} cannot plot {_named(what)} of dtype {what.dtype}: expected real numbers"
        )
    return what


def as_pattern(what: Any, function: str) -> xr.DataArray:
    """One head's pattern, dims (query, key).

    Raises
    ------
    PlotTypeError, DimensionError, PlotError
        Not a labelled array, other dims are left, or there is nothing in it.
    """
    array = _without_single(as_array(what, function), PAIR)
    more = [str(dim) for dim in array.dims if dim not in PAIR]
    if more and all(dim in array.dims for dim in PAIR):
        first = ", ".join(f"{dim}={_label(array, dim)!r}" for dim in more)
        rest = "; pl.plot_heads shows all heads" if {*more} <= {LAYER, HEAD} else ""
        raise DimensionError(
            f"{function} shows one head, and {_named(array)} has dims {_dims(array)}: "
            f"choose with .sel({first}){rest}"
        )
    return _whole(array, PAIR, function)


def as_mosaic(what: Any, function: str) -> xr.DataArray:
    """Patterns of heads, dims (layer, head, query, key); a missing layer or head dim has size 1.

    Raises
    ------
    PlotTypeError, DimensionError, PlotError
        As `as_pattern`.
    """
    array = _expanded(as_array(what, function), function)
    return _whole(array, MOSAIC, function)


def as_scores(what: Any, function: str) -> xr.DataArray:
    """Scores of heads, dims (layer, head) or (prompt, layer, head).

    Raises
    ------
    PlotTypeError, DimensionError, PlotError
        As `as_pattern`.
    """
    array = as_array(what, function)
    if not {LAYER, HEAD, COMPONENT} & {*array.dims}:
        raise DimensionError(
            f"{function} shows a layer x head map, and {_named(array)} has dims {_dims(array)}: "
            "expected (prompt, layer, head) or (layer, head)"
        )
    array = _expanded(array, function)
    more = [str(dim) for dim in array.dims if dim not in (PROMPT, LAYER, HEAD)]
    if more:
        raise DimensionError(
            f"{function} shows one number a head, and {_named(array)} has dims {_dims(array)}: "
            f"reduce or choose first, for example .mean({more!r})"
        )
    wanted = (PROMPT, LAYER, HEAD) if PROMPT in array.dims else (LAYER, HEAD)
    return _whole(array, wanted, function)


def _expanded(array: xr.DataArray, function: str) -> xr.DataArray:
    if COMPONENT in array.dims:
        raise DimensionError(
            f"{function} shows layers and heads, and {_named(array)} has a dim component: choose with "
            ".sel(layer=[...]) and .sel(head=[...]) by number, or one of them with .isel(component=0)"
        )
    missing = [dim for dim in (HEAD, LAYER) if dim not in array.dims]
    for dim in missing:
        array = array.expand_dims(dim) if dim in array.coords else array.expand_dims({dim: [0]})
    return array


def _whole(array: xr.DataArray, dims: Sequence[str], function: str) -> xr.DataArray:
    if {*array.dims} != {*dims}:
        raise DimensionError(
            f"{function} cannot plot {_named(array)} with dims {_dims(array)}: expected ({', '.join(dims)})"
        )
    empty = [dim for dim in dims if array.sizes[dim] == 0]
    if empty:
        raise PlotError(
            f"{function} has nothing to plot: {_named(array)} has no {' and no '.join(empty)}"
        )
    numbered = {dim: np.arange(array.sizes[dim]) for dim in dims if dim not in array.coords}
    return array.assign_coords(numbered).transpose(*dims)


def _without_single(array: xr.DataArray, keep: Sequence[str]) -> xr.DataArray:
    return array.squeeze([d for d, n in array.sizes.items() if n == 1 and d not in keep])


def _label(array: xr.DataArray, dim: str) -> Any:
    labels = array[dim].values
    return labels[0].item() if len(labels) and hasattr(labels[0], "item") else (*labels, 0)[0]


def _named(array: xr.DataArray) -> str:
    return repr(str(array.name)) if array.name is not None else "the array"


def _dims(array: xr.DataArray) -> str:
    return f"({', '.join(map(str, array.dims))})"
