"""What each kind of autoencoder computes: which weights it has, and how latents come from its preactivation.

Rule: pure functions of tensors. What SAELens trains is computed as SAELens computes it, to the order of the operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

W_ENC: Final = "W_enc"
B_ENC: Final = "b_enc"
W_DEC: Final = "W_dec"
B_DEC: Final = "b_dec"
B_GATE: Final = "b_gate"
B_MAG: Final = "b_mag"
R_MAG: Final = "r_mag"
THRESHOLD: Final = "threshold"

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "standard": (W_ENC, B_ENC, W_DEC, B_DEC),
    "gated": (W_ENC, B_GATE, B_MAG, R_MAG, W_DEC, B_DEC),
    "jumprelu": (W_ENC, B_ENC, THRESHOLD, W_DEC, B_DEC),
    "topk": (W_ENC, B_ENC, W_DEC, B_DEC),
}
"""Weights of each kind, in the order in which they are hashed: (d_in, feature), (feature,) .., (feature, d_in), (d_in,)."""

NORMALISATIONS: Final = ("none", "layer_norm", "constant_norm_rescale")
"""What can be done to each input before it is encoded, and is undone to its reconstruction."""

_EPS: Final = 1e-5


def preactivation(x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """What the nonlinearity is given: dims (..., d_in) -> (..., feature); of a gated one, its magnitude."""
    if R_MAG in weights:
        return x @ (weights[W_ENC] * weights[R_MAG].exp()) + weights[B_MAG]
    return x @ weights[W_ENC] + weights[B_ENC]


def standard(_: Tensor, pre: Tensor, __: Mapping[str, Tensor], ___: int | None) -> Tensor:
    """What is positive."""
    return pre.relu()


def gated(x: Tensor, pre: Tensor, weights: Mapping[str, Tensor], _: int | None) -> Tensor:
    """Positive magnitudes where the gate is open."""
    gate = x @ weights[W_ENC] + weights[B_GATE]
    return pre.relu() * (gate > 0).to(pre)


def jumprelu(_: Tensor, pre: Tensor, weights: Mapping[str, Tensor], __: int | None) -> Tensor:
    """What is positive and above its feature's threshold."""
    return pre.relu() * (pre > weights[THRESHOLD]).to(pre)


def topk(_: Tensor, pre: Tensor, __: Mapping[str, Tensor], k: int | None) -> Tensor:
    """The k largest, as far as they are positive."""
    import torch

    largest = pre.topk(int(k or 0), dim=-1)
    return torch.zeros_like(pre).scatter(-1, largest.indices, largest.values.relu())


NONLINEARITIES: Final[
    Mapping[str, Callable[[Tensor, Tensor, Mapping[str, Tensor], int | None], Tensor]]
] = {"standard": standard, "gated": gated, "jumprelu": jumprelu, "topk": topk}
"""Latents of input, preactivation, weights and k, by kind."""


def normalised(x: Tensor, how: str) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Inputs as they are encoded, and the factor and shift that lead back; None if nothing was done.

    Parameters
    ----------
    x
        Dims (..., d_in).
    how
        One of `NORMALISATIONS`.
    """
    if how == "layer_norm":
        shift = x.mean(dim=-1, keepdim=True)
        factor = (x - shift).std(dim=-1, keepdim=True)
        return (x - shift) / (factor + _EPS), (factor, shift)
    if how == "constant_norm_rescale":
        length = x.norm(dim=-1, keepdim=True).clamp_min(_EPS)  # a zero stays one
        factor = length / x.shape[-1] ** 0.5
        return x / factor, (factor, x.new_zeros(()))
    return x, None


def decoded(latents: Tensor, weights: Mapping[str, Any]) -> Tensor:
    """Reconstruction of a normalised input: dims (..., feature) -> (..., d_in)."""
    found: Tensor = latents @ weights[W_DEC] + weights[B_DEC]
    return found
