"""Values of one commit: as they must come, and as their index rows name them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.errors import DimensionError
from pattern_lens.store.rows import ARRAY_ROW, seal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pattern_lens.store.chunks import Array
    from pattern_lens.store.layout import ArrayLayout


@dataclass(frozen=True)
class Block:
    """Values of one activation for the prompts of one commit.

    Parameters
    ----------
    sizes
        Sizes of the ragged dims of each prompt (the second is 1 where there is one ragged dim).
    data
        Stored layout (docs/format.md): the growing axis holds the prompts back to back.
    """

    sizes: Sequence[tuple[int, int]]
    data: Array


def check_block(layout: ArrayLayout, block: Block, n_records: int) -> None:
    """Raise unless `block` holds values of `n_records` prompts exactly as `layout` stores them."""
    if len(block.sizes) != n_records:
        raise DimensionError(
            f"cannot store {layout.name!r}: expected sizes of {n_records} prompts, got {len(block.sizes)}"
        )
    for size in block.sizes:
        if (
            (layout.packing == "triangle" and size[0] != size[1])
            or (layout.packing == "line" and size[1] != 1)
            or (layout.packing == "single" and size != (1, 1))
        ):
            raise DimensionError(
                f"cannot store {layout.name!r}: sizes {size} do not fit a {layout.packing}"
            )
    shape = layout.stored_shape(sum(layout.length(*size) for size in block.sizes))
    expected, got = (layout.stored_dtype, shape), (block.data.dtype, block.data.shape)
    if expected != got:
        raise DimensionError(
            f"cannot store {layout.name!r}: expected {expected[0]} {expected[1]}, got {got[0]} {got[1]}"
        )


def spans(layout: ArrayLayout, sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Start and stop of each prompt along the growing axis of a commit."""
    stops = np.cumsum([layout.length(*size) for size in sizes]).tolist()
    return list(zip([0, *stops[:-1]], stops, strict=True))


def array_rows(
    layout: ArrayLayout,
    positions: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    start: int,
    checksums: Sequence[int],
) -> np.ndarray[Any, Any]:
    """Sealed index rows of one commit that starts at `start`."""
    rows = np.zeros(len(positions), ARRAY_ROW)
    rows["prompt"] = positions
    rows["start"] = [start + first for first, _ in spans(layout, sizes)]
    rows["size0"], rows["size1"] = zip(*sizes, strict=True)
    rows["checksum"] = np.array(checksums, "<u8")
    return seal(rows)


def dense_bytes(layout: ArrayLayout, sizes: Sequence[tuple[int, int]]) -> int:
    """Bytes of the arrays that the prompts of these sizes unpack to."""
    return sum(math.prod(layout.shape(*size)) for size in sizes) * layout.value_dtype.itemsize
