"""Open HDF5 files under SWMR, with an end to the waiting and with whole blocks.

Under SWMR, metadata whose checksum does not fit is read again and again, 100 times, each time after twice the
wait: with a damaged file that never ends. h5py has no setting for it, the HDF5 library has.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import h5py
from h5py._objects import phil

if TYPE_CHECKING:
    from pathlib import Path

BLOCK_BYTES: Final = 512
WHOLE_BLOCKS: Final[Any] = {
    "alignment_threshold": 1,
    "alignment_interval": BLOCK_BYTES,
    "meta_block_size": 0,
}
"""Options of `h5py.File` by which HDF5's blocks, most of them smaller, begin at multiples of `BLOCK_BYTES`.

A block that lay across two pages, or two sectors of a disk, could be left half written by a kill between them."""

_ATTEMPTS: Final = 27  # 2**27 ns, an eighth of a second, in all; a flush takes far less


def open_swmr(path: Path) -> h5py.File:
    """The file, open for reading, also while a writer appends to it."""
    return _open(path, h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ)


def open_swmr_writer(path: Path) -> h5py.File:
    """The file, open for appending to its datasets while others read it.

    Not opened first and switched to SWMR then: that would set the number of attempts back to 100.
    """
    return _open(path, h5py.h5f.ACC_RDWR | h5py.h5f.ACC_SWMR_WRITE)


def _open(path: Path, flags: int) -> h5py.File:
    try:
        return h5py.File(h5py.h5f.open(os.fsencode(path), flags, fapl=_access()))
    except RuntimeError as err:  # h5py's word for some kinds of damage
        raise OSError(str(err)) from err


@cache
def _access() -> Any:
    """How files are opened: the format of HDF5 1.10, no file locks, few attempts."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_alignment(WHOLE_BLOCKS["alignment_threshold"], WHOLE_BLOCKS["alignment_interval"])
    access.set_meta_block_size(WHOLE_BLOCKS["meta_block_size"])
    access.set_file_locking(False, False)  # noqa: FBT003 - h5py takes them by position
    set_attempts = _attempts_setter()
    if set_attempts is not None:
        with phil:  # h5py's lock: HDF5 serves one thread at a time
            set_attempts(access.id, _ATTEMPTS)
    return access


@cache
def _attempts_setter() -> Any:
    """H5Pset_metadata_read_attempts of the library that h5py uses; None where it cannot be found."""
    try:  # looked up through h5py's extension module, which depends on it
        setter = ctypes.CDLL(h5py.h5p.__file__).H5Pset_metadata_read_attempts
    except (OSError, AttributeError):
        return None
    setter.argtypes, setter.restype = [ctypes.c_int64, ctypes.c_uint], ctypes.c_int
    return setter
