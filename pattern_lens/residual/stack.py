"""From a plan and stored activations to a labelled stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pattern_lens.names import COMPONENT, D_MODEL, LAYER, NEURON, POS, PROMPT
from pattern_lens.residual.inputs import Given, ModelFacts, weight_of
from pattern_lens.residual.places import (
    Component,
    choose_positions,
    component_coordinates,
    positions_kept,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pattern_lens.residual.plans import Plan


def stacked(
    plan: Plan, activations: Mapping[str, xr.DataArray], weights: xr.Dataset, pos: Any = None
) -> xr.DataArray:
    """What a plan stacks, normalised if it says so: dims (component, pos, d_model)."""
    kept, drops = positions_kept(pos)
    chosen = {name: choose_positions(array, kept) for name, array in activations.items()}
    given = Given(chosen, weights, plan.needs, plan.name)
    before: list[Any] = []
    for part in plan.parts:
        before.append(part.vectors(given, before))
    values = before[0] if len(before) == 1 else np.concatenate(before, axis=given.n_lead)
    if plan.norm is not None:
        values = plan.norm.apply(values, given)
    return labelled(plan, given, values, (POS, D_MODEL), drops=drops)


def labelled(
    plan: Plan,
    given: Given,
    values: Any,
    inner: tuple[str, ...],
    *,
    drops: bool,
    components: Sequence[Component] | None = None,
) -> xr.DataArray:
    """Dims (component, ...), with the prompt's own coordinates and attributes."""
    lead = (PROMPT,) * given.n_lead
    first = given.first
    along = {str(name): c for name, c in first.coords.items() if set(c.dims) <= {PROMPT, POS}}
    along.pop(LAYER, None)
    of_prompt = ("model", "hash", "text", "n_ctx", "truncated")
    array = xr.DataArray(
        values,
        dims=(*lead, COMPONENT, *inner),
        coords={
            **along,
            **component_coordinates(plan.components if components is None else components),
        },
        name=plan.name,
        attrs={key: first.attrs[key] for key in of_prompt if key in first.attrs},
    )
    return array.isel({POS: 0}) if drops else array


def n_neurons(weights: xr.Dataset, who: str) -> int:
    """How many neurons each MLP has; 0 for attention-only models.

    Raises
    ------
    WeightsMissingError
        The weights do not say.
    """
    if ModelFacts.of(weights).attn_only:
        return 0
    if "W_out" not in weights:
        weight_of(weights, "W_out", who)  # raises, and says what to do
    return int(weights.sizes[NEURON])
