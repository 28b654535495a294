"""What each head moves from each key to each query: the pattern's entry times the value at the key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from einops import rearrange

from pattern_lens.names import HEAD, KEY, LAYER, QUERY
from pattern_lens.tracing.definitions.products import along, for_heads, norm_written
from pattern_lens.tracing.registry import DIRECTION, register_scalar

if TYPE_CHECKING:
    from pattern_lens.tracing.registry import At

_DIMS: Final = (LAYER, HEAD, QUERY, KEY)


@register_scalar(
    "pair_activation",
    dims=_DIMS,
    needs=("pattern",),
    definition="attention of the query to the key, after the softmax (definition)",
)
def pair_activation(at: At) -> Any:
    """Attention probability.

    Parameters
    ----------
    at
        With ``pattern``.

    Returns
    -------
    Dims (prompt, head, query, key); range [0, 1]. By definition the activation of the pair.
    """
    return at["pattern"]


@register_scalar(
    "pair_gradient",
    dims=_DIMS,
    needs=("pattern_grad",),
    definition="gradient with respect to the attention of the query to the key (definition)",
)
def pair_gradient(at: At) -> Any:
    """Gradient with respect to an attention probability, as if it could move alone.

    Parameters
    ----------
    at
        With ``pattern_grad``.

    Returns
    -------
    Dims (prompt, head, query, key); any sign, in units of the objective for each unit of attention.
    """
    return at["pattern_grad"]


@register_scalar(
    "pair_write_magnitude",
    dims=_DIMS,
    needs=("pattern", "v", "W_O"),
    definition="length of what the head moves from the key to the query, pattern * |v W_O| "
    "(Kobayashi et al. 2020, Attention is Not Only a Weight)",
)
def pair_write_magnitude(at: At) -> Any:
    """Length of what each head moves from a key to a query.

    Parameters
    ----------
    at
        With ``pattern``, ``v`` and ``W_O``.

    Returns
    -------
    Dims (prompt, head, query, key); range [0, inf), in units of the stream.

    Notes
    -----
    |pattern| * |v W_O|, v of the key-value head that the head reads. Kobayashi et al. 2020, Attention is Not Only a
    Weight: Analyzing Transformers with Vector Norms.
    """
    lengths = norm_written(for_heads(at["v"], at.n_heads), at.weight("W_O"))
    return abs(at["pattern"]) * lengths[:, :, None, :]


@register_scalar(
    "pair_estimated_total_effect",
    dims=_DIMS,
    needs=("pattern", "pattern_grad"),
    definition="activation x gradient of the attention, pattern * dpattern (Nanda 2023, Attribution Patching)",
)
def pair_estimated_total_effect(at: At) -> Any:
    """First-order estimate of what the objective loses if a query gives a key no attention.

    Parameters
    ----------
    at
        With ``pattern`` and ``pattern_grad``.

    Returns
    -------
    Dims (prompt, head, query, key); any sign, in units of the objective. Its sum over keys is the head's.

    Notes
    -----
    pattern * pattern_grad; the other keys of the row are not rescaled. Nanda 2023, Attribution Patching.
    """
    return at["pattern"] * at["pattern_grad"]


@register_scalar(
    "pair_direct_effect",
    dims=_DIMS,
    needs=("pattern", "v", "W_O", DIRECTION),
    definition="what the head moves from the key, along the direction that is read at the query, "
    "pattern * (v W_O . direction) (Elhage et al. 2021, A Mathematical Framework for Transformer Circuits)",
)
def pair_direct_effect(at: At) -> Any:
    """What each head adds to the objective by moving a key's value to a query.

    Parameters
    ----------
    at
        With ``pattern``, ``v``, ``W_O`` and the direction.

    Returns
    -------
    Dims (prompt, head, query, key); any sign, in units of the objective. Its sum over keys is the head's.

    Notes
    -----
    pattern[query, key] * (v[key] W_O . direction[query]). Elhage et al. 2021, A Mathematical Framework for
    Transformer Circuits.
    """
    back = along(at.direction("attn"), at.weight("W_O"))
    read = rearrange(back, "prompt few head inner -> prompt few head 1 inner")
    moved = rearrange(
        for_heads(at["v"], at.n_heads), "prompt key head inner -> prompt 1 head inner key"
    )
    rows = at.there(rearrange(at["pattern"], "prompt head query key -> prompt query head key"))
    effect = rows * (read @ moved)[:, :, :, 0]
    return rearrange(at.spread(effect), "prompt query head key -> prompt head query key")
