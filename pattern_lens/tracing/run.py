"""Prompts, and what is asked of them, to stored and labelled traces.

A batch is one commit: while one runs, the one before is written. Whatever ends a run, what was committed stays, and the
next run with the same specification goes on from there.
"""

from __future__ import annotations

import json
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

import pattern_lens
from pattern_lens.activations.batch_run import is_out_of_memory, record_of
from pattern_lens.activations.batches import TokenizedPrompt
from pattern_lens.activations.resume import check_texts
from pattern_lens.errors import FileNotWritableError, SpecificationError
from pattern_lens.models import CaptureModel, load_model
from pattern_lens.prompts import PromptSet, read_prompts
from pattern_lens.store.adding import drop_trace
from pattern_lens.store.codec import give_way
from pattern_lens.store.header import Header, check_same_model
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.writer import StoreWriter
from pattern_lens.tracing.attention import find_live_hooks
from pattern_lens.tracing.baselines import Baselines
from pattern_lens.tracing.batch import Batch
from pattern_lens.tracing.batching import Batches
from pattern_lens.tracing.forward_pass import Surroundings
from pattern_lens.tracing.identity import (
    check_same_asked,
    check_same_trace,
    specification,
    trace_name,
)
from pattern_lens.tracing.in_memory import result_in_memory
from pattern_lens.tracing.norms import Norms
from pattern_lens.tracing.scalars import scalar_names
from pattern_lens.tracing.sites import Sites
from pattern_lens.tracing.specification import Asked, Resolver, positions_in
from pattern_lens.tracing.splice import splice
from pattern_lens.tracing.stored import read_trace
from pattern_lens.tracing.tracer import Tracer
from pattern_lens.tracing.writing import SPEC, block_of, fitted, pending, spec_values, trace_layouts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from os import PathLike

    from pattern_lens.prompts import Prompt
    from pattern_lens.store.layout import ArrayLayout
    from pattern_lens.tracing.result import TraceResult
    from pattern_lens.tracing.tracer import Values

_HALF = ("float16", "bfloat16")


