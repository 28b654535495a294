"""Is acknowledged data safe from kill -9? A writer is killed at every call that changes a file.

    python -m benchmarks.kill_sweep            # every point, whole and torn writes, with a second process reading

After each kill: everything acknowledged is there and right; then the writer runs again, once after a reader
has opened the file and once without, and must finish with everything right.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HELPERS = ROOT / "tests" / "store"
COUNT, KILL, TEAR = 1, 2, 3
PATIENCE_SECONDS = 8


class SweepError(Exception):
    """Something that must not happen did."""


def require(*, that: bool, else_say: object) -> None:
    if not that:
        raise SweepError(str(else_say))


def ignore(_: str) -> None:
    pass


def build_shim(folder: Path) -> Path:
    shim = folder / "kill_shim.so"
    source = str(HELPERS / "kill_shim.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-w", "-o", shim, source, "-ldl"], check=True)
    return shim


def in_child(work) -> tuple[int, list[str]]:
    """Exit status and lines of `work(say)`, run in a fork: fast, because everything is imported."""
    here, there = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work(lambda line: os.write(there, f"{line}\n".encode()))
            status = 0
        except BaseException:  # noqa: BLE001 - reported by the parent
            os.write(there, traceback.format_exc().encode())
        os._exit(status)
    os.close(there)
    with os.fdopen(here) as stream:
        lines = stream.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), lines


class Sweep:
    """One folder, one shim, and the verdicts by kind of call."""

    def __init__(self, folder: Path, grain: int) -> None:
        import kill_writer

        self.writer, self.folder, self.grain = kill_writer, folder, grain
        self.shim = ctypes.CDLL(None)
        self.shim.kind_of.argtypes = self.shim.tear_of.argtypes = [ctypes.c_long]
        self.shim.kind_of.restype, self.shim.tear_of.restype = ctypes.c_char_p, ctypes.c_long
        self.shim.arm.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_long]
        self.tried, self.lost, self.unfinished = Counter(), Counter(), Counter()

    def fresh(self) -> Path:
        """Path of the file of the next run."""
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        (self.folder / "run").mkdir()
        return self.folder / "run" / "file.h5"

    def points(self) -> list[tuple[str, int]]:
        """Kind of each call, and how many bytes of it are written when it is torn."""
        path = self.fresh()

        def count(say) -> None:
            self.shim.arm(COUNT, 0, self.grain)
            self.writer.write(path, ignore)
            for i in range(self.shim.counted()):
                say(f"{self.shim.kind_of(i).decode()} {self.shim.tear_of(i)}")

        status, lines = in_child(count)
        require(that=status == 0, else_say=lines)
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    def try_point(self, at: int, how: int, label: str) -> None:
        """Kill a writer there, look at what it left, and let it run again."""
        path = self.fresh()

        def victim(say) -> None:
            self.shim.arm(how, at, self.grain)
            self.writer.write(path, say)

        status, acknowledged = in_child(victim)
        require(that=status in (-signal.SIGKILL, 0), else_say=(at, acknowledged))
        untouched = self.folder / "copy"
        shutil.rmtree(untouched, ignore_errors=True)
        shutil.copytree(path.parent, untouched)
        self.tried[label] += 1
        self._judge(self.lost, f"{label} {at}", lambda _: self._read(path, acknowledged))
        for again in (path, untouched / path.name):
            work = self._finishing(again, acknowledged)
            if not self._judge(self.unfinished, f"{label} {at}", work):
                break

    def _judge(self, verdicts: Counter, label_at: str, work) -> bool:
        status, lines = in_child(work)
        if status:
            verdicts[label_at.rpartition(" ")[0]] += 1
            print(
                f"point {label_at}: {lines[-1] if lines else status}", file=sys.stderr, flush=True
            )
        return not status

    def _read(self, path: Path, acknowledged: list[str]) -> None:
        start = time.monotonic()
        missing = self.writer.lost(path, acknowledged)
        wrong = self.writer.faults(path) if path.exists() else []
        require(that=not missing + wrong, else_say=(missing, wrong))
        require(that=time.monotonic() - start < PATIENCE_SECONDS, else_say="took too long")

    def _finishing(self, path: Path, acknowledged: list[str]):
        def finish(_) -> None:
            lines: list[str] = []
            start = time.monotonic()
            self.writer.write(path, lines.append)
            doomed = f" {self.writer.DOOMED}"  # what was deleted is written and deleted again
            again = [line for line in lines if line in acknowledged and not line.endswith(doomed)]
            require(that=not again, else_say=f"stored again: {again}")
            self._read(path, [*acknowledged, *lines])
            prompts = {i for batch in self.writer.BATCHES + self.writer.LATER for i in batch}
            prompts.remove(self.writer.DOOMED)
            self._read(path, [f"{name} {i}" for name in self.writer.STORED for i in prompts])
            left = {p.name for p in path.parent.iterdir()} - {path.name, f".{path.name}.lock"}
            require(that=not left, else_say=f"left behind: {left}")
            require(that=time.monotonic() - start < PATIENCE_SECONDS, else_say="took too long")

        return finish

    def live(self, points: range) -> Counter:
        """Kill and finish, with another process reading all the while."""
        total: Counter = Counter()
        for at in points:
            status, lines = in_child(self._watched(self.fresh(), at))
            total.update(runs=1, unfinished=int(status != 0))
            for line in lines:
                if line.startswith("seen "):
                    pairs = (pair.split("=") for pair in line.split()[1:])
                    total.update({key: int(value) for key, value in pairs})
                else:
                    print(f"point {at}, reading: {line}", file=sys.stderr, flush=True)
        return total

    def _watched(self, path: Path, at: int):
        over = path.with_name("over")

        def run(say) -> None:
            reader = os.fork()
            if not reader:
                seen = self.writer.watch(path, over.exists, say)
                say("seen " + " ".join(f"{key}={value}" for key, value in seen.items()))
                os._exit(0)
            victim = os.fork()
            if not victim:
                self.shim.arm(KILL, at, self.grain)
                self.writer.write(path, ignore)
                os._exit(0)
            os.waitpid(victim, 0)
            try:
                self.writer.write(path, ignore)
            finally:
                over.touch()
                os.waitpid(reader, 0)

        return run


def report(sweeps: list[Sweep]) -> str:
    """The table, as Markdown."""
    head = [
        "killed at",
        "points tried",
        "files that lost acknowledged data",
        "runs that could not be finished",
    ]
    rows = [
        [label, s.tried[label], s.lost[label], s.unfinished[label]]
        for s in sweeps
        for label in sorted(s.tried)
    ]
    totals = [sum(row[column] for row in rows) for column in (1, 2, 3)]
    lines = [head, ["---", "---:", "---:", "---:"], *rows, ["all", *totals]]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def run(folder: Path, options: argparse.Namespace) -> int:
    sweeps = []
    for how, grain in [(TEAR, options.torn)] if options.torn else [(KILL, 0), (TEAR, 4096)]:
        sweep = Sweep(folder, grain)
        points = sweep.points()
        for at in range(options.offset, len(points), options.every):
            kind, part = points[at]
            if how == KILL or part:
                label = kind if how == KILL else f"{kind}, torn at {grain} bytes"
                sweep.try_point(at, how, label)
        sweeps.append(sweep)
    print(report(sweeps))
    failed = sum(sum((s.lost + s.unfinished).values()) for s in sweeps)
    if options.live_every:
        seen = Sweep(folder, 0).live(range(options.offset, len(points), options.live_every))
        print("\nwith a second process reading: " + ", ".join(f"{k} {v}" for k, v in seen.items()))
        failed += seen["wrong"] + seen["errors"] + seen["unfinished"]
    return int(failed > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="try every K-th point")
    parser.add_argument("--offset", type=int, default=0, help="first point")
    parser.add_argument(
        "--torn",
        type=int,
        default=0,
        metavar="BYTES",
        help="only tear writes, at multiples of BYTES",
    )
    parser.add_argument(
        "--live-every", type=int, default=7, help="every K-th point with a reader; 0: none"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if "KILL_SHIM" in os.environ:
            sys.path[:0] = [str(ROOT), str(HELPERS)]
            return run(Path(folder), options)
        shim = str(build_shim(Path(folder)))
        env = {**os.environ, "LD_PRELOAD": shim, "KILL_SHIM": shim, "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, *sys.argv], env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
