"""What is read of one prompt, and how: picks of stored dims, and what is taken of the store's answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.names import COMPONENT, HEAD, LAYER, RAGGED_DIMS
from pattern_lens.patterns.cuts import take
from pattern_lens.store.chunks import Selection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pattern_lens.patterns.cuts import Array, Pick
    from pattern_lens.store.layout import ArrayLayout


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is read of one prompt: a pick for each stored dim.

    Parameters
    ----------
    picks
        By dim, in stored order; positions in the file.
    paired
        The layer and the head pick have one length and go together, as the dim `component`.
    """

    layout: ArrayLayout
    picks: Mapping[str, Pick]
    n_key: int
    paired: bool = False

    @cached_property
    def axes(self) -> dict[str, range | Array]:
        """The dims that are left, in order, with their picks (of the layer for `component`)."""
        left = {d: p for d, p in self.picks.items() if not isinstance(p, int)}
        if self.paired:
            layers = left.pop(LAYER)
            left.pop(HEAD)
            left = {COMPONENT: layers, **left}
        return left

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dims that are left."""
        return tuple(len(pick) for pick in self.axes.values())

    def narrow(self, keys: Sequence[Any]) -> Wanted:
        """Choose further, with an integer, slice or integer array for each dim that is left."""
        picks = dict(self.picks)
        paired = self.paired
        for (dim, pick), key in zip(self.axes.items(), keys, strict=True):
            inner = range(len(pick))[key] if isinstance(key, slice) else key
            inner = int(inner) if isinstance(inner, int | np.integer) else inner
            for name in (LAYER, HEAD) if dim == COMPONENT else (dim,):
                old = picks[name]
                assert not isinstance(old, int)  # noqa: S101 - `axes` holds no integers
                picks[name] = take(old, inner)
            paired = paired and not (dim == COMPONENT and isinstance(inner, int))
        return replace(self, picks=picks, paired=paired)

    @cached_property
    def plan(self) -> Plan:
        """How to read it."""
        layers: Sequence[int] = (0,)
        inner: list[Any] = []
        after: list[Any] = []
        bounds: list[tuple[int, int]] = []
        for dim, pick in self.picks.items():
            first, last = _bounds(pick)
            if dim in RAGGED_DIMS:
                keep_all = bool(bounds)  # the second ragged dim is read whole
                bounds.append((first, last))
                after.append(_relative(pick, 0 if keep_all else first))
            elif dim == LAYER:
                layers = [pick] if isinstance(pick, int) else np.asarray(pick).tolist()
                after.append(0 if isinstance(pick, int) else slice(None))
            else:
                inner.append(pick if isinstance(pick, np.ndarray) else _as_slice(pick))
                after.append(0 if isinstance(pick, int) else slice(None))
        first, last = bounds[0] if bounds else (0, 1)  # an array without ragged dims is one element
        if self.paired:
            layers = self._pair(inner, after)
        pair = (0, list(self.picks).index(HEAD)) if self.paired else None
        return Plan(Selection(layers, tuple(inner)), first, last, tuple(after), pair)

    def _pair(self, inner: list[Any], after: list[Any]) -> list[int]:
        """Read each layer once, with all heads; the pairs are taken from that."""
        dims = list(self.picks)
        layers, at = np.unique(np.asarray(self.picks[LAYER], np.intp), return_inverse=True)
        after[dims.index(LAYER)] = at
        after[dims.index(HEAD)] = np.asarray(self.picks[HEAD], np.intp)
        fixed = [dim for dim in dims[1:] if dim not in RAGGED_DIMS]
        inner[fixed.index(HEAD)] = slice(None)
        found: list[int] = layers.tolist()
        return found


@dataclass(frozen=True, eq=False)
class Plan:
    """What the store is asked for, and what is taken of its answer."""

    selection: Selection
    first: int
    last: int
    after: tuple[Any, ...]
    pair: tuple[int, int] | None

    @cached_property
    def is_whole(self) -> bool:
        """Whether everything that is read is wanted."""
        return all(isinstance(a, slice) and a == slice(None) for a in self.after)

    @property
    def is_empty(self) -> bool:
        """Whether it takes no fixed position at all."""
        sizes = [len(self.selection.layers)]
        sizes += [len(i) for i in self.selection.inner if isinstance(i, np.ndarray)]
        sizes += [
            i.stop - i.start
            for i in self.selection.inner
            if isinstance(i, slice) and i.stop is not None
        ]
        return min(sizes) <= 0

    def finish(self, values: Array, *, n_lead: int = 0) -> Array:
        """Take what is wanted from what was read, behind `n_lead` dims of prompts."""
        if self.is_whole:
            return values
        after = list(self.after)
        lead = (slice(None),) * n_lead
        if self.pair is not None:
            axes = tuple(n_lead + axis for axis in self.pair)
            both = tuple(after[axis] for axis in self.pair)
            values = np.moveaxis(values, axes, (n_lead, n_lead + 1))[lead + both]
            after = [slice(None), *(a for i, a in enumerate(after) if i not in self.pair)]
        after = [*lead, *after]
        for axis in range(len(after) - 1, -1, -1):
            index = after[axis]
            if not (isinstance(index, slice) and index == slice(None)):
                values = values[(slice(None),) * axis + (index,)]
        return values


def _bounds(pick: Pick) -> tuple[int, int]:
    if isinstance(pick, int):
        return pick, pick + 1
    if not len(pick):
        return 0, 0
    if isinstance(pick, range):
        return pick[0], pick[-1] + 1
    return int(pick.min()), int(pick.max()) + 1


def _as_slice(pick: int | range) -> slice:
    return (
        slice(pick, pick + 1) if isinstance(pick, int) else slice(pick.start, pick.stop, pick.step)
    )


def _relative(pick: Pick, first: int) -> Any:
    if isinstance(pick, range):
        return slice(pick.start - first, pick.stop - first, pick.step) if len(pick) else slice(0)
    return pick - first
