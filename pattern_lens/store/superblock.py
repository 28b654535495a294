"""The first 48 bytes of an HDF5 file: is it clean, is it whole, and what a crash left in them.

Superblock versions 2 and 3 as in the HDF5 file format specification; the checksum is Bob Jenkins' lookup3
("hashlittle", public domain), which the specification names.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_SIZE: Final = 48
_MASK: Final = 0xFFFFFFFF


@dataclass(frozen=True)
class Superblock:
    """What a superblock says.

    Parameters
    ----------
    version
        3 for files written here.
    flags
        0 when closed cleanly; bit 0 open for writing, bit 2 under SWMR.
    end
        Size in bytes that the file should at least have.
    intact
        Whether the checksum fits.
    """

    version: int
    flags: int
    end: int
    intact: bool

    @property
    def is_clean(self) -> bool:
        """Whether the last writer closed the file."""
        return self.flags == 0


def read_superblock(path: Path) -> Superblock | None:
    """The superblock, or None where the file does not begin with one of version 2 or 3."""
    with path.open("rb") as file:
        head = file.read(_SIZE)
    if len(head) < _SIZE or not head.startswith(SIGNATURE) or head[8] not in (2, 3):
        return None
    end, _, checksum = struct.unpack_from("<QQI", head, 28)
    return Superblock(head[8], head[11], end, checksum == lookup3(head[:44]))


def clear_after_crash(path: Path) -> None:
    """Mark the file closed, and count everything in it as given out.

    The end of file in the superblock may be older than the last chunks that were written; given out again,
    their space would hold two chunks. Or it may be newer: the file ends before space that was given out and never
    written, and is made that long.
    """
    with path.open("r+b") as file:
        head = bytearray(file.read(_SIZE))
        size = file.seek(0, os.SEEK_END)
        end = struct.unpack_from("<Q", head, 28)[0]
        if size < end:
            file.truncate(end)
        head[11] = 0
        struct.pack_into("<Q", head, 28, max(end, size))
        struct.pack_into("<I", head, 44, lookup3(bytes(head[:44])))
        file.seek(0)
        file.write(head)
        file.flush()
        os.fsync(file.fileno())


def _rot(x: int, k: int) -> int:
    return ((x << k) | (x >> (32 - k))) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for k1, k2, k3 in ((4, 6, 8), (16, 19, 4)):
        a = ((a - c) & _MASK) ^ _rot(c, k1)
        c = (c + b) & _MASK
        b = ((b - a) & _MASK) ^ _rot(a, k2)
        a = (a + c) & _MASK
        c = ((c - b) & _MASK) ^ _rot(b, k3)
        b = (b + a) & _MASK
    return a, b, c


def lookup3(data: bytes, start: int = 0) -> int:
    """Jenkins' lookup3 hash of `data`, 32 bits."""
    a = b = c = (0xDEADBEEF + len(data) + start) & _MASK
    while len(data) > 12:
        x, y, z = struct.unpack_from("<III", data)
        a, b, c = _mix((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)
        data = data[12:]
    if not data:
        return c
    x, y, z = struct.unpack("<III", data.ljust(12, b"\0"))
    words: list[int] = [(c + z) & _MASK, (a + x) & _MASK, (b + y) & _MASK]
    for turn, k in enumerate((14, 11, 25, 16, 4, 14, 24)):
        source = words[(turn - 1) % 3]
        words[turn % 3] = ((words[turn % 3] ^ source) - _rot(source, k)) & _MASK
    return words[0]
