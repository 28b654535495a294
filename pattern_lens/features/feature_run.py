"""One capture of latents, and of activations besides, from its prompts to its report."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from pattern_lens.activations.capture_run import CaptureRun
from pattern_lens.activations.estimate import estimate
from pattern_lens.activations.resume import missing_of
from pattern_lens.errors import DeadAutoencoderWarning
from pattern_lens.features.buffer import FeatureBuffer
from pattern_lens.features.steps import (
    ENCODE,
    FORWARD,
    PACK,
    SPARSE,
    WRITE,
    FeatureEstimate,
    FeatureReport,
)
from pattern_lens.features.writing import latent_layouts
from pattern_lens.store.features import FEATURE, check_same
from pattern_lens.store.layout import FEATURES
from pattern_lens.store.reader import StoreReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pattern_lens.activations.batch_run import Buffer
    from pattern_lens.activations.batches import TokenizedPrompt
    from pattern_lens.activations.capture_run import Ids, Ready, Results
    from pattern_lens.activations.report import CaptureReport
    from pattern_lens.features.buffer import Sparsely
    from pattern_lens.features.encoders import Encoder
    from pattern_lens.prompts import Prompt
    from pattern_lens.store.layout import ArrayLayout


@dataclass
class Found:
    """What a run finds out on its way."""

    estimated: FeatureEstimate | None = None
    n_tokens: int = 0
    bytes_before: int = 0


@dataclass(frozen=True, kw_only=True)
class FeatureRun(CaptureRun):
    """A capture of latents.

    Parameters
    ----------
    encoders
        Autoencoders, checked.
    options
        How their latents are stored.
    latent_dtype
        Type of their values; `dtype` is that of activations.
    """

    encoders: Sequence[Encoder]
    options: Sparsely
    latent_dtype: str
    found: Found = field(default_factory=Found)

    @cached_property
    def identities(self) -> dict[str, dict[str, Any]]:
        """What the file says of each autoencoder."""
        more = {"threshold": self.options.threshold}
        return {one.name: {**one.autoencoder.identity(), **more} for one in self.encoders}

    @cached_property
    def latents(self) -> dict[str, list[ArrayLayout]]:
        """Layouts of latents, by autoencoder."""
        origin = self.origin()
        return {
            one.name: latent_layouts(
                one.name,
                n_features=one.n_features,
                n_ctx=self.model.n_ctx,
                dtype=self.latent_dtype,
                origin=origin,
            )
            for one in self.encoders
        }

    # --- what is captured -------------------------------------------------------------------------

    def layouts(self, ids: Ids) -> dict[str, ArrayLayout]:
        """Those of activations, and of the latents of each autoencoder."""
        own = [layout for each in self.latents.values() for layout in each]
        return {**super().layouts(ids), **{layout.key: layout for layout in own}}

    def check(self, reader: StoreReader) -> None:
        """Raise unless the file is of the same model, and its features of the same autoencoders."""
        super().check(reader)
        held = reader.feature_sets()
        for name, identity in self.identities.items():
            if name in held:
                check_same(self.path, f"{FEATURES}/{name}", reader.feature_set(name), identity)

    def missing(
        self, reader: StoreReader, prompts: Sequence[Prompt], names: Sequence[str]
    ) -> list[tuple[str, ...]]:
        """For each prompt what the file lacks of it; of latents all variables or none."""
        held = set(reader.names())
        arrays = {name: reader.array(name) for name in names if name in held}
        for name in set(reader.feature_sets()) & self.latents.keys():
            if len(reader.with_latents(name)):
                arrays |= {one.key: reader.stored(one.group) for one in self.latents[name]}
        positions = [reader.prompts.find(prompt.hash) for prompt in prompts]
        lacking = missing_of(arrays, positions, names, progress=self.progress)
        for name, each in self.latents.items():
            keys = {layout.key for layout in each}
            whole = set(reader.with_latents(name).tolist()) if keys & arrays.keys() else set()
            for position, lacks in zip(positions, lacking, strict=True):
                if position not in whole or lacks & keys:
                    lacks |= keys  # noqa: PLW2901 - in place
        return [tuple(name for name in names if name in lacks) for lacks in lacking]

    def buffer(
        self, layouts: Mapping[str, ArrayLayout], batch: Sequence[TokenizedPrompt]
    ) -> Buffer:
        """What takes the values of one batch."""
        wanted = [one for one in self.encoders if self.latents[one.name][0].key in layouts]
        activations = super().buffer(layouts, batch)
        return FeatureBuffer(activations, wanted, self.latents, batch, self.options)

    def rooms(self) -> dict[str, Any]:
        """What the file is to say of autoencoders."""
        self.found.bytes_before = self.path.stat().st_size if self.path.exists() else 0
        return {"features": self.identities}

    # --- what is told -----------------------------------------------------------------------------

    def tell(
        self,
        results: Results,
        ready: Ready,
        layouts: Mapping[str, ArrayLayout],
        weights: Mapping[str, int],
    ) -> Results:
        """Run the first batch, and say how much and how long all will be; the file is not touched yet."""
        timed = self._timed(results)
        first = next(timed, None)
        if first is not None:
            self.found.estimated = self._estimated(first, ready, layouts, weights)
            self.announce(self.found.estimated)
        return timed if first is None else chain([first], timed)

    def _timed(self, results: Results) -> Results:
        while True:
            with self.options.steps.around(FORWARD, ENCODE, SPARSE, PACK):
                one = next(results, None)
            if one is None:
                return
            self.found.n_tokens += sum(len(prompt.ids) for prompt in one[0])
            yield one

    def _estimated(
        self,
        first: tuple[Sequence[TokenizedPrompt], Buffer],
        ready: Ready,
        layouts: Mapping[str, ArrayLayout],
        weights: Mapping[str, int],
    ) -> FeatureEstimate:
        """What all prompts will take, if they are like those of the first batch."""
        batch, buffer = first
        n_first = sum(len(one.ids) for one in batch)
        n_tokens = sum(len(one.ids) for one, _ in ready)
        sizes = buffer.n_entries if isinstance(buffer, FeatureBuffer) else {}
        n_active = {name: n / n_first for name, n in sizes.items()}
        keys = layouts.keys() - {one.key for each in self.latents.values() for one in each}
        own = ((len(one.ids), [n for n in names if n in keys]) for one, names in ready)
        known = estimate(self.path, own, {key: layouts[key] for key in keys}, weights)
        return FeatureEstimate(
            path=self.path,
            n_prompts=len(ready),
            activation_bytes={
                **known.activation_bytes,
                **{name: int(n * n_tokens * self._entry_bytes) for name, n in n_active.items()},
            },
            weight_bytes=weights,
            free_bytes=known.free_bytes,
            n_tokens=n_tokens,
            seconds={
                step: seconds * n_tokens / n_first
                for step, seconds in self.options.steps.seconds.items()
            },
            n_active=n_active,
        )

    @cached_property
    def _entry_bytes(self) -> int:
        """Bytes of one entry before compression; the same for all autoencoders but for the width of `feature`."""
        sizes = [sum(one.stored_dtype.itemsize for one in own) for own in self.latents.values()]
        return max(sizes)

    def written(self, seconds: float) -> None:
        """Take how long was spent writing."""
        self.options.steps.seconds[WRITE] += seconds

    def report(self, done: CaptureReport) -> FeatureReport:
        """What is told at the end; warns of autoencoders of which nothing is active on any prompt of the file."""
        if self.path.exists():
            self._warn_of_dead()
        n_entries = {one.name: self.options.n_entries[one.name] for one in self.encoders}
        is_new = bool(self.found.n_tokens)
        grown = self.path.stat().st_size - self.found.bytes_before if is_new else 0
        return FeatureReport(
            **{one.name: getattr(done, one.name) for one in fields(done)},
            n_tokens=self.found.n_tokens,
            n_entries=n_entries,
            step_seconds=dict(self.options.steps.seconds),
            step_bytes={SPARSE: sum(n_entries.values()) * self._entry_bytes, WRITE: max(grown, 0)},
            estimated_seconds=self.found.estimated.seconds if self.found.estimated else {},
        )

    def _warn_of_dead(self) -> None:
        reader = StoreReader(self.path)
        try:
            held = [one.name for one in self.encoders if _has_latents(reader, one.name)]
            sizes = {name: reader.latents(name, FEATURE).rows["size0"] for name in held}
        finally:
            reader.close()
        dead = [name for name, size in sizes.items() if not size.any()]
        if dead:
            warnings.warn(
                f"no feature of {', '.join(map(repr, dead))} is active on any prompt of {self.path.name}: the autoencoder is "
                "dead there, or reads another hook, model or scale than the one it was trained on",
                DeadAutoencoderWarning,
                stacklevel=5,
            )


def _has_latents(reader: StoreReader, name: str) -> bool:
    return name in reader.feature_sets() and len(reader.with_latents(name)) > 0
