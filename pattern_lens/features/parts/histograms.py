"""How often a feature fires, and how strongly: sums and counts over a stream of entries, for all features at once.

Rule: an entry is in memory only as long as its block; an interval holds its upper end, not its lower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

N_BINS: Final = 40
"""Bars of a histogram."""


def interval_of(values: Array, low: Array, high: Array, n_intervals: int) -> Array:
    """Which of equal intervals of (low, high] a value is in.

    Parameters
    ----------
    values
        Dims (entry). What is not above `low` is in the first interval.
    low, high
        Dims (entry): where the first interval starts and the last one ends.
    n_intervals
        How many there are.

    Returns
    -------
    Dims (entry). Interval i holds what is above edge i of `edges_of` and at most edge i + 1.

    Examples
    --------
    >>> interval_of(np.array([0.1, 0.5, 0.51, 1.0]), np.zeros(4), np.ones(4), 2).tolist()
    [0, 0, 1, 1]
    """
    wide, low, high = (np.asarray(one, np.float64) for one in (values, low, high))
    found = np.ceil((wide - low) / (high - low) * n_intervals).astype(np.int64) - 1
    # a quotient is rounded: the edges themselves decide
    found -= wide <= low + (high - low) * found / n_intervals
    found += wide > low + (high - low) * (found + 1) / n_intervals
    return np.clip(found, 0, n_intervals - 1)


def edges_of(low: Array, high: Array, n_intervals: int) -> Array:
    """Where equal intervals start and end: dims (feature), (feature) -> (feature, edge), float64."""
    low, high = (np.asarray(one, np.float64)[..., None] for one in (low, high))
    return low + (high - low) * np.arange(n_intervals + 1, dtype=float) / n_intervals


class ActivationSums:
    """Running sums of features over entries.

    Parameters
    ----------
    n_features
        How many features there are.

    Attributes
    ----------
    n_active, total, squares, lowest, highest
        Dims (feature): number of entries, their sum, the sum of their squares, the smallest and the largest of them.
    """

    def __init__(self, n_features: int) -> None:
        self.n_active = np.zeros(n_features, np.int64)
        self.total = np.zeros(n_features)
        self.squares = np.zeros(n_features)
        self.lowest = np.full(n_features, np.inf)
        self.highest = np.full(n_features, -np.inf)

    def add(self, features: Array, values: Array) -> None:
        """Take a block of entries in: dims (entry)."""
        n, wide = len(self.n_active), np.asarray(values, np.float64)
        self.n_active += np.bincount(features, minlength=n)
        self.total += np.bincount(features, wide, minlength=n)
        self.squares += np.bincount(features, wide * wide, minlength=n)
        np.minimum.at(self.lowest, features, wide)
        np.maximum.at(self.highest, features, wide)

    @property
    def maximum(self) -> Array:
        """The largest activation, dims (feature); NaN for a feature that never fires."""
        return np.where(self.n_active > 0, self.highest, np.nan)

    @property
    def mean(self) -> Array:
        """The mean of the activations where the feature fires, dims (feature); NaN where it never does."""
        with np.errstate(invalid="ignore"):
            return self.total / np.where(self.n_active > 0, self.n_active, np.nan)

    @property
    def span(self) -> tuple[Array, Array]:
        """Where intervals of activations start and end, dims (feature): from 0, or the lowest below it, to the largest."""
        fires = self.n_active > 0
        return (
            np.where(fires, np.minimum(self.lowest, 0), np.nan),
            np.where(fires, np.maximum(self.highest, 0), np.nan),
        )


class IntervalCounts:
    """How many entries each of equal intervals of a feature's activations holds.

    Parameters
    ----------
    span
        Dims (feature) each: where the intervals start and end.
    n_intervals
        How many intervals a feature has.

    Attributes
    ----------
    counts
        Dims (feature, interval).
    """

    def __init__(self, span: tuple[Array, Array], n_intervals: int = N_BINS) -> None:
        self.low, self.high = span
        self.n_intervals = n_intervals
        self.counts = np.zeros((len(self.high), n_intervals), np.int64)

    def add(self, features: Array, values: Array) -> Array:
        """Take a block of entries in; returns the interval of each, dims (entry)."""
        found = interval_of(values, self.low[features], self.high[features], self.n_intervals)
        flat = np.asarray(features, np.int64) * self.n_intervals + found
        added = np.bincount(flat, minlength=self.counts.size)
        self.counts += added.reshape(self.counts.shape)
        return found

    @property
    def edges(self) -> Array:
        """Where intervals start and end, dims (feature, edge), float64; NaN for a feature that never fires."""
        return edges_of(self.low, self.high, self.n_intervals)

    @property
    def shares(self) -> Array:
        """The share of a feature's entries in each interval, dims (feature, interval); NaN for a feature without any."""
        totals = self.counts.sum(axis=1, keepdims=True)
        return self.counts / np.where(totals > 0, totals, np.nan)
