"""TransformerLens' ActivationCache on stored activations: what heads and neurons write.

Each function takes the activations of one prompt (or of a block of prompts of one length, with a leading dim `prompt`)
and the model's weights, and gives dims (component, pos, d_model).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pattern_lens.names import COMPONENT, D_MODEL, HEAD, LAYER, POS
from pattern_lens.residual import plans
from pattern_lens.residual.inputs import ModelFacts
from pattern_lens.residual.stack import n_neurons, stacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pattern_lens.residual.plans import Plan

__all__ = [
    "compute_head_results",
    "get_neuron_results",
    "stack_head_results",
    "stack_neuron_results",
]


def compute_head_results(
    activations: Mapping[str, xr.DataArray], weights: xr.Dataset, *, pos: Any = None
) -> xr.DataArray:
    """What every head of every layer writes to the residual stream: z @ W_O.

    Returns
    -------
    Dims (layer, pos, head, d_model), as the activation ``result``. What attention writes is the sum over heads
    plus the bias b_O.

    Raises
    ------
    UnknownActivationError, WeightsMissingError
        ``z`` or ``W_O`` is not there.
    """
    plan = plans.heads(ModelFacts.of(weights))
    return head_grid(stacked(plan, activations, weights, pos), plan)


def head_grid(stack: xr.DataArray, plan: Plan) -> xr.DataArray:
    """Components of all heads as dims layer and head: (..., layer, pos, head, d_model)."""
    grid = {LAYER: plan.facts.n_layers, HEAD: plan.facts.n_heads}
    at = stack.dims.index(COMPONENT)
    bare = stack.drop_vars([name for name in stack.coords if stack[name].dims == (COMPONENT,)])
    lead, inner = stack.dims[:at], stack.dims[at + 1 :]
    shape = (*stack.shape[:at], *grid.values(), *stack.shape[at + 1 :])
    result = xr.DataArray(
        stack.data.reshape(shape),
        dims=(*lead, *grid, *inner),
        coords={**bare.coords, **{dim: np.arange(n) for dim, n in grid.items()}},
        name="compute_head_results",
        attrs=stack.attrs | {"long_name": "what each head writes"},
    )
    return result.transpose(*lead, LAYER, *(dim for dim in inner if dim == POS), HEAD, D_MODEL)


def stack_head_results(
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    layer: int | None = -1,
    *,
    incl_remainder: bool = False,
    pos: Any = None,
    apply_ln: bool = False,
) -> xr.DataArray:
    """What every head in front of a layer wrote.

    Parameters
    ----------
    activations
        ``z``; with `incl_remainder` the stream in front of the layer; the scale of the norm.
    layer
        Heads of all layers before this one; at least 1.
    incl_remainder
        Whether to add what is left of the stream as ``remainder``.
    weights, pos, apply_ln
        As for `decompose_resid`; with ``W_O``.

    Returns
    -------
    Dims (component, pos, d_model), components ``L0H0``, ``L0H1``, ...

    Raises
    ------
    UnknownActivationError, WeightsMissingError, OutOfRangeError
        As for `accumulated_resid`.

    Examples
    --------
    >>> import xarray as xr
    >>> z = xr.DataArray([[[[2.0], [5.0]]]], dims=("layer", "pos", "head", "d_head"))
    >>> w_o = (("layer", "head", "d_head", "d_model"), [[[[1.0, 3.0]], [[0.0, -1.0]]]])
    >>> weights = xr.Dataset({"W_O": w_o}, attrs={"n_layers": 1, "n_heads": 2})
    >>> stack_head_results({"z": z}, weights, pos=0).sel(component="L0H1").values.tolist()
    [0.0, -5.0]
    """
    plan = plans.heads(
        ModelFacts.of(weights), layer, incl_remainder=incl_remainder, apply_ln=apply_ln
    )
    return stacked(plan, activations, weights, pos)


def get_neuron_results(
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    layer: int,
    *,
    neurons: Any = None,
    pos: Any = None,
) -> xr.DataArray:
    """What every neuron of one layer writes to the residual stream: its activation times its row of W_out.

    Parameters
    ----------
    activations
        ``mlp_post``.
    layer
        Number of the block; negative numbers count from the end.
    neurons
        A number, a slice, a list, or (start, stop); all by default, which is large: positions x neurons x d_model.
    weights, pos
        As for `accumulated_resid`; with ``W_out``.

    Returns
    -------
    Dims (component, pos, d_model), components ``L3N17``.

    Raises
    ------
    UnknownActivationError, WeightsMissingError, OutOfRangeError, ResidualError
        As for `accumulated_resid`.

    Examples
    --------
    >>> import xarray as xr
    >>> post = xr.DataArray([[[2.0, 0.5]]], dims=("layer", "pos", "neuron"))
    >>> w_out = (("layer", "neuron", "d_model"), [[[1.0, 3.0], [4.0, -8.0]]])
    >>> weights = xr.Dataset({"W_out": w_out}, attrs={"n_layers": 1, "n_heads": 2})
    >>> get_neuron_results({"mlp_post": post}, weights, 0, neurons=[1], pos=0).values.tolist()
    [[2.0, -4.0]]
    """
    plan = plans.neurons_of(
        ModelFacts.of(weights),
        layer,
        neurons=neurons,
        n_neurons=n_neurons(weights, "get_neuron_results"),
    )
    return stacked(plan, activations, weights, pos)


def stack_neuron_results(
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    layer: int | None,
    *,
    pos: Any = None,
    neurons: Any = None,
    incl_remainder: bool = False,
    apply_ln: bool = False,
) -> xr.DataArray:
    """What every neuron in front of a layer wrote.

    Parameters
    ----------
    activations, weights, neurons, pos
        As for `get_neuron_results`.
    layer, incl_remainder, apply_ln
        As for `stack_head_results`.

    Returns
    -------
    Dims (component, pos, d_model), components ``L0N0``, ``L0N1``, ...

    Raises
    ------
    UnknownActivationError, WeightsMissingError, OutOfRangeError, ResidualError
        As for `accumulated_resid`.
    """
    plan = plans.neurons_before(
        ModelFacts.of(weights),
        layer,
        neurons=neurons,
        n_neurons=n_neurons(weights, "stack_neuron_results"),
        incl_remainder=incl_remainder,
        apply_ln=apply_ln,
    )
    return stacked(plan, activations, weights, pos)
