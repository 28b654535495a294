"""Which calls of figure functions the file lacks.

The rule: a call is done if every figure that it made is there; a failure is not. What a call made is one
commit or none, but a crash may leave part of it, so that each figure says how many there were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.store.rows import FAILED, NO_PROMPT, NONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pattern_lens.figures.drawing import Chosen, Numbers
    from pattern_lens.store.figures import FigureTable
    from pattern_lens.store.rows import Rows

_NOTHING: Final = np.empty(0, np.int64)


class Todo:
    """Calls that are done, of some functions on chosen prompts and heads.

    A call is known by its key, ``position * n_cells + cell`` with a cell of ``layer * n_heads + head``. Of
    functions of the mean over prompts, position is 0.

    Parameters
    ----------
    table
        The file's figures.
    layers
        Numbers of the stored layers.
    n_heads
        Heads of a layer.
    positions
        Chosen prompts.
    cells
        Chosen heads, ascending.
    force
        Whether nothing counts as done.

    Attributes
    ----------
    n_other_version
        Figures of these calls that another version of their function drew.
    """

    def __init__(
        self,
        table: FigureTable,
        layers: Sequence[int],
        n_heads: int,
        *,
        positions: Numbers,
        cells: Numbers,
        force: bool,
    ) -> None:
        self._table, self._force = table, force
        self.n_heads, self.n_cells = n_heads, len(layers) * n_heads
        self._layer_places = np.full(max(layers, default=0) + 2, -1)
        self._layer_places[list(layers)] = np.arange(len(layers))
        self._is_chosen_prompt = np.zeros(int(positions.max(initial=0)) + 2, np.bool_)
        self._is_chosen_prompt[positions] = True
        self._is_chosen_cell = np.zeros(self.n_cells, np.bool_)
        self._is_chosen_cell[cells] = True
        self.n_other_version = 0

    def done(self, chosen: Chosen) -> Numbers:
        """Keys of the chosen calls of a function that are done, ascending."""
        if self._force:
            return _NOTHING
        kinds = self._kinds_of(chosen)
        wanted = self._names_wanted(chosen)
        if wanted is not None:
            kinds = {k: known for k, known in kinds.items() if known["name"] in wanted}
        if chosen.entry.is_average:
            digest = chosen.about["prompts"]
            kinds = {k: known for k, known in kinds.items() if known.get("prompts") == digest}
        rows, keys = self._rows(chosen, kinds, failed=False)
        if not len(rows):
            return _NOTHING
        self.n_other_version += self._n_other(chosen, rows, kinds)
        if wanted is None and all(known.get("figures", 1) == 1 for known in kinds.values()):
            return keys if bool((keys[1:] > keys[:-1]).all()) else np.unique(keys)
        number = self._by_kind({k: int(known.get("figures", 1)) for k, known in kinds.items()})
        least = number[rows["kind"]] if wanted is None else np.full(len(rows), len(wanted))
        found, first, counts = np.unique(keys, return_index=True, return_counts=True)
        return np.asarray(found[counts >= least[first]])

    def _kinds_of(self, chosen: Chosen) -> dict[int, dict[str, Any]]:
        """Descriptions of a function's figures and failures."""
        name, kinds = chosen.entry.name, self._table.kinds
        return {k: known for k, known in kinds.items() if known.get("function") == name}

    def _rows(
        self, chosen: Chosen, kinds: Mapping[int, Any], *, failed: bool
    ) -> tuple[Rows, Numbers]:
        """Rows of some kinds and one state that stand where chosen calls are, and the keys of these."""
        rows = self._table.rows
        if not kinds:
            return rows[:0], _NOTHING
        keep = self._is_of(kinds)
        keep &= (rows["flags"] & FAILED != 0) == failed
        keep &= (rows["prompt"] == np.uint64(NO_PROMPT)) == chosen.entry.is_average
        rows = rows if bool(keep.all()) else rows[keep]
        places = self._layer_places[np.minimum(rows["layer"], len(self._layer_places) - 1)]
        known = (places >= 0) & (rows["head"] < self.n_heads)
        cells = np.where(known, places * self.n_heads + rows["head"], 0)
        known &= self._is_chosen_cell[cells]
        prompts = np.zeros(len(rows), np.int64)
        if not chosen.entry.is_average:
            prompts = rows["prompt"].astype(np.int64)
            known &= self._is_chosen_prompt[np.minimum(prompts, len(self._is_chosen_prompt) - 1)]
        return rows[known], (prompts * self.n_cells + cells)[known]

    def _is_of(self, kinds: Iterable[int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows are of some kinds."""
        is_own = np.zeros(max(self._table.kinds, default=0) + 1, np.bool_)
        is_own[[*kinds]] = True
        return np.asarray(is_own[self._table.rows["kind"]])

    def _by_kind(self, values: Mapping[int, int]) -> Numbers:
        """A table of numbers by kind."""
        out = np.zeros(max(values) + 1, np.int64)
        out[[*values]] = [*values.values()]
        return out

    def _n_other(self, chosen: Chosen, rows: Rows, kinds: Mapping[int, dict[str, Any]]) -> int:
        """How many figures another version of the function drew."""
        code = chosen.about.get("code")
        other = {kind: int(known.get("code") != code) for kind, known in kinds.items()}
        return int(self._by_kind(other)[rows["kind"]].sum()) if any(other.values()) else 0

    def _names_wanted(self, chosen: Chosen) -> frozenset[str] | None:
        """Names that every call makes; None where that is known only afterwards."""
        entry = chosen.entry
        is_named = entry.is_multiple or entry.only is not None
        return frozenset(entry.wanted_names) if is_named else None

    def stale(self, chosen: Chosen) -> Stale:
        """What new calls of a function may leave behind: failures, and names that not every call makes."""
        kinds = self._kinds_of(chosen)
        wanted = self._names_wanted(chosen)
        if chosen.entry.only is not None and wanted is not None:  # the others are not drawn
            kinds = {k: known for k, known in kinds.items() if known["name"] in wanted}
        failed, failed_keys = self._rows(chosen, kinds, failed=True)
        certain = () if chosen.layouts else chosen.entry.wanted_names
        kinds = {k: known for k, known in kinds.items() if known["name"] not in certain}
        rows, keys = self._rows(chosen, kinds, failed=False)
        keys, own = np.append(failed_keys, keys), np.append(failed["kind"], rows["kind"])
        order = np.argsort(keys, kind="stable")
        names = {kind: known["name"] for kind, known in self._table.kinds.items()}
        return Stale(keys[order], own[order], names)

    def failed_prompts(self, names: Sequence[str], function: str) -> Numbers:
        """Prompts with failures of a function, or of results under some names."""
        rows, kinds = self._table.rows, self._table.kinds.items()
        own = [k for k, v in kinds if v.get("function") == function or v["name"] in names]
        is_failed = self._is_of(own) & (rows["flags"] & FAILED != 0)
        prompts = rows["prompt"][is_failed & (rows["prompt"] != np.uint64(NO_PROMPT))]
        return np.unique(prompts).astype(np.int64)

    def failed_results(self, names: Sequence[str]) -> dict[int, list[str]]:
        """Names under which the results of prompts as a whole failed, by position."""
        found: dict[int, list[str]] = {}
        for name in names:
            rows = self._table.of(name)
            rows = rows[(rows["flags"] & FAILED != 0) & (rows["layer"] == NONE)]
            for position in rows["prompt"].tolist():
                found.setdefault(position, []).append(name)
        return found


class Stale:
    """Names that stand where calls are made: failures, and those that are not known before a function runs."""

    def __init__(self, keys: Numbers, kinds: np.ndarray[Any, Any], names: dict[int, str]) -> None:
        self._keys, self._kinds, self._names = keys, kinds, names

    def at(self, key: int) -> set[str]:
        """Names at the place of one call."""
        if not len(self._keys):
            return set()
        first, last = np.searchsorted(self._keys, (key, key + 1))
        return {self._names[kind] for kind in self._kinds[first:last].tolist()}
