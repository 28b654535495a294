"""Prompts that are traced batch by batch, kept in memory or stored as they come.

A batch is one commit: while one runs, the one before is written. Whatever ends a run, what was committed stays, and the
next run with the same specification goes on from there.
"""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

import pattern_lens
from pattern_lens.activations.batch_run import is_out_of_memory, record_of
from pattern_lens.activations.resume import check_texts
from pattern_lens.store.adding import drop_trace
from pattern_lens.store.codec import give_way
from pattern_lens.store.header import Header, check_same_model
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.writer import StoreWriter
from pattern_lens.tracing.batch import Batch
from pattern_lens.tracing.batching import Batches
from pattern_lens.tracing.identity import check_same_asked, check_same_trace, trace_name
from pattern_lens.tracing.in_memory import result_in_memory
from pattern_lens.tracing.stored import read_trace
from pattern_lens.tracing.writing import SPEC, block_of, fitted, pending, spec_values, trace_layouts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pattern_lens.activations.batches import TokenizedPrompt
    from pattern_lens.store.layout import ArrayLayout
    from pattern_lens.tracing.result import TraceResult
    from pattern_lens.tracing.specification import Asked
    from pattern_lens.tracing.tracer import Tracer, Values


@dataclass(frozen=True, eq=False)
class TraceRun:
    """Prompts that are to be traced, and how.

    Attributes
    ----------
    spec
        What the file says of the trace.
    """

    tracer: Tracer
    prompts: Sequence[TokenizedPrompt]
    asked: Sequence[Asked]
    spec: Mapping[str, Any]
    path: Path | None
    batch_size: int
    progress: bool

    @cached_property
    def _provenance(self) -> dict[str, Any]:
        return self.tracer.around.model.provenance()

    # --- where results go ---------------------------------------------------------------------

    def in_memory(self) -> TraceResult:
        """Trace all prompts, and keep the results here."""
        kept: list[Values] = [{} for _ in self.prompts]
        with self._bar(len(self.prompts)) as bar:
            for batch, values in self._batches(range(len(self.prompts))):
                for number, own in zip(batch.numbers, values, strict=True):
                    kept[number] = own
                bar.update(len(batch))
        return result_in_memory(self, kept)

    def stored(self, name: str | None, *, force: bool) -> TraceResult:
        """Trace the prompts that the file lacks, and store the results there."""
        assert self.path is not None  # noqa: S101 - the caller asked
        name = trace_name(self.spec) if name is None else name
        todo = self._pending(name, force=force)
        if todo:
            self._store(name, todo)
        reader = StoreReader(self.path)
        own = [reader.prompts.position(one.prompt.hash) for one in self.prompts]
        found = read_trace(reader, name, np.array(own, np.intp))
        found.set_close(reader.close)
        return found

    def _pending(self, name: str, *, force: bool) -> list[int]:
        """Numbers of the prompts to trace; drops what is stored if it is to be replaced."""
        everything = list(range(len(self.prompts)))
        if self.path is None or not self.path.exists():
            return everything
        reader = StoreReader(self.path)
        try:
            check_same_model(self.path, reader.model, self._provenance)
            if name not in reader.trace_names():
                return everything
            if check_same_trace(self.path, name, reader.trace_spec(name), self.spec, force=force):
                return everything if force else self._lacking(reader, name)
        finally:
            reader.close()
        drop_trace(self.path, name)
        return everything

    def _lacking(self, reader: StoreReader, name: str) -> list[int]:
        check_texts(reader, [one.prompt for one in self.prompts])
        found = {n: reader.prompts.find(one.prompt.hash) for n, one in enumerate(self.prompts)}
        known = {n: position for n, position in found.items() if position is not None}
        if self.spec["own"]:
            self._check_asked(reader, name, known)
        variables = reader.trace_variables(name)
        lacking = set(pending(reader, name, variables, list(known.values())))
        return [n for n in range(len(self.prompts)) if n not in known or known[n] in lacking]

    def _check_asked(self, reader: StoreReader, name: str, known: Mapping[int, int]) -> None:
        """Raise where a prompt was asked something else before."""
        specs = reader.trace_array(name, SPEC)
        for number, position in known.items():
            row = specs.row_of(position)
            if row is not None:
                said = json.loads(specs.read(row).tobytes())
                prompt_hash = self.prompts[number].prompt.hash
                check_same_asked(reader.path, name, prompt_hash, said, self.asked[number])

    def _store(self, name: str, todo: Sequence[int]) -> None:
        assert self.path is not None  # noqa: S101 - the caller asked
        model = self.tracer.around.model
        batches = self._batches(todo)
        first = next(batches)  # before the file is touched: an error leaves it as it is
        layouts = self.layouts(name, first[1][0], first[0].asked[0])
        vocab = {} if self.path.exists() else {"vocab": model.vocab()}
        said = {name: {**self.spec, "created_utc": datetime.now(UTC).isoformat(timespec="seconds")}}
        with (
            StoreWriter(
                self.path,
                Header(self._provenance, **vocab),
                list(layouts.values()),
                gives_way=model.device.type == "cpu",
                traces=said,
            ) as writer,
            self._bar(len(todo)) as bar,
            ThreadPoolExecutor(1, "pattern-lens-writer", initializer=give_way) as background,
        ):
            writer.commit([record_of(self.prompts[n]) for n in sorted(todo)], {})
            writing: Future[None] | None = None
            for batch, values in _with(first, batches):
                if writing is not None:
                    writing.result()
                writing = background.submit(self._commit, writer, layouts, batch, values)
                bar.update(len(batch))
            if writing is not None:
                writing.result()

    def layouts(
        self, name: str, values: Values, asked: Asked, *, packed: bool = True
    ) -> dict[str, ArrayLayout]:
        """How each variable lies in the file, from one prompt's values; `packed` if only the half of triangles is kept."""
        examples = {key: self.tracer.labelled(key, value) for key, value in values.items()}
        examples[SPEC] = spec_values(asked.to_json())
        origin = {"pattern_lens": pattern_lens.__version__}
        found = trace_layouts(
            name, examples, origin, triangles=self.tracer.jobs.triangles if packed else ()
        )
        return dict(zip(examples, found, strict=True))

    @staticmethod
    def _commit(
        writer: StoreWriter,
        layouts: Mapping[str, ArrayLayout],
        batch: Batch,
        values: Sequence[Values],
    ) -> None:
        blocks = {}
        for key, layout in layouts.items():
            each = [
                spec_values(asked.to_json()) if key == SPEC else own[key]
                for own, asked in zip(values, batch.asked, strict=True)
            ]
            blocks[layout.key] = block_of(layout, [fitted(layout, one) for one in each])
        writer.commit([record_of(one) for one in batch.prompts], blocks)

    # --- running ------------------------------------------------------------------------------

    def _bar(self, total: int) -> tqdm[Any]:
        name = self.tracer.around.model.name
        return tqdm(total=total, desc=f"tracing {name}", unit="prompt", disable=not self.progress)

    def _batches(self, numbers: Iterable[int]) -> Iterator[tuple[Batch, list[Values]]]:
        """Batches of some prompts with their values, the longest prompts first."""
        plan = self._plan(numbers)
        for chosen in plan:
            yield from self._halved(self._batch(chosen), plan)

    def _plan(self, numbers: Iterable[int]) -> Batches:
        """Which prompts run together."""
        lengths = [len(one.ids) for one in self.prompts]
        longest_first = sorted(numbers, key=lambda n: -lengths[n])
        return Batches(longest_first, lengths, self.tracer.around, self.batch_size)

    def _batch(self, numbers: Sequence[int]) -> Batch:
        """Some prompts that run together."""
        return Batch([self.prompts[n] for n in numbers], [self.asked[n] for n in numbers], numbers)

    def _halved(self, batch: Batch, plan: Batches) -> Iterator[tuple[Batch, list[Values]]]:
        """The values of a batch; of its halves where memory runs out."""
        try:
            values = self.tracer.run(batch)
        except (MemoryError, RuntimeError) as err:
            if not is_out_of_memory(err) or len(batch) == 1:
                raise
            plan.halve()
        else:
            yield batch, values
            return
        plan.give_memory_back()
        half = len(batch) // 2
        yield from self._halved(batch.half(slice(half)), plan)
        yield from self._halved(batch.half(slice(half, None)), plan)


def _with(first: Any, others: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from others
