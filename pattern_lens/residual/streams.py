"""TransformerLens' ActivationCache on stored activations: the stream, and what it is a sum of.

Each function takes the activations of one prompt (or of a block of prompts of one length, with a leading dim `prompt`)
and the model's weights, and gives dims (component, pos, d_model).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pattern_lens.names import ALIASES, LAYER
from pattern_lens.residual import plans
from pattern_lens.residual.inputs import POS_EMBED, ModelFacts, check_needs, layers_of
from pattern_lens.residual.places import stream_number
from pattern_lens.residual.stack import n_neurons, stacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from pattern_lens.residual.plans import Mode

__all__ = [
    "accumulated_resid",
    "decompose_resid",
    "get_full_resid_decomposition",
    "stack_activation",
]


def accumulated_resid(
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    layer: int | None = None,
    *,
    incl_mid: bool = False,
    apply_ln: bool = False,
    pos: Any = None,
    mlp_input: bool = False,
) -> xr.DataArray:
    """The residual stream in front of every layer up to one.

    Parameters
    ----------
    activations
        ``resid_pre``, ``resid_post`` of the last layer, ``resid_mid`` where asked for, and the scale of the norm.
    weights
        The model's weights and facts; see `pattern_lens.residual`.
    layer
        The last stream is the input of this layer; None and -1 are the input of the unembedding.
    incl_mid
        Whether to give the streams between attention and MLP, too.
    apply_ln
        Whether each stream goes through the norm of the last layer. In front of the unembedding each has its own
        statistics, and the norm's gain and bias where they are not folded: what the logit lens reads. Elsewhere the
        stored scale is used.
    pos
        A position, which takes the dim away, a slice, a list, or (start, stop); all by default.
    mlp_input
        Whether to end with the input of the layer's MLP instead of its attention.

    Returns
    -------
    Dims (component, pos, d_model), components ``0_pre``, ``0_mid``, ..., ``final_post``; `layer` is the layer that
    reads the stream. In the units of the residual stream. On dask if the activations are.

    Raises
    ------
    UnknownActivationError, WeightsMissingError
        Something needed is not there; the message names it and the capture call that adds it.
    OutOfRangeError, ResidualError
        There is no such layer or position, or the model has no such stream.
    """
    facts = ModelFacts.of(weights)
    plan = plans.accumulated(
        facts, layer, incl_mid=incl_mid, apply_ln=apply_ln, mlp_input=mlp_input
    )
    return stacked(plan, activations, weights, pos)


def decompose_resid(
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    layer: int | None = None,
    *,
    mlp_input: bool = False,
    mode: Mode = "all",
    apply_ln: bool = False,
    pos: Any = None,
    incl_embeds: bool = True,
) -> xr.DataArray:
    """The input of a layer as a sum: the embeddings and what every attention and MLP layer before it wrote.

    Parameters
    ----------
    activations
        ``embed`` and, where the model has it, ``pos_embed``; ``attn_out``, ``mlp_out``; the scale of the norm.
    mode
        ``attn`` and ``mlp`` leave out the other.
    apply_ln
        Whether to centre (LayerNorm) and divide by the stored scale of the layer's norm.
    incl_embeds
        Whether the embeddings are among the components.
    weights, layer, pos, mlp_input
        As for `accumulated_resid`.

    Returns
    -------
    Dims (component, pos, d_model), components ``embed``, ``pos_embed``, ``0_attn_out``, ``0_mlp_out``, ...

    Raises
    ------
    UnknownActivationError, WeightsMissingError, OutOfRangeError, ResidualError
        As for `accumulated_resid`.

    Examples
    --------
    >>> import xarray as xr
    >>> embed = xr.DataArray([[1.0, 2.0]], dims=("pos", "d_model"))
    >>> wrote = xr.DataArray([[[0.5, -3.0]]], dims=("layer", "pos", "d_model"))
    >>> weights = xr.Dataset(attrs={"n_layers": 1, "n_heads": 2, "attn_only": True})
    >>> stack = decompose_resid({"embed": embed, "attn_out": wrote}, weights)
    >>> stack["component"].values.tolist(), stack.sum("component").values.tolist()
    (['embed', '0_attn_out'], [[1.5, -1.0]])
    """
    plan = plans.decomposed(
        ModelFacts.of(weights),
        layer,
        mlp_input=mlp_input,
        mode=mode,
        apply_ln=apply_ln,
        incl_embeds=incl_embeds,
        has_pos_embed=POS_EMBED in activations,
    )
    return stacked(plan, activations, weights, pos)


def get_full_resid_decomposition(
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    layer: int | None = None,
    *,
    mlp_input: bool = False,
    expand_neurons: bool = True,
    apply_ln: bool = False,
    pos: Any = None,
) -> xr.DataArray:
    """The input of a layer as the sum of every head, every neuron or MLP, the embeddings and the biases.

    Parameters
    ----------
    activations
        ``z``; ``mlp_post`` or, without `expand_neurons`, ``mlp_out``; ``embed``, ``pos_embed``; the norm's scale.
    expand_neurons
        Whether MLPs are taken apart into neurons.
    weights, layer, mlp_input, apply_ln, pos
        As for `decompose_resid`; with ``W_O``, ``b_O`` and, with `expand_neurons`, ``W_out``, ``b_out``.

    Returns
    -------
    Dims (component, pos, d_model): heads, neurons or ``0_mlp_out``, ..., ``embed``, ``pos_embed``, ``bias``.

    Raises
    ------
    UnknownActivationError, WeightsMissingError, OutOfRangeError, ResidualError
        As for `accumulated_resid`.
    """
    facts = ModelFacts.of(weights)
    plan = plans.full(
        facts,
        layer,
        mlp_input=mlp_input,
        expand_neurons=expand_neurons,
        apply_ln=apply_ln,
        n_neurons=n_neurons(weights, "get_full_resid_decomposition") if expand_neurons else 0,
        has_pos_embed=POS_EMBED in activations,
    )
    return stacked(plan, activations, weights, pos)


def stack_activation(
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    name: str,
    layer: int | None = -1,
) -> xr.DataArray:
    """One activation of all layers before one.

    Returns
    -------
    The activation itself, dims (layer, ...), cut to these layers; lazy if it is.

    Raises
    ------
    UnknownActivationError, OutOfRangeError
        It is not there, or not at these layers; or no layer stands before `layer`.
    """
    name = ALIASES.get(name, name)
    number = stream_number(layer, ModelFacts.of(weights).n_layers, least=1)
    layers = tuple(range(number))
    held = {ALIASES.get(key, key): array for key, array in activations.items()}
    check_needs({name: layers}, {k: layers_of(a) for k, a in held.items()}, "stack_activation")
    return held[name].sel({LAYER: list(layers)})
