"""A NumPy function mapped over every dim but query and key: what each measure is made of.

The rules that every measure keeps: positions are the integer coordinates `query` and `key`, never
places in the array; nothing is computed in less than float32; NaN is a value that is not there, and
what is computed from nothing is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import xarray as xr

from pattern_lens.errors import DimensionError
from pattern_lens.measures.half import widened
from pattern_lens.names import KEY, QUERY

if TYPE_CHECKING:
    from collections.abc import Callable

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

BLOCK_BYTES: Final = 64 << 20
"""Bytes of a pattern that a measure works on at once; its own arrays take about as much again."""


def measured(
    pattern: xr.DataArray,
    function: Callable[[Array], Array],
    *,
    name: str,
    long_name: str,
    units: str,
    over: tuple[str, ...] = (QUERY, KEY),
    gives: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """The result of a NumPy function on the last dims of an array, labelled.

    Parameters
    ----------
    function
        Takes arrays whose last dims are `over`, gives the same with `gives` in their place.
    name, long_name, units
        What the result says of itself.
    over
        Dims that the function takes away.
    gives
        Coordinates of the dims that it puts there.

    Returns
    -------
    Every dim that is not in `over`, then those of `gives`. What the pattern's coordinates and
    attributes say of these stays. Lazy if `pattern` is on dask.
    """
    gives = gives or {}
    result: xr.DataArray = xr.apply_ufunc(
        partial(in_blocks, function, n_core=len(over)),
        pattern,
        input_core_dims=[over],
        output_core_dims=[list(gives)],
        dask="parallelized",
        output_dtypes=[working_dtype(pattern.dtype)],
        dask_gufunc_kwargs={
            "allow_rechunk": True,
            "output_sizes": {dim: len(labels) for dim, labels in gives.items()},
        },
    )
    result.name = name
    result.attrs = {**pattern.attrs, "long_name": long_name, "units": units}
    return result.assign_coords(gives) if gives else result


def in_blocks(
    function: Callable[[Array], Array],
    values: Array,
    *,
    n_core: int,
    limit_bytes: int = BLOCK_BYTES,
) -> Array:
    """`function` of an array, taken apart along its leading dims where it is large.

    Parameters
    ----------
    n_core
        Number of last dims that stay together.
    limit_bytes
        Size from which an array is taken apart.
    """
    if values.nbytes <= limit_bytes or values.ndim == n_core:
        with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0: nothing to compute from
            return function(values)
    again = partial(in_blocks, function, n_core=n_core, limit_bytes=limit_bytes)
    return np.stack([again(part) for part in values])


def working_dtype(dtype: Any) -> np.dtype[Any]:
    """What values of a dtype are computed in: float32, or wider if they are."""
    return np.result_type(dtype, np.float32)


def working(values: Array) -> Array:
    """Values in their working dtype; not copied if they have it."""
    if values.dtype == np.float16:
        return widened(values)
    return values.astype(working_dtype(values.dtype), copy=False)


def without_nan(values: Array) -> Array:
    """Values in their working dtype with 0 in place of NaN; not copied if nothing is to be changed."""
    values = working(values)
    if np.isnan(values.min(initial=0)):  # in one pass and without an array of its own
        return np.where(np.isnan(values), 0, values)
    return values


def mean_of_known(values: Array) -> Array:
    """Mean over the last dim of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    n_known = known.sum(-1, dtype=values.dtype)
    return np.asarray(np.where(known, values, 0).sum(-1) / n_known)


def check_dims(pattern: object, *dims: str) -> None:
    """Raise unless a pattern is a labelled array with some dims.

    Raises
    ------
    TypeError
        It is no DataArray.
    DimensionError
        It lacks one of the dims.
    """
    if not isinstance(pattern, xr.DataArray):
        is_collection = isinstance(pattern, Mapping)
        hint = "its .map(measure)" if is_collection else "xarray.DataArray(values, dims=...)"
        raise TypeError(
            f"cannot measure an object of type {type(pattern).__name__!r}: expected an "
            f"xarray.DataArray with dims (..., {', '.join(dims)}); use {hint}"
        )
    for dim in dims:
        if dim not in pattern.dims:
            raise DimensionError(
                f"cannot measure {pattern.name!r}: expected dims (..., {', '.join(dims)}), got {pattern.dims}; "
                f"a single one stays a dim if it is chosen as a list, .isel({dim}=[0])"
            )


def positions(pattern: xr.DataArray, dim: str) -> Array:
    """Position in the prompt of each query or key: int64, from 0, in the array's order.

    An array without that coordinate is taken to be whole.

    Raises
    ------
    DimensionError
        The coordinate holds something else than distinct integers from 0.
    """
    if dim not in pattern.coords:
        return np.arange(pattern.sizes[dim])
    found = pattern[dim].values
    is_integer = found.dtype.kind in "iu"
    if not is_integer or found.min(initial=0) < 0 or len(np.unique(found)) < len(found):
        raise DimensionError(
            f"coordinate {dim!r} of {pattern.name!r} holds {found.tolist()[:3]} and so on ({found.dtype}): "
            f"expected distinct positions from 0; give it some with .assign_coords({dim}=...)"
        )
    return found.astype(np.int64)
