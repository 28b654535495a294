"""Weights of an autoencoder under one set of names, in one orientation, with constant factors in them.

Rule: a matrix is turned only if its shape allows one reading; a square one needs d_in to be said. NaN never gets in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pattern_lens.errors import AutoencoderError
from pattern_lens.features.variants import (
    B_DEC,
    B_ENC,
    B_GATE,
    B_MAG,
    KEYS,
    R_MAG,
    THRESHOLD,
    W_DEC,
    W_ENC,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from pattern_lens.features.configuration import Said

_LINEAR: Final = {  # of torch's linear layers, which hold (out, in)
    "encoder.weight": W_ENC,
    "decoder.weight": W_DEC,
}
_ALIASES: Final = {
    "encoder.bias": B_ENC,
    "decoder.bias": B_DEC,
    "decoder_bias": B_DEC,
    "bias": B_DEC,
    "gate_bias": B_GATE,
    "mag_bias": B_MAG,
}
_LOG_THRESHOLD: Final = "log_threshold"
_FACTORS: Final = ("finetuning_scaling_factor", "scaling_factor")
_PER_FEATURE: Final = (B_ENC, B_GATE, B_MAG, R_MAG, THRESHOLD)


def named(tensors: Mapping[str, Any], where: str) -> tuple[dict[str, Tensor], frozenset[str]]:
    """Weights as float tensors under this package's names, and those whose orientation their name tells.

    Raises
    ------
    AutoencoderError
        One of them is no array of numbers.
    """
    found: dict[str, Tensor] = {}
    oriented = set()
    for key, given in tensors.items():
        value = _tensor(key, given, where)
        if value is None:
            continue
        if key in _LINEAR:
            value = value.mT
            oriented.add(_LINEAR[key])
        elif key == _LOG_THRESHOLD:
            value = value.exp()
        known = _LINEAR.get(key) or _ALIASES.get(key, key)
        found[THRESHOLD if key == _LOG_THRESHOLD else known] = value
    return found, frozenset(oriented)


def _tensor(key: str, given: Any, where: str) -> Tensor | None:
    """A weight, if it is one that counts."""
    import torch

    known = {*_LINEAR, *_ALIASES, _LOG_THRESHOLD, *_FACTORS, *_PER_FEATURE, W_ENC, W_DEC, B_DEC}
    if key not in known:
        return None
    try:
        value = given.detach() if isinstance(given, torch.Tensor) else torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as err:
        raise AutoencoderError(
            f"{key} of {where} is a {type(given).__name__}, expected a tensor or an array"
        ) from err
    if not value.is_floating_point():
        raise AutoencoderError(f"{key} of {where} has dtype {value.dtype}, expected floats")
    if key in _LINEAR and value.ndim != 2:
        raise AutoencoderError(f"{key} of {where} has {value.ndim} dims, expected 2")
    if n_bad := int((~value.isfinite()).sum()):
        raise AutoencoderError(
            f"{key} of {where} holds {n_bad} numbers that are NaN or infinite: the file is damaged, or its training failed"
        )
    return value


def canonical(
    weights: Mapping[str, Tensor], oriented: frozenset[str], kind: str, said: Said
) -> dict[str, Tensor]:
    """Weights of a kind, each checked and turned: W_enc (d_in, feature), W_dec (feature, d_in).

    Raises
    ------
    AutoencoderError
        One is missing, has another shape, or can be read in two ways.
    """
    missing = [key for key in KEYS[kind] if key not in weights]
    if missing:
        raise AutoencoderError(
            f"{said.where} lacks {', '.join(missing)}: a {kind} autoencoder has {', '.join(KEYS[kind])}; found "
            f"{', '.join(sorted(weights)) or 'none of them'}"
        )
    d_in, n_features = _sizes(weights, kind, said)
    found = {}
    for key in KEYS[kind]:
        value = weights[key]
        if key in (W_ENC, W_DEC):
            shape = (d_in, n_features) if key == W_ENC else (n_features, d_in)
            found[key] = _turned(key, value, shape, said, is_known=key in oriented)
            continue
        size = d_in if key == B_DEC else n_features
        if key == THRESHOLD and value.numel() == 1:
            value = value.reshape(1).expand(size)
        if value.shape != (size,):
            raise AutoencoderError(
                f"{key} of {said.where} has shape {tuple(value.shape)}, expected ({size},)"
            )
        found[key] = value
    return {key: value.float().contiguous() for key, value in folded(found, weights, said).items()}


def _sizes(weights: Mapping[str, Tensor], kind: str, said: Said) -> tuple[int, int]:
    """Widths, d_in and feature, as they are said, or as long as the biases are."""
    d_in, n_features = said.size("d_in"), said.size("d_sae", "n_features", "num_latents")
    own = next(key for key in KEYS[kind] if key in _PER_FEATURE)
    return (
        weights[B_DEC].numel() if d_in is None else d_in,
        weights[own].numel() if n_features is None else n_features,
    )


def _turned(
    key: str, value: Tensor, shape: tuple[int, int], said: Said, *, is_known: bool
) -> Tensor:
    fits, is_square = tuple(value.shape) == shape, shape[0] == shape[1]
    if fits and is_square and not is_known and said.size("d_in") is None:
        raise AutoencoderError(
            f"{key} of {said.where} is square, {shape}, and nothing says which dim is d_in: give config={{'d_in': "
            f"{shape[0]}}} if it is W_enc (d_in, feature) and W_dec (feature, d_in), or turn both"
        )
    if fits:
        return value
    if tuple(value.shape) == shape[::-1] and not is_known:
        return value.mT
    dims = "(d_in, feature)" if key == W_ENC else "(feature, d_in)"
    raise AutoencoderError(
        f"{key} of {said.where} has shape {tuple(value.shape)}, expected {dims} = {shape}"
    )


def folded(
    found: Mapping[str, Tensor], weights: Mapping[str, Tensor], said: Said
) -> dict[str, Tensor]:
    """Weights with every constant factor in them, so that nothing else multiplies."""
    own = {key: value.float() for key, value in found.items()}
    if said.get("finetuning_scaling_factor"):
        factor = next((weights[key] for key in _FACTORS if key in weights), None)
        if factor is None or factor.numel() != len(own[W_DEC]):
            raise AutoencoderError(
                f"{said.where} says finetuning_scaling_factor, expected {_FACTORS[0]} of {len(own[W_DEC])} features in it"
            )
        own[W_DEC] = own[W_DEC] * factor.float().reshape(-1, 1)
    if said.get("rescale_acts_by_decoder_norm") and B_ENC in own:
        length = own[W_DEC].norm(dim=-1).clamp_min(1e-30)
        own[W_ENC], own[B_ENC] = own[W_ENC] * length, own[B_ENC] * length
        own[W_DEC] = own[W_DEC] / length[:, None]
    scale = said.normalisation()[1]
    if scale != 1:
        own[W_ENC], own[W_DEC] = own[W_ENC] * scale, own[W_DEC] / scale
        own[B_DEC] = own[B_DEC] / scale
    return own
