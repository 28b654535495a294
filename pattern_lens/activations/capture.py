"""Model and prompts to a file: batches run while the batch before is compressed and written.

A batch is one commit. Whatever ends a run, what was committed stays, and the next run goes on from there.
"""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm import tqdm

import pattern_lens
from pattern_lens.activations.batch_run import BatchRun, record_of
from pattern_lens.activations.batches import TokenizedPrompt
from pattern_lens.activations.estimate import Estimate, estimate
from pattern_lens.activations.hooks import HookGroup, each_name, resolve_names
from pattern_lens.activations.layouts import layout_of
from pattern_lens.activations.probe import probe
from pattern_lens.activations.report import CaptureReport
from pattern_lens.activations.residual import NEURONS, Residual
from pattern_lens.activations.resume import check_texts, missing_names, with_stored_layers
from pattern_lens.errors import DiskSpaceWarning, FileNotWritableError, PromptError
from pattern_lens.models import CaptureModel, load_model
from pattern_lens.names import RESIDUAL
from pattern_lens.prompts import PromptSet, read_prompts
from pattern_lens.store.header import Header, check_same_model
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.writer import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence
    from os import PathLike

    from pattern_lens.prompts import Prompt
    from pattern_lens.store.layout import ArrayLayout

_N_PROBED = 8
_N_REGISTERED = 4096


def capture(
    model: Any,
    prompts: str | PathLike[str] | PromptSet | Iterable[str | Mapping[str, Any] | Prompt],
    path: str | PathLike[str],
    *,
    names: Any = ("pattern",),
    batch_size: int = 32,
    dtype: str | None = None,
    device: Any = None,
    force: bool = False,
    progress: bool = True,
    weights: Any = None,
    prepend_bos: bool | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    on_estimate: Callable[[Estimate], None] | None = None,
) -> CaptureReport:
    """Run prompts through a model and store what its hooks compute, in one file.

    Can be stopped at any time and run again: what is in the file, whole and with the right checksum, is not computed
    again. Further prompts, or further activations of the same prompts, go into the same file.

    Parameters
    ----------
    model
        Hub name, local folder, live TransformerBridge or HookedTransformer, or what `load_model` returned.
    prompts
        A ``.jsonl``, ``.jsonl.gz`` or ``.txt`` file, an iterable of strings or mappings with a ``text``, or what
        `read_prompts` returned. Longer prompts than the model's context are cut, and marked so.
    path
        The file; it is created if it does not exist.
    names
        Short names (``pattern``, ``resid_post``), hook names, globs, regular expressions, functions over hook names,
        or several of these. ``residual`` is all that taking the residual stream apart needs, with the weights for it
        once per file; ``["residual", "mlp_post"]`` the same with neurons.
    batch_size
        Most prompts in one forward pass and one commit; fewer where memory asks for it.
    dtype
        ``float32``, ``float16`` or ``bfloat16`` to store something else than what the model computes.
    device
        Where to load a model that is given by name or folder.
    force
        Compute again what is there; the newer values hold.
    progress
        Whether to show progress bars.
    weights, prepend_bos
        As in `load_model`.
    on_error
        What to do with a prompt that cannot be used: ``raise``, or ``skip`` it and say so in the report.
    on_estimate
        Called once with the size of what will be stored, before anything is.

    Returns
    -------
    Counts, failures and time.

    Raises
    ------
    PromptError, ModelNotFoundError, UnknownHookError, HookSilentError, NoResidualStreamError
        Before anything is computed.
    ModelMismatchError
        The file was captured from another model, in another weights mode or with another tokenizer.
    WriterActiveError, FileNotWritableError, DiskFullError
        What was stored before stays.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> from pattern_lens.demo import model_path
    >>> report = pl.capture(model_path(), ["one two one two"], "doc.h5", progress=False)  # doctest: +SKIP
    """
    target = _writable_target(path)
    _check_options(batch_size, dtype)
    wanted = prompts if isinstance(prompts, PromptSet) else read_prompts(prompts, on_error=on_error)
    options = {"device": device, "weights": weights, "prepend_bos": prepend_bos}
    loaded = load_model(
        model, **{key: value for key, value in options.items() if value is not None}
    )
    each = each_name(names)
    provenance = loaded.provenance()
    groups = with_stored_layers(target, provenance, resolve_names(each, loaded))
    run = _Run(
        model=loaded,
        provenance=provenance,
        groups=groups,
        takes_apart=RESIDUAL in each,
        path=target,
        dtype=dtype,
        batch_size=batch_size,
        progress=progress,
        on_estimate=on_estimate,
    )
    return run.capture(wanted, force=force, on_error=on_error)


