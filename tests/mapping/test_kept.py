"""Runs that follow one another use the same processes."""

import os
import signal
from contextlib import closing

import pytest

from pattern_lens.mapping import run_batches, workers_kept
from pattern_lens.mapping.kept import KeptWorkers


def pids(items):
    for _ in items:
        yield os.getpid()


def pids_again(items):
    return pids(items)


def found(function, **options):
    batches = [[1], [2], [3], [4]]
    return {pid for one in run_batches(function, batches, **options) for pid in one.results}


def test_a_later_run_of_the_block_uses_the_processes_of_the_earlier(worker_processes):
    with workers_kept():
        first = found(pids, n_workers=1)
        assert found(pids_again, n_workers=1, timeout_seconds=60) == first
        assert worker_processes()
    assert worker_processes() == []
    assert found(pids, n_workers=1) != first


def test_a_process_that_was_killed_meanwhile_is_not_used():
    with workers_kept():
        (first,) = found(pids, n_workers=1)
        os.kill(first, signal.SIGKILL)
        assert found(pids, n_workers=1).isdisjoint({first})


def test_busy_processes_are_not_kept(worker_processes):
    def slow(items):
        for item in items:
            yield item
            if item:
                signal.pause()

    with workers_kept():
        with closing(run_batches(slow, [[0], [1, 1], [1, 1]], n_workers=2)) as outcomes:
            next(outcomes)
        assert len(worker_processes()) <= 1


def test_an_error_in_the_block_ends_them(worker_processes):
    def run_and_fail():
        with workers_kept():
            found(pids, n_workers=2)
            raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        run_and_fail()
    assert worker_processes() == []


def test_nothing_is_kept_once_the_block_has_ended():
    kept = KeptWorkers()
    kept.close()
    assert not kept.keep([])
    assert kept.take() is None
