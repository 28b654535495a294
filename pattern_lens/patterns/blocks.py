"""A collection's steps, applied to blocks of prompts: prompts of one size together, in bounded memory.

xarray is called once for a block, not once for a prompt.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from pattern_lens.errors import DimensionError
from pattern_lens.names import PROMPT
from pattern_lens.patterns.steps import PerPrompt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pattern_lens.patterns.base import Base
    from pattern_lens.patterns.collection import Activations
    from pattern_lens.patterns.cuts import Array
    from pattern_lens.patterns.selection import Wanted
    from pattern_lens.patterns.source import Positions

BLOCK_BYTES: Final = 32 << 20
"""Dense bytes that xarray is given at once."""

WINDOW_BYTES: Final = 128 << 20
"""Dense bytes of the prompts that are read together; packed triangles take half of that."""

Loaded = dict[int, "LoadedRows"]


class LoadedRows:
    """Packed values of some prompts of one base."""

    def __init__(self, base: Base, members: Positions) -> None:
        self._base = base
        self._array = base.source.array
        rows = base.rows()[members]
        self._wanted = [base.wanted_of(int(row)) for row in rows]
        plans = [wanted.plan for wanted in self._wanted]
        if plans[0].is_empty:
            self._packed: list[Array] = []
            return
        self._packed = self._array.read_packed(
            rows.tolist(), plans[0].selection, [(plan.first, plan.last) for plan in plans]
        )

    def block(self, local: Positions) -> xr.DataArray:
        """Prompts of one size, stacked: dims (prompt, ...)."""
        wanted = self._wanted[local[0]]
        if not self._packed:
            values = np.empty((len(local), *wanted.shape), wanted.layout.value_dtype)
        else:
            plan = wanted.plan
            stacked = np.stack([self._packed[i] for i in local])
            dense = self._array.unpack(stacked, plan.first, plan.last, wanted.n_key)
            values = plan.finish(dense, n_lead=1)
        return labelled(self._base, wanted, values)


def labelled(base: Base, wanted: Wanted, values: Array) -> xr.DataArray:
    """A block with the coordinates of everything but prompts and tokens."""
    variables, indexes = base.source.labels.of(wanted)
    variable = xr.Variable((PROMPT, *wanted.axes), values, fastpath=True)
    return xr.DataArray(
        variable, coords=variables, indexes=indexes, name=base.source.name, fastpath=True
    )


def evaluate(
    collection: Activations, loaded: Loaded, local: Positions, members: Positions
) -> xr.DataArray:
    """The steps of a collection on prompts of one size.

    Parameters
    ----------
    loaded
        By `id` of every base that the collection is made from.
    local
        Places of the prompts within `loaded`.
    members
        Places of the prompts within the collection.
    """

    def resolve(item: Any) -> Any:
        if hasattr(item, "base"):
            return evaluate(item, loaded, local, members)
        if isinstance(item, PerPrompt):
            return item.array.isel({PROMPT: members})
        return item

    array = loaded[id(collection.base)].block(local)
    for step in collection.steps:
        array = step.apply(array, resolve)
    return array


def bases_of(collection: Activations) -> dict[int, Base]:
    """Everything that has to be read for a collection, by `id`."""
    found = {id(collection.base): collection.base}
    for step in collection.steps:
        for item in step.operands:
            if hasattr(item, "base"):
                found |= bases_of(item)
    return found


def blocks(collection: Activations) -> Iterator[tuple[Positions, xr.DataArray]]:
    """Places in the collection and the values there, block by block; every place comes once."""
    bases = bases_of(collection)
    sizes = np.concatenate([base.sizes() for base in bases.values()], axis=1)
    n_bytes = dense_bytes(bases)
    for window in windows(collection, n_bytes, WINDOW_BYTES):
        loaded = {key: LoadedRows(base, window) for key, base in bases.items()}
        for local in _groups(sizes[window], n_bytes[window]):
            yield window[local], evaluate(collection, loaded, local, window[local])


def _groups(sizes: Array, n_bytes: Array) -> list[Positions]:
    """Places of equal sizes, at most a block of them each."""
    _, inverse = np.unique(sizes, axis=0, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    inverse, size = inverse[order], n_bytes[order]
    first = np.searchsorted(inverse, inverse)  # where the group of each one begins
    number = (np.arange(len(order)) - first) // np.maximum(BLOCK_BYTES // np.maximum(size, 1), 1)
    is_new = (np.diff(inverse) != 0) | (np.diff(number) != 0)
    return np.split(order, np.flatnonzero(is_new) + 1)


def dense_bytes(bases: Mapping[int, Base]) -> Array:
    """Bytes of each prompt's arrays as they are read, of all bases together."""
    return np.asarray(sum(base.dense_bytes() for base in bases.values()))


def windows(collection: Activations, n_bytes: Array, limit_bytes: int) -> list[Positions]:
    """Places in the collection that are read together, in the order in which they lie in the file."""
    order = np.argsort(collection.base.starts(), kind="stable")
    return split_by_bytes(order, n_bytes[order], limit_bytes)


def split_by_bytes(places: Positions, n_bytes: Array, limit_bytes: int) -> list[Positions]:
    """Runs of places that begin within one limit each."""
    if not len(places):
        return []
    number = (np.cumsum(n_bytes) - n_bytes) // limit_bytes
    return np.split(places, np.flatnonzero(np.diff(number)) + 1)


def gather(collection: Activations) -> Array:
    """Values of a collection without ragged dims, in its order: (prompt, ...)."""
    out: Array | None = None
    for members, block in blocks(collection):
        values = np.asarray(block.values)
        if out is None:
            out = np.empty((len(collection), *values.shape[1:]), values.dtype)
        if values.shape[1:] != out.shape[1:]:
            raise DimensionError(
                f"prompts give arrays of different shapes, {values.shape[1:]} and {out.shape[1:]}; "
                f"expected one shape, because no ragged dim is left"
            )
        out[members] = values
    if out is None:
        template = collection.template
        return np.empty((0, *template.shape[1:]), template.dtype)
    return out


def template(base: Base, size: int) -> xr.DataArray:
    """A block of one prompt of ones with small ragged dims: what the steps make of dims and dtype."""
    wanted = base.chosen.example((size, size))
    dtype = base.chosen.layout.value_dtype
    return labelled(base, wanted, np.ones((1, *wanted.shape), dtype))


def resolve_template(item: Any) -> Any:
    """What stands for an operand on a template."""
    if hasattr(item, "base"):
        return item.template
    return item.array.isel({PROMPT: [0]}) if isinstance(item, PerPrompt) else item


def quietly(step: Any, array: xr.DataArray) -> xr.DataArray:
    """One step on a template, whose made-up values may be out of the function's domain."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        result: xr.DataArray = step.apply(array, resolve_template)
        return result
