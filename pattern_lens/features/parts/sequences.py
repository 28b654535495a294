"""Which tokens a feature is shown at: the strongest, the weakest, some of each interval, and some of all.

Rule: what is chosen depends on the seed and the data, never on the blocks in which the data comes; memory does not grow
with the number of tokens. A window never leaves its prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from pattern_lens.features.parts.histograms import Array

TOP: Final = -1
BOTTOM: Final = -2
RANDOM: Final = -3
"""Groups of sequences besides the intervals, which have their numbers."""

_MULTIPLIERS: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_STEP: Final = 0x9E3779B97F4A7C15


def drawn(seed: int, *numbers: Array) -> Array:
    """A number from [0, 1) for each entry, that looks random and depends on the seed and the entry's numbers only.

    Parameters
    ----------
    numbers
        Whole numbers, dims (entry) each: what the entry is.

    Examples
    --------
    >>> bool(drawn(1, np.array([5]))[0] == drawn(1, np.array([4, 5]))[1])
    True
    """
    state = _mixed(np.full(1, seed % (1 << 64), np.uint64))
    for one in numbers:
        state = _mixed(state ^ np.asarray(one).astype(np.uint64))
    found: Array = (state >> np.uint64(11)) * 2.0**-53
    return found


def _mixed(state: Array) -> Array:
    """SplitMix64: each bit of the result depends on each bit of the state."""
    with np.errstate(over="ignore"):
        state = state + np.uint64(_STEP)
        for multiplier, shift in zip(_MULTIPLIERS, (30, 27), strict=True):
            state = (state ^ (state >> np.uint64(shift))) * np.uint64(multiplier)
        mixed: Array = state ^ (state >> np.uint64(31))
        return mixed


class FirstFew:
    """For each row the `k` entries with the lowest keys, out of a stream of blocks.

    Parameters
    ----------
    n_rows
        Rows.
    k
        Entries kept of each.

    Attributes
    ----------
    keys, prompt, position, value
        Dims (row, rank), lowest key first; of equal keys the earlier prompt and position is first. -1 is no prompt.
    """

    def __init__(self, n_rows: int, k: int) -> None:
        shape = (n_rows, k)
        self.keys = np.full(shape, np.inf)
        self.prompt = np.full(shape, -1, np.int32)
        self.position = np.full(shape, -1, np.int32)
        self.value = np.full(shape, np.nan, np.float32)

    def add(self, rows: Array, keys: Array, prompt: Array, position: Array, value: Array) -> None:
        """Take a block in: dims (entry)."""
        k = self.keys.shape[1]
        if not k:
            return
        # few are left after the first blocks: those that come before what is kept already
        near = np.flatnonzero(keys <= self.keys[rows, -1])
        if not len(near):
            return
        held, own = np.unique(rows[near], return_inverse=True)
        kept = np.isfinite(self.keys[held])
        row = np.concatenate([np.nonzero(kept)[0], own])
        columns = [
            np.concatenate([old[held][kept], new[near]])
            for old, new in zip(self._columns, (keys, prompt, position, value), strict=True)
        ]
        order = np.lexsort((columns[2], columns[1], columns[0], row))
        row = row[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        first = rank < k
        for old, new in zip(self._columns, columns, strict=True):
            old[held[row[first]], rank[first]] = new[order][first]

    @property
    def _columns(self) -> tuple[Array, ...]:
        return self.keys, self.prompt, self.position, self.value


@dataclass(frozen=True)
class Counts:
    """How many sequences of each group a feature has."""

    n_top: int = 20
    per_interval: int = 5
    n_intervals: int = 10

    @property
    def groups(self) -> Array:
        """The group of each sequence, dims (sequence): top, intervals from the highest, bottom, random."""
        parts = [(TOP, self.n_top)]
        parts += [(i, self.per_interval) for i in reversed(range(self.n_intervals))]
        parts += [(BOTTOM, self.per_interval), (RANDOM, self.per_interval)]
        return np.repeat(*np.array(parts, np.int64).reshape(-1, 2).T).astype(np.int8)


class Chooser:
    """Chooses tokens of features out of a stream of entries.

    Parameters
    ----------
    n_features
        Features that are chosen for, by their place from 0.
    counts
        How many sequences of which group.
    seed
        Of what is drawn.
    """

    def __init__(self, n_features: int, counts: Counts, seed: int) -> None:
        self.counts, self.seed, self._n = counts, seed, n_features
        self._top = FirstFew(n_features, counts.n_top)
        self._bottom = FirstFew(n_features, counts.per_interval)
        self._intervals = FirstFew(n_features * counts.n_intervals, counts.per_interval)

    def add(
        self,
        rows: Array,
        number: Array,
        interval: Array,
        where: tuple[Array, Array],
        value: Array,
    ) -> None:
        """Take a block of entries in.

        Parameters
        ----------
        rows
            Place of the feature, dims (entry).
        number
            Number of the feature: what is drawn for it depends on no other feature.
        interval
            From `IntervalCounts.add`.
        where
            Prompt and position.
        value
            Activation.
        """
        wide = np.asarray(value, np.float64)
        self._top.add(rows, -wide, *where, value)
        self._bottom.add(rows, wide, *where, value)
        own = np.asarray(rows, np.int64) * self.counts.n_intervals + interval
        self._intervals.add(own, drawn(self.seed, number, *where), *where, value)

    def chosen(self, first: int, last: int) -> tuple[Array, Array]:
        """Prompt and position of each sequence of some features: dims (feature, sequence); -1 where there is none.

        Sequences of one interval are in falling order of activation. Random ones are not among them.
        """
        some, n = slice(first, last), self.counts.n_intervals
        of_each = slice(first * n, last * n)
        drawn_ones = self._intervals
        by_value = np.argsort(-drawn_ones.value[of_each], axis=1, kind="stable")
        found = []
        for name in ("prompt", "position"):
            inner = np.take_along_axis(getattr(drawn_ones, name)[of_each], by_value, axis=1)
            inner = inner.reshape(last - first, n, -1)[:, ::-1].reshape(last - first, -1)
            parts = [getattr(self._top, name)[some], inner, getattr(self._bottom, name)[some]]
            found.append(np.concatenate(parts, axis=1))
        return found[0], found[1]


def random_tokens(
    seed: int, features: Array, k: int, prompts: Array, lengths: Array
) -> tuple[Array, Array]:
    """Some of all tokens for each feature, whether it fires there or not, each token at most once.

    Parameters
    ----------
    features
        Numbers of the features, dims (feature).
    prompts, lengths
        The prompts, and how many tokens each has: dims (prompt).

    Returns
    -------
    Prompt and position, dims (feature, sequence); -1 where there are fewer than `k` tokens.
    """
    ends = np.cumsum(lengths)
    n_tokens = int(ends[-1]) if len(ends) else 0
    prompt = np.full((len(features), k), -1, np.int32)
    position = np.full((len(features), k), -1, np.int32)
    n = min(k, n_tokens)
    for i, feature in enumerate(np.asarray(features).tolist()):
        tokens = np.random.default_rng([seed, feature]).choice(n_tokens, n, replace=False)
        own = np.searchsorted(ends, tokens, side="right")
        prompt[i, :n] = np.asarray(prompts)[own]
        position[i, :n] = tokens - (ends[own] - np.asarray(lengths)[own])
    return prompt, position


def windows(position: Array, length: Array, before: int, after: int) -> tuple[Array, Array, Array]:
    """Tokens on either side of a token, as far as its prompt goes.

    Parameters
    ----------
    position
        Of the token in its prompt, any dims; -1 where there is none.
    length
        Tokens of its prompt.
    before, after
        How many tokens there are on either side at most.

    Returns
    -------
    Where the window starts, how many tokens it has (0 where there is none), and the token's place in it (-1).

    Examples
    --------
    >>> [part.tolist() for part in windows(np.array([1, 9]), np.array([10, 10]), 2, 3)]
    [[0, 7], [5, 3], [1, 2]]
    """
    is_there = position >= 0
    start = np.maximum(position - before, 0)
    stop = np.minimum(position + after + 1, length)
    return (
        np.where(is_there, start, 0).astype(np.int32),
        np.where(is_there, stop - start, 0).astype(np.int16),
        np.where(is_there, position - start, -1).astype(np.int16),
    )
