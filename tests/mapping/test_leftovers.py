import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from pattern_lens.mapping import run_batches

SCRIPT = """
import time
from pattern_lens.mapping import run_batches

def slow(items):
    for item in items:
        yield item
        time.sleep(1e6)

def busy(items):
    for item in items:
        yield item
        while True:
            pass

for outcome in run_batches({function}, [[1], [2, 3], [4, 5], [6, 7]], {options}):
    print("begun", flush=True)
"""


def forever(items):
    for item in items:
        if item:
            time.sleep(1e6)
        yield item


def test_closing_early_leaves_no_process(worker_processes):
    with closing(run_batches(forever, [[0], [0], [1], [1], [1]], n_workers=2)) as outcomes:
        next(outcomes)
        assert worker_processes()
        begun = time.monotonic()
    assert time.monotonic() - begun < 2
    assert not worker_processes()


def test_a_run_that_is_over_leaves_no_process(worker_processes):
    assert len(list(run_batches(forever, [[0]] * 5, n_workers=2))) == 5
    assert not worker_processes()


def test_closing_early_leaves_no_process_on_a_cluster(cluster, worker_processes, eventually):
    batches = [[0], [0], [1], [1], [1]]
    with closing(run_batches(forever, batches, client=cluster.address)) as outcomes:
        next(outcomes)
        assert worker_processes()
        begun = time.monotonic()
    assert time.monotonic() - begun < 3
    assert eventually(lambda: not worker_processes())
    found = list(run_batches(forever, [[0]], client=cluster.address))  # and it is free again
    assert found[0].results == (0,)


@pytest.fixture
def caller(workers, worker_processes, eventually):
    started = []

    def start(function):
        options = ", ".join(f"{name}={value!r}" for name, value in workers.items())
        script = SCRIPT.format(function=function, options=options)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen([sys.executable, "-c", script], **pipes))
        assert started[-1].stdout.readline() == b"begun\n"
        of = started[-1].pid if "n_workers" in workers else None
        assert eventually(lambda: len(worker_processes(of)) == 2)
        return started[-1], worker_processes(of)

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("function", ["slow", "busy"])
def test_ctrl_c_ends_everything_quickly_and_quietly(caller, function, all_end):
    process, processes = caller(function)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert time.monotonic() - begun < 5
    assert process.returncode == -signal.SIGINT
    assert said.decode().splitlines()[-1] == "KeyboardInterrupt"
    assert said.count(b"Traceback") == 1
    assert all_end(processes)


def test_a_caller_that_is_killed_leaves_a_cluster_free(cluster, caller, all_end):
    process, processes = caller("slow")
    process.kill()
    process.wait()
    assert all_end(processes)
    found = list(run_batches(forever, [[0], [0]], client=cluster.address))
    assert [outcome.results for outcome in found] == [(0,), (0,)]


@pytest.mark.parametrize("function", ["slow", "busy"])
def test_a_caller_that_is_killed_leaves_no_process(function, worker_processes, eventually, all_end):
    script = SCRIPT.format(function=function, options="n_workers=2")
    pipes = {"stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        assert process.stdout.readline() == b"begun\n"
        assert eventually(lambda: len(worker_processes(process.pid)) == 2)
        processes = worker_processes(process.pid)
        os.kill(process.pid, signal.SIGKILL)
    assert all_end(processes)
