"""Worker processes of this machine."""

from __future__ import annotations

import os
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from pattern_lens.mapping.crew import Crew

if TYPE_CHECKING:
    from pattern_lens.mapping.workers import Computed


class LocalWorkers:
    """Up to so many processes, each started when there is a batch for it, driven by a thread each.

    Parameters
    ----------
    function
        The function, packed.
    """

    def __init__(self, function: bytes, *, n_workers: int, timeout_seconds: float | None) -> None:
        self._crew = Crew(function, timeout_seconds=timeout_seconds)
        self._n_workers = n_workers
        self._threads: list[Thread] = []
        self._n_open = 0
        self._waiting: SimpleQueue[tuple[int, bytes, int] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[int, list[bytes] | BaseException]] = SimpleQueue()

    def n_workers(self) -> int:
        """As many as there may be."""
        return self._n_workers

    def submit(self, key: int, items: bytes, *, n_items: int) -> None:
        """Queue a batch; a process is started for it if all are busy."""
        self._waiting.put((key, items, n_items))
        self._n_open += 1
        if len(self._threads) < min(self._n_open, self._n_workers):
            self._threads.append(Thread(target=self._drive, daemon=True))
            self._threads[-1].start()

    def next_done(self) -> Computed:
        """Wait for a batch; an error that no item caused is raised."""
        while True:
            try:
                key, results = self._done.get(timeout=1)  # without one, Ctrl-C waits on Windows
            except Empty:
                continue
            self._n_open -= 1
            if isinstance(results, BaseException):
                raise results
            return key, results

    def close(self) -> None:
        """End the processes at once."""
        for _ in self._threads:
            self._waiting.put(None)
        self._crew.close()
        for thread in self._threads:
            thread.join(timeout=5)

    def _drive(self) -> None:
        while (batch := self._waiting.get()) is not None:
            key, items, n_items = batch
            try:
                self._done.put((key, self._crew.compute(items, n_items=n_items)))
            except BaseException as error:  # noqa: BLE001 - raised again by next_done
                self._done.put((key, error))


def n_usable_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
