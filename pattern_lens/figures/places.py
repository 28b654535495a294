"""Which figures a name has: rows of a file, or places where a pattern can be drawn.

The rule: figures stand in the order of prompt, layer and head; only indexes are looked at, never a figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pattern_lens.names import head_label
from pattern_lens.store.rows import NO_PROMPT, NONE

if TYPE_CHECKING:
    from pattern_lens.store.figures import FigureTable
    from pattern_lens.store.rows import Rows

Numbers = np.ndarray[Any, np.dtype[np.uint64]]
"""Positions in the prompt table, layers, heads, or cells: a layer and a head in one number."""

_LAYER_BITS: Final = np.uint64(32)


class Place(NamedTuple):
    """What one figure is of: position in the prompt table, layer, head; None for all of them, or several."""

    prompt: int | None
    layer: int | None
    head: int | None

    @property
    def label(self) -> str:
        """``L3H5``; empty where it is of no one layer and head."""
        if self.layer is None or self.head is None:
            return "" if self.layer is None else f"L{self.layer}"
        return head_label(self.layer, self.head)


def cells_of(layers: Any, heads: Any) -> Numbers:
    """One number for each layer and head; they sort by layer, then head."""
    found: Numbers = (np.asarray(layers, np.uint64) << _LAYER_BITS) | np.asarray(heads, np.uint64)
    return found


def layers_of(cells: Numbers) -> Numbers:
    """The layer of each cell."""
    return cells >> _LAYER_BITS


def heads_of(cells: Numbers) -> Numbers:
    """The head of each cell."""
    return cells & np.uint64(NONE)


def known(numbers: Numbers) -> list[int]:
    """Numbers of layers or heads that figures are of, ascending."""
    found: list[int] = np.unique(numbers[numbers != np.uint64(NONE)]).tolist()
    return found


@dataclass(frozen=True)
class Choice:
    """What is left of each dim, ascending; None is everything, also what is stored later."""

    prompts: Numbers | None = None
    layers: Numbers | None = None
    heads: Numbers | None = None
    cells: Numbers | None = None

    def takes(self, cells: Numbers) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which cells are left."""
        taken = np.ones(len(cells), np.bool_)
        for numbers, wanted in (
            (layers_of(cells), self.layers),
            (heads_of(cells), self.heads),
            (cells, self.cells),
        ):
            if wanted is not None:
                taken &= np.isin(numbers, wanted)
        return taken


class StoredPlaces:
    """Figures that a file holds.

    Parameters
    ----------
    table
        Where the rows are from.
    rows
        By prompt, layer and head.
    """

    is_stored: Final = True

    def __init__(self, table: FigureTable, rows: Rows) -> None:
        self.table = table
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _prompts(self) -> Numbers:
        return np.ascontiguousarray(self.rows["prompt"])

    @property
    def prompts(self) -> Numbers:
        """Positions of the prompts in the prompt table, each once."""
        found = self._prompts
        is_first = np.append(True, found[1:] != found[:-1])[: len(found)]
        return np.asarray(found[is_first & (found != np.uint64(NO_PROMPT))])

    @cached_property
    def cells(self) -> Numbers:
        """Layers and heads, each pair once."""
        return np.unique(cells_of(self.rows["layer"], self.rows["head"]))

    def narrowed(self, choice: Choice) -> StoredPlaces:
        """Those that are chosen."""
        rows = self.rows
        if choice.prompts is not None:
            first = np.searchsorted(self._prompts, choice.prompts, "left")
            counts = np.searchsorted(self._prompts, choice.prompts, "right") - first
            before = np.cumsum(counts) - counts
            rows = rows[np.repeat(first - before, counts) + np.arange(counts.sum())]
        if any(part is not None for part in (choice.layers, choice.heads, choice.cells)):
            rows = rows[choice.takes(cells_of(rows["layer"], rows["head"]))]
        return StoredPlaces(self.table, rows)

    def place(self, i: int) -> Place:
        """What the *i*-th figure is of."""
        row = self.rows[i]
        prompt, layer, head = int(row["prompt"]), int(row["layer"]), int(row["head"])
        return Place(
            None if prompt == NO_PROMPT else prompt,
            None if layer == NONE else layer,
            None if head == NONE else head,
        )


class DrawnPlaces:
    """Figures that are drawn when somebody looks: of every prompt, each cell.

    Parameters
    ----------
    prompts
        Positions in the prompt table, ascending.
    cells
        Layers and heads, ascending.
    """

    is_stored: Final = False

    def __init__(self, prompts: Numbers, cells: Numbers) -> None:
        self.prompts = prompts
        self.cells = cells

    def __len__(self) -> int:
        return len(self.prompts) * len(self.cells)

    def narrowed(self, choice: Choice) -> DrawnPlaces:
        """Those that are chosen."""
        prompts = self.prompts
        if choice.prompts is not None:
            prompts = prompts[np.isin(prompts, choice.prompts)]
        return DrawnPlaces(prompts, self.cells[choice.takes(self.cells)])

    def place(self, i: int) -> Place:
        """What the *i*-th figure is of."""
        prompt, cell = divmod(i, len(self.cells))
        layer, head = divmod(int(self.cells[cell]), NONE + 1)
        return Place(int(self.prompts[prompt]), layer, head)


Places = StoredPlaces | DrawnPlaces
