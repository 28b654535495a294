"""Worker processes that one run has finished with, kept for the next: a trial's serve the run that follows it.

The rule: what was kept is ended when the block ends, whatever happens in it.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pattern_lens.mapping.worker import Worker


class KeptWorkers:
    """Processes that wait for a run."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: list[Worker] = []
        self._is_open = True

    def keep(self, workers: Iterable[Worker]) -> bool:
        """Take processes that have nothing to do; False where the block has ended."""
        with self._lock:
            if self._is_open:
                self._waiting += workers
            return self._is_open

    def take(self) -> Worker | None:
        """A process that still runs, if there is one."""
        while True:
            with self._lock:
                worker = self._waiting.pop() if self._waiting else None
            if worker is None or worker.is_alive():
                return worker
            worker.end()

    def close(self) -> None:
        """End all."""
        with self._lock:
            self._is_open = False
            waiting, self._waiting = self._waiting, []
        for worker in waiting:
            worker.kill()
        for worker in waiting:
            worker.end()


_kept: ContextVar[KeptWorkers | None] = ContextVar("kept_workers", default=None)

kept_now: Callable[[], KeptWorkers | None] = _kept.get
"""What keeps processes at this moment, if anything does."""


@contextmanager
def workers_kept() -> Iterator[None]:
    """Let the runs in this block, one after another, use the same processes of this machine."""
    kept = KeptWorkers()
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)
        kept.close()
