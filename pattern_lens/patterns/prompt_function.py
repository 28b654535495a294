"""A function of one prompt, as workers call it, and what it gives of a few prompts before a map.

The rule: nothing here knows where results go.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from pattern_lens.errors import MapFailedError, PatternLensError
from pattern_lens.names import HEAD, LAYER
from pattern_lens.patterns.computed import Fitted, as_result, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pattern_lens.patterns.collection import Activations
    from pattern_lens.store.layout import ArrayLayout

Item = tuple[int, int]
"""A prompt: its position in the prompt table, and its place in the collection."""

_N_TRIED: Final = 8


@dataclass(frozen=True, eq=False)
class PromptFunction:
    """A function of one prompt's array, as workers call it."""

    collection: Activations
    function: Callable[..., Any]
    options: Mapping[str, Any]
    per_head: bool

    def of(self, item: Item) -> xr.DataArray:
        """The result for one prompt."""
        array = self.collection.one(*item).load()
        if self.per_head:
            return self._of_heads(array)
        return as_result(self.function(array, **self.options))

    def _of_heads(self, array: xr.DataArray) -> xr.DataArray:
        dims = [dim for dim in (LAYER, HEAD) if dim in array.dims]
        stacked: xr.DataArray = _over(array, dims, self._of_head)
        return stacked

    def _of_head(self, array: xr.DataArray) -> xr.DataArray:
        return as_result(self.function(array, **self.options))


def _over(
    array: xr.DataArray, dims: Sequence[str], function: Callable[[xr.DataArray], xr.DataArray]
) -> xr.DataArray:
    if not dims:
        return function(array)
    first, *others = dims
    parts = [_over(array.isel({first: i}), others, function) for i in range(array.sizes[first])]
    return xr.concat(
        [part.drop_vars(first, errors="ignore") for part in parts],
        dim=array[first] if first in array.coords else first,
        coords="minimal",
        compat="override",
        combine_attrs="override",
    )


@dataclass(frozen=True, eq=False)
class Fitting:
    """What a worker runs: the function, and how its results are stored."""

    prompt_function: PromptFunction
    layout: ArrayLayout

    def __call__(self, items: Sequence[Item]) -> Iterator[Fitted]:
        """Results of some prompts, in order."""
        for item in items:
            yield fit(self.layout, self.prompt_function.of(item))


class Trial:
    """The function on a few prompts of different sizes, before anything is stored.

    Attributes
    ----------
    examples
        Results; they tell dims, dtype and which dims are ragged.
    bytes_a_second
        Dense bytes that it takes in.

    Raises
    ------
    MapFailedError
        It fails on every one of them.
    """

    def __init__(self, given: PromptFunction, items: Sequence[Item]) -> None:
        self._given = given
        self.bytes_a_second = 100e6
        self.examples: list[xr.DataArray] = []
        collection = given.collection
        sizes = collection.base.sizes()
        n_bytes = collection.base.dense_bytes()
        error: BaseException | None = None
        for place in _of_different_sizes(sizes):
            started = time.perf_counter()
            try:
                self.examples.append(given.of(items[place]))
            except Exception as err:  # noqa: BLE001 - whatever a user's function raises
                error = error or err
                continue
            seconds = time.perf_counter() - started
            self.bytes_a_second = n_bytes[place] / seconds  # the last is not the first to import
            if len(self.examples) == 2:
                break
        if len(self.examples) == 1:
            self._try_shorter(items)
        if not self.examples:
            _give_up(error)

    def _try_shorter(self, items: Sequence[Item]) -> None:
        """Where all prompts have one size, the first one without its last token."""
        collection = self._given.collection
        for dim in collection.ragged:
            collection = collection.isel(**{dim: slice(0, -1)})
        shorter = PromptFunction(
            collection, self._given.function, self._given.options, self._given.per_head
        )
        try:
            self.examples.append(shorter.of(items[0]))
        except Exception:  # noqa: BLE001 - then it is known from one size only
            return


def _of_different_sizes(sizes: np.ndarray[Any, Any]) -> list[int]:
    """Places of a few prompts, a short one and a longer one first."""
    _, first = np.unique(sizes, axis=0, return_index=True)
    if len(first) < 2:
        return list(range(min(len(sizes), _N_TRIED)))
    middle = first[len(first) // 2]
    return list(dict.fromkeys([int(first[0]), int(middle), *first[:_N_TRIED].tolist()]))


def _give_up(error: BaseException | None) -> None:
    if error is None:
        raise MapFailedError("cannot map a function over no prompts: choose some that have values")
    if isinstance(error, PatternLensError):
        raise error
    raise MapFailedError(
        f"the function fails on every prompt that was tried: {type(error).__name__}: {error}; nothing was stored"
    ) from error
