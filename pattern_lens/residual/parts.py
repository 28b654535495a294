"""The parts that a residual stream is a sum of, each as vectors and as products with a direction.

The rule: a part's `dots` is its `vectors` times the direction, without ever making the vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pattern_lens.names import head_label
from pattern_lens.residual.inputs import NEURONS, Array, Given, Needs, Z
from pattern_lens.residual.places import NONE, Component

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pattern_lens.residual.directions import Direction


class Part(Protocol):
    """Some rows of a stack."""

    @property
    def components(self) -> list[Component]:
        """Labels, in order."""

    @property
    def needs(self) -> Needs:
        """Activations that it is computed from."""

    def vectors(self, given: Given, before: Sequence[Any]) -> Any:
        """What is written to the stream: dims (lead..., component, pos, d_model).

        Parameters
        ----------
        before
            The vectors of the parts in front of this one.
        """

    def dots(self, given: Given, direction: Direction, before: Sequence[Any]) -> Any:
        """Products of the vectors with a direction: dims (lead..., component, pos)."""


@dataclass(frozen=True)
class Stream:
    """A stored vector in the residual stream, such as ``3_attn_out``."""

    label: str
    name: str
    layer: int | None = None
    number: int | None = None

    @property
    def components(self) -> list[Component]:
        """Labels, in order."""
        shown = self.layer if self.number is None else self.number
        return [Component(self.label, NONE if shown is None else shown)]

    @property
    def needs(self) -> Needs:
        """Activations that it is computed from."""
        return {self.name: None if self.layer is None else (self.layer,)}

    def values(self, given: Given) -> Any:
        """Dims (lead..., pos, d_model)."""
        if self.layer is None:
            return given.whole(self.name)
        return given.at(self.name, self.layer)

    def vectors(self, given: Given, before: Sequence[Any]) -> Any:  # noqa: ARG002
        """Dims (lead..., component, pos, d_model)."""
        return self.values(given)[..., None, :, :]

    def dots(self, given: Given, direction: Direction, before: Sequence[Any]) -> Any:  # noqa: ARG002
        """Dims (lead..., component, pos)."""
        return direction.times(self.values(given))[..., None, :]


@dataclass(frozen=True)
class Heads:
    """What every head of some layers writes: z @ W_O."""

    layers: tuple[int, ...]
    n_heads: int

    @property
    def components(self) -> list[Component]:
        """Labels, in order."""
        places = ((layer, head) for layer in self.layers for head in range(self.n_heads))
        return [Component(head_label(*place), *place) for place in places]

    @property
    def needs(self) -> Needs:
        """Activations that it is computed from."""
        return {Z: self.layers}

    def _z(self, given: Given) -> Any:
        """Dims (lead..., layer, head, pos, d_head)."""
        return np.moveaxis(given.over(Z, self.layers), -2, -3)

    def vectors(self, given: Given, before: Sequence[Any]) -> Any:  # noqa: ARG002
        """Dims (lead..., component, pos, d_model)."""
        written = np.matmul(self._z(given), _of_layers(given.weight("W_O"), self.layers))
        return _joined(written, given.n_lead)

    def dots(self, given: Given, direction: Direction, before: Sequence[Any]) -> Any:  # noqa: ARG002
        """Dims (lead..., component, pos)."""
        folded = direction.folded(self, _of_layers(given.weight("W_O"), self.layers))
        return _joined(np.matmul(self._z(given), folded[..., None])[..., 0], given.n_lead)


@dataclass(frozen=True, eq=False)
class Neurons:
    """What some neurons of some layers write: their activation times their row of W_out."""

    layers: tuple[int, ...]
    numbers: Sequence[int] = field(repr=False)

    @property
    def components(self) -> list[Component]:
        """Labels, in order."""
        return [
            Component(f"L{layer}N{neuron}", layer, neuron=neuron)
            for layer in self.layers
            for neuron in self.numbers
        ]

    @property
    def needs(self) -> Needs:
        """Activations that it is computed from."""
        return {NEURONS: self.layers}

    @cached_property
    def _index(self) -> Any:
        return np.asarray(self.numbers, np.intp)

    def _taken(self, given: Given) -> tuple[Any, Any]:
        """Activations (lead..., layer, neuron, pos) and weights (layer, neuron, d_model)."""
        values = given.over(NEURONS, self.layers)
        w_out = _of_layers(given.weight("W_out"), self.layers)
        if len(self._index) != w_out.shape[1] or (np.diff(self._index) != 1).any():
            values, w_out = values[..., self._index], w_out[:, self._index]
        return np.moveaxis(values, -1, -2), w_out

    def vectors(self, given: Given, before: Sequence[Any]) -> Any:  # noqa: ARG002
        """Dims (lead..., component, pos, d_model)."""
        values, w_out = self._taken(given)
        return _joined(values[..., None] * w_out[..., None, :], given.n_lead)

    def dots(self, given: Given, direction: Direction, before: Sequence[Any]) -> Any:  # noqa: ARG002
        """Dims (lead..., component, pos)."""
        values, w_out = self._taken(given)
        return _joined(values * direction.folded(self, w_out)[..., None], given.n_lead)


@dataclass(frozen=True)
class Bias:
    """The biases that attention, and MLPs where they are taken apart, added on the way."""

    attn_layers: tuple[int, ...]
    mlp_layers: tuple[int, ...]
    like: Stream

    @property
    def components(self) -> list[Component]:
        """Labels, in order."""
        return [Component("bias")]

    @property
    def needs(self) -> Needs:
        """Activations that it is computed from."""
        return self.like.needs

    def _sum(self, given: Given) -> Any:
        total = np.zeros(1, np.float32)
        for name, layers in (("b_O", self.attn_layers), ("b_out", self.mlp_layers)):
            if layers and given.has_weight(name):  # many models have none
                total = total + given.weight(name)[list(layers)].sum(axis=0)
        return total

    def vectors(self, given: Given, before: Sequence[Any]) -> Any:  # noqa: ARG002
        """Dims (lead..., component, pos, d_model)."""
        return np.zeros_like(self.like.values(given))[..., None, :, :] + self._sum(given)

    def dots(self, given: Given, direction: Direction, before: Sequence[Any]) -> Any:  # noqa: ARG002
        """Dims (lead..., component, pos)."""
        like = self.like.values(given)
        total = np.broadcast_to(self._sum(given), (like.shape[-1],))
        return (np.zeros_like(like[..., 0]) + direction.of_vector(total))[..., None, :]


@dataclass(frozen=True)
class Remainder:
    """What is left of a stream when the parts in front are taken off."""

    stream: Stream

    @property
    def components(self) -> list[Component]:
        """Labels, in order."""
        return [Component("remainder")]

    @property
    def needs(self) -> Needs:
        """Activations that it is computed from."""
        return self.stream.needs

    def vectors(self, given: Given, before: Sequence[Any]) -> Any:
        """Dims (lead..., component, pos, d_model)."""
        whole = self.stream.vectors(given, ())
        return whole - sum(part.sum(axis=given.n_lead, keepdims=True) for part in before)

    def dots(self, given: Given, direction: Direction, before: Sequence[Any]) -> Any:
        """Dims (lead..., component, pos)."""
        whole = self.stream.dots(given, direction, ())
        return whole - sum(part.sum(axis=given.n_lead, keepdims=True) for part in before)


def _of_layers(weights: Array, layers: Sequence[int]) -> Array:
    """A weight at some layers that follow one another, without a copy."""
    return weights[layers[0] : layers[-1] + 1]


def _joined(values: Any, n_lead: int) -> Any:
    """Layer and head, or layer and neuron, as one axis."""
    shape = values.shape
    return values.reshape(*shape[:n_lead], shape[n_lead] * shape[n_lead + 1], *shape[n_lead + 2 :])
