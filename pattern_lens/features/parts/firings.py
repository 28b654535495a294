"""Where chosen features fire in chosen prompts, gathered from a stream of entries.

Rule: only entries of pairs of feature and prompt that were asked for are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pattern_lens.features.parts.histograms import Array


@dataclass(frozen=True, eq=False)
class Firings:
    """Entries by pair of a feature and a prompt.

    Attributes
    ----------
    feature, prompt
        Of each pair, dims (pair), sorted by prompt, then feature. A feature is its place among the chosen.
    starts
        Where the entries of each pair start, dims (pair + 1).
    position, value
        Dims (entry), by pair, then position.
    """

    feature: Array
    prompt: Array
    starts: Array
    position: Array
    value: Array

    def __len__(self) -> int:
        return len(self.feature)

    @property
    def pair_of_entry(self) -> Array:
        """The pair of each entry, dims (entry)."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def pairs(self, feature: Array, prompt: Array) -> Array:
        """The number of each pair, any dims; -1 for those that were not asked for."""
        keys, wanted = _key(self.feature, self.prompt), _key(feature, prompt)
        if not len(keys):
            return np.full(np.shape(wanted), -1, np.intp)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, at, -1)

    def values_at(self, pair: Array, position: Array) -> Array:
        """What a pair's feature is at positions of its prompt, any dims, float32; 0 where it does not fire."""
        keys = _key(self.position, self.pair_of_entry)
        wanted = _key(position, pair)
        if not len(keys):
            return np.zeros(np.shape(wanted), np.float32)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, self.value[at], np.float32(0))

    def of_features(self, first: int, last: int) -> Firings:
        """Those of some of the features, which are counted from `first` on."""
        kept = np.flatnonzero((self.feature >= first) & (self.feature < last))
        counts = np.diff(self.starts)
        entries = np.repeat((self.feature >= first) & (self.feature < last), counts)
        return Firings(
            self.feature[kept] - np.int32(first),
            self.prompt[kept],
            np.concatenate(([0], np.cumsum(counts[kept]))),
            self.position[entries],
            self.value[entries],
        )


class Gathering:
    """Gathers `Firings` out of blocks of entries.

    Parameters
    ----------
    feature, prompt
        Pairs that are asked for, any dims; a prompt of -1 is none.
    """

    def __init__(self, feature: Array, prompt: Array) -> None:
        known = np.asarray(prompt) >= 0
        keys = np.unique(_key(np.asarray(feature)[known], np.asarray(prompt)[known]))
        self._keys = keys
        self._parts: list[tuple[Array, Array, Array]] = []

    def add(self, feature: Array, prompt: Array, position: Array, value: Array) -> None:
        """Take a block in: dims (entry)."""
        if not len(self._keys):
            return
        wanted = _key(feature, prompt)
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        kept = np.flatnonzero(self._keys[at] == wanted)
        part = at[kept], np.asarray(position)[kept], np.asarray(value)[kept]
        self._parts.append((part[0].astype(np.int32), part[1].astype(np.int32), part[2]))

    def firings(self) -> Firings:
        """All of them."""
        nothing = np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)
        columns = zip(nothing, *self._parts, strict=True)
        pair, position, value = (np.concatenate(column) for column in columns)
        order = np.lexsort((position, pair))
        counts = np.bincount(pair, minlength=len(self._keys))
        return Firings(
            feature=(self._keys & 0xFFFFFFFF).astype(np.int32),
            prompt=(self._keys >> 32).astype(np.int32),
            starts=np.concatenate(([0], np.cumsum(counts))),
            position=position[order],
            value=value[order].astype(np.float32),
        )


def _key(low: Array, high: Array) -> Array:
    """Two numbers as one, by which they are sorted: `high` first."""
    return (np.asarray(high).astype(np.int64) << 32) | np.asarray(low).astype(np.int64)
