"""A full disk costs the commit that it interrupts, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIMITED = """
import resource, sys
from pathlib import Path
import kill_writer
from pattern_lens.errors import DiskFullError
path, room = Path(sys.argv[1]), int(sys.argv[2])
with kill_writer.StoreWriter(path, kill_writer.HEADER, [kill_writer.PATTERN]) as writer:
    writer.commit([kill_writer.record(9)], {"pattern": kill_writer.block(kill_writer.PATTERN, [9])})
kept = ["pattern 9"]
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, resource.RLIM_INFINITY))
try:
    kill_writer.write(path, kept.append)
except DiskFullError as err:
    print(err)
assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.getrlimit(resource.RLIMIT_FSIZE)[0]
assert kill_writer.lost(path, kept) == kill_writer.faults(path) == []
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
kill_writer.write(path, kept.append)
assert kill_writer.lost(path, kept) == kill_writer.faults(path) == []
"""


def run(*arguments: object, **more: str) -> str:
    environment = {
        **os.environ,
        **more,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent.parent)]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("room", [0, 700, 50_000, 333_333])
def test_limit_on_the_size_of_a_file(tmp_path, room):
    said = run("-c", LIMITED, tmp_path / "file.h5", room)
    assert (
        "file.h5: the disk is full; everything stored before is safe: make room and run again"
        in said
    )


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    target = tmp_path_factory.mktemp("shim") / "kill_shim.so"
    try:
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O1", "-w", "-o", target, HERE / "kill_shim.c", "-ldl"],
            check=True,
        )
    except FileNotFoundError:
        pytest.skip("needs a C compiler: install gcc")
    return target


def test_no_space_from_one_call_on(shim):
    runs, full, failed = map(int, run(HERE / "fill_disk.py", 17, LD_PRELOAD=str(shim)).split())
    assert failed == 0
    assert runs > 8
    assert full > runs // 2
