"""Two traces side by side: in what their specifications differ, and what that changes.

The rule: what is compared has the same prompts and the same labels; nothing is matched that is not the same thing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from xarray.core import indexing

from pattern_lens.names import PROMPT
from pattern_lens.patterns.arrays import ReadOnlyArray
from pattern_lens.tracing.writing import SPEC

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from pattern_lens.patterns.cuts import Array
    from pattern_lens.tracing.result import TraceResult

_NOT_COMPARED: Final = frozenset({"created_utc"})


def differing(a: TraceResult, b: TraceResult) -> dict[str, tuple[Any, Any]]:
    """In what the specifications of two traces differ; as `Traces.differences`."""
    of_all = _differing(a.spec, b.spec)
    told = {_first(key) for key in of_all}
    of_prompts = _of_prompts(a, b)
    return of_all | {key: pair for key, pair in of_prompts.items() if _first(key) not in told}


def _first(key: str) -> str:
    """The outermost key of the specification."""
    return key.partition(",")[0].partition(".")[0]


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """By key, keys within keys behind a dot; nothing is the same as null."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*a, *b} - _NOT_COMPARED):
        one, other = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found |= {f"{key}.{inner}": pair for inner, pair in _differing(one, other).items()}
        elif one != other:
            found[key] = (one, other)
    return found


def _of_prompts(a: TraceResult, b: TraceResult) -> dict[str, tuple[Any, Any]]:
    """For each key that prompts disagree in, what the first prompt that does has."""
    if not (SPEC in a.coords and SPEC in b.coords):
        return {}
    both = np.intersect1d(a[PROMPT].values, b[PROMPT].values)
    specs = [one.coords[SPEC].sel({PROMPT: both}).values.tolist() for one in (a, b)]
    found: dict[str, tuple[str, tuple[Any, Any]]] = {}
    for prompt, one, other in zip(both.tolist(), *specs, strict=True):
        if one != other:
            for key, pair in _differing(json.loads(one), json.loads(other)).items():
                found.setdefault(key, (prompt, pair))
    return {f"{key}, prompt {prompt}": pair for key, (prompt, pair) in found.items()}


def compared(a: TraceResult, b: TraceResult) -> TraceResult:
    """What `b` gives less what `a` gives, of the same prompts; as `Traces.compare`.

    Parameters
    ----------
    a, b
        Of the same prompts in the same order.
    """
    alike = [str(name) for name in a.data_vars if name in b.data_vars and _alike(a[name], b[name])]
    lazy = {
        name: (b[name].dims, indexing.LazilyIndexedArray(_Less(b[name], a[name])), b[name].attrs)
        for name in alike
    }
    found = b[alike].assign(lazy)
    names = [str(one.attrs.get("trace")) for one in (a, b)]
    said = {"a": names[0], "b": names[1], "differences": json.dumps(differing(a, b))}
    found.attrs |= {"trace": f"{names[1]} - {names[0]}", "spec": "{}", **said}
    return found


def _alike(one: xr.DataArray, other: xr.DataArray) -> bool:
    """Whether values of two traces are of the same things."""
    if one.dims != other.dims or one.shape != other.shape:
        return False
    return all(np.array_equal(one[dim].values, other[dim].values) for dim in one.dims)


class _Less(ReadOnlyArray):
    """One array less another, of what is asked for."""

    def __init__(self, one: xr.DataArray, other: xr.DataArray) -> None:
        self.one, self.other = one.variable, other.variable
        self.shape = one.shape
        self.dtype = np.result_type(one.dtype, other.dtype)

    def _read(self, key: tuple[Any, ...] | None) -> Array:
        chosen = ... if key is None else key
        return np.asarray(self.one[chosen].values - self.other[chosen].values, self.dtype)
