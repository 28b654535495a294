"""Chunks, compressed and restored outside the HDF5 lock, in the format of HDF5's Blosc filter.

LZ4 with bit shuffling: the figures behind the choice are in docs/decisions/0002-compression.md.
"""

from __future__ import annotations

import math
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final

import hdf5plugin
import numpy as np
from numcodecs import blosc

_NAME: Final = "lz4"
_LEVEL: Final = 5
_BLOSC_HEADER_BYTES: Final = 16


def filter_options() -> Any:
    """Keyword arguments of `create_dataset` that name the filter in the file."""
    return hdf5plugin.Blosc(cname=_NAME, clevel=_LEVEL, shuffle=hdf5plugin.Blosc.BITSHUFFLE)


def compress(chunk: np.ndarray[Any, Any]) -> bytes:
    """One whole chunk, contiguous, as the bytes that lie in the file. Releases the GIL."""
    packed: bytes = blosc.compress(chunk, _NAME.encode(), _LEVEL, shuffle=blosc.BITSHUFFLE)
    return packed


def decompress(packed: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The chunk that `compress` was given.

    Raises
    ------
    ValueError
        The bytes are not a chunk of this dtype and shape.
    """
    _check_sizes(packed, math.prod(shape) * dtype.itemsize)
    try:
        raw = blosc.decompress(packed)
    except RuntimeError as err:
        raise ValueError(f"blosc cannot restore the chunk: {err}") from err
    return np.frombuffer(raw, dtype).reshape(shape)


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


@lru_cache(maxsize=1)
def _pool(pid: int, n_threads: int) -> ThreadPoolExecutor:  # noqa: ARG001 - a fork gets its own
    return ThreadPoolExecutor(n_threads, thread_name_prefix="pattern-lens-codec")


def default_threads() -> int:
    """Threads that compress and restore: the cores this process may use, at most 8."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4, 8)


def pool(n_threads: int | None = None) -> ThreadPoolExecutor:
    """The process-wide pool in which chunks are compressed and restored."""
    return _pool(os.getpid(), n_threads or default_threads())
