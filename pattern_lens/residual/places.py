"""Layers, positions and components, as users write them and as results are labelled."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pattern_lens.errors import OutOfRangeError
from pattern_lens.names import COMPONENT, HEAD, LAYER, NEURON, POS
from pattern_lens.patterns.cuts import as_cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

NONE: Final = -1
"""Layer, head or neuron of a component that belongs to none."""


class Component(NamedTuple):
    """One row of a stack: its label as TransformerLens writes it, and where it stands in the model."""

    label: str
    layer: int = NONE
    head: int = NONE
    neuron: int = NONE


def component_coordinates(components: Sequence[Component]) -> dict[str, Any]:
    """Coordinates along the dim `component`; `head` and `neuron` only where a component has one."""
    labels = np.array([one.label for one in components], dtype="U")
    found: dict[str, Any] = {COMPONENT: labels}
    for dim, numbers in (
        (LAYER, [one.layer for one in components]),
        (HEAD, [one.head for one in components]),
        (NEURON, [one.neuron for one in components]),
    ):
        if dim == LAYER or any(number != NONE for number in numbers):
            found[dim] = (COMPONENT, np.array(numbers, np.int64))
    return found


def stream_number(layer: int | None, n_layers: int, *, least: int = 0) -> int:
    """Which layer's input is meant: 0 to `n_layers`, the last being the input of the unembedding.

    Parameters
    ----------
    layer
        None is the last; negative numbers count from it, as in TransformerLens: -1 is `n_layers`.
    least
        Smallest number that makes sense.

    Raises
    ------
    OutOfRangeError
        There is no such layer.
    """
    number = n_layers if layer is None else operator.index(layer)
    number += n_layers + 1 if number < 0 else 0
    if not least <= number <= n_layers:
        why = "; no layer stands before layer 0" if least else ""
        raise OutOfRangeError(
            f"no layer {layer}: expected {least} to {n_layers}, of which {n_layers} (or None, or -1) is what the "
            f"unembedding reads{why}"
        )
    return number


def block_number(layer: int, n_layers: int) -> int:
    """Which block is meant: 0 to `n_layers` - 1; negative numbers count from the end."""
    number = operator.index(layer)
    if not -n_layers <= number < n_layers:
        raise OutOfRangeError(f"no layer {layer}: expected 0 to {n_layers - 1}, or negative")
    return number % n_layers


def neuron_numbers(neurons: Any, n_neurons: int) -> list[int]:
    """Which neurons are meant by a number, a slice, a list or a (start, stop) tuple."""
    if neurons is None:
        return list(range(n_neurons))
    picked = as_cut(NEURON, _as_slice(neurons), by_label=False).apply(range(n_neurons), NEURON)
    return [int(number) for number in np.atleast_1d(np.asarray(picked))]


def positions_kept(pos: Any) -> tuple[Any, bool]:
    """What to choose along `pos` so that the dim stays, and whether it goes in the end.

    Parameters
    ----------
    pos
        None, a number, a slice, a list of numbers, or (start, stop) as TransformerLens takes it.
    """
    pos = _as_slice(pos)
    if pos is None or isinstance(pos, slice):
        return pos, False
    drops = as_cut(POS, pos, by_label=False).drops
    return ([operator.index(pos)] if drops else pos), drops


def choose_positions(array: xr.DataArray, kept: Any) -> xr.DataArray:
    """The chosen positions of one prompt's activation, or of a block; arrays without positions stay.

    Raises
    ------
    OutOfRangeError
        The prompt has no such position.
    """
    if kept is None or POS not in array.dims:
        return array
    picked = as_cut(POS, kept, by_label=False).apply(range(array.sizes[POS]), POS)
    return array.isel({POS: np.asarray(picked, np.intp)})


def _as_slice(chosen: Any) -> Any:
    """TransformerLens writes slices as tuples."""
    return slice(*chosen) if isinstance(chosen, tuple) else chosen