def _writable_target(path: str | PathLike[str]) -> Path:
    target = Path(path).expanduser().resolve()
    if target.is_dir():
        raise FileNotWritableError(
            f"cannot write {target}: it is a folder; name a file in it, such as {target / 'model.h5'}"
        )
    if not target.parent.is_dir():
        raise FileNotWritableError(
            f"cannot write {target}: there is no folder {target.parent}; create it first"
        )
    return target


def _check_options(batch_size: int, dtype: str | None) -> None:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}, expected a whole number of at least 1")
    if dtype not in {None, "float16", "float32", "bfloat16", "float64"}:
        raise ValueError(
            f"dtype is {dtype!r}, expected 'float32', 'float16', 'bfloat16', 'float64' or None"
        )


@dataclass(frozen=True)
class _Run:
    """One capture: its model, hooks, file and options."""

    model: CaptureModel
    provenance: Mapping[str, Any]
    groups: Sequence[HookGroup]
    takes_apart: bool
    path: Path
    dtype: str | None
    batch_size: int
    progress: bool
    on_estimate: Callable[[Estimate], None] | None

    def capture(self, wanted: PromptSet, *, force: bool, on_error: str) -> CaptureReport:
        started = time.monotonic()
        skipped = list(wanted.errors)
        first_ids = self._first_ids(wanted)
        layouts = self._layouts(first_ids)
        pending = self._pending(wanted, tuple(layouts), force=force)
        residual = self._residual(first_ids, layouts)
        ready: list[tuple[TokenizedPrompt, tuple[str, ...]]] = []
        bar = tqdm(pending, "tokenizing", unit="prompt", disable=not self.progress, leave=False)
        for prompt, names in bar:
            try:
                ready.append((self._tokenize(prompt), names))
            except PromptError as err:
                if on_error == "raise":
                    raise
                skipped.append(str(err))
        weights = self._lacking(residual)
        self._tell(ready, layouts, weights)
        failures = self._store(ready, layouts, residual, weights) if ready or weights else {}
        done = [one for one, _ in ready if one.prompt.hash not in failures]
        return CaptureReport(
            path=self.path,
            n_stored=len(done),
            n_present=len(wanted) - len(pending),
            n_truncated=sum(one.truncated for one in done),
            seconds=time.monotonic() - started,
            failures=failures,
            skipped=tuple(skipped),
        )

    def _first_ids(self, wanted: PromptSet) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Token ids of the first prompt that has any, at least two for a pattern to have a shape."""
        for prompt in wanted:
            with suppress(PromptError):
                ids = self._tokenize(prompt).ids
                return np.resize(ids, min(max(len(ids), 2), _N_PROBED))
        self._tokenize(wanted[0])  # raises, and says why
        raise PromptError("none of the prompts has tokens")

    def _pending(
        self, wanted: PromptSet, names: tuple[str, ...], *, force: bool
    ) -> list[tuple[Prompt, tuple[str, ...]]]:
        """The prompts that lack something in the file, and what."""
        if not self.path.exists():
            return [(prompt, names) for prompt in wanted]
        reader = StoreReader(self.path)
        try:
            check_same_model(self.path, reader.model, self.provenance)
            check_texts(reader, wanted.prompts)
            if force:
                return [(prompt, names) for prompt in wanted]
            missing = missing_names(reader, wanted.prompts, names, progress=self.progress)
        finally:
            reader.close()
        return [(prompt, lack) for prompt, lack in zip(wanted, missing, strict=True) if lack]

    def _residual(
        self, ids: np.ndarray[Any, np.dtype[np.int32]], layouts: Mapping[str, ArrayLayout]
    ) -> Residual | None:
        """Weights and facts, where the residual stream is to be taken apart."""
        if not self.takes_apart:
            return None
        return Residual.of(self.model, ids, neurons=NEURONS in layouts)

    def _lacking(self, residual: Residual | None) -> dict[str, int]:
        """Bytes of the weights that the file lacks, by name."""
        if residual is None or not self.path.exists():
            return residual.lacking(None) if residual else {}
        reader = StoreReader(self.path)
        try:
            return residual.lacking(reader)
        finally:
            reader.close()

    def _tell(
        self,
        ready: Sequence[tuple[TokenizedPrompt, tuple[str, ...]]],
        layouts: Mapping[str, ArrayLayout],
        weights: Mapping[str, int],
    ) -> None:
        """Say how much will be stored, and warn where that is more than the disk has."""
        found = estimate(
            self.path, ((len(one.ids), names) for one, names in ready), layouts, weights
        )
        if self.on_estimate is not None and found.total_bytes:
            self.on_estimate(found)
        if found.warning:
            warnings.warn(found.warning, DiskSpaceWarning, stacklevel=4)

    def _tokenize(self, prompt: Prompt) -> TokenizedPrompt:
        tokens = self.model.tokenize(prompt.text)
        return TokenizedPrompt(prompt, tokens.ids, tokens.truncated, tokens.bos)

    def _layouts(self, ids: np.ndarray[Any, np.dtype[np.int32]]) -> dict[str, ArrayLayout]:
        """What will be stored, by name: known from one small forward pass."""
        origin = {
            "captured_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "batch_size": self.batch_size,
            "device": str(self.model.device),
            "pattern_lens": pattern_lens.__version__,
        }
        seen = probe(self.model, self.groups, ids)
        return {
            group.name: layout_of(group, seen[group.name], self.dtype, origin)
            for group in self.groups
            if group.name in seen
        }

    def _store(
        self,
        ready: Sequence[tuple[TokenizedPrompt, tuple[str, ...]]],
        layouts: Mapping[str, ArrayLayout],
        residual: Residual | None,
        weights: Container[str],
    ) -> dict[str, str]:
        vocab = {} if self.path.exists() else {"vocab": self.model.vocab()}
        header = Header(self.provenance, **vocab)
        every = [*layouts.values(), *(residual.layouts if residual else ())]
        facts = residual.facts if residual else None
        jobs: dict[tuple[str, ...], list[TokenizedPrompt]] = defaultdict(list)
        for one, names in ready:
            jobs[names].append(one)
        failures: dict[str, str] = {}
        stored: list[TokenizedPrompt] = []
        batches = BatchRun(self.model, self.groups, self.batch_size)
        with (
            StoreWriter(
                self.path, header, every, gives_way=batches.is_on_cpu, facts=facts
            ) as writer,
            tqdm(
                total=len(ready),
                desc=f"capturing {self.model.name}",
                unit="prompt",
                disable=not self.progress,
            ) as bar,
        ):
            if residual:
                residual.write(writer, weights)
            # all prompts first, so that they stand in the file in the order in which they were given
            for first in range(0, len(ready), _N_REGISTERED):
                part = ready[first : first + _N_REGISTERED]
                writer.commit([record_of(one) for one, _ in part], {})
            try:
                for names, prompts in jobs.items():
                    chosen = {name: layouts[name] for name in names}
                    failures |= batches.store(writer, prompts, chosen, stored, bar)
            except KeyboardInterrupt as stop:
                stop.add_note(
                    f"values of {len(stored):,} of {len(ready):,} prompts were stored in {self.path.name}; "
                    "run the same again to go on"
                )
                raise
        return failures
