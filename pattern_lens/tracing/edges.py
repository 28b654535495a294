"""Edges: what each component writes, along the gradient with respect to what another one reads of the stream.

Rule: a component writes a vector, a reader has one gradient of the stream for each of its slots, and an edge is their
inner product, summed over positions. Only what stands upstream of a reader has an edge to it; the rest is exactly 0.
The bias b_O of attention is no source; b_out goes with its MLP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from einops import pack, rearrange

from pattern_lens.errors import SpecificationError
from pattern_lens.names import head_label

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SLOTS: Final = ("q", "k", "v")
"""What a head reads the stream for."""

FINAL: Final = "final"
EMBED: Final = "embed"

_TOLERANCE: Final = 1e-3
_ROUNDING: Final = 1e-5


@dataclass(frozen=True, eq=False)
class ReadNorm:
    """The norm through which a layer reads the stream.

    Parameters
    ----------
    kind
        ``LN`` centres and scales, ``RMS`` scales, ``none`` leaves the stream as it is.
    eps
        What is added to the mean square.
    weight
        Factor of each dimension, dims (d_model), as it acts; None for 1.
    """

    kind: str = "none"
    eps: float = 1e-5
    weight: Any = None


def pull_back_norm(gradient: Any, stream: Any, norm: ReadNorm, *, detached: bool) -> Any:
    """From the gradient with respect to a norm's output to that with respect to its input.

    Parameters
    ----------
    gradient
        Dims (..., d_model), after the norm and its weight.
    stream
        What the norm was given, dims (..., d_model).
    detached
        Whether the scale is held as it is, so that the norm is linear; its full Jacobian otherwise.

    Returns
    -------
    Dims (..., d_model).

    Notes
    -----
    y = w * c(x) / s with s = sqrt(mean(c(x)^2) + eps) and c taking the mean off (LN) or not (RMS). With g = w * dy
    the pull-back is c(g) / s, less y' mean(g * y') / s where y' = c(x) / s. Ba et al. 2016, Layer Normalization.

    Examples
    --------
    >>> import numpy as np
    >>> pull_back_norm(np.array([3.0, 1.0]), np.array([4.0, 0.0]), ReadNorm("RMS", 0.0), detached=False).round(3).tolist()
    [0.0, 0.354]
    """
    if norm.weight is not None:
        gradient = gradient * norm.weight
    if norm.kind == "none":
        return gradient
    if norm.kind == "LN":
        stream = stream - stream.mean(-1)[..., None]
        gradient = gradient - gradient.mean(-1)[..., None]
    scale = ((stream * stream).mean(-1)[..., None] + norm.eps) ** 0.5
    if not detached:
        normalised = stream / scale
        gradient = gradient - normalised * (gradient * normalised).mean(-1)[..., None]
    return gradient / scale


def through_weights(gradient: Any, weight: Any) -> Any:
    """Gradient with respect to a layer's normalised input, of what one slot reads, head by head.

    Parameters
    ----------
    gradient
        With respect to queries, keys or values before rotation: dims (prompt, pos, head, d_head).
    weight
        W_Q, W_K or W_V: dims (head, d_model, d_head).

    Returns
    -------
    Dims (prompt, pos, head, d_model).
    """
    rows = rearrange(gradient, "prompt pos head inner -> prompt head pos inner")
    back = rows @ rearrange(weight, "head model inner -> head inner model")
    return rearrange(back, "prompt head pos model -> prompt pos head model")


def reads_of_layer(
    gradients: Sequence[Any],
    weights: Sequence[Any],
    stream: Any,
    norm: ReadNorm,
    *,
    detached: bool,
    passed: tuple[Any, Any] | None = None,
    layer: int | None = None,
) -> tuple[Any, ...]:
    """Gradient of the stream, of the part that flows back through each slot of each head of one layer.

    Parameters
    ----------
    gradients
        With respect to queries, keys and values before rotation: dims (prompt, pos, head or kv_head, d_head).
    weights
        W_Q, W_K and W_V: dims (head or kv_head, d_model, d_head).
    stream
        What the layer's norm was given: dims (prompt, pos, d_model).
    detached
        As in `pull_back_norm`.
    passed
        Gradients of the stream whose difference attention as a whole sends back, which the sum over slots and heads must
        be, with the Jacobian of the norm or, where the backward pass held its scale, without; None: not checked. In a sequential block ``resid_pre_grad`` and
        ``resid_mid_grad``; where attention and MLP are parallel ``resid_pre_grad``, and ``resid_post_grad`` plus that of
        what the MLP reads. Dims (prompt, pos, d_model).
    layer
        Number of the layer, for the message.

    Returns
    -------
    An array for each slot, dims (prompt, pos, head or kv_head, d_model).

    Raises
    ------
    SpecificationError
        The sum is not that difference: attention reads its stream in another way.
    """
    read = [through_weights(*pair) for pair in zip(gradients, weights, strict=True)]
    if passed is not None:
        total = sum(part.sum(2) for part in read)
        found = [pull_back_norm(total, stream, norm, detached=held) for held in (False, True)]
        _check_reads(found, passed, layer)
    places = stream[:, :, None]
    return tuple(pull_back_norm(part, places, norm, detached=detached) for part in read)


@dataclass(frozen=True, eq=False)
class Writer:
    """Sources that write together: the embedding, the heads of a layer, or its MLP.

    Parameters
    ----------
    labels
        One a source.
    write
        Gives what each writes: dims (prompt, pos, source, d_model).
    along_final
        Gives what each writes along the direction that is read in the end: dims (prompt, source).
    """

    labels: tuple[str, ...]
    write: Callable[[], Any]
    along_final: Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Reader:
    """Targets that read together: the slots of a layer's heads, or its MLP.

    Parameters
    ----------
    labels
        One a target.
    read
        Gives the gradient of the stream as each reads it: dims (prompt, pos, target, d_model).
    n_upstream
        Number of writers in front of it.
    """

    labels: tuple[str, ...]
    read: Callable[[], Any]
    n_upstream: int


def edge_matrix(writers: Sequence[Writer], readers: Sequence[Reader]) -> Any:
    """Every edge: what a source writes, along what a target reads, summed over positions.

    Parameters
    ----------
    writers, readers
        In the order of the model. One reader's gradients and one writer's vectors are held at a time.

    Returns
    -------
    Dims (prompt, source, target), the last target `FINAL`; exactly 0 where the source is not upstream of the target.
    """
    final = rearrange(
        pack([writer.along_final() for writer in writers], "prompt *")[0],
        "prompt source -> prompt source 1",
    )
    found = _zeros(final, (*final.shape[:2], sum(len(reader.labels) for reader in readers) + 1))
    found[:, :, -1:] = final
    ends = np.cumsum([len(writer.labels) for writer in writers]).tolist()
    first_target = 0
    for reader in readers:
        targets = slice(first_target, first_target := first_target + len(reader.labels))
        read = rearrange(reader.read(), "prompt pos target model -> prompt (pos model) target")
        for writer, end in zip(writers[: reader.n_upstream], ends, strict=False):
            written = rearrange(
                writer.write(), "prompt pos source model -> prompt source (pos model)"
            )
            found[:, end - len(writer.labels) : end, targets] = written @ read
    return found


def edge_labels(
    n_layers: int, n_heads: int, n_kv_heads: int | None = None, *, has_mlp: bool = True
) -> tuple[list[str], list[str]]:
    """Labels of all sources and of all targets, in order.

    Examples
    --------
    >>> edge_labels(1, 2, 1)[0]
    ['embed', 'L0H0', 'L0H1', '0_mlp_out']
    >>> edge_labels(1, 2, 1)[1]
    ['L0H0.q', 'L0H1.q', 'L0KV0.k', 'L0KV0.v', '0_mlp_in', 'final']
    """
    sources: list[str] = [EMBED]
    targets: list[str] = []
    for layer in range(n_layers):
        sources += [*head_sources(layer, n_heads), *([mlp_source(layer)] if has_mlp else [])]
        targets += head_targets(layer, n_heads, n_kv_heads or n_heads)
        targets += [mlp_target(layer)] if has_mlp else []
    return sources, [*targets, FINAL]


def head_sources(layer: int, n_heads: int) -> tuple[str, ...]:
    """Labels of a layer's heads: ``L3H5``."""
    return tuple(head_label(layer, head) for head in range(n_heads))


