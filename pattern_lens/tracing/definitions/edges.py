"""The edges of a whole model as a scalar: which component writes what another one reads."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from einops import pack, rearrange

from pattern_lens.names import SOURCE, TARGET
from pattern_lens.tracing.definitions.heads import head_direct_effect
from pattern_lens.tracing.definitions.layers import direct_effect
from pattern_lens.tracing.edges import (
    EMBED,
    Reader,
    ReadNorm,
    Writer,
    edge_matrix,
    head_sources,
    head_targets,
    mlp_source,
    mlp_target,
    reads_of_layer,
)
from pattern_lens.tracing.registry import DIRECTION, MLP_IN_GRAD, At, register_scalar


class AtEdges(At, Protocol):
    """One batch and all of its layers: what edges need besides `At`.

    Attributes
    ----------
    detach_norm
        Whether the scale of the norm in front of attention is held as it is, or pulled back through as well.
    has_mlp
        Whether there are MLPs.
    is_parallel
        Whether attention and MLP of a layer read the same stream.
    """

    n_layers: int
    detach_norm: bool
    has_mlp: bool
    is_parallel: bool

    def at(self, layer: int) -> At:
        """One layer."""
        ...

    def read_norm(self, layer: int) -> ReadNorm:
        """The norm in front of a layer's attention."""
        ...


def edge_needs(*, has_mlp: bool = True, is_parallel: bool = False) -> tuple[str, ...]:
    """What edges need of a model, by its architecture."""
    after = "resid_post_grad" if is_parallel or not has_mlp else "resid_mid_grad"
    mlp = ("mlp_out", MLP_IN_GRAD) if has_mlp else ()
    grads = ("q_grad", "k_grad", "v_grad", "resid_pre_grad", after)
    return ("resid_pre", "z", *mlp, *grads, "W_O", "W_Q", "W_K", "W_V", DIRECTION)


@register_scalar(
    "edges",
    dims=(SOURCE, TARGET),
    needs=edge_needs(),
    definition="what the source writes, along the gradient of the stream as the target's slot reads it, summed over "
    "positions: write . R; sources embed, heads and MLPs, without the bias b_O; the target 'final' is the direct effect "
    "(Syed et al. 2023, Attribution Patching Outperforms Automated Circuit Discovery)",
)
def edges(at: AtEdges) -> Any:
    """First-order effect of each edge: of what one component writes, as another one reads it.

    Parameters
    ----------
    at
        A batch, all of its layers, and what `edge_needs` lists.

    Returns
    -------
    Dims (prompt, source, target), labels as `edge_labels` gives them; any sign, in units of the objective. Exactly 0
    where the source is not upstream of the target.

    Raises
    ------
    SpecificationError
        Attention does not read its stream through W_Q, W_K and W_V behind one norm.

    Notes
    -----
    sum over positions of write(pos) . R(pos), R the gradient that flows back through the target's slot. Attribution
    patching of edges against zero: Syed et al. 2023, Attribution Patching Outperforms Automated Circuit Discovery. The
    bias b_O of attention is no source: with it the sources of a target sum to resid_pre . R.
    """
    writers = [
        Writer((EMBED,), partial(_one, at, "resid_pre"), partial(_final, at, "resid_pre", "embed"))
    ]
    readers = []
    for layer in range(at.n_layers):
        here, before = at.at(layer), len(writers)
        readers.append(_heads_read(at, layer, before))
        writers.append(
            Writer(
                head_sources(layer, at.n_heads), partial(_heads, here), partial(_heads_final, here)
            )
        )
        if at.has_mlp:
            n_upstream = before if at.is_parallel else before + 1
            readers.append(
                Reader((mlp_target(layer),), partial(_one, here, MLP_IN_GRAD), n_upstream)
            )
            writers.append(
                Writer(
                    (mlp_source(layer),),
                    partial(_one, here, "mlp_out"),
                    partial(_final, here, "mlp_out", "mlp"),
                )
            )
    return edge_matrix(writers, readers)


def _one(at: At, name: str) -> Any:
    """One vector at each position: (prompt, pos, 1, d_model)."""
    return at[name][:, :, None]


def _final(at: At, name: str, writer: str) -> Any:
    return direct_effect(at, name, writer).sum(1)[:, None]


def _heads(at: At) -> Any:
    """What each head writes: (prompt, pos, head, d_model)."""
    rows = rearrange(at["z"], "prompt pos head inner -> prompt head pos inner")
    return rearrange(rows @ at.weight("W_O"), "prompt head pos model -> prompt pos head model")


def _heads_final(at: At) -> Any:
    return head_direct_effect(at).sum(-1)


def _heads_read(at: AtEdges, layer: int, n_upstream: int) -> Reader:
    here = at.at(layer)
    n_kv_heads = here["k_grad"].shape[2]
    labels = head_targets(layer, at.n_heads, n_kv_heads)
    return Reader(labels, partial(_slots, at, layer), n_upstream)


def _slots(at: AtEdges, layer: int) -> Any:
    """The gradient of the stream as each slot of each head reads it: (prompt, pos, target, d_model)."""
    here = at.at(layer)
    reads = reads_of_layer(
        [here[f"{slot}_grad"] for slot in "qkv"],
        [here.weight(f"W_{slot}") for slot in "QKV"],
        here["resid_pre"],
        at.read_norm(layer),
        detached=at.detach_norm,
        passed=(here["resid_pre_grad"], _past_attention(at, here)),
        layer=layer,
    )
    return pack(list(reads), "prompt pos * model")[0]


def _past_attention(at: AtEdges, here: At) -> Any:
    """The gradient of the stream without what attention sends back."""
    if not at.has_mlp:
        return here["resid_post_grad"]
    if at.is_parallel:
        return here["resid_post_grad"] + here[MLP_IN_GRAD]
    return here["resid_mid_grad"]
