"""One writer a file: a kernel lock beside it, with a note in it that says who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from pattern_lens.errors import FileNotWritableError, WriterActiveError

_PATIENCE_SECONDS: Final = 0.3  # readers hold the lock for a moment when they look or recover


def sidecar(path: Path, ending: str) -> Path:
    """A hidden companion of `path` in the same folder: ``.gpt2.h5.lock``."""
    return path.with_name(f".{path.name}.{ending}")


class WriterLock:
    """The right to write to one file, held until `release`; the kernel releases it for the dead.

    Parameters
    ----------
    path
        The data file. The lock file lies beside it and stays there: removing it would let two
        writers lock two files of one name.

    Raises
    ------
    WriterActiveError
        Another writer, in this process or another, holds the lock; the message names it.
    FileNotWritableError
        The folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        if not path.parent.is_dir():  # filelock would make it
            raise FileNotWritableError(f"cannot write {path}: there is no folder {path.parent}")
        self._file = sidecar(path, "lock")
        self._lock = FileLock(self._file, thread_local=False)
        try:
            self._lock.acquire(timeout=_PATIENCE_SECONDS, poll_interval=0.01)
        except Timeout:
            raise WriterActiveError(
                f"cannot write to {path}: {_holder(self._file)} is writing to it; "
                "wait until it ends, or stop it"
            ) from None
        except OSError as err:
            raise FileNotWritableError(
                f"cannot write to {path}: no lock file can be made in {path.parent} ({err.strerror})"
            ) from err
        with suppress(OSError):  # a full disk must not keep a reader from recovering the file
            self._file.write_text(json.dumps(_this_process()))

    def release(self) -> None:
        """Let the next writer in."""
        self._lock.release()


def is_writer_alive(path: Path) -> bool:
    """Whether some process holds the writer lock of `path` at this moment."""
    try:
        descriptor = os.open(sidecar(path, "lock"), os.O_RDONLY)  # the writer may be another user
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _this_process() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]]) if sys.argv else "",
    }


def _holder(file: Path) -> str:
    try:
        note = json.loads(file.read_text())
        return f"process {note['pid']} on {note['host']} ({note['command']}, since {note['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
