"""Products that the definitions share: plain operators, so that torch and NumPy both do them.

Rule: nothing with both a place and `d_model` for every head, pair or neuron is ever made.
"""

from __future__ import annotations

from typing import Any

from einops import rearrange, repeat


def dot(left: Any, right: Any) -> Any:
    """Inner product over the last dim."""
    return (left * right).sum(-1)


def norm(vectors: Any) -> Any:
    """Euclidean length over the last dim, in the units of the vectors."""
    return dot(vectors, vectors) ** 0.5


def norm_written(inner: Any, weight: Any) -> Any:
    """Length of what is written, |x W|, through the Gram matrix: sqrt(x W W^T x^T).

    Parameters
    ----------
    inner
        Dims (prompt, pos, head, d_head).
    weight
        Dims (head, d_head, d_model).

    Returns
    -------
    Dims (prompt, head, pos).
    """
    gram = weight @ rearrange(weight, "head inner model -> head model inner")
    rows = rearrange(inner, "prompt pos head inner -> prompt head pos inner")
    return abs(dot(rows @ gram, rows)) ** 0.5  # a zero may come out as a small negative number


def along(direction: Any, weight: Any) -> Any:
    """What one unit inside each head writes along a direction: direction W^T.

    Parameters
    ----------
    direction
        Dims (prompt, few, d_model).
    weight
        Dims (head, d_head, d_model).

    Returns
    -------
    Dims (prompt, few, head, d_head).
    """
    flat = direction @ rearrange(weight, "head inner model -> model (head inner)")
    return rearrange(flat, "prompt few (head inner) -> prompt few head inner", head=weight.shape[0])


def for_heads(values: Any, n_heads: int) -> Any:
    """Keys or values once a head: head h has those of h // (n_heads // n_kv_heads).

    Parameters
    ----------
    values
        Dims (prompt, pos, kv_head, d_head).

    Returns
    -------
    Dims (prompt, pos, head, d_head).
    """
    shared = n_heads // values.shape[2]
    if shared == 1:
        return values
    return repeat(values, "prompt pos kv inner -> prompt pos (kv shared) inner", shared=shared)
