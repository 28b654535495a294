"""The batches that workers have, perhaps in pieces.

The rule: an item is blamed for the end of its workers only if it was alone on them. A batch that lost its
workers is sent again item by item; of these, one that does so too is sent once more, with nothing beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.mapping.outcomes import BatchOutcome, ItemFailure
from pattern_lens.mapping.sending import packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pattern_lens.mapping.workers import Workers

BATCHES_PER_WORKER: Final = 2
"""Batches in flight, or computed and not taken yet."""


@dataclass
class _Batch:
    index: int
    items: Sequence[Any]
    results: dict[int, Any] = field(default_factory=dict)

    def is_whole(self) -> bool:
        return len(self.results) == len(self.items)

    def outcome(self) -> BatchOutcome:
        ordered = tuple(self.results[i] for i in range(len(self.items)))
        return BatchOutcome(self.index, self.items, ordered)


class OpenBatches:
    """What was sent to workers and is not whole yet."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._sent: dict[int, tuple[_Batch, range]] = {}
        self._suspects: list[tuple[_Batch, range]] = []
        self._n_sent = self._n_open = 0

    def __len__(self) -> int:
        return self._n_open

    def has_room(self) -> bool:
        """Whether the workers can take another batch."""
        return not self._suspects and self._n_open < BATCHES_PER_WORKER * self._workers.n_workers()

    def add(self, index: int, items: Sequence[Any]) -> None:
        """Have a batch computed."""
        self._n_open += 1
        self._send(_Batch(index, items), range(len(items)))

    def next_outcome(self) -> BatchOutcome:
        """Wait until a batch has all its results."""
        while True:
            is_alone = not self._sent
            if is_alone:
                self._send(*self._suspects.pop())
            key, results = self._workers.next_done()
            batch, which = self._sent.pop(key)
            if results is not None:
                self._take(batch, which, [unpacked(result) for result in results])
            elif len(which) > 1:
                for i in which:
                    self._send(batch, range(i, i + 1))
            elif is_alone:
                self._take(batch, which, [_ended_workers()])
            else:
                self._suspects.append((batch, which))
            if batch.is_whole():
                self._n_open -= 1
                return batch.outcome()

    def close(self) -> None:
        """Have nothing computed any more."""
        self._workers.close()

    def _take(self, batch: _Batch, which: range, results: list[Any]) -> None:
        batch.results.update(zip(which, results, strict=False))
        if len(results) < len(which):
            self._send(batch, which[len(results) :])

    def _send(self, batch: _Batch, which: range) -> None:
        items = packed(batch.items[which.start : which.stop], what=f"batch {batch.index}")
        self._sent[self._n_sent] = batch, which
        self._workers.submit(self._n_sent, items, n_items=len(which))
        self._n_sent += 1


def _ended_workers() -> ItemFailure:
    return ItemFailure("ChildProcessError", "every worker that computed it ended meanwhile")
