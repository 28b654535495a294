"""Figure functions over a whole file, in parallel, what they make stored beside the data.

Workers read the file and draw; this process alone writes, while they go on. A function that fails on a head
costs that figure: the failure stands in its place, and is tried again next time.
"""

from __future__ import annotations

import time
import warnings
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tqdm import tqdm

from pattern_lens.errors import ClusterLostError, MapWarning, NoWorkersError, UnknownPromptError
from pattern_lens.figures.averages import AverageDrawing, MeanCall, MeanPatterns
from pattern_lens.figures.drawing import Drawing, Drawn, Item, as_record
from pattern_lens.figures.failures import failure
from pattern_lens.figures.pieces import Pieces, joined
from pattern_lens.figures.plan import Plan
from pattern_lens.figures.produce import SIZE_LIMIT_BYTES
from pattern_lens.figures.products import Failure
from pattern_lens.figures.report import FigureReport
from pattern_lens.figures.select import Select, select_figure_functions
from pattern_lens.figures.trial import COSTLY
from pattern_lens.mapping import ItemFailure, run_batches, workers_kept
from pattern_lens.names import HEAD, head_label
from pattern_lens.patterns.computed import block
from pattern_lens.patterns.opening import open_patterns
from pattern_lens.store.figures import FigureRecord, withdrawn
from pattern_lens.store.lock import WriterLock
from pattern_lens.store.write_back import WriteBack
from pattern_lens.store.writer import StoreWriter
from pattern_lens.wording import counted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from os import PathLike

    from pattern_lens.figures.drawing import Chosen
    from pattern_lens.patterns.collection import Patterns

_SHOWN: Final = 3


