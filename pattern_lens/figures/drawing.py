"""What a worker does: read a prompt's pattern, call figure functions on its heads.

A call is one function on one head; its number is ``function * n_layers * n_heads + layer * n_heads + head``,
counted among the chosen functions and the stored layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import xarray as xr

from pattern_lens.errors import ResultMismatchError
from pattern_lens.figures.failures import failure
from pattern_lens.figures.produce import produce
from pattern_lens.figures.products import Failure, Picture, Values
from pattern_lens.figures.settings import own_settings, undisturbed
from pattern_lens.names import HEAD, LAYER
from pattern_lens.patterns.computed import Fitted, fit
from pattern_lens.store.figures import FigureRecord, failure_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pattern_lens.figures.products import Product
    from pattern_lens.figures.registry import FigureFunction
    from pattern_lens.patterns.collection import Activations
    from pattern_lens.store.layout import ArrayLayout

Numbers = np.ndarray[Any, np.dtype[np.int64]]


class Item(NamedTuple):
    """Calls of one prompt: its position in the prompt table, its place in the collection, numbers of the calls."""

    position: int
    place: int
    calls: Numbers


@dataclass
class Drawn:
    """What calls made: figures and failures as they are stored, and numbers by `ArrayLayout.key`."""

    figures: list[FigureRecord] = field(default_factory=list)
    values: dict[str, Fitted] = field(default_factory=dict)


@dataclass(frozen=True)
class Chosen:
    """A chosen function.

    Parameters
    ----------
    about
        What the file says of it.
    layouts
        Where its numbers go, by the name that they have.
    refusal
        Why they go nowhere.
    """

    entry: FigureFunction
    about: Mapping[str, Any]
    layouts: Mapping[str, ArrayLayout] = field(default_factory=dict)
    refusal: str = ""
    _abouts: dict[int, Mapping[str, Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def about_of(self, n_made: int) -> Mapping[str, Any]:
        """What the file says of a figure whose call made so many; one object, which is sent and described once."""
        if n_made not in self._abouts:
            self._abouts[n_made] = {**self.about, "figures": n_made}
        return self._abouts[n_made]


@dataclass(frozen=True, eq=False)
class Drawing:
    """Figure functions on the heads of prompts, as workers call them."""

    collection: Activations
    chosen: Sequence[Chosen]
    size_limit_bytes: int
    settings: Mapping[str, Any] = field(default_factory=own_settings)

    def __call__(self, items: Sequence[Item]) -> Iterator[Drawn]:
        """What each item makes, in order."""
        for item in items:
            yield self.of(item)

    def of(self, item: Item) -> Drawn:
        """What the calls of one item make; numbers of heads that it does not call are NaN."""
        array = self.collection.one(item.position, item.place)
        n_heads = array.sizes[HEAD]
        n_cells = array.sizes[LAYER] * n_heads
        layers, inverse = np.unique(item.calls % n_cells // n_heads, return_inverse=True)
        read = array.isel({LAYER: layers}).load()
        values, places = read.values, _places_of(array)
        numbers: dict[tuple[int, str], dict[tuple[int, int], Values]] = {}
        drawn = Drawn()
        for call, i in zip(item.calls.tolist(), inverse.tolist(), strict=True):
            function, cell = divmod(call, n_cells)
            chosen = self.chosen[function]
            # choosing from a labelled array takes as long as drawing a small image
            needs_labels = chosen.entry.kind == "labelled"
            pattern = (read if needs_labels else values)[i, cell % n_heads]
            made = called(chosen, pattern, self.size_limit_bytes, self.settings)
            place = (item.position, *places[cell])
            for product in made:
                if isinstance(product, Values) and product.name in chosen.layouts:
                    found = numbers.setdefault((function, product.name), {})
                    found[divmod(cell, n_heads)] = product
                else:
                    drawn.figures.append(as_record(chosen, product, place, len(made)))
        for (function, name), of_one in numbers.items():
            self._add_values(drawn, self.chosen[function], name, of_one, item, array)
        return drawn

    def _add_values(
        self,
        drawn: Drawn,
        chosen: Chosen,
        name: str,
        found: Mapping[tuple[int, int], Values],
        item: Item,
        array: xr.DataArray,
    ) -> None:
        layout = chosen.layouts[name]
        try:
            drawn.values[layout.key] = fit(layout, of_heads(array, found))
        except ResultMismatchError as err:
            why, places = failure(name, err), _places_of(array)
            for i, head in found:
                place = (item.position, *places[i * array.sizes[HEAD] + head])
                drawn.figures.append(as_record(chosen, why, place, 1))


def called(
    chosen: Chosen,
    pattern: xr.DataArray | NDArray[Any],
    size_limit_bytes: int,
    settings: Mapping[str, Any],
) -> tuple[Product, ...]:
    """What a function makes of one head; what it does to the process is undone."""
    try:
        with undisturbed(settings):
            return produce(chosen.entry, pattern, size_limit_bytes=size_limit_bytes)
    except SystemExit as error:  # in a worker it would cost the process, here the whole run
        return tuple(failure(name, error) for name in chosen.entry.wanted_names)


def _places_of(array: xr.DataArray) -> list[tuple[int, int]]:
    """Layer number and head of each cell."""
    heads = array[HEAD].values.tolist()
    return [(layer, head) for layer in array[LAYER].values.tolist() for head in heads]


def as_record(
    chosen: Chosen, product: Product, place: tuple[int | None, int | None, int | None], n_made: int
) -> FigureRecord:
    """A product as it is stored; `n_made` says how many its call made."""
    if isinstance(product, Picture):
        about = chosen.about_of(n_made)
        return FigureRecord(*place, product.name, product.format, product.data, about=about)
    about = chosen.about_of(0)
    if isinstance(product, Failure):
        return failure_record(
            product.name, place, product.error, product.message, product.traceback, about=about
        )
    why = chosen.refusal or (
        f"figure function {chosen.entry.name!r} returned numbers {product.name!r} here and something else of the heads "
        "tried first; return one kind"
    )
    return failure_record(product.name, place, "FigureKindError", why, "", about=about)


_FLOAT: Final = np.float32


def of_heads(array: xr.DataArray, found: Mapping[tuple[int, int], Values]) -> xr.DataArray:
    """Numbers of a prompt's heads as one array (layer, head, ...); NaN where there are none.

    Parameters
    ----------
    array
        The prompt's pattern; its values are not read.
    found
        By place of the layer and the head in it.

    Raises
    ------
    ResultMismatchError
        Heads differ in dims, sizes or labels.
    """
    first = next(iter(found.values())).values
    shape = (array.sizes[LAYER], array.sizes[HEAD], *first.shape)
    dtype = np.result_type(_FLOAT, *{one.values.dtype for one in found.values()})
    out: NDArray[Any] = np.full(shape, np.nan, dtype)
    for (i, head), one in found.items():
        _check_same(one, first)
        out[i, head] = one.values.values
    own = {name: c for name, c in first.coords.items() if name not in (LAYER, HEAD)}
    coords = {LAYER: array[LAYER].values, HEAD: array[HEAD].values, **own}
    return xr.DataArray(out, dims=(LAYER, HEAD, *first.dims), coords=coords, attrs=first.attrs)


def _check_same(one: Values, first: xr.DataArray) -> None:
    given = one.values
    if given.dims != first.dims or given.shape != first.shape:
        raise ResultMismatchError(
            f"{one.name!r} has dims {dict(given.sizes)} on one head and {dict(first.sizes)} on another; return the same"
        )
    for dim in given.dims:
        labels, others = given.coords.get(dim), first.coords.get(dim)
        same = labels is others is None or (
            labels is not None
            and others is not None
            and np.array_equal(labels.values, others.values)
        )
        if not same:
            raise ResultMismatchError(
                f"{one.name!r} has other labels along {dim!r} on one head than on another; return the same"
            )
