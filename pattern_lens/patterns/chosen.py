"""What was chosen of a stored activation, dim by dim, until the size of a prompt is known.

Fixed dims are resolved to positions in the file at once; ragged ones are kept as cuts, because only a
prompt's length says what `query=slice(-5, None)` is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.errors import DimensionError, OutOfRangeError
from pattern_lens.names import COMPONENT, HEAD, LAYER, RAGGED_DIMS, head_label
from pattern_lens.patterns.cuts import as_cut, described, no_such_dim, take
from pattern_lens.patterns.selection import Wanted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pattern_lens.patterns.cuts import Cut, Pick
    from pattern_lens.store.layout import ArrayLayout


@dataclass(frozen=True, eq=False)
class Chosen:
    """What was chosen of one activation, for prompts of any length.

    Parameters
    ----------
    fixed
        Positions in the file by fixed dim; a dim that is not named is whole.
    cuts
        By ragged dim, in the order in which they were asked for.
    paired
        As in `Wanted`.
    """

    layout: ArrayLayout
    fixed: Mapping[str, Pick] = field(default_factory=dict)
    cuts: Mapping[str, tuple[Cut, ...]] = field(default_factory=dict)
    paired: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "_wanted", {})

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_wanted": {}}

    def pick(self, dim: str) -> Pick:
        """What is left of a fixed dim."""
        return self.fixed.get(dim, range(self.layout.sizes.get(dim, 0)))

    @cached_property
    def layer_numbers(self) -> tuple[int, ...]:
        """Numbers of the layers that are left."""
        if not self.layout.has_layers:
            return ()
        return tuple(self.layout.layers[i] for i in np.atleast_1d(np.asarray(self.pick(LAYER))))

    @cached_property
    def dims(self) -> tuple[str, ...]:
        """The dims that are left, in order."""
        return tuple(self.example((1, 1)).axes)

    def drops(self, dim: str) -> bool:
        """Whether one position of a ragged dim was chosen."""
        return any(cut.drops for cut in self.cuts.get(dim, ()))

    def wanted(self, sizes: tuple[int, int]) -> Wanted:
        """What is read of a prompt of these sizes.

        Raises
        ------
        OutOfRangeError
            The prompt is too short for what was chosen.
        """
        cache: dict[tuple[int, int], Wanted] = self.__dict__["_wanted"]
        if sizes not in cache:
            ragged = {dim: self.resolve(dim, sizes) for dim in self.layout.ragged}
            cache[sizes] = self._make(ragged, sizes[1])
        return cache[sizes]

    def example(self, sizes: tuple[int, int]) -> Wanted:
        """The same dims with other sizes of the ragged ones, whatever was cut of them."""
        pairs = zip(self.layout.ragged, sizes, strict=False)
        return self._make({d: 0 if self.drops(d) else range(n) for d, n in pairs}, sizes[1])

    def _make(self, ragged: Mapping[str, Pick], n_key: int) -> Wanted:
        picks = {d: ragged[d] if d in ragged else self.pick(d) for d in self.layout.dims}
        return Wanted(self.layout, picks, n_key, self.paired)

    def resolve(self, dim: str, sizes: Sequence[int]) -> Pick:
        """Positions along one ragged dim of a prompt of these sizes."""
        pick: Pick = range(sizes[self.layout.ragged.index(dim)])
        for cut in self.cuts.get(dim, ()):
            assert not isinstance(pick, int)  # noqa: S101 - `cut` refuses dims that are gone
            pick = take(pick, cut.apply(pick, dim))
        return pick

    def cut(self, dim: str, value: Any, *, by_label: bool) -> Chosen:
        """Choose further along one dim."""
        if dim not in self.dims:
            raise DimensionError(no_such_dim(dim, self.dims))
        if dim == COMPONENT:
            return self._cut_components(value, by_label=by_label)
        cut = as_cut(dim, value, by_label=by_label)
        if dim in RAGGED_DIMS:
            return replace(self, cuts={**self.cuts, dim: (*self.cuts.get(dim, ()), cut)})
        pick = self.pick(dim)
        assert not isinstance(pick, int)  # noqa: S101 - it is among the dims that are left
        labels = np.array(self.layer_numbers) if dim == LAYER and by_label else pick
        return replace(self, fixed={**self.fixed, dim: take(pick, cut.apply(labels, dim))})

    def _cut_components(self, value: Any, *, by_label: bool) -> Chosen:
        labels = self.component_labels()
        if by_label:
            wanted = [value] if isinstance(value, str) else list(value)
            missing = [label for label in wanted if label not in labels]
            if missing:
                raise OutOfRangeError(
                    f"no component {missing[0]!r}: expected one of {', '.join(labels)}"
                )
            places = [labels.index(label) for label in wanted]
            value = places[0] if isinstance(value, str) else places
        at = as_cut(COMPONENT, value, by_label=False).apply(range(len(labels)), COMPONENT)
        pair = {d: take(np.asarray(self.pick(d)), at) for d in (LAYER, HEAD)}
        return replace(self, fixed={**self.fixed, **pair}, paired=not isinstance(at, int))

    def component_labels(self) -> list[str]:
        """Labels of the chosen heads, where they were chosen by label."""
        heads = np.asarray(self.pick(HEAD)).tolist()
        return [head_label(*pair) for pair in zip(self.layer_numbers, heads, strict=True)]

    def pair(self, heads: Sequence[tuple[int, int]], *, single: bool) -> Chosen:
        """Choose heads of layers, given as (layer number, head); `single` leaves no dim for one."""
        numbers = list(self.layer_numbers)
        layers, inner = np.asarray(self.pick(LAYER)).tolist(), np.asarray(self.pick(HEAD)).tolist()
        pairs = []
        for layer, head in heads:
            if layer not in numbers or head not in inner:
                raise OutOfRangeError(
                    f"no head {head_label(layer, head)!r}: stored are layers {described(np.array(numbers))}; "
                    f"heads {described(np.array(inner))}"
                )
            pairs.append((layers[numbers.index(layer)], head))
        if single:
            return replace(self, fixed={**self.fixed, LAYER: pairs[0][0], HEAD: pairs[0][1]})
        both = np.array(pairs, np.intp).reshape(-1, 2)
        return replace(self, fixed={**self.fixed, LAYER: both[:, 0], HEAD: both[:, 1]}, paired=True)
