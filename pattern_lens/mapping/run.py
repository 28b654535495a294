"""The run itself: batches in, outcomes out, in order of completion.

The rule: a run holds a bounded number of batches, however many there are; and it starts nothing that it
has no work for.
"""

from __future__ import annotations

from operator import length_hint
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.errors import MapOptionError
from pattern_lens.mapping.here import Estimate, computed_here
from pattern_lens.mapping.local import LocalWorkers, n_usable_cpus
from pattern_lens.mapping.outcomes import BatchOutcome
from pattern_lens.mapping.pieces import OpenBatches
from pattern_lens.mapping.sending import packed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from distributed import Client

    from pattern_lens.mapping.workers import Workers

WAIT_SECONDS: Final = 300.0
"""Longest that a cluster may be without workers, unless told otherwise."""


def run_batches(
    function: Callable[[Sequence[Any]], Iterable[Any]],
    batches: Iterable[Sequence[Any]],
    *,
    client: Client | str | None = None,
    n_workers: int | None = None,
    timeout_seconds: float | None = None,
    n_batches: int | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> Generator[BatchOutcome, None, None]:
    """Compute batches, wherever there is room, and hand over each as soon as it is done.

    Parameters
    ----------
    function
        Called with the items of a batch, gives one result for each, in order; best a generator, which opens
        what it needs, then yields. Where it raises, the item whose result was due has failed, and it is called
        again with the items after that one. It is sent once to each process: by value if it stands in a
        notebook, a script or a module that is not installed.
    batches
        Items by batch; may be lazy, and is read only as far as there is room. Items and results are picklable.
    client
        A `distributed.Client`, or the address of a scheduler. None: this machine.
    n_workers
        Worker processes on this machine. 0: none, compute in this process. None: begin in this process, and
        start one for each usable CPU once the work left is worth their start.
    timeout_seconds
        Longest that one item may take, including what the function does before the first item of a batch and the
        imports it does; the process of an item that takes longer is killed. Nothing is computed in this process.
    n_batches
        How many batches there are, where `batches` does not know.
    wait_seconds
        Longest that the cluster may be without workers.

    Returns
    -------
    Outcomes in order of completion. Closing the iterator ends what is still computed.

    Raises
    ------
    MapOptionError
        Options that exclude each other, or a number that makes no sense.
    FunctionNotSentError
        The function or an item cannot be sent to a worker, or not be loaded there.
    WorkerStartError
        A worker process cannot begin.
    NoWorkersError
        The cluster has no workers.
    ClusterLostError
        The cluster cannot be reached, or was lost on the way.

    Examples
    --------
    >>> def halves(numbers):
    ...     for number in numbers:
    ...         yield number / 2
    >>> [outcome.results for outcome in run_batches(halves, [[1, 2], [3]])]
    [(0.5, 1.0), (1.5,)]
    """
    _check(client, n_workers, timeout_seconds)
    n_local = n_usable_cpus() if n_workers is None else n_workers

    def start() -> Workers:
        sent = packed(function, what=f"function {getattr(function, '__name__', function)!r}")
        if client is None:
            return LocalWorkers(sent, n_workers=n_local, timeout_seconds=timeout_seconds)
        from pattern_lens.mapping.cluster import ClusterWorkers

        return ClusterWorkers(
            client, sent, timeout_seconds=timeout_seconds, wait_seconds=wait_seconds
        )

    run = _Run(batches, start)
    if client is not None or n_workers or timeout_seconds is not None:
        return run.outcomes()
    total = length_hint(batches, -1) if n_batches is None else n_batches
    stays = n_local < 2
    return run.outcomes_from_here(function, Estimate(n_batches=0 if stays else total))


def _check(
    client: Client | str | None, n_workers: int | None, timeout_seconds: float | None
) -> None:
    if client is not None and n_workers is not None:
        raise MapOptionError(
            f"n_workers={n_workers} counts processes of this machine, but client says where to compute: give one of them"
        )
    if n_workers is not None and n_workers < 0:
        raise MapOptionError(f"n_workers is {n_workers}, expected 0 or more")
    if timeout_seconds is None:
        return
    if timeout_seconds <= 0:
        raise MapOptionError(f"timeout_seconds is {timeout_seconds}, expected more than 0")
    if n_workers == 0:
        raise MapOptionError(
            "timeout_seconds needs a process that can be ended: expected n_workers of 1 or more"
        )


class _Run:
    def __init__(self, batches: Iterable[Sequence[Any]], start: Callable[[], Workers]) -> None:
        self._batches = enumerate(batches)
        self._start = start
        self._sent: OpenBatches | None = None

    def outcomes(self) -> Generator[BatchOutcome, None, None]:
        """Everything on workers."""
        try:
            self._fill()
            while self._sent:
                outcome = self._sent.next_outcome()
                self._fill()
                yield outcome
        finally:
            self._close()

    def outcomes_from_here(
        self, function: Callable[[Sequence[Any]], Iterable[Any]], estimate: Estimate
    ) -> Generator[BatchOutcome, None, None]:
        """Here until workers pay; these begin while the batch that showed it is finished here."""
        try:
            for index, items in self._batches:
                results = []
                for result in computed_here(function, items, estimate):
                    results.append(result)
                    if self._sent is None and estimate.workers_pay(index, len(items)):
                        self._fill()
                yield BatchOutcome(index, items, tuple(results))
                if self._sent is not None:
                    break
            yield from self.outcomes()
        finally:
            self._close()

    def _fill(self) -> None:
        """Send as many batches as there is room for; the first one starts workers."""
        while self._sent is None or self._sent.has_room():
            following = next(self._batches, None)
            if following is None:
                return
            if self._sent is None:
                self._sent = OpenBatches(self._start())
            self._sent.add(*following)

    def _close(self) -> None:
        if self._sent is not None:
            self._sent.close()