def head_targets(layer: int, n_heads: int, n_kv_heads: int) -> tuple[str, ...]:
    """Labels of the slots of a layer's heads: ``L3H5.q``; ``L3KV1.k`` where heads share keys and values."""
    queries = head_sources(layer, n_heads)
    shared = n_kv_heads != n_heads
    keys = [f"L{layer}KV{n}" for n in range(n_kv_heads)] if shared else queries
    return tuple(
        f"{head}.{slot}"
        for slot, heads in zip(SLOTS, (queries, keys, keys), strict=True)
        for head in heads
    )


def mlp_source(layer: int) -> str:
    """Label of what an MLP writes."""
    return f"{layer}_mlp_out"


def mlp_target(layer: int) -> str:
    """Label of what an MLP reads."""
    return f"{layer}_mlp_in"


def _check_reads(found: Sequence[Any], passed: tuple[Any, Any], layer: int | None) -> None:
    """Raise unless, for each prompt, one of the sums found is what attention sends back."""
    before, after = passed
    expected = before - after
    size = _length(expected)
    allowed = _TOLERANCE * size + _ROUNDING * _length(before)
    whole, held = (_length(part - expected) for part in found)
    right = (whole <= allowed) | (held <= allowed)  # neither for NaN
    if not bool(right.all()):
        raise SpecificationError(
            f"cannot compute edges into layer {layer}: what flows back through its queries, keys and values differs by "
            f"{float(whole.max()):.2g} from the gradient that attention sends back, of length {float(size.max()):.2g}, "
            f"expected at most {_TOLERANCE:.0e} of it; this architecture does not read its stream through W_Q, W_K and "
            "W_V behind one norm (it may have a norm of queries and keys): leave out 'edges'"
        )


def _length(stream: Any) -> Any:
    """Length of each prompt's array: (prompt, pos, d_model) -> (prompt)."""
    return (stream * stream).sum((1, 2)) ** 0.5


def _zeros(like: Any, shape: tuple[int, ...]) -> Any:
    """Zeros of the same kind, dtype and device."""
    return like.new_zeros(shape) if hasattr(like, "new_zeros") else np.zeros(shape, like.dtype)
