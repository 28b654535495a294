"""Let the disk run full at one call after another; run with kill_shim.so preloaded.

Whatever was acknowledged before stays; the same process reads on, and writes on when there is room again.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import warnings
from pathlib import Path

import kill_writer

from pattern_lens.errors import DiskFullError

OFF, COUNT, FULL = 0, 1, 4


def fill(path: Path, shim: ctypes.CDLL, at: int) -> bool:
    """One run; whether the disk ran full in it."""
    acknowledged: list[str] = []
    shim.arm(FULL, at, 0)
    try:
        kill_writer.write(path, acknowledged.append)
        ran_full = False
    except DiskFullError:
        ran_full = True
    finally:
        shim.arm(OFF, 0, 0)
    assert kill_writer.lost(path, acknowledged) == []
    assert not path.exists() or kill_writer.faults(path) == []
    lines: list[str] = []
    kill_writer.write(path, lines.append)
    assert kill_writer.lost(path, [*acknowledged, *lines]) == []
    assert kill_writer.faults(path) == []
    left = {p.name for p in path.parent.iterdir()}
    assert left == {path.name, f".{path.name}.lock"}, left
    return ran_full


def main(every: int) -> None:
    """Each run in its own child; the number of runs, of those that ran full, and of those that failed."""
    warnings.simplefilter("error")
    shim = ctypes.CDLL(None)
    with tempfile.TemporaryDirectory() as folder:
        shim.arm(COUNT, 0, 0)
        kill_writer.write(Path(folder) / "file.h5", lambda line: None)
        n_calls = shim.counted()
        shim.arm(OFF, 0, 0)
    runs = full = failed = 0
    for at in range(0, n_calls, every):
        pid = os.fork()
        if not pid:
            with tempfile.TemporaryDirectory() as folder:
                os._exit(10 + fill(Path(folder) / "file.h5", shim, at))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        runs, full, failed = runs + 1, full + (status == 11), failed + (status not in (10, 11))
        if status not in (10, 11):
            print("failed at", at, status, file=sys.stderr)
    print(runs, full, failed)


if __name__ == "__main__":
    main(int(sys.argv[1]))
