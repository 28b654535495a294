"""What TransformerLens' attribution patching gives of every node and edge, as labelled arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from pattern_lens.errors import DimensionError
from pattern_lens.names import HEAD, LAYER, POS, SOURCE, TARGET, TOKEN_COORDS, head_label
from pattern_lens.tracing.patching.sweeps import token_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NODES: Final = {
    "embed": (POS,),
    "attn_head_out": (LAYER, POS, HEAD),
    "mlp_out": (LAYER, POS),
}


def label_attribution_patching(result: Any, *, model: Any = None, tokens: Any = None) -> xr.Dataset:
    """What `transformer_lens.tools.analysis.attribution_patch` gives, labelled.

    Parameters
    ----------
    result
        An `AttributionResult`, of nodes or of edges.
    model, tokens
        As in `label_patching`.

    Returns
    -------
    ``embed`` (pos), ``attn_head_out`` (layer, pos, head), ``mlp_out`` (layer, pos): (clean - corrupted) x gradient; and
    ``edges`` (pos, source, target) where there are edges, NaN where two nodes have none. Sources are ``embed``, ``L0H1`` and
    ``0_mlp_out``, targets ``L1H0.q``, ``.k``, ``.v``, ``1_mlp_in`` and ``logits``.

    Raises
    ------
    DimensionError
        It is something else, or has not as many positions as `tokens`.
    """
    scores = getattr(result, "node_scores", None)
    if not scores:
        raise DimensionError(
            f"the result is a {type(result).__name__}, expected an AttributionResult with scores"
        )
    texts = token_texts(tokens, model)
    found = {
        kind: _filled(
            dims,
            (
                (tuple(_place(node, dim) for dim in dims), s)
                for node, s in scores.items()
                if node.kind == kind
            ),
        )
        for kind, dims in _NODES.items()
    }
    if result.edge_scores:
        found["edges"] = _edges(result.edge_scores)
    n_pos = found["embed"].sizes[POS]
    if texts is not None and len(texts) != n_pos:
        raise DimensionError(f"the result has {n_pos} positions, and there are {len(texts)} tokens")
    about = {"function": "transformer_lens.tools.analysis.attribution_patch"}
    for name, array in found.items():
        array.attrs = {"long_name": f"(clean - corrupted) x gradient of {name}", **about}
    coords = {} if texts is None else {TOKEN_COORDS[POS]: (POS, texts)}
    return xr.Dataset(found, coords=coords, attrs=about)


def _place(node: Any, dim: str) -> int:
    return int(node.position if dim == POS else getattr(node, dim))


def _filled(dims: tuple[str, ...], scores: Iterable[tuple[tuple[int, ...], float]]) -> xr.DataArray:
    known = dict(scores)
    shape = tuple(np.max([*known], axis=0) + 1) if known else (0,) * len(dims)
    values = np.full(shape, np.nan)
    for place, score in known.items():
        values[place] = score
    return xr.DataArray(
        values, dims=dims, coords={d: np.arange(n) for d, n in zip(dims, shape, strict=True)}
    )


def _edges(scores: Mapping[tuple[Any, Any], float]) -> xr.DataArray:
    """TransformerLens' edges stay at one position, and here it is a dim of its own."""
    labels = [dict.fromkeys(_node_label(edge[end]) for edge in scores) for end in (0, 1)]
    at = [{label: i for i, label in enumerate(one)} for one in labels]
    places = (
        ((a.position, at[0][_node_label(a)], at[1][_node_label(b)]), score)
        for (a, b), score in scores.items()
    )
    return _filled((POS, SOURCE, TARGET), places).assign_coords(
        {SOURCE: [*labels[0]], TARGET: [*labels[1]]}
    )


def _node_label(node: Any) -> str:
    kind = str(node.kind)
    if node.head is not None:
        return head_label(node.layer, node.head) + (
            "" if kind == "attn_head_out" else f".{kind[0]}"
        )
    return kind if kind in ("embed", "logits") else f"{node.layer}_{kind}"
