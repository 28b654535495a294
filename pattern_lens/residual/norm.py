"""Layer norm on the parts of a stream: with the scale that was stored, or with one of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.errors import OutOfRangeError, WeightsMissingError
from pattern_lens.names import RESIDUAL
from pattern_lens.residual.inputs import (
    LN1_SCALE,
    LN2_SCALE,
    LN_FINAL_SCALE,
    ModelFacts,
    Needs,
    capture_call,
)
from pattern_lens.residual.places import stream_number

if TYPE_CHECKING:
    from pattern_lens.residual.inputs import Given

_EPS_FREE = "none"


@dataclass(frozen=True)
class Norm:
    """The norm in front of one layer's attention or MLP, or of the unembedding.

    Parameters
    ----------
    layer
        0 to `n_layers`; `n_layers` is the norm in front of the unembedding.
    recompute
        Statistics of each component itself instead of the stored scale; with the gain and bias that the norm has.
    """

    facts: ModelFacts
    layer: int
    mlp_input: bool = False
    recompute: bool = False

    @property
    def needs(self) -> Needs:
        """The stored scale, where it is used."""
        if self.recompute or self.facts.normalization == _EPS_FREE:
            return {}
        if self.layer == self.facts.n_layers:
            return {LN_FINAL_SCALE: None}
        return {LN2_SCALE if self.mlp_input else LN1_SCALE: (self.layer,)}

    def scale(self, given: Given) -> Any:
        """The stored scale: dims (lead..., pos)."""
        ((name, layers),) = self.needs.items()
        return given.whole(name) if layers is None else given.at(name, layers[0])

    def apply(self, stack: Any, given: Given) -> Any:
        """Vectors (lead..., component, pos, d_model) as the layer reads them."""
        if self.facts.normalization == _EPS_FREE:
            return stack
        if self.facts.centres:
            stack = stack - stack.mean(axis=-1, keepdims=True)
        if not self.recompute:
            return stack / self.scale(given)[..., None, :, None]
        squares = np.square(stack).mean(axis=-1, keepdims=True)
        normalised = stack / np.sqrt(squares + self.facts.eps)
        if given.has_weight("ln_final_w"):
            normalised = normalised * given.weight("ln_final_w")
        return (
            normalised + given.weight("ln_final_b")
            if given.has_weight("ln_final_b")
            else normalised
        )

    def divide(self, products: Any, given: Given) -> Any:
        """Products with a direction, dims (lead..., component, pos), as the layer reads them."""
        if self.facts.normalization == _EPS_FREE:
            return products
        return products / self.scale(given)[..., None, :]


def norm_before(
    facts: ModelFacts, layer: int | None, *, mlp_input: bool, recompute: bool = False
) -> Norm:
    """The norm that a layer's input goes through.

    Raises
    ------
    OutOfRangeError
        There is no such layer, or no MLP in it.
    WeightsMissingError
        Nothing says which kind of norm the model has.
    """
    if not facts.normalization:
        raise WeightsMissingError(
            f"cannot apply the layer norm: nothing says which kind it is; {capture_call([RESIDUAL], 'that')}"
        )
    number = stream_number(layer, facts.n_layers)
    check_mlp_input(facts, number, mlp_input=mlp_input)
    return Norm(facts, number, mlp_input, recompute and number == facts.n_layers)


def check_mlp_input(facts: ModelFacts, number: int, *, mlp_input: bool) -> None:
    """Raise unless the layer has an MLP whose input may be meant."""
    if mlp_input and number == facts.n_layers:
        raise OutOfRangeError(
            f"mlp_input=True needs a layer from 0 to {number - 1}: layer {number} is the unembedding, which has no MLP"
        )
