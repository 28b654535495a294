"""What was done to a model's weights: TransformerLens' processing, and a fingerprint.

Rule: the mode that is recorded is the mode that is there. What a live model does not tell is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import xxhash

from pattern_lens.errors import ModelMismatchError

if TYPE_CHECKING:
    from torch import Tensor

COMPATIBILITY_FLAGS: Final[Mapping[str, bool]] = {
    "fold_ln": True,
    "center_writing_weights": True,
    "center_unembed": True,
    "fold_value_biases": True,
    "refactor_factored_attn_matrices": False,
    "no_processing": False,
}
"""Flags of TransformerLens' compatibility mode, with its defaults."""

Weights = Literal["raw", "compatibility"] | Mapping[str, bool]
"""How weights are processed; a mapping is compatibility mode with these flags."""

_N_SAMPLES: Final = 16


def process_weights(bridge: Any, weights: Weights) -> dict[str, Any]:
    """Bring a bridge that was just loaded into a weights mode, and describe the mode.

    Some architectures cannot fold or centre everything: TransformerLens then warns and leaves it,
    and the description says so.
    """
    flags = _flags(weights)
    if flags:
        bridge.enable_compatibility_mode(**flags)
    done = {
        flag: on and getattr(bridge.adapter, f"supports_{flag}", True) for flag, on in flags.items()
    }
    return _described(done)


def live_weights(model: Any, asked: Weights | None) -> dict[str, Any]:
    """Weights mode of a live model, which is never changed.

    Raises
    ------
    ModelMismatchError
        It is in another mode than `asked`.
    """
    flags = None if asked is None else _flags(asked)
    if not hasattr(model, "compatibility_mode"):  # HookedTransformer does not remember its own
        return {"mode": "unknown"} if flags is None else _described(flags)
    found = _found_on(model)
    if flags is None:
        return found
    wanted = _described(flags)
    if any(wanted.get(key) != found.get(key) for key in ("mode", "no_processing")):
        raise ModelMismatchError(
            f"the live model has weights {found}, expected {wanted}; a live model is never "
            "changed: call enable_compatibility_mode on it first, or pass its name"
        )
    return wanted if isinstance(asked, Mapping) else found


def _flags(weights: Weights) -> dict[str, bool]:
    """All flags of compatibility mode; none for raw weights."""
    if weights == "raw":
        return {}
    if isinstance(weights, str) and weights != "compatibility":
        raise ValueError(f"weights {weights!r}, expected 'raw', 'compatibility' or flags")
    asked = {} if isinstance(weights, str) else dict(weights)
    if unknown := sorted(set(asked) - set(COMPATIBILITY_FLAGS)):
        raise TypeError(
            f"unknown weights flags {unknown}, expected some of {list(COMPATIBILITY_FLAGS)}"
        )
    if asked.get("no_processing"):
        return dict.fromkeys(COMPATIBILITY_FLAGS, False) | {"no_processing": True}
    return {**COMPATIBILITY_FLAGS, **asked}


def _described(flags: Mapping[str, bool]) -> dict[str, Any]:
    return {"mode": "compatibility" if flags else "raw", **flags}


def _found_on(bridge: Any) -> dict[str, Any]:
    processed = bool(getattr(bridge, "_weights_processed", False))
    if not bridge.compatibility_mode:
        return {"mode": "processed" if processed else "raw"}
    if not processed:
        return _described(_flags({"no_processing": True}))
    unknown = dict.fromkeys(COMPATIBILITY_FLAGS)
    return {"mode": "compatibility", **unknown, "no_processing": False}


def weights_fingerprint(parameters: Iterable[tuple[str, Tensor]]) -> str:
    """xxh3_64 over names, shapes and a few values of each parameter, in hexadecimal.

    It tells checkpoints apart that share a name and costs next to nothing; it is no proof that all
    weights are equal. It does not depend on the device.
    """
    import torch

    digest = xxhash.xxh3_64()
    for name, parameter in sorted(parameters, key=lambda pair: pair[0]):
        # A bridge names its own wrappers inside the names of the parameters.
        plain = name.replace("_original_component.", "")
        digest.update(f"{plain}{tuple(parameter.shape)}".encode())
        last = parameter.numel() - 1
        if last < 0 or parameter.is_meta:
            continue
        where = torch.tensor([i * last // (_N_SAMPLES - 1) for i in range(_N_SAMPLES)])
        values = parameter.detach().take(where.to(parameter.device))
        digest.update(values.cpu().double().numpy().tobytes())
    return digest.hexdigest()
