"""Latents that delphi cached, into a file: no model is run, and nothing that the cache says is changed.

A block of token rows is one commit. Whatever ends an import, what was committed stays, and the next one goes on from
there.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

import pattern_lens
from pattern_lens.activations.asked import check_options, writable_target
from pattern_lens.activations.resume import missing_of
from pattern_lens.errors import FeatureCacheError
from pattern_lens.features.delphi_cache import cache_of
from pattern_lens.features.delphi_modules import modules_of
from pattern_lens.features.delphi_target import target_of
from pattern_lens.features.steps import READ, WRITE, FeatureReport, Steps
from pattern_lens.features.writing import latent_layouts, latents_block
from pattern_lens.store.features import check_same
from pattern_lens.store.layout import FEATURES
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.writer import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from pattern_lens.features.delphi_cache import Cache
    from pattern_lens.features.delphi_target import Target
    from pattern_lens.store.layout import ArrayLayout


def import_delphi(
    source: str | PathLike[str] | Sequence[str | PathLike[str]],
    path: str | PathLike[str],
    *,
    modules: Sequence[str] | None = None,
    autoencoders: Mapping[str, Any] | None = None,
    hooks: Mapping[str, str] | None = None,
    tokens: Any = None,
    model: Any = None,
    tokenizer: Any = None,
    batch_size: int = 256,
    dtype: Literal["float32", "float16"] | None = None,
    force: bool = False,
    progress: bool = True,
) -> FeatureReport:
    """Take a cache of latents that delphi made into a file, as `capture_features` would have stored them.

    Can be stopped at any time and run again: what is in the file, whole and with the right checksum, is not imported
    again.

    Parameters
    ----------
    source
        The cache's folder (with a folder for each module), one module's folder, or files of one module.
    path
        The file; it is created if it does not exist.
    modules
        Names of the modules that are wanted; all by default. Features are stored under the name of their module.
    autoencoders
        For modules, what `load_autoencoder` takes: then the file says whose features these are.
    hooks
        For modules without an autoencoder, the hook that they stand at, such as ``blocks.5.hook_resid_post``.
    tokens
        Token ids, dims (row, pos), where the cache was saved without them.
    model
        The model that was run, as in `capture`, for all that a file says of it. Else what the cache says.
    tokenizer
        A tokenizer, or the name or folder of one, for the texts of a file that is made without a model. Without either,
        tokens are shown by their ids.
    batch_size
        Most rows of tokens in one commit.
    dtype
        Type in which values are stored; that of the cache by default.
    force, progress
        As in `capture`.

    Returns
    -------
    Counts of prompts, one for each row of tokens that differs from the others.

    Raises
    ------
    FeatureCacheError
        Files are missing, cannot be read, or contradict each other; nothing was stored.
    FeaturesMismatchError, ModelMismatchError, AutoencoderError, TokenizerError, WriterActiveError, FileNotWritableError, DiskFullError
        As in `capture_features`.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> report = pl.import_delphi("results/run/latents", "doc.h5", tokenizer="gpt2")  # doctest: +SKIP
    """
    started = time.monotonic()
    target_path = writable_target(path)
    check_options(batch_size, dtype, ("float32", "float16", None))
    wanted = modules_of(source, modules)
    of = {"autoencoders": autoencoders or {}, "hooks": hooks or {}}
    for option, given in of.items():
        unknown = [name for name in given if name not in {module.name for module in wanted}]
        if unknown:
            raise FeatureCacheError(
                f"{option}= names module {unknown[0]!r}, and what is imported is {', '.join(m.name for m in wanted)}"
            )
    bar = tqdm(
        wanted, "looking through the cache", unit="module", disable=not progress, leave=False
    )
    caches = [
        cache_of(one, tokens, of["autoencoders"].get(one.name), of["hooks"].get(one.name))
        for one in bar
    ]
    said = [name for module in wanted if (name := module.config.get("model_name"))]
    target = target_of(
        target_path,
        said_model=str(said[0]) if said else None,
        n_ctx=max(cache.tokens.shape[1] for cache in caches),
        n_ids=max(int(cache.tokens.max()) for cache in caches) + 1,
        model=model,
        tokenizer=tokenizer,
    )
    return _Import(target, caches, batch_size, dtype, progress).run(started, force=force)


@dataclass(frozen=True)
class _Done:
    """What was stored so far: hashes of prompts, and entries by module."""

    prompts: set[str] = field(default_factory=set)
    n_entries: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, eq=False)
class _Import:
    """One import: its file, its modules and its options."""

    target: Target
    caches: Sequence[Cache]
    batch_size: int
    dtype: str | None
    progress: bool

    def run(self, started: float, *, force: bool) -> FeatureReport:
        """Import what the file lacks."""
        layouts = {cache.module.name: self._layouts(cache) for cache in self.caches}
        pending = {c.module.name: self._pending(c, layouts, force=force) for c in self.caches}
        steps, done = Steps(), _Done()
        if any(pending.values()):
            self._store(layouts, pending, steps, done)
        lengths = {c.hashes[n]: c.tokens.shape[1] for c in self.caches for n in c.rows}
        return FeatureReport(
            path=self.target.path,
            n_stored=len(done.prompts),
            n_present=len(lengths) - len(done.prompts),
            n_truncated=0,
            seconds=time.monotonic() - started,
            n_tokens=sum(lengths[one] for one in done.prompts),
            n_entries={name: done.n_entries[name] for name in layouts},
            step_seconds=dict(steps.seconds),
        )

    def _store(
        self,
        layouts: Mapping[str, Sequence[ArrayLayout]],
        pending: Mapping[str, Sequence[int]],
        steps: Steps,
        done: _Done,
    ) -> None:
        n_rows = sum(map(len, pending.values()))
        every = [layout for own in layouts.values() for layout in own]
        said = {cache.module.name: cache.identity for cache in self.caches}
        path, header = self.target.path, self.target.header
        with (
            StoreWriter(path, header, every, features=said) as writer,
            tqdm(total=n_rows, desc="importing", unit="row", disable=not self.progress) as bar,
        ):
            for cache in self.caches:
                name = cache.module.name
                for block in cache.blocks(pending[name], self.batch_size):
                    with steps.timed(READ):
                        found = cache.entries(block[0], block[-1] + 1)
                        entries = [found[number - block[0]] for number in block]
                        records = [self.target.record(cache.tokens[n]) for n in block]
                    with steps.timed(WRITE):
                        writer.commit(records, latents_block(layouts[name], entries))
                    done.n_entries[name] += sum(len(values) for *_, values in entries)
                    done.prompts.update(record.hash for record in records)
                    bar.update(len(block))

    def _layouts(self, cache: Cache) -> list[ArrayLayout]:
        is_half = all(split.is_half for split in cache.module.splits)
        return latent_layouts(
            cache.module.name,
            n_features=int(cache.identity["n_features"]),
            n_ctx=int(cache.tokens.shape[1]),
            dtype=self.dtype or ("float16" if is_half else "float32"),
            origin={"pattern_lens": pattern_lens.__version__, "imported_from": "delphi"},
        )

    def _pending(
        self, cache: Cache, layouts: Mapping[str, Sequence[ArrayLayout]], *, force: bool
    ) -> list[int]:
        """Rows of which the file lacks latents, or has damaged ones."""
        rows, name = cache.rows, cache.module.name
        if not self.target.path.exists():
            return rows
        reader = StoreReader(self.target.path)
        try:
            if name not in reader.feature_sets():
                return rows
            check_same(reader.path, f"{FEATURES}/{name}", reader.feature_set(name), cache.identity)
            if force or not len(reader.with_latents(name)):
                return rows
            keys = [layout.key for layout in layouts[name]]
            arrays = {layout.key: reader.stored(layout.group) for layout in layouts[name]}
            positions = [reader.prompts.find(cache.hashes[row]) for row in rows]
            lacking = missing_of(arrays, positions, keys, progress=self.progress)
            whole = set(reader.with_latents(name).tolist())
            return [
                row
                for row, position, lacks in zip(rows, positions, lacking, strict=True)
                if lacks or position not in whole
            ]
        finally:
            reader.close()
