"""Items call by call: each can fail for itself, and what they made is put together again."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pattern_lens.errors import ResultMismatchError
from pattern_lens.figures.drawing import Drawn, Item
from pattern_lens.patterns.computed import Fitted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pattern_lens.patterns.cuts import Array


@dataclass
class _Open:
    item: Item
    drawn: list[Drawn] = field(default_factory=list)


class Pieces:
    """Items on their way through workers, one call at a time.

    Parameters
    ----------
    items
        May be lazy; of those that are under way alone something is kept.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = items
        self._open: dict[tuple[int, int], _Open] = {}

    def __iter__(self) -> Iterator[Item]:
        for item in self._items:
            shared = _Open(item)
            pieces = [item._replace(calls=item.calls[[i]]) for i in range(len(item.calls))]
            self._open |= dict.fromkeys(map(_key, pieces), shared)
            yield from pieces

    def whole(self, piece: Item, drawn: Drawn) -> tuple[Item, list[Drawn]] | None:
        """An item and what its calls made, once the last of them is done."""
        shared = self._open.pop(_key(piece))
        shared.drawn.append(drawn)
        if len(shared.drawn) < len(shared.item.calls):
            return None
        return shared.item, shared.drawn


def _key(piece: Item) -> tuple[int, int]:
    return piece.position, int(piece.calls[0])


def joined(parts: Iterable[Drawn]) -> tuple[Drawn, dict[str, ResultMismatchError]]:
    """What calls of one prompt made, together; and which numbers do not go together."""
    out = Drawn()
    values: dict[str, list[Fitted]] = defaultdict(list)
    for part in parts:
        out.figures += part.figures
        for key, fitted in part.values.items():
            values[key].append(fitted)
    unlike = {}
    for key, found in values.items():
        sizes = {one.sizes for one in found}
        if len(sizes) > 1:
            unlike[key] = ResultMismatchError(
                f"sizes differ from head to head: {' and '.join(map(str, sorted(sizes)))}; return the same"
            )
        else:
            out.values[key] = Fitted(found[0].sizes, _filled([one.data for one in found]))
    return out, unlike


def _filled(parts: list[Array]) -> Array:
    out = parts[0].copy()
    for part in parts[1:]:
        there = ~np.isnan(part)
        out[there] = part[there]
    return out
