"""New objects in an existing file, all or nothing.

HDF5 rewrites metadata in place when an object is created, and a crash between two of those writes loses the file.
So HDF5 works on an overlay here; its writes go to a journal first, and only a whole journal is applied
(docs/format.md, "Writing").
"""

from __future__ import annotations

import io
import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import h5py
import xxhash

from pattern_lens.store.lock import sidecar
from pattern_lens.store.swmr import WHOLE_BLOCKS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAGIC: Final = b"PLJRNL01"


class _Overlay(io.RawIOBase):
    """A file whose writes are kept beside it, for HDF5 to work on."""

    def __init__(self, path: Path) -> None:
        self._base = path.open("rb")
        self._base_size = path.stat().st_size
        self.size = self._base_size
        self.writes: list[tuple[int, bytes]] = []
        self._at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        n = min(len(view), max(0, self.size - self._at))
        self._base.seek(self._at)
        base = self._base.read(min(n, max(0, self._base_size - self._at)))
        view[:n] = base.ljust(n, b"\0")
        for start, data in self.writes:
            first, last = max(start, self._at), min(start + len(data), self._at + n)
            if first < last:
                view[first - self._at : last - self._at] = data[first - start : last - start]
        self._at += n
        return n

    def write(self, data: Any) -> int:
        kept = bytes(data)
        self.writes.append((self._at, kept))
        self._at += len(kept)
        self.size = max(self.size, self._at)
        return len(kept)

    def truncate(self, size: int | None = None) -> int:
        self.size = self._at if size is None else size
        return self.size

    def close(self) -> None:
        self._base.close()
        super().close()


@contextmanager
def transaction(path: Path) -> Iterator[h5py.File]:
    """The file, open for changes that happen all together when the block ends, or not at all.

    The caller holds the writer lock, and no other handle of this process is open on `path`.
    """
    overlay = _Overlay(path)
    try:
        with h5py.File(overlay, "r+", libver=("v110", "v110"), **WHOLE_BLOCKS) as file:
            yield file
        _reserve(path, overlay.size)
        _write_journal(path, overlay)
    finally:
        overlay.close()
    apply_journal(path)


def _reserve(path: Path, size: int) -> None:
    """Take the space that the file will need, so that a whole journal can be applied on a full disk.

    Bytes behind the end that the superblock names are nobody's.
    """
    old = path.stat().st_size
    if size <= old:
        return
    with path.open("r+b") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), old, size - old)
            else:
                file.seek(old)
                file.write(bytes(size - old))
                file.flush()
        except OSError:
            os.ftruncate(file.fileno(), old)
            raise


def _write_journal(path: Path, overlay: _Overlay) -> None:
    parts = [_MAGIC, struct.pack("<QQ", overlay.size, len(overlay.writes))]
    for start, data in overlay.writes:
        parts += [struct.pack("<QQ", start, len(data)), data]
    content = b"".join(parts)
    try:
        with sidecar(path, "journal").open("wb") as file:
            file.write(content + xxhash.xxh3_128_digest(content))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        discard_journal(path)
        raise


def has_journal(path: Path) -> bool:
    """Whether a transaction on `path` was begun and not ended."""
    return sidecar(path, "journal").exists()


def discard_journal(path: Path) -> None:
    """Forget a transaction whose file is not there any more, or that could not be written down."""
    sidecar(path, "journal").unlink(missing_ok=True)


def apply_journal(path: Path) -> None:
    """End a transaction: apply a complete journal, delete an incomplete one. Nothing without one."""
    journal = sidecar(path, "journal")
    if not journal.exists():
        return
    content = journal.read_bytes()
    if xxhash.xxh3_128_digest(content[:-16]) == content[-16:] and content.startswith(_MAGIC):
        with path.open("r+b") as file:
            for start, data in _entries(content):
                file.seek(start)
                file.write(data)
            file.truncate(struct.unpack_from("<Q", content, len(_MAGIC))[0])
            file.flush()
            os.fsync(file.fileno())
    journal.unlink()


def _entries(content: bytes) -> Iterator[tuple[int, bytes]]:
    _, count = struct.unpack_from("<QQ", content, len(_MAGIC))
    at = len(_MAGIC) + 16
    for _ in range(count):
        start, size = struct.unpack_from("<QQ", content, at)
        at += 16
        yield start, content[at : at + size]
        at += size
