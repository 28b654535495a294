import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from pattern_lens.errors import FunctionNotSentError, WorkerStartError
from pattern_lens.mapping import run_batches


def results_of(function, batches, **options):
    outcomes = sorted(run_batches(function, batches, **options), key=lambda outcome: outcome.index)
    return [outcome.results for outcome in outcomes]


def test_an_item_whose_process_is_killed_once_is_computed_again(workers, tmp_path):
    mark = tmp_path / "killed"

    def kill_once(items):
        for item in items:
            if item == 3 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield item

    assert results_of(kill_once, [[1, 2], [3, 4], [5]], **workers) == [(1, 2), (3, 4), (5,)]
    assert mark.exists()


def test_an_item_that_always_ends_its_process_fails_alone(workers):
    def end(items):
        for item in items:
            if item == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if item == "exit":
                os._exit(3)
            if item == "raise":
                sys.exit("enough")
            yield item

    batches = [[1, "kill", 2], ["exit"], [3], [4, "raise", "kill", 5]]
    first, second, third, fourth = results_of(end, batches, **workers)
    assert (first[0], first[2], third, fourth[0], fourth[3]) == (1, 2, (3,), 4, 5)
    messages = [(f.error, f.message) for f in (first[1], *second, *fourth[1:3])]
    assert messages == [
        ("ChildProcessError", "its process was ended by SIGKILL"),
        ("ChildProcessError", "its process ended with exit code 3"),
        ("ChildProcessError", "its process ended with exit code 1"),
        ("ChildProcessError", "its process was ended by SIGKILL"),
    ]


def test_an_item_that_hangs_fails_alone(workers):
    def hang(items):
        for item in items:
            if item == "loop":
                while True:
                    pass
            if item == "sleep":
                time.sleep(1e6)
            if item == "stuck":  # in C code that never lets go of the interpreter
                10**10**9
            yield item

    begun = time.monotonic()
    batches = [[1, "loop", 2], ["sleep"], [3, "stuck", 4], [5]]
    found = results_of(hang, batches, timeout_seconds=0.5, **workers)
    assert time.monotonic() - begun < 10
    assert [found[0][0], found[0][2], found[2][0], found[2][2], found[3]] == [1, 2, 3, 4, (5,)]
    for failed in (found[0][1], found[1][0], found[2][1]):
        assert failed.error == "TimeoutError"
        assert failed.message == "not done after 0.5 s; its process was ended"


def test_many_quick_items_may_take_longer_than_one(workers):
    def quick(items):
        for item in items:
            time.sleep(0.02)
            yield item

    assert results_of(quick, [[*range(40)]], timeout_seconds=0.5, **workers) == [(*range(40),)]


def test_what_an_item_started_ends_with_it(workers, tmp_path, all_end):
    noted = tmp_path / "pid"

    def start(items):
        for _ in items:
            noted.write_text(str(subprocess.Popen(["sleep", "1000"]).pid))
            time.sleep(1e6)
            yield None

    assert results_of(start, [[1]], timeout_seconds=0.5, **workers)[0][0].error == "TimeoutError"
    pid = int(noted.read_text())
    assert not psutil.pid_exists(pid) or all_end([psutil.Process(pid)])


def test_a_function_that_cannot_be_loaded_there(workers):
    with pytest.raises(
        FunctionNotSentError, match="cannot load what it was sent: OSError: not here"
    ):
        list(run_batches(NotThere(), [[1]], **workers))


def test_a_process_that_cannot_begin():
    with pytest.raises(WorkerStartError, match="ended with exit code 5 before it could begin"):
        list(run_batches(EndsAll(), [[1]], n_workers=1))


class NotThere:
    def __call__(self, items):
        yield from items

    def __reduce__(self):
        return _fail, ()


def _fail():
    raise OSError("not here")


class EndsAll(NotThere):
    def __reduce__(self):
        return os._exit, (5,)
