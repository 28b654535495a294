"""A sample of benchmarks/kill_sweep.py, which is run in full by hand: docs/reliability.md."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = Path(__file__).parents[2] / "benchmarks" / "kill_sweep.py"
needs_gcc = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="needs a C compiler: install gcc"
)


def sweep(*options: object) -> str:
    done = subprocess.run(
        [sys.executable, SWEEP, *map(str, options)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def totals(table: str) -> list[int]:
    last = next(line for line in table.splitlines() if line.startswith("| all |"))
    return [int(cell) for cell in last.split("|")[2:5]]


@needs_gcc
def test_nothing_acknowledged_is_lost_to_kill_9():
    tried, lost, unfinished = totals(sweep("--every", 19, "--offset", 5, "--live-every", 0))
    assert tried > 10
    assert (lost, unfinished) == (0, 0)


@needs_gcc
@pytest.mark.slow
def test_a_second_process_reads_meanwhile():
    table = sweep("--every", 1000, "--live-every", 45)
    assert "wrong 0" in table
    assert "errors 0" in table
    assert "reads 0" not in table
