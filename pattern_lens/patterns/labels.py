"""Coordinates of arrays: made once for each choice along a dim, and shared between prompts.

The rule: indexes are integers, or component labels; token text never is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from xarray.indexes import PandasIndex

from pattern_lens.names import COMPONENT, HEAD, LAYER, head_label

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pattern_lens.patterns.cuts import Pick
    from pattern_lens.patterns.selection import Wanted
    from pattern_lens.store.layout import ArrayLayout

_CACHED: Final = 4096
Made = tuple[dict["Hashable", xr.Variable], dict["Hashable", PandasIndex]]


class Labels:
    """Coordinate variables and indexes of one activation."""

    def __init__(self, layout: ArrayLayout) -> None:
        self._layers = np.array(layout.layers, np.int64)
        self._made: dict[Hashable, Made] = {}

    def of(self, wanted: Wanted) -> Made:
        """Variables and indexes of everything but tokens; both new dicts."""
        variables: dict[Hashable, xr.Variable] = {}
        indexes: dict[Hashable, PandasIndex] = {}
        for dim, pick in wanted.picks.items():
            if wanted.paired and dim in (LAYER, HEAD):
                continue
            made = self._axis(dim, pick)
            variables.update({name: v.copy(deep=False) for name, v in made[0].items()})
            indexes.update(made[1])
        if wanted.paired:
            made = self._components(wanted)
            variables.update(made[0])
            indexes.update(made[1])
        return variables, indexes

    def _axis(self, dim: str, pick: Pick) -> Made:
        key: Hashable = (dim, pick.tobytes() if isinstance(pick, np.ndarray) else pick)
        if key not in self._made:
            if len(self._made) > _CACHED:
                self._made.clear()
            self._made[key] = self._make(dim, pick)
        return self._made[key]

    def _make(self, dim: str, pick: Pick) -> Made:
        numbers: Any = np.asarray(pick, np.int64)
        if dim == LAYER:
            numbers = self._layers[numbers]
        if isinstance(pick, int):
            return {dim: xr.Variable((), np.int64(numbers))}, {}
        return _indexed(dim, numbers)

    def _components(self, wanted: Wanted) -> Made:
        layers = self._layers[np.asarray(wanted.picks[LAYER], np.intp)]
        heads = np.asarray(wanted.picks[HEAD], np.int64)
        pairs = zip(layers.tolist(), heads.tolist(), strict=True)
        labels = np.array([head_label(*pair) for pair in pairs], dtype="U")
        variables, indexes = _indexed(COMPONENT, labels)
        variables[LAYER] = xr.Variable((COMPONENT,), layers)
        variables[HEAD] = xr.Variable((COMPONENT,), heads)
        return variables, indexes


def _indexed(dim: str, values: Any) -> Made:
    index = PandasIndex(pd.Index(values, name=dim), dim, coord_dtype=values.dtype)
    return dict(index.create_variables()), {dim: index}


def indexed(dim: str, values: Any) -> xr.Coordinates:
    """One dim with its index."""
    variables, indexes = _indexed(dim, np.asarray(values))
    return xr.Coordinates(variables, indexes)
