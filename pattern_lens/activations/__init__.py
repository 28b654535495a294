"""Model and prompts to activations in a file; also the import path of pattern-lens 0.6 for its functions."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pattern_lens.activations.predecessor import (
        activations_main,
        compute_activations,
        compute_activations_batched,
        get_activations,
    )

__all__ = [
    "activations_main",
    "compute_activations",
    "compute_activations_batched",
    "get_activations",
]

_PREDECESSOR: Final = "pattern_lens.activations.predecessor"


def __getattr__(name: str) -> Any:
    # Imported on first use, because capturing imports more than reading does.
    if name == "DEFAULT_DEVICE":
        return import_module(_PREDECESSOR).default_device()
    if name not in __all__:
        raise AttributeError(f"module 'pattern_lens.activations' has no attribute {name!r}")
    return getattr(import_module(_PREDECESSOR), name)
