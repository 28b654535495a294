"""How a model puts its residual stream together: what has to be known to take it apart again.

Rule: nothing is taken on trust. On a few tokens the parts are put together from what would be stored, as whoever reads
the file will, and compared with the model's own values; a model that does not agree is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from pattern_lens.activations.forward import evaluating, pad_right, run_until_last
from pattern_lens.activations.hooks import FINAL_LOGITS, resolve_names
from pattern_lens.activations.model_weights import ModelWeights
from pattern_lens.errors import NoResidualStreamError
from pattern_lens.names import ACTIVATIONS, RESIDUAL
from pattern_lens.store.weights import lacking_weights, write_weight

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pattern_lens.models import CaptureModel
    from pattern_lens.store.layout import ArrayLayout
    from pattern_lens.store.reader import StoreReader
    from pattern_lens.store.writer import StoreWriter

NEURONS: Final = "post"

_TOLERANCE: Final = 1e-4
_FAR_FROM_CAP: Final = 0.9  # where what was capped can still be told
_ROUNDINGS: Final = 16  # a sum over a few parts may be off by so many roundings of the model's type


@dataclass(frozen=True, eq=False)
class Residual:
    """What a file has to hold besides activations, so that a residual stream can be taken apart.

    Attributes
    ----------
    facts
        The JSON object of ``/weights``.
    layouts
        How the weights will lie in the file.
    """

    facts: Mapping[str, Any]
    weights: ModelWeights
    layouts: Sequence[ArrayLayout]

    @classmethod
    def of(cls, model: CaptureModel, ids: NDArray[np.int32], *, neurons: bool) -> Residual:
        """That of a model; raises as `model_facts` does."""
        weights = ModelWeights(model, neurons)
        return cls(model_facts(model, ids, neurons=neurons), weights, weights.layouts())

    def lacking(self, reader: StoreReader | None) -> dict[str, int]:
        """Bytes of the weights that a file lacks, by name; of all where there is no file."""
        lacking = self.layouts if reader is None else lacking_weights(reader, self.layouts)
        return {layout.name: self.weights.n_bytes(layout.name) for layout in lacking}

    def write(self, writer: StoreWriter, names: Container[str]) -> None:
        """Store weights by name."""
        for layout in self.layouts:
            if layout.name in names:
                write_weight(writer, layout, self.weights.stored(layout))


def model_facts(model: CaptureModel, ids: NDArray[np.int32], *, neurons: bool) -> dict[str, Any]:
    """The JSON object of ``/weights`` (docs/format.md), found true on a few tokens.

    Parameters
    ----------
    model
        What `load_model` returned.
    ids
        Token ids of a prompt, dims (pos).
    neurons
        Whether MLPs have to be the sum of their neurons.

    Raises
    ------
    NoResidualStreamError
        What would be stored does not explain what the model computes.
    """
    facts = _said_of(model)
    seen, logits = _look(model, ids, neurons=neurons)
    check = _Check(model, facts, seen, neurons=neurons)
    for layer in range(facts["n_layers"]):
        check.block(layer)
    check.unembedding()
    return facts | {"logit_scale": check.logit_scale(logits)}


def _said_of(model: CaptureModel) -> dict[str, Any]:
    """What the model's configuration says."""
    cfg = model.model.cfg
    kind = getattr(cfg, "normalization_type", None)
    cap = float(getattr(cfg, "output_logits_soft_cap", None) or 0)
    return {
        "normalization": "none" if kind is None else kind.removesuffix("Pre"),
        "eps": float(cfg.eps),
        "logit_softcap": max(cap, 0.0),  # TransformerLens writes -1 for none
        "attn_only": bool(cfg.attn_only),
        "parallel_attn_mlp": bool(cfg.parallel_attn_mlp),
        "weights": model.weights.get("mode"),
        "n_layers": int(cfg.n_layers),
        "n_heads": int(cfg.n_heads),
        "n_kv_heads": int(getattr(cfg, "n_key_value_heads", None) or cfg.n_heads),
        "d_model": int(cfg.d_model),
        "d_head": int(cfg.d_head),
        "d_vocab": int(model.model.unembed.W_U.shape[1]),
    }


