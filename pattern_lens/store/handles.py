"""Open files of this process: readers reopen by themselves, and step aside for a writer.

HDF5 keeps one state for all handles that a process has on a file, so a reader's handle must not outlive a
writer's session on either side: writers close the readers' handles, and readers reopen on their next read.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import h5py

from pattern_lens.errors import (
    DamagedFileError,
    FormatTooNewError,
    FormatTooOldError,
    NotAPatternFileError,
    PatternLensError,
    ReplacedFileError,
    UnfinishedFileError,
)
from pattern_lens.store.journal import apply_journal, has_journal
from pattern_lens.store.lock import WriterLock, is_writer_alive
from pattern_lens.store.superblock import SIGNATURE, clear_after_crash, read_superblock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT: Final = "pattern_lens"
FORMAT_VERSION: Final = (1, 0)
_PATIENCE_SECONDS: Final = 10.0

_handles: WeakSet[ReadHandle] = WeakSet()
_handles_lock: Final = threading.Lock()


class ReadHandle:
    """One file, open for reading whenever something is read from it.

    Parameters
    ----------
    path
        An existing file.

    Raises
    ------
    FileNotFoundError, NotAPatternFileError, FormatTooNewError, FormatTooOldError, DamagedFileError, UnfinishedFileError
        The file cannot be opened, for the reason that the class names.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._file: h5py.File | None = None
        self._file_id: str | None = None
        self.closed = False
        with self.open() as file:
            self._file_id = str(file.attrs["file_id"])
        with _handles_lock:
            _handles.add(self)

    @property
    def file_id(self) -> str:
        """Identity of the file's rows; another one means another file under the same name."""
        return str(self._file_id)

    @contextmanager
    def open(self) -> Iterator[h5py.File]:
        """The open file, held open until the block ends."""
        with self._lock:
            if self.closed:
                raise ValueError(f"cannot read {self.path}: it was closed; open it again")
            if self._file is None or not self._file.id.valid:
                self._file = self._reopen()
            yield self._file

    def _reopen(self) -> h5py.File:
        file = open_for_reading(self.path)
        if self._file_id is not None and file.attrs["file_id"] != self._file_id:
            file.close()
            raise ReplacedFileError(
                f"cannot read on from {self.path}: the file was replaced since it was opened; open it again"
            )
        return file

    def suspend(self) -> None:
        """Close the HDF5 file; the next read opens it again."""
        with self._lock:
            if self._file is not None and self._file.id.valid:
                with suppress(OSError, RuntimeError):
                    self._file.close()
            self._file = None

    def close(self) -> None:
        """Close for good."""
        self.suspend()
        self.closed = True


def suspend_readers(path: Path) -> None:
    """Close every handle that this process has on `path`."""
    with _handles_lock:
        held = [handle for handle in _handles if handle.path == path]
    for handle in held:
        handle.suspend()


def open_for_reading(path: Path) -> h5py.File:
    """The file, opened under SWMR and checked to be of a format this version reads.

    Waits while a live writer is in between two states, and recovers what a dead one left.
    """
    _check_is_hdf5(path)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            if has_journal(path):
                raise OSError("a transaction was not ended")
            file = h5py.File(path, "r", swmr=True, locking=False)
        except OSError as err:
            if is_writer_alive(path) and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            _recover_for_reading(path, err)
            file = _open_once(path)
        break
    try:
        check_format(path, file)
        _check_is_whole(path)
    except PatternLensError:
        file.close()
        raise
    return file


def _open_once(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", swmr=True, locking=False)
    except OSError as err:
        raise DamagedFileError(
            f"cannot open {path}: it is an HDF5 file, but its structure cannot be read ({err}); "
            "if there is a copy, use that"
        ) from err


def _recover_for_reading(path: Path, err: OSError) -> None:
    block = read_superblock(path)
    if block is not None and not block.intact:
        raise DamagedFileError(
            f"cannot open {path}: the first 48 bytes are damaged ({err})"
        ) from err
    if not has_journal(path) and (block is None or block.is_clean):
        return
    try:
        lock = WriterLock(path)
    except PatternLensError as refused:
        raise UnfinishedFileError(
            f"cannot open {path}: its last writer was interrupted, and the file cannot be recovered from here ({refused}); "
            f"run 'pattern-lens verify {path.name}' where it can be written to"
        ) from err
    try:
        recover(path)
    finally:
        lock.release()


def recover(path: Path) -> None:
    """Bring a file that a dead writer left into a state in which it can be opened.

    The caller holds the writer lock.
    """
    apply_journal(path)
    block = read_superblock(path)
    if block is not None and block.intact and not block.is_clean:
        clear_after_crash(path)


def _check_is_hdf5(path: Path) -> None:
    if path.is_dir():
        raise NotAPatternFileError(f"cannot open {path}: expected an HDF5 file, got a folder")
    if not path.exists():
        raise FileNotFoundError(f"cannot open {path}: there is no such file")
    with path.open("rb") as file:
        head = file.read(len(SIGNATURE))
    if head != SIGNATURE:
        raise NotAPatternFileError(
            f"cannot open {path}: expected an HDF5 file written by pattern_lens, got a file that begins with {head!r}"
        )


def check_format(path: Path, file: h5py.File) -> None:
    """Raise unless `file` is of a kind and version that this package reads."""
    try:
        kind, version = file.attrs.get("format"), file.attrs.get("format_version")
    except OSError as err:
        raise DamagedFileError(
            f"cannot open {path}: its root attributes cannot be read ({err})"
        ) from err
    if kind != FORMAT or not isinstance(version, str):
        raise NotAPatternFileError(
            f"cannot open {path}: it is an HDF5 file of another kind (expected the root attribute format={FORMAT!r}, got {kind!r})"
        )
    major = int(version.split(".")[0])
    if major > FORMAT_VERSION[0]:
        raise FormatTooNewError(
            f"cannot open {path}: it has format {version}, this version reads up to {FORMAT_VERSION[0]}.x; "
            "update with 'pip install -U pattern-lens'"
        )
    if major < 1:
        raise FormatTooOldError(
            f"cannot open {path}: it has format {version}, older than 1.0, the first one that this version reads"
        )


def _check_is_whole(path: Path) -> None:
    block = read_superblock(path)
    size = path.stat().st_size
    if block is not None and block.is_clean and size < block.end:
        raise DamagedFileError(
            f"cannot open {path}: the file is truncated, it has {size:,} of {block.end:,} bytes; copy it again from where it is whole"
        )
