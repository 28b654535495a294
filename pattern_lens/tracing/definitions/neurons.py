"""What each neuron of an MLP does at each position.

Rule: what a neuron writes lies along its row of W_out, so that the length of the row is computed once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from einops import rearrange

from pattern_lens.names import LAYER, NEURON, POS
from pattern_lens.tracing.definitions.products import norm
from pattern_lens.tracing.registry import DIRECTION, register_scalar

if TYPE_CHECKING:
    from pattern_lens.tracing.registry import At

_DIMS: Final = (LAYER, POS, NEURON)


@register_scalar(
    "neuron_activation",
    dims=_DIMS,
    needs=("post",),
    definition="the neuron after the nonlinearity, post (definition)",
)
def neuron_activation(at: At) -> Any:
    """Activation of each neuron, after the nonlinearity and the gate.

    Parameters
    ----------
    at
        With ``post``.

    Returns
    -------
    Dims (prompt, pos, neuron); the nonlinearity's range.
    """
    return at["post"]


@register_scalar(
    "neuron_gradient",
    dims=_DIMS,
    needs=("post_grad",),
    definition="gradient with respect to the neuron after the nonlinearity, dpost (definition)",
)
def neuron_gradient(at: At) -> Any:
    """Gradient with respect to each neuron's activation.

    Parameters
    ----------
    at
        With ``post_grad``.

    Returns
    -------
    Dims (prompt, pos, neuron); any sign, in units of the objective for each unit of activation.
    """
    return at["post_grad"]


@register_scalar(
    "neuron_write_magnitude",
    dims=_DIMS,
    needs=("post", "W_out"),
    definition="length of what the neuron writes, |post| * |W_out row| (Mossing et al. 2024, Transformer Debugger)",
)
def neuron_write_magnitude(at: At) -> Any:
    """Length of what each neuron writes.

    Parameters
    ----------
    at
        With ``post`` and ``W_out``.

    Returns
    -------
    Dims (prompt, pos, neuron); range [0, inf), in units of the stream. The bias b_out belongs to no neuron.

    Notes
    -----
    |post| * |W_out row|. Write magnitude: Mossing et al. 2024, Transformer Debugger.
    """
    return abs(at["post"]) * norm(at.weight("W_out"))


@register_scalar(
    "neuron_estimated_total_effect",
    dims=_DIMS,
    needs=("post", "post_grad"),
    definition="activation x gradient of the neuron, post * dpost (Nanda 2023, Attribution Patching)",
)
def neuron_estimated_total_effect(at: At) -> Any:
    """First-order estimate of what the objective loses if a neuron is 0 at a position.

    Parameters
    ----------
    at
        With ``post`` and ``post_grad``.

    Returns
    -------
    Dims (prompt, pos, neuron); any sign, in units of the objective.

    Notes
    -----
    post * post_grad. Nanda 2023, Attribution Patching.
    """
    return at["post"] * at["post_grad"]


@register_scalar(
    "neuron_direct_effect",
    dims=_DIMS,
    needs=("post", "W_out", DIRECTION),
    definition="what the neuron writes along the direction that is read, post * (W_out row . direction) "
    "(Elhage et al. 2021, A Mathematical Framework for Transformer Circuits)",
)
def neuron_direct_effect(at: At) -> Any:
    """What each neuron adds to the objective, or to the traced node, through no other component.

    Parameters
    ----------
    at
        With ``post``, ``W_out`` and the direction.

    Returns
    -------
    Dims (prompt, pos, neuron); any sign, in units of the objective. Zero where the direction is.

    Notes
    -----
    post * (W_out row . direction), at the few positions that are read. Elhage et al. 2021, A Mathematical Framework
    for Transformer Circuits.
    """
    back = at.direction("mlp") @ rearrange(at.weight("W_out"), "neuron model -> model neuron")
    return at.spread(at.there(at["post"]) * back)
