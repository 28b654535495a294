"""The figures of one open file: which names it has, what each is of, and the prompts that they are of.

The rule: a snapshot; what is stored later is seen after `refresh`.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.figures.content import DrawnContent, StoredContent, about_function
from pattern_lens.figures.places import DrawnPlaces, Numbers, Places, StoredPlaces, cells_of
from pattern_lens.figures.registry import figure_functions
from pattern_lens.names import HEAD, LAYER
from pattern_lens.patterns.failures import of_known_prompts
from pattern_lens.patterns.opening import collection_of
from pattern_lens.store.rows import FAILED, NO_PROMPT, NONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from pattern_lens.figures.content import Content
    from pattern_lens.figures.places import Place
    from pattern_lens.figures.registry import FigureFunction
    from pattern_lens.patterns.collection import Activations
    from pattern_lens.store.reader import StoreReader
    from pattern_lens.store.rows import Rows

PATTERN: Final = "pattern"
_PAGE: Final = 256
_CACHED_PAGES: Final = 64
_MANY_HASHES: Final = 32


class HeldFigures:
    """What figures an open file has.

    Parameters
    ----------
    reader
        The open file.
    """

    def __init__(self, reader: StoreReader) -> None:
        self.reader = reader
        self._places: dict[str, Places] = {}
        self._pages: dict[int, dict[int, tuple[str, str]]] = {}

    # --- names ---------------------------------------------------------------------------------

    @cached_property
    def stored_names(self) -> frozenset[str]:
        """Names of stored figures; those of results, of which only failures are among the figures, are not."""
        table = self.reader.figures
        used = np.unique(table.rows["kind"][~_is_of_result(table.rows)]).tolist()
        return frozenset(str(table.kinds[kind]["name"]) for kind in used)

    def drawn(self) -> dict[str, FigureFunction]:
        """Registered functions whose figures are drawn when somebody looks, by figure name."""
        if PATTERN not in self.reader.names():
            return {}
        return {
            name: entry
            for entry in figure_functions().values()
            if not entry.is_stored
            for name in entry.figure_names
            if name not in self.stored_names
        }

    def names(self) -> list[str]:
        """Names of all figures, sorted."""
        return sorted({*self.stored_names, *self.drawn()})

    # --- figures -------------------------------------------------------------------------------

    def places(self, name: str) -> Places:
        """Which figures there are of a name; KeyError where there are none."""
        if name in self._places:
            return self._places[name]
        found: Places
        if name in self.stored_names:
            rows = of_known_prompts(self.reader, self.reader.figures.of(name))
            found = StoredPlaces(self.reader.figures, self._without_failed_results(name, rows))
        elif name in self.drawn():
            array = self.reader.array(PATTERN)
            prompts = array.rows["prompt"].astype(np.uint64)
            layers, heads = array.layout.layers, range(array.layout.sizes[HEAD])
            found = DrawnPlaces(
                prompts, cells_of(np.repeat(layers, len(heads)), [*heads] * len(layers))
            )
        else:
            raise KeyError(name)
        self._places[name] = found
        return found

    def _without_failed_results(self, name: str, rows: Rows) -> Rows:
        failed = _is_of_result(rows)
        of_no_head = (rows["layer"] == NONE) & (rows["head"] == NONE) & ~failed
        is_result = name in self.reader.result_names() or not of_no_head.any()
        return rows[~failed] if is_result and failed.any() else rows

    def content(self, name: str, places: Places, i: int) -> Content:
        """What the *i*-th of some figures is made of."""
        if isinstance(places, StoredPlaces):
            return StoredContent(places.table, places.rows[i])
        return DrawnContent(self.drawn()[name], name, partial(self.pattern, places.place(i)))

    def about(self, name: str, places: Places) -> dict[str, Any]:
        """What is known of the figures of a name: of the latest drawn, where they differ."""
        if isinstance(places, StoredPlaces):
            is_drawn = (places.rows["flags"] & FAILED) == 0
            rows = places.rows[is_drawn] if is_drawn.any() else places.rows
            known = places.table.kinds[int(rows["kind"].max())] if len(rows) else {}
            return {key: value for key, value in known.items() if key not in ("name", "format")}
        return about_function(self.drawn()[name], name)

    def formats(self, name: str, places: Places) -> tuple[str, ...]:
        """Endings of the files that figures of a name would be, as far as they are known."""
        if isinstance(places, StoredPlaces):
            rows = places.rows[(places.rows["flags"] & FAILED) == 0]
            kinds = np.unique(rows["kind"]).tolist()
            return tuple(sorted({str(places.table.kinds[kind]["format"]) for kind in kinds}))
        known = self.drawn()[name].format
        return (known,) if known else ()

    @cached_property
    def patterns(self) -> Activations:
        """The patterns that figures are drawn from."""
        return collection_of(self.reader, PATTERN)

    def pattern(self, place: Place) -> xr.DataArray:
        """The pattern of one head, lazily."""
        assert place.prompt is not None  # noqa: S101 - patterns have prompts
        return self.patterns.one(place.prompt, 0).sel({LAYER: place.layer, HEAD: place.head})

    # --- prompts -------------------------------------------------------------------------------

    def prompt(self, position: int) -> tuple[str, str]:
        """Hash and text of one prompt; its neighbours are read with it."""
        page = position // _PAGE
        if page not in self._pages:
            while len(self._pages) >= _CACHED_PAGES:
                self._pages.pop(next(iter(self._pages)))
            table = self.reader.prompts
            first, last = np.searchsorted(table.positions, (page * _PAGE, (page + 1) * _PAGE))
            members = table.positions[first:last]
            facts = zip(table.hashes(members), table.texts(members), strict=True)
            self._pages[page] = dict(zip(members.tolist(), facts, strict=True))
        return self._pages[page][position]

    def positions(self, hashes: Sequence[str]) -> Numbers:
        """Positions of prompts in the prompt table.

        Raises
        ------
        UnknownPromptError
            The file does not hold one of them.
        """
        table = self.reader.prompts
        known: dict[str, int] = {}
        if len(hashes) > _MANY_HASHES:
            every = table.positions
            known = dict(zip(table.hashes(every), every.tolist(), strict=True))
        return np.array([known[h] if h in known else table.position(h) for h in hashes], np.uint64)

    # --- the file ------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether the file was closed."""
        return self.reader.handle.closed

    def refresh(self) -> None:
        """See what was stored since."""
        self.reader.refresh()
        self.forget()

    def forget(self) -> None:
        """Drop what was read, where somebody else has refreshed the reader."""
        for name in ("stored_names", "patterns"):
            self.__dict__.pop(name, None)
        self._places.clear()
        self._pages.clear()


def _is_of_result(rows: Rows) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows are failures as those of results are: of one prompt, of no layer and head."""
    of_no_head = (rows["layer"] == NONE) & (rows["head"] == NONE)
    failed = (rows["flags"] & FAILED) != 0
    return np.asarray(of_no_head & failed & (rows["prompt"] != np.uint64(NO_PROMPT)))
