"""Packed patterns of chosen heads, read from the file without ever being dense.

The rules: values stay as the file packs them (row-major triangle, or rectangle); at most `_BLOCK_BYTES` of stored
values are held at a time, however long a prompt is.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.names import HEAD
from pattern_lens.store.chunks import Selection
from pattern_lens.store.packing import triangle_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pattern_lens.heads import Head
    from pattern_lens.store.reader import StoredArray

    Values = NDArray[Any]

LARGEST: Final = 256
"""Tokens of a picture at most; a longer prompt is reduced."""

_BLOCK_BYTES: Final = 32 << 20


class PackedPatterns:
    """The patterns of one prompt.

    Parameters
    ----------
    array
        The stored patterns, dims (layer, head, query, key).
    row
        Which of its rows is the prompt's.
    """

    def __init__(self, array: StoredArray, row: int) -> None:
        self.array = array
        self.row = row
        self.n_query, self.n_key = array.sizes(row)
        self.is_triangle = array.layout.packing == "triangle"
        self.n_heads = int(array.layout.sizes[HEAD])
        self._slab = {number: i for i, number in enumerate(array.layout.layers)}

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the stored layers."""
        return self.array.layout.layers

    @property
    def step(self) -> int:
        """Numbers a picture takes together along each dim."""
        return max(1, math.ceil(max(self.n_query, self.n_key) / LARGEST))

    def length(self, first: int, last: int) -> int:
        """Packed numbers of the queries from `first` to `last`."""
        if self.is_triangle:
            return triangle_length(last) - triangle_length(first)
        return (last - first) * self.n_key

    # --- reading -------------------------------------------------------------------------------

    def read(
        self, layers: Sequence[int], heads: Sequence[int], first: int = 0, last: int | None = None
    ) -> Values:
        """Stored values, dims (layer, head, packed), of queries from `first` to `last`."""
        inner: Any = np.asarray(heads, np.intp)
        if list(heads) == [*range(heads[0], heads[0] + len(heads))]:
            inner = slice(heads[0], heads[0] + len(heads))  # only their part of a chunk is restored
        selection = Selection([self._slab[layer] for layer in layers], (inner,))
        part = (first, self.n_query if last is None else last)
        return self.array.read_packed([self.row], selection, [part])[0]

    def blocks(
        self, layers: Sequence[int], heads: Sequence[int], *, step: int = 1
    ) -> Iterator[tuple[int, int, int, Values]]:
        """Values of some heads, bounded in bytes: position of the first layer, first and last query, values.

        Parameters
        ----------
        step
            A block begins at a multiple of it.
        """
        itemsize = self.array.layout.value_dtype.itemsize
        a_layer = len(heads) * self.length(0, self.n_query) * itemsize
        at_once = max(1, _BLOCK_BYTES // max(a_layer, 1))
        rows = self.n_query
        if a_layer > _BLOCK_BYTES:
            rows = max(step, _BLOCK_BYTES // (len(heads) * self.n_key * itemsize) // step * step)
        for at in range(0, len(layers), at_once):
            for first in range(0, self.n_query, max(rows, 1)):
                last = min(first + rows, self.n_query)
                yield at, first, last, self.read(layers[at : at + at_once], heads, first, last)

    # --- pictures ------------------------------------------------------------------------------

    def pictures(self, heads: Sequence[Head]) -> NDArray[np.uint8]:
        """One byte a number, dims (head, packed), in the order of `heads`; reduced where the prompt is long."""
        out = np.empty((len(heads), self.picture_length()), np.uint8)
        for layers, numbers, places in _together(heads):
            out[places] = self._pictures_of(layers, numbers)
        return out

    def picture_length(self) -> int:
        """Bytes of one head's picture."""
        n_query, n_key = (math.ceil(n / self.step) for n in (self.n_query, self.n_key))
        return triangle_length(n_query) if self.is_triangle else n_query * n_key

    def _pictures_of(self, layers: list[int], heads: list[int]) -> NDArray[np.uint8]:
        step = self.step
        out = np.empty((len(layers), len(heads), self.picture_length()), np.uint8)
        for at, first, last, values in self.blocks(layers, heads, step=step):
            part = as_bytes(values)
            if step > 1:
                part = self._reduced(part, first, last)
            start = self._reduced_start(first // step)
            out[at : at + len(part), :, start : start + part.shape[-1]] = part
        return out.reshape(len(layers) * len(heads), -1)

    def _reduced_start(self, row: int) -> int:
        return triangle_length(row) if self.is_triangle else row * math.ceil(self.n_key / self.step)

    def _reduced(self, part: NDArray[np.uint8], first: int, last: int) -> NDArray[np.uint8]:
        """Maximum of blocks of `step` x `step` numbers of queries from `first`, a multiple of `step`."""
        step = self.step
        rows = []
        for low in range(first, last, step):
            high = min(low + step, last)
            width = math.ceil((high if self.is_triangle else self.n_key) / step) * step
            largest = np.zeros((*part.shape[:-1], width), np.uint8)
            for query in range(low, high):
                start, stop = self.length(first, query), self.length(first, query + 1)
                n = stop - start
                np.maximum(largest[..., :n], part[..., start:stop], out=largest[..., :n])
            row = largest[..., ::step].copy()
            for i in range(1, step):
                np.maximum(row, largest[..., i::step], out=row)
            rows.append(row)
        return np.concatenate(rows, axis=-1)

    # --- exact values --------------------------------------------------------------------------

    def exact(self, layer: int, head: int) -> Values:
        """Values of one head, packed: float32, or float64 where they are stored so."""
        return np.asarray(self.read([layer], [head])[0, 0], self._wide)

    def mean(self, layers: Sequence[int]) -> Values:
        """Mean over all heads of some layers, packed."""
        total = np.zeros(self.length(0, self.n_query), np.float64)
        heads = range(self.n_heads)
        for _, first, last, values in self.blocks(layers, heads):
            start, stop = self.length(0, first), self.length(0, last)
            total[start:stop] += values.sum(axis=(0, 1), dtype=np.float64)
        return (total / (len(layers) * self.n_heads)).astype(self._wide)

    @property
    def _wide(self) -> np.dtype[Any]:
        is_double = self.array.layout.value_dtype == np.float64
        return np.dtype(np.float64 if is_double else np.float32)

    def dense(self, layer: int, head: int) -> Values:
        """Values of one head, dims (query, key)."""
        packed = self.read([layer], [head])[0, 0]
        return np.asarray(self.array.unpack(packed, 0, self.n_query, self.n_key))

    def similarities(self, wanted: Sequence[Head]) -> NDArray[np.float64]:
        """Cosine between some heads and each head, dims (wanted, layer, head); NaN without attention.

        What is not stored above a diagonal is zero, so packed values have the cosine of whole patterns.
        """
        shape = (len(self.layers), self.n_heads)
        places = [self._slab[layer] * self.n_heads + head for layer, head in wanted]
        products, squares = np.zeros((len(wanted), math.prod(shape))), np.zeros(math.prod(shape))
        itemsize = max(4, self.array.layout.value_dtype.itemsize)
        rows = max(1, _BLOCK_BYTES // (itemsize * math.prod(shape) * max(self.n_key, 1)))
        for first in range(0, self.n_query, rows):
            last = min(first + rows, self.n_query)
            read = self.read(self.layers, range(self.n_heads), first, last)
            values = known(read).reshape(math.prod(shape), -1)
            products += values[places] @ values.T
            squares += [float(one @ one) for one in values]
        norms = np.sqrt(squares)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines = products / (norms * norms[places, np.newaxis])
        return np.asarray(np.clip(cosines, 0, 1)).reshape(-1, *shape)


def known(values: Values) -> Values:
    """Values as float32 or wider, with 0 for what is no number."""
    wide = values.astype(np.result_type(values.dtype, np.float32), copy=False)
    return np.nan_to_num(wide, nan=0.0) if np.isnan(wide.min(initial=0)) else wide


def as_bytes(values: Values) -> NDArray[np.uint8]:
    """Probabilities as one byte each, ``round(255 p)``; 0 for what is no number."""
    scaled = values.astype(np.float32, copy=True)
    np.fmax(scaled, 0, out=scaled)  # of a number and NaN the number
    np.fmin(scaled, 1, out=scaled)
    scaled *= 255
    return np.rint(scaled, out=scaled).astype(np.uint8)


def _together(heads: Sequence[Head]) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Heads that one read gives: layers, heads of each, and their places among those that were asked for."""
    of_layer: dict[int, list[tuple[int, int]]] = {}
    for place, (layer, head) in enumerate(heads):
        of_layer.setdefault(layer, []).append((head, place))
    of_layer = {layer: sorted(found) for layer, found in sorted(of_layer.items())}

    def wanted(item: tuple[int, list[tuple[int, int]]]) -> tuple[int, ...]:
        return tuple(head for head, _ in item[1])

    for numbers, members in groupby(sorted(of_layer.items(), key=wanted), key=wanted):
        alike = list(members)
        places = [place for _, found in alike for _, place in found]
        yield [layer for layer, _ in alike], list(numbers), places
