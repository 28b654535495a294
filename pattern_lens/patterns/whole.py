"""A whole collection as one xarray object: dense, padded or a tree."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from pattern_lens.errors import DimensionError
from pattern_lens.names import LAYER, PROMPT
from pattern_lens.patterns import blocks
from pattern_lens.patterns.arrays import ReadOnlyArray
from pattern_lens.patterns.labels import indexed
from pattern_lens.patterns.steps import Choose, Method

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pattern_lens.patterns.collection import Activations
    from pattern_lens.patterns.cuts import Array


def chunked(array: xr.DataArray, chunks: Any) -> xr.DataArray:
    """A dask-backed array, with the meaning that `chunks` has in `xarray.open_dataset`."""
    if isinstance(chunks, dict):
        preferred = dict(array.encoding.get("preferred_chunks", {}))
        chunks = {dim: n for dim, n in (preferred | chunks).items() if dim in array.dims}
    # the values only: dask cannot guess chunks of token texts, and they are few
    return array.copy(deep=False, data=array.variable.chunk(chunks).data)


def dense(collection: Activations) -> xr.DataArray:
    """A collection without ragged dims as one array with a leading dim `prompt`."""
    values: Any = (
        blocks.gather(collection) if collection.chunks is None else _dask_blocks(collection)
    )
    template = collection.template.isel({PROMPT: 0})
    result = xr.DataArray(
        xr.Variable((PROMPT, *template.dims), values),
        coords=template.coords,
        name=collection.name,
        attrs=collection.attributes(),
    )
    return result.assign_coords(indexed(PROMPT, _hashes(collection)))


def _hashes(collection: Activations) -> Array:
    return np.array(list(collection), dtype="U") if len(collection) else np.empty(0, "<U1")


def _dask_blocks(collection: Activations) -> Any:
    array: Any = import_module("dask.array")  # untyped
    from dask.delayed import delayed

    template = collection.template
    parts = []
    for places in prompt_blocks(collection):
        part = delayed(blocks.gather, pure=True)(collection.isel(prompt=places))
        shape = (len(places), *template.shape[1:])
        parts.append(array.from_delayed(part, shape, dtype=template.dtype))
    if not parts:
        return array.from_array(np.empty((0, *template.shape[1:]), template.dtype))
    return array.concatenate(parts)


def prompt_blocks(collection: Activations) -> list[Array]:
    """Places of the prompts of each dask chunk: as many as asked for, or as fit a block."""
    places = np.arange(len(collection))
    chunks = collection.chunks
    size = chunks.get(PROMPT) if isinstance(chunks, dict) else None
    if size == -1:
        return [places]
    if isinstance(size, int):
        return [places[i : i + size] for i in range(0, len(places), size)]
    n_bytes = blocks.dense_bytes(blocks.bases_of(collection))
    return blocks.split_by_bytes(places, n_bytes, blocks.BLOCK_BYTES)


def sizes(collection: Activations) -> dict[str, int | tuple[int, int] | None]:
    """Sizes by dim; the least and the largest of a ragged one."""
    found: dict[str, int | tuple[int, int] | None] = {}
    ranges = ragged_sizes(collection)
    template = blocks.template(collection.base, 1) if not collection.steps else collection.template
    for dim in collection.dims:
        found[dim] = ranges.get(dim) if dim in collection.ragged else template.sizes[dim]
    return found


def ragged_sizes(collection: Activations) -> dict[str, tuple[int, int]]:
    """The least and the largest size of each ragged dim that was not cut after a step."""
    base = collection.base
    distinct = np.unique(base.sizes(), axis=0).tolist()
    found: dict[str, tuple[int, int]] = {}
    for dim in base.chosen.layout.ragged:
        if base.chosen.drops(dim) or not distinct:
            continue
        if base.chosen.cuts.get(dim):
            ns = [np.size(base.chosen.resolve(dim, pair)) for pair in distinct]
        else:
            ns = [pair[base.chosen.layout.ragged.index(dim)] for pair in distinct]
        found[dim] = (min(ns), max(ns))
    for step in collection.steps:
        if isinstance(step.function, Choose):
            found.pop(step.function.dim, None)
        if step.function == Method("rename"):
            found = {step.inputs[1].get(dim, dim): n for dim, n in found.items()}
    return found


class PaddedArray(ReadOnlyArray):
    """All prompts of a collection, padded to one shape."""

    def __init__(self, collection: Activations, shape: tuple[int, ...], fill_value: Any) -> None:
        self.collection, self.shape, self.fill_value = collection, shape, fill_value
        self.dtype = np.result_type(collection.dtype, fill_value)

    def _read(self, key: tuple[Any, ...] | None) -> Array:
        collection = self.collection
        dims = (PROMPT, *collection.dims)
        key = key or (slice(None),) * len(dims)
        shape, after = [], []
        for dim, n, index in zip(dims, self.shape, key, strict=True):
            if dim in collection.ragged:
                first, last = _bounds(index, n)
                if (first, last) != (0, n):
                    collection = collection.isel(**{dim: slice(first, last)})
                shape.append(last - first)
                after.append(_shifted(index, n, first))
            else:
                many = np.atleast_1d(np.arange(n)[index])
                if len(many) != n or isinstance(index, np.ndarray):
                    collection = collection.isel(**{dim: many})
                shape.append(len(many))
                after.append(0 if isinstance(index, int | np.integer) else slice(None))
        return _outer(self._fill(collection, tuple(shape)), after)

    def _fill(self, collection: Activations, shape: tuple[int, ...]) -> Array:
        out = np.full(shape, self.fill_value, self.dtype)
        if 0 in shape:
            return out
        for members, block in blocks.blocks(collection):
            index: tuple[Any, ...] = (members, *(slice(n) for n in block.shape[1:]))
            out[index] = block.values
        return out


def _bounds(index: Any, n: int) -> tuple[int, int]:
    at = np.atleast_1d(np.arange(n)[index])
    return (int(at.min()), int(at.max()) + 1) if len(at) else (0, 0)


def _shifted(index: Any, n: int, first: int) -> Any:
    return np.arange(n)[index] - first


def _outer(values: Array, indexes: list[Any]) -> Array:
    for axis in range(len(indexes) - 1, -1, -1):
        if not (isinstance(indexes[axis], slice)):
            values = values[(slice(None),) * axis + (indexes[axis],)]
    return values


def padded(collection: Activations, fill_value: Any) -> xr.DataArray:
    """One lazy array for all prompts."""
    known = sizes(collection)
    lost = [dim for dim, n in known.items() if n is None]
    if lost and len(collection):
        raise DimensionError(
            f"cannot pad {lost[0]!r}: it was cut after an operation that comes first; cut it before, or after .padded()"
        )
    shape = tuple(n[1] if isinstance(n, tuple) else (n or 0) for n in known.values())
    array = PaddedArray(collection, (len(collection), *shape), fill_value)
    template = collection.template.isel({PROMPT: 0})
    keep = {
        name: coord
        for name, coord in template.coords.items()
        if not collection.ragged.intersection(map(str, coord.dims))
    }
    dims = (PROMPT, *collection.dims)
    result = xr.DataArray(
        xr.Variable(dims, indexing.LazilyIndexedArray(array)),
        coords=xr.Dataset(coords=keep).coords,
        name=collection.name,
        attrs=collection.attributes(),
    ).assign_coords(indexed(PROMPT, _hashes(collection)))
    for dim, size in zip(collection.dims, shape, strict=True):
        if dim in collection.ragged:
            result = result.assign_coords(indexed(dim, ragged_labels(collection, dim, size)))
    result.encoding = {"preferred_chunks": {PROMPT: 1} | ({LAYER: 1} if LAYER in dims else {})}
    return result if collection.chunks is None else chunked(result, collection.chunks)


def ragged_labels(collection: Activations, dim: str, size: int) -> Array:
    """Labels along a padded dim: those of the chosen positions if all prompts agree, else from 0."""
    chosen = collection.base.chosen
    labels = np.arange(size)
    if chosen.cuts.get(dim):
        distinct = np.unique(collection.base.sizes(), axis=0).tolist()
        every = [np.asarray(chosen.resolve(dim, pair)) for pair in distinct]
        longest: Array = max(every, key=lambda one: one.size, default=labels)
        if all(np.array_equal(longest[: len(one)], one) for one in every):
            return longest
    return labels


def datatree(collection: Activations) -> xr.DataTree:
    """One node for each prompt."""
    nodes: Mapping[str, xr.Dataset] = {
        prompt_hash: array.to_dataset(name=collection.name, promote_attrs=True)
        for prompt_hash, array in collection.items()
    }
    tree = xr.DataTree.from_dict(dict(nodes), name=collection.name)
    tree.attrs.update(collection.attributes())
    return tree