def trace(
    model: Any,
    prompts: str | PathLike[str] | PromptSet | Iterable[str | Mapping[str, Any] | Prompt],
    path: str | PathLike[str] | None = None,
    *,
    objective: Any = None,
    ablate: Any = (),
    trace: Any = None,
    scalars: str | Iterable[str] = "default",
    sae: Any = None,
    baseline: Any = None,
    detach_norm: bool = True,
    name: str | None = None,
    batch_size: int = 32,
    client: Any = None,
    force: bool = False,
    progress: bool = True,
    device: Any = None,
    weights: Any = None,
    prepend_bos: bool | None = None,
    seed: int = 0,
) -> TraceResult:
    """Ask what makes a model say what it says: one forward and one backward pass over prompts, with ablations.

    Parameters
    ----------
    model
        Hub name, local folder, live TransformerBridge or HookedTransformer, or what `load_model` returned.
    prompts
        As for `capture`. A prompt that is there twice is traced once.
    path
        The file in which the trace is stored, with its specification; it is created if it does not exist. None: kept in memory.
    objective
        What is differentiated: `logit_diff`, `logit_minus_mean`, `probs`, `zero`, `direction` or `node`. One for all prompts, a
        list of one for each, or a mapping from hash or text.
    ablate
        Ablations, or their labels (``"L3H5"``); for all prompts, or a list or mapping of several for each.
    trace
        A `Trace`, or its label (``"L3H5@7,4:K"``): the node whose causes are asked for, instead of an objective.
    scalars
        What is derived: names of `pattern_lens.tracing.scalars`, kinds (``"head"``, ``"pair"``, ``"neuron"``), globs, activations
        (``"pattern"``, ``"z_grad"``).
    sae
        Autoencoders that are spliced in: a mapping from hook to an object with ``encode`` and ``decode``.
    baseline
        Prompts for means and resampling: as many as `prompts` are their partners in order.
    detach_norm
        Whether the divisor of the norm through which the objective, or the traced node, reads the stream is a constant.
    name
        Under which it is stored; by default made from the specification.
    batch_size
        Most prompts in one pass and one commit; fewer where memory asks for it.
    client
        A dask client, or a scheduler's address: batches run on its workers, each with a model of its own; `model` is a name or
        folder then.
    force
        Compute again what is stored; a trace of another specification under this name is replaced.
    progress
        Whether to show a progress bar.
    device, weights, prepend_bos
        As in `load_model`.
    seed
        Of the pairing of prompts for ``value="resample"``.

    Returns
    -------
    Dims (prompt, ...): per prompt ``objective``, ``node_value`` of what is traced, ``constant`` (what no component writes), ``closure_error``
    (how far the parts are from a linear objective; NaN where there is no such sum), ``seconds`` and ``memory_bytes``, and
    each scalar. Lazy where it is stored.

    Raises
    ------
    SpecificationError, UnknownScalarError
        Something that the model does not have, or that contradicts itself; before anything is computed.
    NoGradientError
        No gradient arrived where one was asked for.
    TraceMismatchError
        A trace of this name was made with another specification.
    PromptError, ModelNotFoundError, ModelMismatchError, WriterActiveError, FileNotWritableError, DiskFullError
        As in `capture`; what was stored before stays.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> from pattern_lens.demo import model_path
    >>> found = pl.trace(
    ...     model_path(), ["one two one two"], objective=pl.logit_diff(" one", " two"), progress=False
    ... )  # doctest: +SKIP
    >>> found.nodes(by="direct_effect", k=5)  # doctest: +SKIP
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise SpecificationError(
            f"batch_size is {batch_size!r}, expected a whole number of at least 1"
        )
    options = {"device": device, "weights": weights, "prepend_bos": prepend_bos}
    given = {key: value for key, value in options.items() if value is not None}
    loaded = load_model(model, **given)
    run = prepared(
        loaded,
        prompts,
        None if path is None else _target(path),
        objective=objective,
        ablate=ablate,
        trace=trace,
        scalars=scalars,
        sae=sae,
        baseline=baseline,
        detach_norm=detach_norm,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
    )
    if client is not None:
        from pattern_lens.tracing.cluster import on_workers

        run = on_workers(run, client, model, given, sae)
    return run.in_memory() if run.path is None else run.stored(name, force=force)


def _target(path: str | PathLike[str]) -> Path:
    target = Path(path).expanduser().resolve()
    if target.is_dir() or not target.parent.is_dir():
        raise FileNotWritableError(
            f"cannot write {target}: expected a file in a folder that exists, such as {target.parent / 'model.h5'}"
        )
    return target


def surroundings(loaded: CaptureModel, sae: Any = None) -> Surroundings:
    """A model and what has to be found out about it before anything is traced.

    Raises
    ------
    SpecificationError
        A model that cannot be traced, or an autoencoder that does not fit.
    """
    if loaded.dtype in _HALF:
        warnings.warn(
            f"model {loaded.name!r} computes in {loaded.dtype}: gradients lose most of their digits there; load it in float32",
            UserWarning,
            stacklevel=4,
        )
    if not hasattr(loaded.model, "blocks") or not hasattr(loaded.model, "unembed"):
        raise SpecificationError(
            f"model {loaded.name!r} cannot be traced: expected a decoder, with blocks and an unembedding"
        )
    sites = Sites(loaded, splice(loaded, sae))
    return Surroundings(loaded, sites, Norms(loaded), find_live_hooks(loaded))


def prepared(
    loaded: CaptureModel,
    prompts: Any,
    path: Path | None,
    *,
    objective: Any,
    ablate: Any,
    trace: Any,
    scalars: Any,
    sae: Any,
    baseline: Any,
    detach_norm: bool,
    seed: int,
    batch_size: int,
    progress: bool,
) -> TraceRun:
    """Everything checked, and nothing computed yet."""
    wanted = prompts if isinstance(prompts, PromptSet) else read_prompts(prompts)
    around = surroundings(loaded, sae)
    names = scalar_names(scalars)
    asked = Resolver(loaded, around.sites).each(wanted.prompts, objective, ablate, trace)
    rows = [tokenized(loaded, prompt) for prompt in wanted]
    for one, own in zip(rows, asked, strict=True):
        positions_in(own, len(one.ids), one.prompt.text[:40], causal=loaded.causal)
    others = others_of(loaded, baseline)
    baselines = Baselines(around, path, others, rows, seed)
    has_nodes = any(one.trace is not None for one in asked)
    tracer = Tracer(around, names, detach_norm, baselines, has_nodes)
    spec = specification(
        asked, tracer, seed=seed, baseline=[one.prompt.hash for one in others or ()]
    )
    return TraceRun(tracer, rows, asked, spec, path, batch_size, progress)


def others_of(loaded: CaptureModel, baseline: Any) -> list[TokenizedPrompt] | None:
    """The prompts that means and other prompts' values are taken from."""
    if baseline is None:
        return None
    # a list may say one prompt several times: each is a partner
    is_list = isinstance(baseline, list | tuple) and all(isinstance(one, str) for one in baseline)
    several = (
        [read_prompts([text])[0] for text in baseline] if is_list else [*read_prompts(baseline)]
    )
    return [tokenized(loaded, prompt) for prompt in several]


def tokenized(loaded: CaptureModel, prompt: Prompt) -> TokenizedPrompt:
    """A prompt with its token ids."""
    tokens = loaded.tokenize(prompt.text)
    return TokenizedPrompt(prompt, tokens.ids, tokens.truncated, tokens.bos)


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
            check_same_model(self.path, reader.model, self.tracer.around.model.provenance())
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
                Header(model.provenance(), **vocab),
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
            name, examples, origin, triangles=self.tracer.triangles if packed else ()
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
        plan = Batches(
            sorted(numbers, key=lambda n: -len(self.prompts[n].ids)),
            [len(one.ids) for one in self.prompts],
            self.tracer.around,
            self.batch_size,
        )
        for chosen in plan:
            yield from self._halved(self._batch(chosen), plan)

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
