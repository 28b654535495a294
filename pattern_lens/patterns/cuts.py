"""What a user wrote for one dim, and the positions that it means."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from pattern_lens.errors import OutOfRangeError

if TYPE_CHECKING:
    from collections.abc import Sequence

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Pick: TypeAlias = int | range | Array
"""Positions along one dim: one (the dim goes), evenly spaced ones, or any."""


@dataclass(frozen=True, eq=False)
class Cut:
    """One `sel` (by label) or `isel` along one dim."""

    indexer: int | slice | Array
    by_label: bool

    @property
    def drops(self) -> bool:
        """Whether the dim goes."""
        return isinstance(self.indexer, int)

    def apply(self, labels: range | Array, dim: str) -> Pick:
        """Positions in `labels`, an axis of integers, that are meant.

        Raises
        ------
        OutOfRangeError
            Something is named that is not there; the message says what is.
        """
        if isinstance(self.indexer, slice):
            return range(len(labels))[self._positional(labels, self.indexer)]
        if isinstance(self.indexer, int):
            return self._one(labels, self.indexer, dim)
        if self.indexer.dtype == bool:
            if self.indexer.shape != (len(labels),):
                raise OutOfRangeError(
                    f"a mask of {len(self.indexer)} values does not fit {dim!r}: expected {len(labels)}"
                )
            return np.flatnonzero(self.indexer)
        return np.array([self._one(labels, i, dim) for i in self.indexer.tolist()], np.intp)

    def _one(self, labels: range | Array, number: int, dim: str) -> int:
        n = len(labels)
        if -n <= number < 0:
            return number + n
        if not self.by_label:
            if 0 <= number < n:
                return number
        elif isinstance(labels, range):
            if number in labels:
                return labels.index(number)
        elif (found := np.flatnonzero(labels == number)).size:
            return int(found[0])
        kind = "label" if self.by_label else "position"
        has = described(labels) if self.by_label else described(range(n))
        raise OutOfRangeError(f"no {dim} {number} ({kind}): expected {has}")

    def _positional(self, labels: range | Array, label_slice: slice) -> slice:
        """The slice of positions that a slice of labels means: both ends included, as in xarray."""
        if not self.by_label:
            return label_slice
        start, stop = (
            int(labels[bound]) if bound is not None and -len(labels) <= bound < 0 else bound
            for bound in (label_slice.start, label_slice.stop)
        )
        found: slice = pd.Index(labels).slice_indexer(start, stop, label_slice.step)
        return found


def described(labels: range | Array) -> str:
    """What labels there are, for a message."""
    n = len(labels)
    if not n:
        return "none, the dim is empty"
    if int(labels[-1]) - int(labels[0]) == n - 1:
        return f"{labels[0]} to {labels[-1]}, or -{n} to -1 from the end"
    shown = ", ".join(str(int(label)) for label in labels[:20])
    return f"one of {shown}{', …' if n > 20 else ''}"


def as_cut(dim: str, value: Any, *, by_label: bool) -> Cut:
    """What a user wrote for one dim, checked."""
    if isinstance(value, slice):
        start, stop, step = (
            None if b is None else _index(dim, b) for b in (value.start, value.stop, value.step)
        )
        return Cut(slice(start, stop, step), by_label)
    many = np.asarray(value)
    if many.ndim == 0 and many.dtype.kind in "iu":
        return Cut(int(many), by_label)
    if many.ndim == 1 and not many.size:
        return Cut(many.astype(np.intp), by_label)
    if many.ndim == 1 and (many.dtype.kind in "iu" or (many.dtype.kind == "b" and not by_label)):
        return Cut(many, by_label)
    raise TypeError(
        f"cannot choose {dim} by {value!r}: expected an integer, a slice or a list of integers"
    )


def _index(dim: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"cannot choose {dim} by {value!r}: expected an integer") from None


def take(values: range | Array, pick: Pick) -> Pick:
    """`values[pick]`, a range for as long as it is one; falling ranges become arrays."""
    if isinstance(pick, int):
        return int(values[pick])
    if isinstance(values, range) and isinstance(pick, range):
        first = values.start + values.step * pick.start
        taken = range(first, first + values.step * pick.step * len(pick), values.step * pick.step)
        return taken if taken.step > 0 else np.asarray(taken, np.intp)
    return np.asarray(values, np.intp)[np.asarray(pick, np.intp)]


def no_such_dim(dim: str, dims: Sequence[str]) -> str:
    """The message of a DimensionError."""
    return f"no dim {dim!r}: expected one of {', '.join(map(repr, dims)) or 'none, all were chosen away'}"
