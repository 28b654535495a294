"""The end of a model: final norm, unembedding, and what is done to logits after it.

Rule: what is taken off the stream changes logits by a sum of two parts, the logits that were there, divided by another
number, and those of what was taken off; so that no place is unembedded twice. This is the norm itself, computed with its new
divisor, and no approximation of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pattern_lens.tracing.norms import Norms

if TYPE_CHECKING:
    from torch import Tensor

    from pattern_lens.features.parts.rest import Rest

_SAME: float = 1e-3
_FAR_FROM_CAP: float = 0.9


@dataclass(frozen=True, eq=False)
class End:
    """What follows the last block.

    Attributes
    ----------
    kind, eps
        ``LN``, ``RMS`` or ``none``, and what is added to the variance.
    gain, unembedding
        Dims (d_model), (d_model, token).
    constant
        Logits of a stream of zeros, dims (token).
    scale, cap
        What logits are multiplied by, and where they are capped; 0 for not at all.
    """

    kind: str
    eps: float
    gain: Tensor
    unembedding: Tensor
    constant: Tensor
    scale: float = 1.0
    cap: float = 0.0

    @classmethod
    def of(cls, rest: Rest) -> End:
        """That of a model; `logits` says whether it is right."""
        import torch

        from pattern_lens.activations.model_weights import ModelWeights

        norms, weights = Norms(rest.model), ModelWeights(rest.model, neurons=False)
        w_u, b_u = weights.at("W_U", None), weights.at("b_U", None)
        assert w_u is not None  # noqa: S101 - a model with logits has an unembedding
        gain, offset = norms.factor("ln_final", None), norms.offset("ln_final", None)
        constant = offset.float() @ w_u.float() + (0.0 if b_u is None else b_u.float())
        cap = max(float(getattr(rest.model.model.cfg, "output_logits_soft_cap", None) or 0), 0.0)
        eps = float(getattr(rest.model.model.cfg, "eps", 0.0) or 0.0)
        found = cls(norms.kind, eps, gain.float(), w_u.float(), constant, 1.0, cap)
        streams: list[Tensor] = []
        with rest.watching(rest.n_layers, streams.append):
            logits = rest.logits(rest.probe_tokens)
        with torch.no_grad():
            return found._scaled(streams[0].flatten(0, 1).float(), logits.flatten(0, 1))

    def _scaled(self, stream: Tensor, logits: Tensor) -> End:
        """The same, with the number that the model multiplies its logits by."""
        before = self.core(stream) + self.constant
        if self.cap:
            logits = self.cap * (logits / self.cap).clamp(-_FAR_FROM_CAP, _FAR_FROM_CAP).atanh()
            far = logits.abs() < self.cap * _FAR_FROM_CAP
            before, logits = before[far], logits[far]
        scale = float((before * logits).sum() / (before * before).sum().clamp_min(1e-30))
        return replace(self, scale=1.0 if abs(scale - 1) < _SAME else scale)

    def divisor(self, stream: Tensor) -> Tensor:
        """What the norm divides by: dims (place, d_model) -> (place, 1)."""
        if self.kind == "none":
            return stream.new_ones(len(stream), 1)
        found: Tensor = (self.centred(stream).square().mean(1, keepdim=True) + self.eps).sqrt()
        return found

    def centred(self, stream: Tensor) -> Tensor:
        """A stream as the norm divides it."""
        return stream - stream.mean(1, keepdim=True) if self.kind == "LN" else stream

    def core(self, stream: Tensor) -> Tensor:
        """Logits before their constant, scale and cap: dims (place, d_model) -> (place, token)."""
        return self.written(stream) / self.divisor(stream)

    def written(self, vectors: Tensor) -> Tensor:
        """Logits of what is in the stream, before the norm divides it: dims (vector, d_model) -> (vector, token)."""
        found: Tensor = (self.centred(vectors) * self.gain) @ self.unembedding
        return found

    def logits(self, core: Tensor) -> Tensor:
        """The model's logits, of what `core` gives; which is written over."""
        found = core.add_(self.constant)
        if self.scale != 1:
            found = found.mul_(self.scale)
        return found.div_(self.cap).tanh_().mul_(self.cap) if self.cap else found
