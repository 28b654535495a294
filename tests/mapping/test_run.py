import os
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from threading import Lock

import pytest

from pattern_lens.errors import FunctionNotSentError, MapOptionError
from pattern_lens.mapping import BatchOutcome, ItemFailure, run_batches
from pattern_lens.mapping.here import Estimate


def halves(numbers):
    for number in numbers:
        yield number / 2


def results_of(function, batches, **options):
    outcomes = sorted(run_batches(function, batches, **options), key=lambda outcome: outcome.index)
    return [outcome.results for outcome in outcomes]


def test_a_result_for_each_item_in_order(place):
    outcomes = list(run_batches(halves, [[1, 2, 5], [], (7,)], **place))
    assert sorted(outcomes, key=lambda outcome: outcome.index) == [
        BatchOutcome(0, [1, 2, 5], (0.5, 1.0, 2.5)),
        BatchOutcome(1, [], ()),
        BatchOutcome(2, (7,), (3.5,)),
    ]


def test_an_item_that_raises_costs_that_item_only(place):
    def inverses(numbers):
        for number in numbers:
            yield 1 / number

    (found,) = results_of(inverses, [[0, 2, 0, 4]], **place)
    assert found[1] == 0.5
    assert found[3] == 0.25
    for failed in (found[0], found[2]):
        assert (failed.error, failed.message) == ("ZeroDivisionError", "division by zero")
        assert "in inverses" in failed.traceback
        assert "in computed" not in failed.traceback


def test_what_a_function_opens_is_opened_once_a_batch_and_after_a_failure(place, tmp_path):
    log = tmp_path / "log"

    def read(items):
        with log.open("a") as file:
            file.write("open\n")
        try:
            for item in items:
                if item == "bad":
                    raise ValueError("bad item")
                yield item
        finally:
            with log.open("a") as file:
                file.write("close\n")

    (found,) = results_of(read, [["a", "bad", "b", "c"]], **place)
    assert [type(result) for result in found] == [str, ItemFailure, str, str]
    assert log.read_text().split() == ["open", "close"] * 2


def test_a_function_with_too_few_results(place):
    def first_only(items):
        yield items[0]
        yield items[1]

    (found,) = results_of(first_only, [[3, 4, 5, 6]], **place)
    assert found[:2] == (3, 4)
    assert found[2].error == "RuntimeError"
    assert "ended with 2 of its items left" in found[2].message
    assert found[3] == 6


def test_a_result_that_cannot_be_sent(workers):
    def locks(items):
        for item in items:
            yield Lock() if item else item

    (found,) = results_of(locks, [[0, 1, 0]], **workers)
    assert found[0] == found[2] == 0
    assert found[1].error == "TypeError"
    assert "a result of type lock cannot be sent" in found[1].message


def test_a_function_that_cannot_be_sent():
    lock = Lock()

    def locked(items):
        with lock:
            yield from items

    with pytest.raises(FunctionNotSentError, match=r"cannot send function 'locked' to worker"):
        list(run_batches(locked, [[1]], n_workers=1))
    assert results_of(locked, [[1]], n_workers=0) == [(1,)]


def test_an_item_that_cannot_be_sent():
    with pytest.raises(FunctionNotSentError, match="cannot send batch 1 to worker processes"):
        list(run_batches(halves, [[1], [Lock()]], n_workers=1))


@dataclass
class Half:
    value: float


def test_classes_come_back_as_they_are(place):
    assert results_of(lambda items: map(Half, items), [[3.0]], **place) == [(Half(3.0),)]


def test_workers_have_one_thread_each_and_no_screen(workers):
    def surroundings(items):
        for item in items:
            yield os.environ.get(item)

    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MPLBACKEND"]
    assert results_of(surroundings, [names], **workers) == [("1", "1", "1", "Agg")]


def test_what_a_function_prints_and_reads_is_not_in_the_way(workers, capfd):
    def talk(items):
        for item in items:
            print("printed", item)
            os.write(1, b"written")
            yield sys.stdin.read()

    assert results_of(talk, [[1, 2]], **workers) == [("", "")]
    assert "printed" not in capfd.readouterr().out


def test_batches_are_read_only_as_far_as_there_is_room(workers):
    read = []

    def batches():
        for i in range(100):
            read.append(i)
            yield [i]

    with closing(run_batches(halves, batches(), **workers)) as outcomes:
        for n_taken, _ in enumerate(outcomes, 1):
            assert len(read) <= n_taken + 2 * 2
            if n_taken == 20:
                break


def test_nothing_to_do_starts_nothing(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    assert list(run_batches(halves, [], n_workers=3)) == []
    assert list(run_batches(halves, [], client="tcp://127.0.0.1:1")) == []
    assert list(run_batches(halves, [], timeout_seconds=1)) == []


def test_a_small_run_starts_nothing(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    assert results_of(lambda items: [os.getpid()] * len(items), [[1]] * 50) == [(os.getpid(),)] * 50


@pytest.mark.parametrize("is_length_known", [True, False])
def test_a_long_run_begins_here_and_goes_on_with_workers(monkeypatch, is_length_known):
    monkeypatch.setattr("pattern_lens.mapping.here.WORTH_SECONDS", 0.5)
    monkeypatch.setattr("pattern_lens.mapping.here.WORTH_UNKNOWN_SECONDS", 0.02)
    monkeypatch.setattr("pattern_lens.mapping.run.n_usable_cpus", lambda: 2)

    def pids(items):
        for _ in items:
            time.sleep(0.01)
            yield os.getpid()

    batches = [[1, 2, 3, 4]] * 30
    found = results_of(pids, batches if is_length_known else iter(batches))
    assert found[0] == (os.getpid(),) * 4
    assert len(found) == 30
    others = {pid for pids in found for pid in pids} - {os.getpid()}
    assert len(others) == 2


def test_one_processor_needs_no_worker(monkeypatch):
    monkeypatch.setattr("pattern_lens.mapping.run.n_usable_cpus", lambda: 1)
    monkeypatch.setattr("pattern_lens.mapping.here.WORTH_SECONDS", 0.0)
    monkeypatch.setattr(subprocess, "Popen", None)
    assert results_of(halves, [[2]] * 9) == [(1.0,)] * 9


def test_what_an_estimate_says():
    estimate = Estimate(n_batches=101)
    estimate.add(1.5)
    assert not estimate.workers_pay(0, 10)  # imports, perhaps
    estimate.add(0.001)
    assert not estimate.workers_pay(0, 10)  # 1 s left
    estimate.add(0.005)
    assert estimate.workers_pay(0, 10)  # 3 s left
    assert not estimate.workers_pay(95, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_workers": -1}, "n_workers is -1, expected 0 or more"),
        ({"timeout_seconds": 0.0}, "timeout_seconds is 0.0, expected more than 0"),
        ({"timeout_seconds": 1.0, "n_workers": 0}, "needs a process that can be ended"),
        ({"client": "tcp://h:1", "n_workers": 2}, "give one of them"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(MapOptionError, match=message):
        run_batches(halves, [[1]], **options)


def test_importing_is_light():
    code = "import pattern_lens.mapping, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"dask", "distributed", "matplotlib", "numpy", "cloudpickle"} & {
        *done.stdout.split()
    }
