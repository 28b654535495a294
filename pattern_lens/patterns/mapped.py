"""A function over the prompts of a collection, in parallel, its results labelled and kept.

One prompt is one item: workers read it from the file themselves. What is named is stored while the map runs,
and not computed again; a prompt that fails costs that prompt, and is tried again next time.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tqdm import tqdm

from pattern_lens.errors import ClusterLostError, MapWarning, NoWorkersError
from pattern_lens.mapping import ItemFailure, run_batches
from pattern_lens.names import HEAD, LAYER
from pattern_lens.patterns.computed import Fitted, block, check_name, fit, plan
from pattern_lens.patterns.identity import describe_function, differing, function_name, mismatch
from pattern_lens.patterns.prompt_function import Fitting, Item, PromptFunction, Trial
from pattern_lens.patterns.results import in_memory, result_array
from pattern_lens.store.adding import drop_result
from pattern_lens.store.figures import FigureRecord, Place, failure_record, withdrawn
from pattern_lens.store.rows import FAILED, NONE
from pattern_lens.store.write_back import WriteBack
from pattern_lens.store.writer import StoreWriter
from pattern_lens.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    import xarray as xr

    from pattern_lens.patterns.collection import Activations
    from pattern_lens.patterns.source import Positions
    from pattern_lens.store.layout import ArrayLayout

_BATCH_SECONDS: Final = 0.5
_BATCH_BYTES: Final = 256 << 20
_BATCH_PROMPTS: Final = 256


@dataclass(frozen=True)
class MapOptions:
    """Where and how a map runs; see `Activations.map`."""

    client: Any = None
    n_workers: int | None = None
    timeout_seconds: float | None = None
    progress: bool = True


def map_collection(
    collection: Activations,
    function: Callable[..., Any],
    *,
    name: str | None,
    force: bool,
    per_head: bool,
    kwargs: Mapping[str, Any] | None,
    options: MapOptions,
) -> xr.DataArray:
    """What `Activations.map` does."""
    if not callable(function):
        raise TypeError(f"cannot map {function!r}: expected a function of one prompt's array")
    if name is not None:
        check_name(name)
    given = PromptFunction(collection, function, kwargs or {}, per_head)
    job = _Map(collection, given, name or function_name(function), options)
    return job.stored(force=force) if name is not None else job.in_memory()


@dataclass(eq=False)
class _Map:
    collection: Activations
    prompt_function: PromptFunction
    name: str
    options: MapOptions
    failures: dict[int, ItemFailure] = field(default_factory=dict)

    @cached_property
    def _positions(self) -> Positions:
        return np.asarray(self.collection.base.positions())

    @cached_property
    def _origin(self) -> dict[str, Any]:
        given = self.prompt_function
        known = describe_function(given.function, given.options)
        return {
            "activation": self.collection.name,
            "of": self.collection.choice(),
            **({"per_head": True} if given.per_head else {}),
            **known,
        }

    # --- what is known before -----------------------------------------------------------------

    @cached_property
    def _tried(self) -> Trial:
        return Trial(self.prompt_function, self._items(np.arange(len(self._positions))))

    @cached_property
    def _layout(self) -> ArrayLayout:
        layout = plan(self.name, self._tried.examples, self._origin)
        for example in self._tried.examples:
            fit(layout, example)  # raises now what would fail every prompt
        return layout

    def _items(self, places: Any) -> list[Item]:
        return [(int(self._positions[place]), int(place)) for place in places]

    # --- running ------------------------------------------------------------------------------

    def in_memory(self) -> xr.DataArray:
        """Results of all prompts, kept nowhere."""
        found: dict[int, Fitted] = {}
        layout = self._layout
        for (_, place), result in self._outcomes(layout, range(len(self._positions))):
            if not isinstance(result, ItemFailure):
                found[place] = result
        self._warn()
        return in_memory(layout, found, list(self.collection))

    def stored(self, *, force: bool) -> xr.DataArray:
        """Results of all prompts, those that the file lacks computed and stored."""
        reader = self.collection.base.source.reader
        pending = self._pending(force=force)
        if len(pending):
            self._store(self._layout, pending)
            reader.refresh()
            self.collection.refresh()
        self._warn()
        return result_array(reader, self.name, self._positions)

    def _pending(self, *, force: bool) -> Sequence[int]:
        """Places of the prompts to compute; drops what is stored if it is to be replaced."""
        reader = self.collection.base.source.reader
        reader.refresh()
        if self.name not in reader.result_names():
            return range(len(self._positions))
        held = reader.result(self.name)
        why = differing(held.layout.origin, self._origin)
        if why is None and not force:
            own = held.rows["prompt"].astype(np.intp)
            return np.flatnonzero(~np.isin(self._positions, own)).tolist()
        if not force:
            raise mismatch(reader.path, self.name, str(why))
        if why is not None or held.layout.differs_in(self._layout) is not None:
            drop_result(reader.path, self.name)
        return range(len(self._positions))

    def _store(self, layout: ArrayLayout, pending: Sequence[int]) -> None:
        source = self.collection.base.source
        n_done = 0
        with (
            StoreWriter(source.reader.path, None, [layout], figures=True) as writer,
            WriteBack(writer, {layout.key: partial(block, layout)}) as back,
            closing(self._outcomes(layout, pending)) as outcomes,
        ):
            failed_before = self._failed_before()
            try:
                for (position, _), result in outcomes:
                    if isinstance(result, ItemFailure):
                        back.add(position, {}, [self._record(position, result)])
                        continue
                    again = [withdrawn(self.name, place) for place in failed_before[position]]
                    back.add(position, {layout.key: result}, again, n_bytes=result.data.nbytes)
                    n_done += 1
            except (KeyboardInterrupt, ClusterLostError, NoWorkersError) as stop:
                stop.add_note(
                    f"results of {n_done:,} of {len(pending):,} prompts were stored in {source.reader.path.name}; "
                    "run the same again to go on"
                )
                raise

    def _failed_before(self) -> dict[int, list[Place]]:
        """Places of failures under the name, of whole prompts and of single heads, by position."""
        found: dict[int, list[Place]] = defaultdict(list)
        rows = self.collection.base.source.reader.figures.of(self.name)
        for row in rows[rows["flags"] & FAILED != 0]:
            layer, head = (None if row[d] == NONE else int(row[d]) for d in (LAYER, HEAD))
            found[int(row["prompt"])].append((int(row["prompt"]), layer, head))
        return found

    def _record(self, position: int, failure: ItemFailure) -> FigureRecord:
        place = (position, None, None)
        return failure_record(self.name, place, failure.error, failure.message, failure.traceback)

    def _outcomes(
        self, layout: ArrayLayout, places: Sequence[int]
    ) -> Generator[tuple[Item, Fitted | ItemFailure], None, None]:
        """Results and failures as they come."""
        batches = self._batches(places)
        options = self.options
        with tqdm(
            total=len(places), desc=self.name, unit="prompt", disable=not options.progress
        ) as bar:
            for outcome in run_batches(
                Fitting(self.prompt_function, layout),
                batches,
                client=options.client,
                n_workers=options.n_workers,
                timeout_seconds=options.timeout_seconds,
            ):
                for item, result in zip(outcome.items, outcome.results, strict=True):
                    if isinstance(result, ItemFailure):
                        self.failures[item[0]] = result
                    yield item, result
                bar.update(len(outcome.items))
                if self.failures:
                    bar.set_postfix(failed=len(self.failures), refresh=False)

    def _batches(self, places: Sequence[int]) -> list[list[Item]]:
        """Prompts as they lie in the file, so many together as take about half a second."""
        n_bytes = self.collection.base.dense_bytes()[np.asarray(places, np.intp)]
        most = min(_BATCH_BYTES, self._tried.bytes_a_second * _BATCH_SECONDS)
        batches: list[list[Item]] = []
        size = 0.0
        for item, own in zip(self._items(places), n_bytes.tolist(), strict=True):
            if not batches or size + own > most or len(batches[-1]) == _BATCH_PROMPTS:
                batches.append([])
                size = 0
            batches[-1].append(item)
            size += own
        return batches

    def _warn(self) -> None:
        if not self.failures:
            return
        position, first = next(iter(self.failures.items()))
        prompt = self.collection.base.source.prompt(position)
        warnings.warn(
            f"{self.name}: {counted(len(self.failures), 'prompt')} failed, the first is {prompt.hash!r} with "
            f"{first.error}: {first.message}; they are NaN, and are tried again when this is run again",
            MapWarning,
            stacklevel=5,
        )