def _look(
    model: CaptureModel, ids: NDArray[np.int32], *, neurons: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """Values of all hooks on a few tokens, and the model's own logits at their end."""
    import torch

    names = [RESIDUAL, "resid_post", *([NEURONS] if neurons else [])]
    hooks = [hook for group in resolve_names(names, model) for hook in group.hooks]
    tokens, mask = pad_right([ids], masked=not model.causal)
    seen: dict[str, Tensor] = {}

    def keep(hook: str, value: Tensor) -> None:
        seen[hook] = value[0].detach().float().clone()

    run_until_last(model, tokens, hooks, keep, mask)
    with evaluating(model.model), torch.no_grad():
        logits = model.model(tokens.to(model.device), return_type="logits")
    return seen, logits[0, -1].float()


class _Check:
    """The parts put together, against the model's own values."""

    def __init__(
        self,
        model: CaptureModel,
        facts: Mapping[str, Any],
        seen: Mapping[str, Tensor],
        *,
        neurons: bool,
    ) -> None:
        import torch

        self._model, self._facts, self._seen = model, facts, seen
        self._weights = ModelWeights(model, neurons)
        own = getattr(torch, model.dtype)
        self._tolerance = max(_TOLERANCE, _ROUNDINGS * float(torch.finfo(own).eps))

    def block(self, layer: int) -> None:
        """A block adds what its heads and its MLP write to the stream that it is given."""
        import torch

        before = self._before(layer)
        attn_out, mlp_out = self._need("attn_out", layer), self._value("mlp_out", layer)
        resid_pre = self._need("resid_pre", layer)
        self._agree(before, resid_pre, f"the stream that block {layer} is given is another one")
        heads = torch.einsum("phd,hdm->pm", self._need("z", layer), self._weight("W_O", layer))
        heads = heads + self._weight("b_O", layer)
        self._agree(heads, attn_out, f"attn_out of block {layer} is not the sum of its heads")
        if self._weights.neurons and mlp_out is not None:
            neurons = self._need(NEURONS, layer) @ self._weight("W_out", layer)
            neurons = neurons + self._weight("b_out", layer)
            what = f"mlp_out of block {layer} is not the sum of its neurons: leave 'mlp_post' out"
            self._agree(neurons, mlp_out, what)
        middle = resid_pre + attn_out
        self._agree(middle, self._value("resid_mid", layer), f"block {layer} adds more than that")
        after = middle if mlp_out is None else middle + mlp_out
        what = f"block {layer} does not add attn_out and mlp_out to its stream"
        self._agree(after, self._need("resid_post", layer), what)

    def unembedding(self) -> None:
        """Final logits are the last stream, normalised and unembedded."""
        stream = self._need("resid_post", self._facts["n_layers"] - 1)[-1]
        if self._facts["normalization"] == "LN":
            stream = stream - stream.mean()
        if self._facts["normalization"] != "none":
            scale = (stream.pow(2).mean() + self._facts["eps"]).sqrt()
            own = self._need("ln_final_scale")[-1]
            self._agree(scale, own.squeeze(), "the final norm divides by something else")
            stream = stream / scale * self._weight("ln_final_w") + self._weight("ln_final_b")
        logits = stream @ self._weight("W_U") + self._weight("b_U")
        what = "logits are not the normalised stream times W_U"
        self._agree(logits, self._seen[FINAL_LOGITS], what)

    def logit_scale(self, logits: Tensor) -> float:
        """What the output of the unembedding is multiplied by before it is capped."""
        given, cap = self._seen[FINAL_LOGITS], self._facts["logit_softcap"]
        far = logits.abs() < _FAR_FROM_CAP * cap if cap else logits.abs() >= 0
        before = cap * (logits[far] / cap).atanh() if cap else logits
        scale = float((before @ given[far]) / (given[far] @ given[far]))
        scale = 1.0 if abs(scale - 1) < self._tolerance else scale
        again = cap * (scale * given / cap).tanh() if cap else scale * given
        self._agree(again, logits, "the model changes its logits after the unembedding")
        return scale

    def _before(self, layer: int) -> Tensor:
        if layer:
            return self._need("resid_post", layer - 1)
        positions = self._value("pos_embed")
        return self._need("embed") if positions is None else self._need("embed") + positions

    def _value(self, name: str, layer: int | None = None) -> Tensor | None:
        return self._seen.get(ACTIVATIONS[name].template.format(layer=layer))

    def _need(self, name: str, layer: int | None = None) -> Tensor:
        found = self._value(name, layer)
        if found is None:
            self._refuse(f"it has no {name!r}")
        return found

    def _weight(self, name: str, layer: int | None = None) -> Tensor:
        found = self._weights.at(name, layer)
        if found is None:
            self._refuse(f"it has no {name!r}")
        return found.float()

    def _agree(self, parts: Tensor, whole: Tensor | None, what: str) -> None:
        if whole is None:
            return
        error = float((parts - whole).abs().max() / whole.abs().max().clamp_min(1e-30))
        if not error <= self._tolerance:
            self._refuse(f"{what} (off by {error:.1g} of its largest value)")

    def _refuse(self, why: str) -> NoReturn:
        raise NoResidualStreamError(
            f"cannot store the residual stream of model {self._model.name!r}: {why}; it cannot be taken apart as a sum, "
            "but its activations can be captured by their own names"
        )
