"""Computing in the calling process, and when to stop doing so."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.mapping.compute import computed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

WORTH_SECONDS: Final = 2.0
"""Work left from which on starting worker processes is worth it."""

WORTH_UNKNOWN_SECONDS: Final = 1.0
"""Work done from which on it is, where nobody knows how much is left."""


class Estimate:
    """How long the rest would take here.

    Parameters
    ----------
    n_batches
        Batches of the run; negative where it is not known.
    """

    def __init__(self, *, n_batches: int) -> None:
        self._n_batches = n_batches
        self._n_items = 0
        self._seconds = self._first = 0.0

    def add(self, seconds: float) -> None:
        """Take note of one item."""
        if not self._n_items:
            self._first = seconds
        self._n_items += 1
        self._seconds += seconds

    def workers_pay(self, index: int, n_items: int) -> bool:
        """Whether what comes after batch `index`, of `n_items`, is worth the start of workers.

        The first item is slow, as whatever it needs is imported, so it is believed only if it is very slow.
        """
        if self._n_batches < 0:
            return self._seconds > WORTH_UNKNOWN_SECONDS
        n_left = (self._n_batches - index - 1) * n_items
        if self._n_items > 1:
            mean = (self._seconds - self._first) / (self._n_items - 1)
        else:
            mean = self._first if self._first > WORTH_SECONDS else 0.0
        return n_left * mean > WORTH_SECONDS


def computed_here(
    function: Callable[[Sequence[Any]], Iterable[Any]], items: Sequence[Any], estimate: Estimate
) -> Iterator[Any]:
    """Results of a batch, on one thread as in a worker, so that they are the same to the last bit."""
    with _one_thread():
        begun = time.perf_counter()
        for result in computed(function, items):
            estimate.add(time.perf_counter() - begun)
            yield result
            begun = time.perf_counter()


def _one_thread() -> AbstractContextManager[Any]:
    threads = _threads()
    return nullcontext() if threads is None else threads.ThreadpoolController().limit(limits=1)


@cache
def _threads() -> Any:
    try:
        return import_module("threadpoolctl")
    except ImportError:
        return None
