"""Arrays that read when their values are asked for, as xarray's own backends have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from pattern_lens.names import KEY, POS, QUERY, TOKEN_COORDS

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pattern_lens.patterns.chosen import Chosen
    from pattern_lens.patterns.cuts import Array, Pick
    from pattern_lens.patterns.selection import Wanted
    from pattern_lens.patterns.source import Source
    from pattern_lens.store.reader import StoredArray


def read_values(array: StoredArray, row: int, wanted: Wanted) -> Array:
    """What is wanted of one prompt; reads the chunks that hold it and no others."""
    shape = wanted.shape
    if 0 in shape:
        return np.empty(shape, array.layout.value_dtype)
    plan = wanted.plan
    return plan.finish(array.read(row, plan.selection, plan.first, plan.last))


_WHOLE: Final = slice(None)


class ReadOnlyArray(BackendArray):
    """Reads what a key names; a key that names everything goes the short way."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Array:
        if not isinstance(key, indexing.VectorizedIndexer):
            # not through the adapter: it takes its time, and fails on some empty slices
            is_whole = all(isinstance(k, slice) and k == _WHOLE for k in key.tuple)
            return np.asarray(self._read(None if is_whole else key.tuple))
        support = indexing.IndexingSupport.OUTER
        values: Array = indexing.explicit_indexing_adapter(key, self.shape, support, self._read)
        return values

    def _read(self, key: tuple[Any, ...] | None) -> Any:
        raise NotImplementedError


class PromptArray(ReadOnlyArray):
    """Part of one prompt's values."""

    def __init__(self, source: Source, position: int, wanted: Wanted) -> None:
        self.source, self.position, self.wanted = source, position, wanted
        self.shape = wanted.shape
        self.dtype = wanted.layout.value_dtype

    def __dask_tokenize__(self) -> object:
        picks = {d: np.asarray(p).tolist() for d, p in self.wanted.picks.items()}
        return (*self.source.identity, self.position, str(picks), self.wanted.paired)

    def _read(self, key: tuple[Any, ...] | None) -> Array:
        row = self.source.row(self.position)
        wanted = self.wanted if key is None else self.wanted.narrow(key)
        return read_values(self.source.array, row, wanted)


class TokenArray(ReadOnlyArray):
    """Texts of some of the tokens of one prompt; read once, when they are asked for."""

    def __init__(self, source: Source, position: int, pick: Pick) -> None:
        self.source, self.position, self.pick = source, position, pick
        self.shape = () if isinstance(pick, int) else (len(pick),)
        self.dtype = np.dtype(object)
        self._texts: Array | None = None

    def __dask_tokenize__(self) -> object:
        return (*self.source.identity, self.position, str(np.asarray(self.pick).tolist()))

    def _read(self, key: tuple[Any, ...] | None) -> Any:
        if self._texts is None:
            texts = np.array(self.source.reader.tokens(self.position), dtype=object)
            picked = (
                texts[self.pick]
                if isinstance(self.pick, int)
                else texts[np.asarray(self.pick, np.intp)]
            )
            self._texts = np.asarray(picked, dtype=object)
        return self._texts[key] if key else self._texts.copy()


def prompt_array(source: Source, position: int, row: int, chosen: Chosen) -> xr.DataArray:
    """The lazy, labelled array of one prompt."""
    wanted = chosen.wanted(source.array.sizes(row))
    variables, indexes = source.labels.of(wanted)
    prompt = source.prompt(position)
    variables.update(_tokens(source, position, row, wanted, prompt.n_ctx))
    values = indexing.LazilyIndexedArray(PromptArray(source, position, wanted))
    attrs = {
        **describe(source, chosen),
        "hash": prompt.hash,
        "text": prompt.text,
        "n_ctx": prompt.n_ctx,
        "truncated": prompt.truncated,
    }
    variable = xr.Variable(tuple(wanted.axes), values, attrs, fastpath=True)
    if chosen.layout.has_layers and "layer" in variable.dims:
        variable.encoding = {"preferred_chunks": {"layer": 1}}
    # what the public constructor makes of `xr.Coordinates`, without its copies: 10 times faster
    return xr.DataArray(
        variable, coords=variables, indexes=indexes, name=source.name, fastpath=True
    )


def _tokens(
    source: Source, position: int, row: int, wanted: Wanted, n_ctx: int
) -> dict[Hashable, xr.Variable]:
    found: dict[Hashable, xr.Variable] = {}
    sizes = dict(zip(wanted.layout.ragged, source.array.sizes(row), strict=False))
    for dim in (QUERY, KEY, POS):
        if sizes.get(dim) == n_ctx:  # keys of a cross-attention belong to another text
            tokens = TokenArray(source, position, wanted.picks[dim])
            dims = (dim,) if tokens.shape else ()
            lazy = indexing.LazilyIndexedArray(tokens)
            found[TOKEN_COORDS[dim]] = xr.Variable(dims, lazy, fastpath=True)
    return found


def describe(source: Source, chosen: Chosen) -> dict[str, Any]:
    """Attributes that every array of an activation carries."""
    layout = chosen.layout
    hooks = list(layout.hooks)
    if layout.has_layers:
        hooks = [hooks[layout.layers.index(n)] for n in chosen.layer_numbers] if hooks else []
    named = {"hook": hooks[0]} if len(hooks) == 1 else {"hooks": hooks}
    return {
        "model": source.model_name,
        **named,
        **({"units": layout.units} if layout.units else {}),
        **({"causal": True} if layout.packing == "triangle" else {}),
    }
