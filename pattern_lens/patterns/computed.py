"""What a function gives of one prompt -> how such values lie in the file.

The rule: a dim is ragged if prompts differ in its size; positions along it count from 0. What does not
fit is an error that says what was given and what was expected.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import xarray as xr

from pattern_lens.errors import ResultMismatchError
from pattern_lens.names import LAYER, PROMPT, RAGGED_DIMS
from pattern_lens.store.layout import RESULTS, ArrayLayout
from pattern_lens.store.writer import Block

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pattern_lens.patterns.cuts import Array

_LONGEST_NAME: Final = 200
_PACKINGS: Final = ("single", "line", "rectangle")


class Fitted(NamedTuple):
    """Values of one prompt as they are stored: the sizes of the ragged dims, and those flattened."""

    sizes: tuple[int, int]
    data: Array


def check_name(name: str) -> None:
    """Raise unless results can be stored under a name.

    Raises
    ------
    ResultMismatchError
        It is empty or very long, or holds ``/`` or something that cannot be seen.
    """
    is_good = isinstance(name, str) and name.isprintable() and name.strip(" .") and "/" not in name
    if not is_good or len(name.encode()) > _LONGEST_NAME:
        raise ResultMismatchError(
            f"cannot store results under the name {name!r}: expected a short text without '/', such as 'entropy'"
        )


def as_result(value: object) -> xr.DataArray:
    """What a function returned, as a labelled array of numbers.

    Raises
    ------
    ResultMismatchError
        It is something else.
    """
    if isinstance(value, Integral | Real | np.bool_):
        array = xr.DataArray(np.asarray(value))
    elif isinstance(value, xr.DataArray):
        array = value
    elif getattr(value, "ndim", None) == 0 and hasattr(value, "__float__"):
        array = xr.DataArray(np.float64(float(value)))  # a tensor's number
    else:
        shape = getattr(value, "shape", None)
        what = type(value).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")
        raise ResultMismatchError(
            f"the function returned {what}, expected a number or a labelled array; "
            "give its dims names with xarray.DataArray(values, dims=(...))"
        )
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise ResultMismatchError(
            f"the function returned values of dtype {array.dtype}, expected real numbers"
        )
    if PROMPT in array.dims:
        raise ResultMismatchError(
            f"the function returned dims {array.dims}: it is given one prompt, so {PROMPT!r} may not be among them"
        )
    return array.astype(np.float64) if array.dtype.itemsize > 8 else array


def plan(name: str, examples: Sequence[xr.DataArray], origin: Mapping[str, Any]) -> ArrayLayout:
    """How values lie in the file, of which some examples are known.

    Parameters
    ----------
    examples
        At least one; those of prompts of different sizes tell which dims are ragged.
    origin
        What the file says of where the values come from.

    Raises
    ------
    ResultMismatchError
        They cannot be stored under one name.
    """
    first = examples[0]
    for example in examples[1:]:
        _check_dims(first.dims, example.dims)
    dims = tuple(map(str, first.dims))
    counts = {dim: {example.sizes[dim] for example in examples} for dim in dims}
    ragged = tuple(d for d in dims if d in RAGGED_DIMS or len(counts[d]) > 1)
    if len(ragged) > len(_PACKINGS) - 1 or LAYER in ragged:
        raise ResultMismatchError(
            f"dims {ragged} differ in size from prompt to prompt: at most two may, and not {LAYER!r}; "
            "reduce one, or pad it to one size"
        )
    dims = _side_by_side(dims, ragged)
    layers = _layers(first) if LAYER in dims else ()
    known = first.attrs
    return ArrayLayout(
        name=name,
        dims=dims,
        sizes={dim: first.sizes[dim] for dim in dims if dim not in ragged},
        packing=_PACKINGS[len(ragged)],
        dtype=str(np.result_type(*(example.dtype for example in examples))),
        layers=layers,
        units=str(known.get("units", "")),
        origin={**({"long_name": known["long_name"]} if "long_name" in known else {}), **origin},
        section=RESULTS,
        ragged_dims=ragged,
        labels=_labels(first, ragged),
    )


def _side_by_side(dims: tuple[str, ...], ragged: tuple[str, ...]) -> tuple[str, ...]:
    if not ragged:
        return dims
    at = dims.index(ragged[0])
    others = [dim for dim in dims if dim not in ragged]
    return (*others[:at], *ragged, *others[at:])


def _check_dims(expected: tuple[Any, ...], given: tuple[Any, ...]) -> None:
    if set(given) != set(expected):
        raise ResultMismatchError(
            f"the function returned dims {given}, expected {expected} as of the other prompts"
        )


def _layers(array: xr.DataArray) -> tuple[int, ...]:
    labels = array.coords.get(LAYER, np.arange(array.sizes[LAYER]))
    return tuple(int(n) for n in np.asarray(labels))


def _labels(array: xr.DataArray, ragged: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, coordinate in array.coords.items():
        along = coordinate.dims
        if name == LAYER == next(iter(along), None) or len(along) > 1 or set(along) & {*ragged}:
            continue
        if coordinate.dtype.kind not in "iufbUO":
            continue
        values = coordinate.values.tolist()
        if coordinate.dtype.kind == "O" and not all(isinstance(v, str) for v in np.ravel(values)):
            continue
        is_own = not along or along == (name,)
        found[str(name)] = values if is_own else {"dim": str(along[0]), "values": values}
    return found


def fit(layout: ArrayLayout, array: xr.DataArray) -> Fitted:
    """One prompt's values in stored layout.

    Raises
    ------
    ResultMismatchError
        Other dims, sizes, labels or a wider kind of number than the layout has.
    """
    _check_dims(layout.dims, array.dims)
    array = array.transpose(*layout.dims)
    for dim, size in zip(layout.dims, array.shape, strict=True):
        _check_labels(layout, array, dim, size)
    dtype = layout.stored_dtype
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ResultMismatchError(
            f"the function returned {array.dtype}, and {layout.dtype} of other prompts; return one kind of number"
        )
    ragged = tuple(array.sizes[dim] for dim in layout.ragged)
    sizes = ((*ragged, 1, 1)[0], (*ragged, 1, 1)[1])
    values = np.asarray(array.values, dtype)
    return Fitted(
        sizes, np.ascontiguousarray(values.reshape(layout.stored_shape(layout.length(*sizes))))
    )


def _check_labels(layout: ArrayLayout, array: xr.DataArray, dim: str, size: int) -> None:
    is_ragged = dim in layout.ragged
    if not is_ragged and size != layout.sizes[dim]:
        raise ResultMismatchError(
            f"the function returned {size} along {dim!r}, expected {layout.sizes[dim]} as of the other prompts"
        )
    if dim not in array.coords:
        return
    given = array[dim].values
    if is_ragged:
        expected: Any = np.arange(size)
        what = "they count from 0, as positions do; .drop_vars() takes them off"
    else:
        expected = np.array(layout.layers if dim == LAYER else layout.labels.get(dim, given))
        what = "all prompts have the same; ragged dims are those whose size differs"
    if not np.array_equal(given, expected):
        raise ResultMismatchError(
            f"the function returned labels {_few(given)} along {dim!r}, expected {_few(expected)}: {what}"
        )


def _few(labels: Array) -> str:
    shown = ", ".join(map(repr, labels[:4].tolist()))
    return f"[{shown}{', ...' if len(labels) > 4 else ''}]"


def block(layout: ArrayLayout, values: Sequence[Fitted]) -> Block:
    """The values of several prompts for one commit."""
    data = np.concatenate([one.data for one in values], axis=layout.axis)
    return Block([one.sizes for one in values], data)
