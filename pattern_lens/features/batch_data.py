"""The data of a batch of features: from the passes over all tokens, from weights, and from the model.

Rule: every feature has every variable, with the same sizes; what there is nothing of is NaN, or -1 where it is a number of
something.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.features.data_steps import EFFECTS, SEQUENCES, WEIGHTS
from pattern_lens.features.parts.firings import Firings, Gathering
from pattern_lens.features.parts.logits import N_RANKS, logit_histograms, logit_tables
from pattern_lens.features.parts.neurons import alignment
from pattern_lens.features.parts.places import Windows
from pattern_lens.features.parts.sequences import Counts, random_tokens, windows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pattern_lens.features.chosen import Chosen
    from pattern_lens.features.parts.effects import Effects
    from pattern_lens.features.parts.histograms import Array
    from pattern_lens.features.parts.logits import Readout
    from pattern_lens.features.passes import Ranked, Spread
    from pattern_lens.features.source_pass import Sources
    from pattern_lens.features.steps import Steps
    from pattern_lens.features.tokens import TokenTable


@dataclass(frozen=True, eq=False)
class Shown:
    """The windows of some features.

    Attributes
    ----------
    prompt, position
        The token that each sequence is about, dims (feature, sequence); -1 where there is none.
    windows
        Dims (feature * sequence).
    peak
        Place of that token in its window, dims (feature * sequence).
    """

    prompt: Array
    position: Array
    windows: Windows
    peak: Array

    def of(self, rows: slice) -> Shown:
        """Those of some of the features."""
        n = self.prompt.shape[1]
        flat = slice(rows.start * n, rows.stop * n)
        own = {
            name: getattr(self.windows, name)[flat]
            for name in ("feature", "prompt", "start", "length")
        }
        return Shown(
            self.prompt[rows], self.position[rows], replace(self.windows, **own), self.peak[flat]
        )


@dataclass(frozen=True, eq=False)
class BatchData:
    """What batches of features have in common.

    Parameters
    ----------
    directions
        Decoder directions of the chosen features, dims (feature, d_in); None where only the name of the autoencoder is known.
    ranked
        What correlates, by the names of its variables: of the number, and the prefix of the others.
    n_tokens
        Tokens of all prompts.
    """

    chosen: Chosen
    spread: Spread
    counts: Counts
    window: tuple[int, int]
    seed: int
    tokens: TokenTable
    steps: Steps
    directions: Array | None = None
    readout: Readout | None = None
    effects: Effects | None = None
    sources: Sources | None = None
    ranked: Mapping[tuple[str, str], Ranked] = field(default_factory=dict)
    n_tokens: int = 0

    def values(self, rows: slice, shown: Shown | None, firings: Firings | None) -> dict[str, Array]:
        """Every variable of some of the chosen features, dims (feature, …); without windows none of sequences."""
        with self.steps.timed(WEIGHTS):
            found = {**self._activations(rows), **self._weights(rows)}
        for (number, prefix), ranked in self.ranked.items():
            found |= ranked.named(number, prefix, rows)
        if shown is None or firings is None:
            return found
        with self.steps.timed(SEQUENCES):
            found |= self._sequences(shown, firings)
        if self.effects is not None and self.directions is not None:
            with self.steps.timed(EFFECTS):
                found |= self._effects(shown, firings)
        return found

    # --- of all tokens, and of weights ------------------------------------------------------------

    def _activations(self, rows: slice) -> dict[str, Array]:
        sums, histogram, intervals = (
            self.spread.sums,
            self.spread.histogram,
            self.spread.intervals,
        )
        edges = intervals.edges[rows]
        n_active = sums.n_active[rows]
        return {
            "n_active": n_active,
            "density": n_active / (self.n_tokens or np.nan),
            "max_activation": sums.maximum[rows].astype(np.float32),
            "mean_activation": sums.mean[rows].astype(np.float32),
            "activation_histogram": histogram.counts[rows],
            "activation_edges": histogram.edges[rows],
            "interval_low": edges[:, :-1],
            "interval_high": edges[:, 1:],
            "interval_share": intervals.shares[rows].astype(np.float32),
        }

    def _weights(self, rows: slice) -> dict[str, Array]:
        if self.directions is None:
            return {}
        own = self.directions[rows]
        found = alignment(own, N_RANKS)
        if self.readout is not None:
            logits = self.readout.logits(own)
            found |= {**logit_tables(logits), **logit_histograms(logits)}
        return found

    # --- of windows -------------------------------------------------------------------------------

    def shown(self, rows: slice) -> Shown:
        """The windows of some of the chosen features."""
        latents = self.chosen.latents
        numbers = self.chosen.numbers[rows]
        chosen = self.spread.chooser.chosen(rows.start, rows.stop)
        lengths = self.chosen.lengths
        own_lengths = lengths[latents.positions]
        drawn = random_tokens(
            self.seed, numbers, self.counts.per_interval, latents.positions, own_lengths
        )
        prompt, position = (
            np.concatenate(both, axis=1) for both in zip(chosen, drawn, strict=True)
        )
        flat = prompt.ravel()
        length = np.where(flat >= 0, lengths[np.maximum(flat, 0)], 0)
        start, n, peak = windows(position.ravel(), length, *self.window)
        feature = np.repeat(np.arange(rows.start, rows.stop, dtype=np.int32), prompt.shape[1])
        shown = Windows(feature, flat, start, n, sum(self.window) + 1)
        return Shown(prompt, position, shown, peak)

    def firings(self, shown: Shown) -> Firings:
        """Where the features of windows fire in their prompts: one pass over the latents of these prompts."""
        own = shown.windows
        gathering = Gathering(own.feature, own.prompt)
        wanted = np.unique(own.prompt[own.prompt >= 0])
        first, last = (int(own.feature[0]), int(own.feature[-1])) if len(own.feature) else (0, -1)
        for one in self.chosen.stream(wanted) if len(wanted) else ():
            kept = np.flatnonzero((one.row >= first) & (one.row <= last))
            gathering.add(one.row[kept], one.prompt[kept], one.position[kept], one.value[kept])
        return gathering.firings()

    def _sequences(self, shown: Shown, firings: Firings) -> dict[str, Array]:
        own, shape = shown.windows, shown.prompt.shape
        positions = own.positions
        inside = positions >= 0
        pair = np.broadcast_to(firings.pairs(own.feature, own.prompt)[:, None], positions.shape)
        values = firings.values_at(pair, positions)
        activations = np.where(inside, values, np.float32(np.nan))
        found: dict[str, Any] = {
            "sequence_group": np.broadcast_to(self.counts.groups, shape),
            "sequence_prompt": own.prompt.astype(np.int32),
            "sequence_start": own.start,
            "sequence_length": own.length,
            "peak": shown.peak,
            "sequence_token": self.tokens.at(own.prompt, positions),
            "sequence_activation": activations.astype(np.float32),
        }
        if self.sources is not None:
            found |= self.sources.of_windows(own, shown.position.ravel())
        return {name: _shaped(values, shape) for name, values in found.items()}

    def _effects(self, shown: Shown, firings: Firings) -> dict[str, Array]:
        effects, directions = self.effects, self.directions
        assert effects is not None  # noqa: S101 - asked by who calls
        assert directions is not None  # noqa: S101
        own = shown.windows
        first, last = int(own.feature[0]), int(own.feature[-1]) + 1
        found = effects.of_windows(
            directions[first:last],
            firings.of_features(first, last),
            replace(own, feature=own.feature - first),
            self.tokens.ids,
        )
        return {name: _shaped(values, shown.prompt.shape) for name, values in found.items()}


def _shaped(values: Array, shape: tuple[int, ...]) -> Array:
    """Dims (feature * sequence, …) -> (feature, sequence, …)."""
    return values if values.shape[:2] == shape else values.reshape(*shape, *values.shape[1:])
