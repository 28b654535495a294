"""What each head does at each query: how much it writes, and what that does to the objective."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from einops import rearrange

from pattern_lens.names import HEAD, LAYER, QUERY
from pattern_lens.tracing.definitions.products import along, dot, norm_written
from pattern_lens.tracing.registry import DIRECTION, register_scalar

if TYPE_CHECKING:
    from pattern_lens.tracing.registry import At

_DIMS: Final = (LAYER, HEAD, QUERY)


@register_scalar(
    "head_write_magnitude",
    dims=_DIMS,
    needs=("z", "W_O"),
    definition="length of what the head writes at the query, |z W_O| (Mossing et al. 2024, Transformer Debugger)",
)
def head_write_magnitude(at: At) -> Any:
    """Length of what each head writes.

    Parameters
    ----------
    at
        With ``z`` and ``W_O``.

    Returns
    -------
    Dims (prompt, head, query); range [0, inf), in units of the stream. The bias b_O belongs to no head.

    Notes
    -----
    |z W_O| = sqrt(z (W_O W_O^T) z^T), so that what the heads write is never made. Write magnitude: Mossing et al.
    2024, Transformer Debugger.
    """
    return norm_written(at["z"], at.weight("W_O"))


@register_scalar(
    "head_estimated_total_effect",
    dims=_DIMS,
    needs=("z", "z_grad"),
    definition="activation x gradient of the head at the query, sum over d_head of z * dz (Nanda 2023, Attribution Patching)",
)
def head_estimated_total_effect(at: At) -> Any:
    """First-order estimate of what the objective loses if a head writes nothing at a query.

    Parameters
    ----------
    at
        With ``z`` and ``z_grad``.

    Returns
    -------
    Dims (prompt, head, query); any sign, in units of the objective.

    Notes
    -----
    sum over d_head of z * z_grad, which is (z W_O) . (gradient of what attention writes). Nanda 2023, Attribution
    Patching: Activation Patching At Industrial Scale.
    """
    return rearrange(dot(at["z"], at["z_grad"]), "prompt query head -> prompt head query")


@register_scalar(
    "head_direct_effect",
    dims=_DIMS,
    needs=("z", "W_O", DIRECTION),
    definition="what the head writes along the direction that is read, z W_O . direction "
    "(Elhage et al. 2021, A Mathematical Framework for Transformer Circuits)",
)
def head_direct_effect(at: At) -> Any:
    """What each head adds to the objective, or to the traced node, through no other component.

    Parameters
    ----------
    at
        With ``z``, ``W_O`` and the direction.

    Returns
    -------
    Dims (prompt, head, query); any sign, in units of the objective. Zero where the direction is.

    Notes
    -----
    (z W_O) . direction, computed as z . (W_O direction). Elhage et al. 2021, A Mathematical Framework for
    Transformer Circuits: what is read is a sum over what is written.
    """
    back = along(at.direction("attn"), at.weight("W_O"))
    effect = dot(at.there(at["z"]), back)
    return rearrange(at.spread(effect), "prompt query head -> prompt head query")
