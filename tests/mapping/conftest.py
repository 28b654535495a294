"""Places to compute: this process, processes of this machine, and a cluster of processes started here."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from distributed import Client


def is_soon(is_so: Callable[[], bool], *, seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while not (so := is_so()) and time.monotonic() < end:
        time.sleep(0.02)
    return so


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_ours(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "pattern_lens.mapping.child" in " ".join(process.cmdline()) and is_alive(process)
    return False


@dataclass
class ClusterProcesses:
    """A scheduler and its workers, each a process with a working folder of its own."""

    folder: Path
    address: str = ""

    def __post_init__(self) -> None:
        self.processes: list[subprocess.Popen] = []
        found = self.folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", str(found))
        assert is_soon(lambda: found.exists() and "address" in found.read_text())
        self.address = json.loads(found.read_text())["address"]

    def add_worker(self, *options: str) -> subprocess.Popen:
        return self._start(
            "worker",
            self.address,
            *("--nthreads", "1", "--memory-limit", "0", "--local-directory", "."),
            *options,
        )

    def close(self) -> None:
        running = [p for popen in self.processes for p in tree(popen.pid)]
        for process in running:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for popen in self.processes:
            popen.wait()

    def _start(self, what: str, *options: str) -> subprocess.Popen:
        folder = self.folder / f"{what}-{len(self.processes)}"
        folder.mkdir()
        command = [sys.executable, "-m", "dask", what, *options]
        command += ["--host", "127.0.0.1", "--no-dashboard"]
        with (folder / "log").open("w") as log:
            self.processes.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log))
        return self.processes[-1]


def tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def eventually() -> Callable[..., bool]:
    """Whether something comes true before long."""
    return is_soon


@pytest.fixture
def all_end() -> Callable[[list[psutil.Process]], bool]:
    """Whether processes end before long."""
    return lambda processes: is_soon(lambda: not any(map(is_alive, processes)))


@pytest.fixture
def worker_processes() -> Callable[..., list[psutil.Process]]:
    """Our worker processes below a process, or below this one."""

    def find(of: int | None = None) -> list[psutil.Process]:
        found = psutil.Process(of).children(recursive=True)
        return [process for process in found if is_ours(process)]

    return find


@contextmanager
def cluster_processes(folder: Path, *, n_workers: int) -> Iterator[ClusterProcesses]:
    cluster = ClusterProcesses(folder)
    try:
        for _ in range(n_workers):
            cluster.add_worker("--no-nanny")
        if n_workers:
            with Client(cluster.address, set_as_default=False) as client:
                client.wait_for_workers(n_workers, timeout=30)
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    """A scheduler and two workers."""
    with cluster_processes(tmp_path_factory.mktemp("cluster"), n_workers=2) as found:
        yield found


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Callable[[int], ClusterProcesses]]:
    """Start a cluster of so many workers that a test may break."""
    with ExitStack() as stack:
        yield lambda n_workers: stack.enter_context(
            cluster_processes(tmp_path, n_workers=n_workers)
        )


@pytest.fixture(params=["here", "processes", "cluster"])
def place(request: pytest.FixtureRequest) -> dict[str, object]:
    """Where to compute, as options of `run_batches`."""
    if request.param == "here":
        return {"n_workers": 0}
    if request.param == "processes":
        return {"n_workers": 2}
    return {"client": request.getfixturevalue("cluster").address}


@pytest.fixture(params=["processes", "cluster"])
def workers(request: pytest.FixtureRequest) -> dict[str, object]:
    """Where worker processes compute, as options of `run_batches`."""
    if request.param == "processes":
        return {"n_workers": 2}
    return {"client": request.getfixturevalue("cluster").address}
