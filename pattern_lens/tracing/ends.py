"""The number of each prompt that gradients start from: its objective, or the node that is traced.

A trace through V has two ends: first what reads, then what the attended-to value writes into what is read.
Rule: every number is taken from the live graph for all prompts of a kind at once.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.names import HEAD, KEY, KV_HEAD, QUERY
from pattern_lens.tracing.batch import POSITIONS
from pattern_lens.tracing.objectives import Objective

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from pattern_lens.tracing.batch import Batch
    from pattern_lens.tracing.edits import Place
    from pattern_lens.tracing.sites import Sites
    from pattern_lens.tracing.specification import Asked
    from pattern_lens.tracing.traces import Trace

End = "Objective | Trace"

ON_LOGITS: Final = ("logit_diff", "logit_minus_mean", "probs", "zero")
_OF_ATTENTION: Final = ("pattern", "attn_scores", "q", "k", "v", "z", "attn_out")
_OF_MLP: Final = ("pre", "post", "mlp_out")


def ends_of(asked: Asked) -> list[Any]:
    """What a prompt's gradients start from, the most downstream first; as a rule one."""
    found: list[Any] = []
    trace = asked.trace
    while trace is not None:
        found.append(trace)
        trace = trace.downstream
    if asked.objective is not None:
        found.append(asked.objective)
    return found[::-1]


@dataclass(frozen=True)
class Reading:
    """Where an end reads the stream.

    Attributes
    ----------
    place
        Its layer; half a layer more behind the layer's attention; the number of layers at the end.
    norm
        The norm through which it reads, and that norm's layer; None where it reads the stream itself.
    """

    place: float
    norm: tuple[str, int | None] | None


def reading_of(end: Any, sites: Sites) -> Reading:
    """Where an end reads the stream, and through which norm."""
    if isinstance(end, Objective) and end.kind in ON_LOGITS:
        return Reading(float(sites.n_layers), ("ln_final", None))
    if isinstance(end, Objective) and end.kind == "direction":
        return _of_site(str(end.site), sites.positive_layer(end), sites)
    if end.site in sites.spliced:
        own = sites.spliced[end.site]
        return _of_site(own.site, own.layer, sites)
    return _of_site(str(end.site), int(end.layer or 0), sites)


def _of_site(site: str, layer: int, sites: Sites) -> Reading:
    if site in _OF_ATTENTION:
        return Reading(float(layer), ("ln1", layer))
    if site in _OF_MLP:
        return Reading(layer + (0.0 if sites.is_parallel else 0.5), ("ln2", layer))
    offset = {"resid_mid": 0.5, "resid_post": 1.0}.get(site, 0.0)
    return Reading(layer + offset, None)


def stream_place(reading: Reading, sites: Sites) -> Place:
    """The tensor whose gradient is that of the stream where an end reads it."""
    layer = int(reading.place)
    if reading.place != layer:
        return "resid_mid", layer
    return ("resid_pre", layer) if layer < sites.n_layers else ("resid_post", sites.n_layers - 1)


def needed_places(end: Any, sites: Sites) -> set[Place]:
    """Tensors that an end is computed from, and that of the stream that it reads."""
    own = _whole(*stream_place(reading_of(end, sites), sites))
    if isinstance(end, Objective):
        if end.kind == "direction":
            own |= _whole(str(end.site), sites.positive_layer(end))
        elif end.kind == "node":
            own |= _whole(str(end.site), end.layer)
        return own
    if end.site == "pattern":
        names = ("pattern", "v") if end.path == "V" else ("attn_scores",)
        return own | {(name, end.layer) for name in names}
    if end.site == "post":
        return own | {(sites.neuron_site, end.layer)}
    return own | _whole(end.site, end.layer)


def _whole(site: str, layer: int | None) -> set[Place]:
    if site == "resid_mid":
        return {("resid_pre", layer), ("resid_mid", layer)}
    return {(site, layer)}


@dataclass(frozen=True)
class Live:
    """Tensors of a forward pass, with their graph.

    Attributes
    ----------
    tensors
        By site and layer, dims (batch, *dims of the site), after ablations. That of ``resid_mid`` has the stream's gradient; it is
        the stream itself in layers of `middles`, and what attention adds to it in others.
    middles
        Layers whose stream behind attention is ablated.
    unembedded
        Output of the unembedding at each prompt's position, before a scale and a cap: dims (batch, token).
    logits
        The model's own logits there.
    """

    tensors: Mapping[Place, Tensor]
    middles: frozenset[int | None]
    unembedded: Tensor | None
    logits: Tensor | None

    def at(self, site: str, layer: int | None) -> Tensor:
        """A site's tensor."""
        if site == "resid_mid" and layer not in self.middles:
            return self.tensors["resid_pre", layer] + self.tensors["resid_mid", layer]
        return self.tensors[site, layer]


