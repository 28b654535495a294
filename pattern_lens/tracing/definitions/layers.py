"""What attention and the MLP of each layer write as a whole, what the embedding does, and how the stream stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pattern_lens.names import LAYER, POS
from pattern_lens.tracing.definitions.products import dot, norm
from pattern_lens.tracing.registry import (
    DIRECT_EFFECT,
    DIRECTION,
    ESTIMATED_TOTAL_EFFECT,
    GRAD,
    WRITE_MAGNITUDE,
    register_scalar,
)

if TYPE_CHECKING:
    from pattern_lens.tracing.registry import At

_WRITERS: Final = {
    "attn": ("attn_out", (LAYER, POS), "what attention writes, b_O included"),
    "mlp": ("mlp_out", (LAYER, POS), "what the MLP writes, b_out included"),
    "embed": ("resid_pre", (POS,), "token and position embeddings, the stream before layer 0"),
}
"""Kinds of node that write one vector at each position: activation, dims, and what it is."""

_BIASES: Final = {"attn": "b_O", "mlp": "b_out"}


def write_magnitude(at: At, name: str) -> Any:
    """Length of what is written.

    Parameters
    ----------
    name
        Activation with dims (pos, d_model).

    Returns
    -------
    Dims (prompt, pos); range [0, inf), in units of the stream.

    Notes
    -----
    sqrt(sum over d_model of x^2). Mossing et al. 2024, Transformer Debugger.
    """
    return norm(at[name])


def estimated_total_effect(at: At, name: str) -> Any:
    """First-order estimate of what the objective loses if nothing is written.

    Parameters
    ----------
    name
        Activation with dims (pos, d_model).

    Returns
    -------
    Dims (prompt, pos); any sign, in units of the objective. Of the embedding it is the attribution to each token.

    Notes
    -----
    sum over d_model of x * dx. Nanda 2023, Attribution Patching.
    """
    return dot(at[name], at[name + GRAD])


def direct_effect(at: At, name: str, writer: str) -> Any:
    """What is written along the direction that the objective, or the traced node, reads.

    Parameters
    ----------
    name
        Activation with dims (pos, d_model).
    writer
        Who writes it.

    Returns
    -------
    Dims (prompt, pos); any sign, in units of the objective. Zero where the direction is.

    Notes
    -----
    x . direction. Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
    """
    return at.spread(dot(at.there(at[name]), at.direction(writer)))


def bias_direct_effect(at: At, name: str, writer: str) -> Any:
    """What a bias adds to the objective, over all positions that are read.

    Parameters
    ----------
    name
        Weight with dims (d_model).
    writer
        Who adds it.

    Returns
    -------
    Dims (prompt); any sign, in units of the objective.

    Notes
    -----
    sum over positions of b . direction. With the direct effects of a layer's heads it makes that of its attention.
    """
    return dot(at.direction(writer).sum(1), at.weight(name))


def _register(kind: str) -> None:
    name, dims, what = _WRITERS[kind]
    register_scalar(
        f"{kind}_{WRITE_MAGNITUDE}",
        dims=dims,
        needs=(name,),
        definition=f"length of {what}, |{name}| (Mossing et al. 2024, Transformer Debugger)",
    )(lambda at: write_magnitude(at, name))
    register_scalar(
        f"{kind}_{ESTIMATED_TOTAL_EFFECT}",
        dims=dims,
        needs=(name, name + GRAD),
        definition=f"activation x gradient of {what}, {name} . d{name} (Nanda 2023, Attribution Patching)",
    )(lambda at: estimated_total_effect(at, name))
    register_scalar(
        f"{kind}_{DIRECT_EFFECT}",
        dims=dims,
        needs=(name, DIRECTION),
        definition=f"{what}, along the direction that is read, {name} . direction "
        "(Elhage et al. 2021, A Mathematical Framework for Transformer Circuits)",
    )(lambda at: direct_effect(at, name, kind))


def _register_bias(kind: str) -> None:
    name = _BIASES[kind]
    register_scalar(
        f"{kind}_bias_{DIRECT_EFFECT}",
        dims=(LAYER,),
        needs=(name, DIRECTION),
        definition=f"the bias {name} along the direction that is read, summed over positions, {name} . direction "
        "(Elhage et al. 2021, A Mathematical Framework for Transformer Circuits)",
    )(lambda at: bias_direct_effect(at, name, kind))


for _kind in _WRITERS:
    _register(_kind)
for _kind in _BIASES:
    _register_bias(_kind)


@register_scalar(
    "resid_norm",
    dims=(LAYER, POS),
    needs=("resid_pre",),
    definition="length of the stream before the layer, |resid_pre| (definition)",
)
def resid_norm(at: At) -> Any:
    """Length of the stream that each layer finds.

    Parameters
    ----------
    at
        With ``resid_pre``.

    Returns
    -------
    Dims (prompt, pos); range [0, inf), in units of the stream.
    """
    return norm(at["resid_pre"])


@register_scalar(
    "resid_projection",
    dims=(LAYER, POS),
    needs=("resid_pre", DIRECTION),
    definition="the stream before the layer along the unit vector of the direction that is read, "
    "resid_pre . direction / |direction|, direction summed over positions (definition)",
)
def resid_projection(at: At) -> Any:
    """How far the stream has moved along the direction that is read in the end.

    Parameters
    ----------
    at
        With ``resid_pre`` and the direction.

    Returns
    -------
    Dims (prompt, pos); any sign, in units of the stream; 0 if the direction is zero.
    """
    direction = at.direction("embed").sum(1)  # the embedding is upstream of whatever is traced
    length = norm(direction)[:, None]
    unit = direction / (length + (length == 0))
    return dot(at["resid_pre"], unit[:, None])
