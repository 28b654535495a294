"""What there is to do: which functions on which heads of which prompts, in pieces that workers take.

The rule: the numbers of a prompt are one row of a result, so they are computed of all its heads together, whatever
heads were chosen; pictures of the chosen ones only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.figures.averages import digest_of
from pattern_lens.figures.drawing import Chosen, Item
from pattern_lens.figures.metadata import figure_records
from pattern_lens.figures.todo import Stale, Todo
from pattern_lens.figures.trial import origin_of, try_out
from pattern_lens.names import HEAD, LAYER
from pattern_lens.patterns.identity import differing, mismatch
from pattern_lens.store.adding import drop_result

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pattern_lens.figures.drawing import Numbers
    from pattern_lens.figures.registry import FigureFunction
    from pattern_lens.figures.trial import Run
    from pattern_lens.patterns.collection import Patterns

_ITEM_SECONDS: Final = 1.0
_BATCH_SECONDS: Final = 0.5
_BATCH_CALLS: Final = 2000


class Plan:
    """What a run has to do.

    Parameters
    ----------
    entries
        Functions whose figures are stored.
    heads
        As in `map_figures`.

    Attributes
    ----------
    chosen, of_mean
        Functions that are called on every prompt's heads, and on the mean over prompts.
    layers, n_heads
        Numbers of the stored layers, and heads of each.
    n_calls, n_todo
        Calls in all, and those that are not done.
    n_other_version
        Figures there that another version of their function drew.
    """

    def __init__(
        self,
        patterns: Patterns,
        entries: Sequence[FigureFunction],
        heads: Any,
        *,
        force: bool,
    ) -> None:
        self.patterns, self._force = patterns, force
        self._reader = patterns.base.source.reader
        self._reader.refresh()
        self._positions = np.asarray(patterns.base.positions(), np.int64)
        self.layers = patterns.layers
        self.n_heads = int(patterns.sizes[HEAD])  # type: ignore[arg-type] # not a ragged dim
        self._cells = self._cells_of(heads)
        self._seconds = 0.0
        each = [Chosen(one, about(one)) for one in entries if not one.is_average]
        self.chosen: Sequence[Chosen] = each if force else [self._as_stored(one) for one in each]
        means = [one for one in entries if one.is_average]
        prompts = {"prompts": digest_of(list(patterns))} if means else {}
        self.of_mean = [Chosen(one, {**about(one), **prompts}) for one in means]
        self._look()

    def _cells_of(self, heads: Any) -> Numbers:
        if heads is None:
            return np.arange(self.n_cells)
        labels = self.patterns.sel(head=[heads] if isinstance(heads, str) else heads).template
        layers = np.searchsorted(np.array(self.layers), labels[LAYER].values)
        return np.unique(layers * self.n_heads + labels[HEAD].values)

    def _as_stored(self, chosen: Chosen) -> Chosen:
        """A function with the layouts of those results in the file that are its own."""
        name, origin = chosen.entry.name, origin_of(chosen)
        stored = {}
        for one in self._reader.result_names():
            if one == name or one.startswith(f"{name}."):
                layout = self._reader.result(one).layout
                if differing(layout.origin, origin) is None:
                    stored[one] = layout
        return replace(chosen, layouts=stored)

    def _look(self) -> None:
        """See what is done."""
        todo = Todo(
            self._reader.figures,
            self.layers,
            self.n_heads,
            positions=self._positions,
            cells=self._cells,
            force=self._force,
        )
        self._todo = todo
        self._done = {i: todo.done(one) for i, one in enumerate(self.chosen) if not one.layouts}
        self._held = {i: self._held_of(one) for i, one in enumerate(self.chosen) if one.layouts}
        self._done_means = [todo.done(one) for one in self.of_mean]
        self._stale: dict[str, Stale] = {}
        names = [name for one in self.chosen for name in one.layouts]
        self._failed_results = todo.failed_results(names)
        n, n_cells = len(self._positions), len(self._cells)
        n_todo = {i: n * n_cells - len(done) for i, done in self._done.items()}
        n_todo |= {i: int((~held).sum()) * self.n_cells for i, held in self._held.items()}
        self._open = [i for i in sorted(n_todo) if n_todo[i]]
        self.n_todo = sum(n_todo.values()) + len(self.mean_calls())
        n_drawn = len(self._done) * n + len(self.of_mean)
        self.n_calls = n_drawn * n_cells + len(self._held) * n * self.n_cells
        self.n_other_version = todo.n_other_version

    def _held_of(self, chosen: Chosen) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """By place, whether a prompt's numbers are stored, without failures among them."""
        if self._force:
            return np.zeros(len(self._positions), np.bool_)
        failed = self._todo.failed_prompts([*chosen.layouts], chosen.entry.name)
        held = ~np.isin(self._positions, failed)
        there = self._reader.result_names()
        for name in chosen.layouts:
            own = self._reader.result(name).rows["prompt"] if name in there else _NO_ROWS
            held &= np.isin(self._positions, own.astype(np.int64))
        return held

    @property
    def n_cells(self) -> int:
        """Heads of a prompt."""
        return len(self.layers) * self.n_heads

    def head_of(self, call: int) -> tuple[int, int]:
        """Layer number and head of a call."""
        layer, head = divmod(call % self.n_cells, self.n_heads)
        return self.layers[layer], head

    def try_out(self, run: Run, *, size_limit_bytes: int) -> None:
        """Find out which functions return numbers, and what calls cost.

        Raises
        ------
        ResultMismatchError
            Numbers of another function are stored under the name of one; nothing was changed.
        """
        self.chosen, self._seconds = try_out(
            self.patterns, self.chosen, self._open, run, size_limit_bytes=size_limit_bytes
        )
        self._make_room()
        self._look()

    def _make_room(self) -> None:
        """Drop numbers of another version or shape, if they are to be replaced."""
        held = self._reader.result_names()
        dropped = [
            name
            for i in self._open
            for name in held
            if self._is_in_the_way(self.chosen[i], name) and self._force
        ]
        for name in dropped:
            drop_result(self._reader.path, name)
        self._reader.refresh()

    def _is_in_the_way(self, chosen: Chosen, name: str) -> bool:
        """Whether a result cannot stay when a function is called again; raises where it has to."""
        stored = self._reader.result(name).layout
        if name not in chosen.layouts:  # numbers that the function returned when it was another
            is_named = name == chosen.entry.name or name.startswith(f"{chosen.entry.name}.")
            return is_named and stored.origin.get("function") == origin_of(chosen)["function"]
        why = differing(stored.origin, origin_of(chosen))
        if why is not None and not self._force:
            raise mismatch(self._reader.path, name, why)
        return why is not None or stored.differs_in(chosen.layouts[name]) is not None

    # --- calls ---------------------------------------------------------------------------------

    def items(self) -> Iterator[Item]:
        """Calls that are not done, those of one prompt together where they are quick."""
        for place, position in enumerate(self._positions.tolist()):
            for part in self._split(self._missing(position)):
                yield Item(position, place, part)
            lacking = [i for i, held in self._held.items() if not held[place]]
            if lacking:
                yield Item(position, place, self._calls(lacking, np.arange(self.n_cells)))

    def _calls(self, functions: Sequence[int], cells: Numbers) -> Numbers:
        """One head after another, as they lie in the file."""
        return np.ravel(cells[:, None] + np.array(functions) * self.n_cells)

    def _missing(self, position: int) -> Numbers:
        parts = []
        start = position * self.n_cells
        for number, done in self._done.items():
            first, last = np.searchsorted(done, (start, start + self.n_cells))
            cells = self._cells
            if first < last:
                cells = np.setdiff1d(cells, done[first:last] - start, assume_unique=True)
            parts.append(number * self.n_cells + cells)
        calls = np.concatenate(parts) if parts else np.empty(0, np.int64)
        return calls[np.argsort(calls % self.n_cells, kind="stable")]

    def _split(self, calls: Numbers) -> list[Numbers]:
        most = max(1, int(_ITEM_SECONDS / self._seconds))
        n_parts = -(-len(calls) // most)
        return np.array_split(calls, n_parts) if n_parts else []

    def mean_calls(self) -> list[tuple[int, int]]:
        """Calls on means that are not done: place of the function, and head as ``layer * n_heads + head``."""
        return [
            (number, cell)
            for number, done in enumerate(self._done_means)
            for cell in np.setdiff1d(self._cells, done, assume_unique=True).tolist()
        ]

    @property
    def batch_calls(self) -> int:
        """Calls that take about half a second together."""
        return max(1, min(_BATCH_CALLS, int(_BATCH_SECONDS / self._seconds)))

    def batches(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        """Items, so many together as take about half a second."""
        batch: list[Item] = []
        n_calls = 0
        for item in items:
            if batch and n_calls + len(item.calls) > self.batch_calls:
                yield batch
                batch, n_calls = [], 0
            batch.append(item)
            n_calls += len(item.calls)
        if batch:
            yield batch

    # --- what stands there ---------------------------------------------------------------------

    def stale(self, position: int | None, chosen: Chosen, cell: int) -> set[str]:
        """Names that stand where a function was called on a head again."""
        name = chosen.entry.name
        if name not in self._stale:
            self._stale[name] = self._todo.stale(chosen)
        return self._stale[name].at((position or 0) * self.n_cells + cell)

    def failed_results(self, position: int) -> Sequence[str]:
        """Results that failed for a prompt as a whole."""
        return self._failed_results.get(position, ())


_NO_ROWS: Final = np.empty(0, np.int64)


def about(entry: FigureFunction) -> dict[str, Any]:
    """What the file says of a function beside its figures."""
    record = figure_records(entry)[0]
    del record["name"]
    return {"function": entry.name, **record}