@dataclass(frozen=True)
class _Where:
    """Where calls are done."""

    client: Any
    n_workers: int | None
    timeout_seconds: float | None

    def run(
        self, function: Any, batches: Any, *, n_batches: int | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """Items and what became of them."""
        for outcome in run_batches(
            function,
            batches,
            client=self.client,
            n_workers=self.n_workers,
            timeout_seconds=self.timeout_seconds,
            n_batches=n_batches,
        ):
            yield from zip(outcome.items, outcome.results, strict=True)

    def patient(self) -> _Where:
        """The same place without a limit of time."""
        return replace(self, timeout_seconds=None)

    def for_trial(self) -> _Where:
        """For a few calls: workers only where they were asked for."""
        needs_process = self.timeout_seconds is not None or self.client is not None
        return self if needs_process or self.n_workers else replace(self, n_workers=0)


def map_figures(
    path: str | PathLike[str],
    funcs: Select = None,
    *,
    client: Any = None,
    n_workers: int | None = None,
    force: bool = False,
    prompts: Iterable[str] | None = None,
    heads: Any = None,
    timeout_seconds: float | None = None,
    size_limit_bytes: int = SIZE_LIMIT_BYTES,
    progress: bool = True,
) -> FigureReport:
    """Call figure functions on every head of every prompt, and store what they make in the same file.

    Can be stopped at any time and run again: what is there is not drawn again, what failed is tried again.

    Parameters
    ----------
    path
        A file with attention patterns.
    funcs
        Figure functions, registered or not, or names and globs of registered ones; all registered ones if None.
        Those that return numbers give results (`open_results`), dims (prompt, layer, head, ...).
    client, n_workers
        As in `Patterns.map`.
    force
        Draw again what is there.
    prompts
        Hashes of the prompts; all if None.
    heads
        Heads as in ``"L0-3H2, L5"``; all if None. Functions that return numbers are called on all of a prompt's.
    timeout_seconds
        Longest that one call may take; it fails, and its process is ended.
    size_limit_bytes
        Most that one call may make.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Counts, failures and time.

    Raises
    ------
    UnknownFigureError, FigureFunctionError, UnknownPromptError, HeadSelectionError
        What was asked for is not there; nothing was drawn.
    ResultMismatchError
        Numbers of another function or shape are stored under a function's name; nothing was drawn.
    WriterActiveError, FileNotWritableError, DiskFullError, ClusterLostError, NoWorkersError
        What was stored before stays.

    Warns
    -----
    MapWarning
        Some calls failed.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> pl.map_figures("gpt2.h5", "svd*", heads="L5")  # doctest: +SKIP
    """
    started = time.monotonic()
    entries = select_figure_functions(funcs)
    with open_patterns(path) as patterns:
        plan = Plan(
            _of_prompts(patterns, prompts),
            [one for one in entries if one.is_stored],
            heads,
            force=force,
        )
        run = _Run(plan, _Where(client, n_workers, timeout_seconds), size_limit_bytes)
        with workers_kept():  # those of the trial draw on
            run.run(progress=progress)
        report = FigureReport(
            path=patterns.base.source.reader.path,
            n_drawn=run.n_drawn,
            n_numbers=run.n_numbers,
            n_failed=run.n_failed,
            n_present=plan.n_calls - plan.n_todo,
            n_other_version=plan.n_other_version,
            seconds=time.monotonic() - started,
            failures=tuple(run.failures),
            not_stored=tuple(one.name for one in entries if not one.is_stored),
        )
    if report.failures:
        warnings.warn(
            f"{counted(report.n_failed, 'figure')} failed, the first is {report.failures[0]}; "
            "they are tried again when this is run again",
            MapWarning,
            stacklevel=2,
        )
    return report


def _of_prompts(patterns: Patterns, prompts: Iterable[str] | None) -> Patterns:
    if prompts is None:
        return patterns
    hashes = [prompts] if isinstance(prompts, str) else list(prompts)
    if not all(isinstance(one, str) for one in hashes):
        raise UnknownPromptError(f"cannot choose prompts by {hashes[:3]!r}: expected their hashes")
    chosen: Patterns = patterns.sel(prompt=list(dict.fromkeys(hashes)))
    return chosen


class _Run:
    """What is done, and how much of it there was."""

    def __init__(self, plan: Plan, where: _Where, size_limit_bytes: int) -> None:
        self._plan, self._where, self._limit = plan, where, size_limit_bytes
        self.n_drawn = self.n_numbers = self.n_failed = self._n_done = 0
        self.failures: list[str] = []

    def run(self, *, progress: bool) -> None:
        """Draw and store everything that is missing."""
        plan = self._plan
        if not plan.n_todo:
            return
        path = plan.patterns.base.source.reader.path
        WriterLock(path).release()  # raises now, before a function is called
        plan.try_out(self._where.for_trial().run, size_limit_bytes=self._limit)
        layouts = [layout for one in plan.chosen for layout in one.layouts.values()]
        with (
            StoreWriter(path, None, layouts, figures=True) as writer,
            WriteBack(writer, {one.key: partial(block, one) for one in layouts}) as back,
            tqdm(total=plan.n_todo, desc="figures", unit="call", disable=not progress) as bar,
            closing(self._done(back)) as done,
        ):
            try:
                for n_calls in done:
                    self._n_done += n_calls
                    bar.update(n_calls)
                    if self.n_failed:
                        bar.set_postfix(failed=self.n_failed, refresh=False)
            except (KeyboardInterrupt, ClusterLostError, NoWorkersError) as stop:
                stop.add_note(
                    f"{self._n_done:,} of {plan.n_todo:,} calls are stored in {path.name}; run the same again to go on"
                )
                raise

    def _done(self, back: WriteBack) -> Generator[int, None, None]:
        """Numbers of calls that were done and handed on, one after another."""
        for item, drawn in self._drawn():
            self._take(item, drawn, back)
            yield len(item.calls)
        for records in self._drawn_means():
            back.add_figures(records)
            self._count(records)
            yield 1

    # --- one prompt after another --------------------------------------------------------------

    def _drawn(self) -> Iterator[tuple[Item, Drawn]]:
        """What became of every item; one that was lost as a whole is done again call by call."""
        plan = self._plan
        function = Drawing(plan.patterns, plan.chosen, self._limit)
        if self._where.timeout_seconds is not None:
            yield from self._call_by_call(function, plan.items())
            return
        lost: list[Item] = []
        n_batches = -(-plan.n_todo // plan.batch_calls)
        for item, made in self._where.run(
            function, plan.batches(plan.items()), n_batches=n_batches
        ):
            if isinstance(made, Drawn):
                yield item, made
            elif made.error in COSTLY and len(item.calls) > 1:
                lost.append(item)
            else:
                yield item, self._failed(item, made)
        yield from self._call_by_call(function, lost)

    def _call_by_call(
        self, function: Drawing, items: Iterable[Item]
    ) -> Iterator[tuple[Item, Drawn]]:
        pieces = Pieces(items)
        for piece, made in self._where.run(function, self._plan.batches(pieces)):
            drawn = made if isinstance(made, Drawn) else self._failed(piece, made)
            whole = pieces.whole(piece, drawn)
            if whole is not None:
                item, parts = whole
                yield item, self._joined(item, parts)

    def _joined(self, item: Item, parts: list[Drawn]) -> Drawn:
        drawn, unlike = joined(parts)
        for chosen in self._plan.chosen:
            for name, layout in chosen.layouts.items():
                if layout.key in unlike:
                    why = failure(name, unlike[layout.key])
                    place = self._first_place(item, chosen)
                    drawn.figures.append(as_record(chosen, why, place, 1))
        return drawn

    def _first_place(self, item: Item, chosen: Chosen) -> tuple[int, int, int]:
        of = item.calls // self._plan.n_cells == self._plan.chosen.index(chosen)
        return (item.position, *self._plan.head_of(int(item.calls[of][0])))

    def _failed(self, item: Item, why: ItemFailure) -> Drawn:
        plan = self._plan
        return Drawn(
            [
                record
                for call in item.calls.tolist()
                for record in _failures(
                    plan.chosen[call // plan.n_cells], why, (item.position, *plan.head_of(call))
                )
            ]
        )

    # --- the mean over prompts -----------------------------------------------------------------

    def _drawn_means(self) -> Iterator[list[FigureRecord]]:
        """What each call on a mean made, with what it takes back."""
        plan = self._plan
        calls: dict[int, list[tuple[int, int]]] = {}
        for function, cell in plan.mean_calls():
            calls.setdefault(plan.head_of(cell)[0], []).append((function, cell))
        lost: list[list[FigureRecord]] = []

        def batches() -> Iterator[list[MeanCall]]:
            means = MeanPatterns(plan.patterns)
            for layer, mean in self._where.patient().run(means, [[layer] for layer in calls]):
                for function, cell in calls[layer]:
                    chosen, place = plan.of_mean[function], plan.head_of(cell)
                    if isinstance(mean, ItemFailure):
                        lost.append(_failures(chosen, mean, (None, *place)))
                    else:
                        yield [MeanCall(function, mean.sel({HEAD: place[1]}))]

        drawing = AverageDrawing(plan.of_mean, self._limit)
        for call, made in self._where.run(drawing, batches()):
            chosen = plan.of_mean[call.function]
            is_lost = isinstance(made, ItemFailure)
            records = _failures(chosen, made, call.place) if is_lost else made
            yield [*records, *self._stale_mean(chosen, call, records)]
        yield from lost

    def _stale_mean(
        self, chosen: Chosen, call: MeanCall, records: Sequence[FigureRecord]
    ) -> Iterator[FigureRecord]:
        plan = self._plan
        _, layer, head = call.place
        cell = plan.layers.index(layer) * plan.n_heads + head
        for name in sorted(plan.stale(None, chosen, cell) - {one.name for one in records}):
            yield withdrawn(name, call.place)

    # --- into the file -------------------------------------------------------------------------

    def _take(self, item: Item, drawn: Drawn, back: WriteBack) -> None:
        n_bytes = sum(one.data.nbytes for one in drawn.values.values())
        stale = self._stale(item, drawn)
        back.add(item.position, drawn.values, [*drawn.figures, *stale], n_bytes=n_bytes)
        self.n_numbers += len(drawn.values)
        self._count(drawn.figures)

    def _stale(self, item: Item, drawn: Drawn) -> Iterator[FigureRecord]:
        """What stood there and was not made again, such as failures under other names."""
        plan = self._plan
        made: dict[tuple[Any, ...], set[str]] = {}
        for one in drawn.figures:
            made.setdefault((one.about["function"], one.layer, one.head), set()).add(one.name)
        for call in item.calls.tolist():
            number, cell = divmod(call, plan.n_cells)
            chosen, head = plan.chosen[number], plan.head_of(call)
            now = made.get((chosen.entry.name, *head), set())
            for name in sorted(plan.stale(item.position, chosen, cell) - now):
                yield withdrawn(name, (item.position, *head))
        results = plan.failed_results(item.position)
        keys = {one.layouts[name].key: name for one in plan.chosen for name in one.layouts}
        for key in drawn.values:
            if keys[key] in results:
                yield withdrawn(keys[key], (item.position, None, None))

    def _count(self, records: Sequence[FigureRecord]) -> None:
        failed = [one for one in records if one.failed]
        self.n_drawn += sum(not (one.failed or one.withdrawn) for one in records)
        self.n_failed += len(failed)
        self.failures += [self._told(one) for one in failed[: max(0, _SHOWN - len(self.failures))]]

    def _told(self, failed: FigureRecord) -> str:
        source = self._plan.patterns.base.source
        prompt = "all prompts" if failed.prompt is None else source.prompt(failed.prompt).hash
        head = head_label(int(failed.layer or 0), int(failed.head or 0))
        return (
            f"{failed.name} of {head} of {prompt}: {failed.why['error']}: {failed.why['message']}"
        )


def _failures(
    chosen: Chosen, why: ItemFailure, place: tuple[int | None, int, int]
) -> list[FigureRecord]:
    return [
        as_record(chosen, Failure(name, why.error, why.message, why.traceback), place, 0)
        for name in chosen.entry.wanted_names
    ]
