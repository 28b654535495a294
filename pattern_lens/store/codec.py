"""Chunks, compressed and restored outside the HDF5 lock, in the format of HDF5's Blosc filter.

LZ4 with bit shuffling: the figures behind the choice are in docs/decisions/0002-compression.md.
"""

from __future__ import annotations

import math
import os
import struct
import sys
import threading
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, lru_cache
from itertools import accumulate
from typing import Any, Final

import numpy as np

_NAME: Final = "lz4"
_LEVEL: Final = 5
_BLOCK_BYTES: Final = 16 * 1024  # Blosc makes blocks of it times the item size: 64 KiB for float32
_BLOSC_HEADER_BYTES: Final = 16
_LOWEST_PRIORITY: Final = 19
_STORED_AS_IT_IS: Final = 2  # a flag of the chunk's header


@cache
def _blosc() -> Any:
    """The library, imported when the first chunk comes: it takes a tenth of the time that ours takes."""
    from numcodecs import blosc

    return blosc


def filter_options() -> Any:
    """Keyword arguments of `create_dataset` that name the filter in the file."""
    import hdf5plugin  # 20 ms, and only those who create a dataset need it

    return hdf5plugin.Blosc(cname=_NAME, clevel=_LEVEL, shuffle=hdf5plugin.Blosc.BITSHUFFLE)


def compress(chunk: np.ndarray[Any, Any]) -> bytes:
    """One whole chunk, contiguous, as the bytes that lie in the file. Releases the GIL."""
    packed: bytes = _blosc().compress(
        chunk, _NAME.encode(), _LEVEL, shuffle=_blosc().BITSHUFFLE, blocksize=_BLOCK_BYTES
    )
    return packed


def decompress(packed: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The chunk that `compress` was given.

    Raises
    ------
    ValueError
        The bytes are not a chunk of this dtype and shape.
    """
    _check_sizes(packed, math.prod(shape) * dtype.itemsize)
    return np.frombuffer(_restore(packed), dtype).reshape(shape)


def decompress_rows(
    packed: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], first: int, last: int
) -> np.ndarray[Any, Any]:
    """Indexes first..last (not included) of a chunk's first axis; restores only the blocks that hold them.

    A head of a chunk costs a part of what the chunk costs.

    Raises
    ------
    ValueError
        The bytes are not a chunk of this dtype and shape.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    row_bytes = n_bytes // shape[0]
    _check_sizes(packed, n_bytes)
    block_bytes = int(struct.unpack_from("<I", packed, 8)[0])
    if first == last or packed[2] & _STORED_AS_IT_IS or not 0 < 2 * block_bytes <= n_bytes:
        return decompress(packed, dtype, shape)[first:last]
    first_block = first * row_bytes // block_bytes
    last_block = -(-last * row_bytes // block_bytes)
    if last_block * block_bytes > n_bytes:  # the shorter last block needs one before it
        first_block = min(first_block, last_block - 2)
    part = _blocks(packed, first_block, last_block, block_bytes, n_bytes)
    skipped = first * row_bytes - first_block * block_bytes
    raw = np.frombuffer(_restore(part), np.uint8)[skipped:][: (last - first) * row_bytes]
    return raw.view(dtype).reshape(last - first, *shape[1:])


def _blocks(packed: bytes, first: int, last: int, block_bytes: int, n_bytes: int) -> bytes:
    """Some blocks of a chunk as a chunk of their own (the layout is that of Blosc's chunk format 2)."""
    n_blocks = -(-n_bytes // block_bytes)
    starts = struct.unpack_from(f"<{n_blocks}I", packed, _BLOSC_HEADER_BYTES)
    bounds = [*sorted(starts), len(packed)]  # threads may have put blocks in any order
    if bounds[0] < _BLOSC_HEADER_BYTES + 4 * n_blocks or bounds[-2] >= len(packed):
        raise ValueError("the chunk's table of blocks is damaged")
    pieces = [packed[at : bounds[bisect_right(bounds, at)]] for at in starts[first:last]]
    places = list(accumulate(map(len, pieces), initial=_BLOSC_HEADER_BYTES + 4 * len(pieces)))
    restored = min(last * block_bytes, n_bytes) - first * block_bytes
    table = struct.pack(f"<{3 + len(pieces)}I", restored, block_bytes, places[-1], *places[:-1])
    return b"".join([packed[:4], table, *pieces])


def _restore(packed: bytes) -> bytes:
    try:
        raw: bytes = _blosc().decompress(packed)
    except RuntimeError as err:
        raise ValueError(f"blosc cannot restore the chunk: {err}") from err
    return raw


def _check_sizes(packed: bytes, expected: int) -> None:
    """Raise unless the chunk's own header fits: Blosc would believe it, and read or allocate beyond."""
    if len(packed) < _BLOSC_HEADER_BYTES:
        raise ValueError(f"a chunk of {len(packed)} bytes is too short for blosc")
    n_bytes, n_packed = struct.unpack_from("<I4xI", packed, 4)
    if (n_bytes, n_packed) != (expected, len(packed)):
        raise ValueError(
            f"expected a chunk of {len(packed)} bytes that unpacks to {expected}, "
            f"got one that says {n_packed} and {n_bytes}"
        )


@lru_cache(maxsize=2)
def _pool(pid: int, n_threads: int, gives_way: bool) -> ThreadPoolExecutor:  # noqa: ARG001, FBT001 - a fork gets its own
    start = give_way if gives_way else None
    return ThreadPoolExecutor(n_threads, "pattern-lens-codec", initializer=start)


def give_way() -> None:
    """Let this thread run only where no other thread wants the core; does nothing where that is not to be had."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)


def default_threads() -> int:
    """Threads that compress and restore: the cores this process may use, at most 8."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4, 8)


def pool(n_threads: int | None = None, *, gives_way: bool = False) -> ThreadPoolExecutor:
    """The process-wide pool in which chunks are compressed and restored.

    Parameters
    ----------
    gives_way
        Whether its threads run only where no other thread wants the core.
    """
    return _pool(os.getpid(), n_threads or default_threads(), gives_way)