class Ends:
    """Numbers of the prompts of a batch, from the live graph."""

    def __init__(self, batch: Batch, sites: Sites, live: Live) -> None:
        self._batch, self._sites, self._live = batch, sites, live

    def values(
        self, ends: Mapping[int, Any], directions: Mapping[int, Tensor]
    ) -> dict[int, Tensor]:
        """The number of each row.

        Parameters
        ----------
        ends
            By row.
        directions
            Of rows that trace V: the gradient of the stream that is read downstream, dims (pos, d_model).
        """
        groups: dict[Any, list[int]] = defaultdict(list)
        for row, end in ends.items():
            groups[_group(end)].append(row)
        found: dict[int, Tensor] = {}
        for key, rows in groups.items():
            own = [ends[row] for row in rows]
            if key[0] == "logits":
                values = self._of_logits(rows, own)
            elif key[0] == "probs":
                values = self._probabilities(rows)
            elif key[0] == "V":
                values = self._of_values(rows, own, [directions[row] for row in rows])
            else:
                values = self._of_nodes(rows, own)
            found |= dict(zip(rows, values.unbind(), strict=True))
        return found

    def _of_logits(self, rows: Sequence[int], ends: Sequence[Objective]) -> Tensor:
        assert self._live.unembedded is not None  # noqa: S101 - the forward pass went to its end
        logits = self._live.unembedded[list(rows)].float()
        return (self.weights_of_logits(rows, ends, logits) * logits).sum(-1)

    def weights_of_logits(
        self, rows: Sequence[int], ends: Sequence[Objective], logits: Tensor
    ) -> Tensor:
        """What each logit counts in a linear objective: dims (rows, token)."""
        import torch

        weights = torch.zeros_like(logits)
        for weight, row, end in zip(weights, rows, ends, strict=True):
            if end.kind == "zero":
                continue
            asked = self._batch.asked[row]
            for i in asked.target_ids:
                weight[i] += 1 / len(asked.target_ids)
            for i in asked.distractor_ids:
                weight[i] -= 1 / len(asked.distractor_ids)
            if end.kind == "logit_minus_mean":
                weight.sub_(1 / len(weight))
        return weights

    def _probabilities(self, rows: Sequence[int]) -> Tensor:
        import torch

        assert self._live.logits is not None  # noqa: S101 - the forward pass went to its end
        logits = self._live.logits[list(rows)].float()
        chosen = torch.zeros_like(logits)
        for one, row in zip(chosen, rows, strict=True):
            one[list(set(self._batch.asked[row].target_ids))] = 1.0
        return (logits.softmax(-1) * chosen).sum(-1)

    def _of_nodes(self, rows: Sequence[int], ends: Sequence[Any]) -> Tensor:
        """Values of one element each, or of a direction of the stream."""
        import torch

        site, layer = _site_of(ends[0], self._sites)
        tensor = self._live.at(site, layer)
        if isinstance(ends[0], Objective) and ends[0].kind == "direction":
            places = [self._batch.place(r, e.position) for r, e in zip(rows, ends, strict=True)]
            vectors = torch.tensor([e.vector for e in ends], dtype=torch.float32)
            return (tensor[list(rows), places].float() * vectors.to(tensor.device)).sum(-1)
        dims = self._sites.dims(site)
        index = [
            [self._index(row, dim, end) for row, end in zip(rows, ends, strict=True)]
            for dim in dims
        ]
        return tensor[(list(rows), *index)].float()

    def _index(self, row: int, dim: str, end: Any) -> int:
        own = int(end.indices[HEAD if dim == KV_HEAD else dim])
        return self._batch.place(row, own) if dim in POSITIONS else own

    def _of_values(
        self, rows: Sequence[int], ends: Sequence[Trace], directions: Sequence[Tensor]
    ) -> Tensor:
        """What attended-to values write into what is read: pattern, held constant, times v W_O . direction."""
        import torch

        layer = ends[0].layer
        head = [int(end.indices[HEAD]) for end in ends]
        query, key = (
            [self._batch.place(r, int(e.indices[dim])) for r, e in zip(rows, ends, strict=True)]
            for dim in (QUERY, KEY)
        )
        pattern = self._live.at("pattern", layer)[list(rows), head, query, key].detach().float()
        values = self._live.at("v", layer)
        shared = self._sites.n_heads // values.shape[2]
        own = values[list(rows), key, [h // shared for h in head]].float()
        weights = self._sites.model.model.blocks[layer].attn.W_O[head].detach().float()
        read = torch.stack([d[q] for d, q in zip(directions, query, strict=True)]).float()
        written = torch.einsum("rd,rdm->rm", own, weights)
        return pattern * (written * read).sum(-1)


def _group(end: Any) -> tuple[Any, ...]:
    """Ends with one key are computed together."""
    if isinstance(end, Objective):
        if end.kind in ON_LOGITS:
            return ("probs" if end.kind == "probs" else "logits",)
        return end.kind, end.site, end.layer
    return (end.path or "", end.site, end.layer) if end.path == "V" else ("", end.site, end.layer)


def _site_of(end: Any, sites: Sites) -> tuple[str, int | None]:
    """The tensor that an end is an element of."""
    if isinstance(end, Objective):
        layer = sites.positive_layer(end) if end.kind == "direction" else end.layer
        return str(end.site), layer
    if end.site == "pattern":
        return "attn_scores", end.layer
    return (sites.neuron_site if end.site == "post" else end.site), end.layer
