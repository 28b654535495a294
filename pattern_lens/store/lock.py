"""One writer a file: a kernel lock beside it, with a note in it that says who holds it."""

from __future__ import annotations

import json
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pattern_lens.errors import FileNotWritableError, WriterActiveError


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
        self._file = sidecar(path, "lock")
        self._lock = FileLock(self._file, thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise WriterActiveError(
                f"cannot write to {path}: {_holder(self._file)} is writing to it; "
                "wait until it ends, or stop it"
            ) from None
        except (PermissionError, OSError) as err:
            if not path.parent.is_dir():
                raise FileNotWritableError(
                    f"cannot write {path}: there is no folder {path.parent}"
                ) from err
            raise FileNotWritableError(
                f"cannot write to {path}: no lock file can be made in {path.parent} ({err.strerror})"
            ) from err
        self._file.write_text(json.dumps(_this_process()))

    def release(self) -> None:
        """Let the next writer in."""
        self._lock.release()


def is_writer_alive(path: Path) -> bool:
    """Whether some process holds the writer lock of `path` at this moment."""
    file = sidecar(path, "lock")
    if not file.exists():
        return False
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:
        return False  # a folder that cannot be written to has no writer
    lock.release()
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
