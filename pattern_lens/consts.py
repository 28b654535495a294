"""Import path of pattern-lens 0.6 for its constants and types."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from os import PathLike

    import torch

__all__ = [
    "ATTN_PATTERN_REGEX",
    "DATA_DIR",
    "DIVIDER_S1",
    "DIVIDER_S2",
    "SPINNER_KWARGS",
    "ActivationCacheNp",
    "ActivationCacheTorch",
    "AttentionMatrix",
    "ReturnCache",
    "model_file",
    "sanitize_name_str",
]

AttentionMatrix: TypeAlias = NDArray[np.floating[Any]]
ActivationCacheNp: TypeAlias = dict[str, NDArray[Any]]
ActivationCacheTorch: TypeAlias = dict[str, "torch.Tensor"]
ReturnCache: TypeAlias = Literal["numpy", "torch"] | None

DATA_DIR: Final = "attn_data"
ATTN_PATTERN_REGEX: Final = re.compile(r"blocks\.(\d+)\.attn\.hook_pattern")
SPINNER_KWARGS: Final = {"config": {"success": "✔️ "}}
DIVIDER_S1: Final = "=" * 70
DIVIDER_S2: Final = "-" * 50

_SANITIZE_PATTERN: Final = r"[^a-zA-Z0-9\-_.]"


def sanitize_name_str(name: str) -> str:
    """A model's name as pattern-lens 0.8 called its folder; files have names of `model_file` now.

    Examples
    --------
    >>> sanitize_name_str("google/gemma 2b")
    'google-gemma_2b'
    """
    return re.sub(_SANITIZE_PATTERN, "_", name.replace("/", "-"))


def model_file(save_path: str | PathLike[str], model_name: str) -> Path:
    """The file of a model in a data folder, where that of pattern-lens 0.6 had a folder.

    Parameters
    ----------
    save_path
        The data folder.
    model_name
        As it was typed: a hub name, or the path of a folder, whose last part counts.

    Examples
    --------
    >>> model_file("attn_data", "google/gemma-2b").as_posix()
    'attn_data/google-gemma-2b.h5'
    >>> model_file("attn_data", "./models/tiny").as_posix()
    'attn_data/tiny.h5'
    """
    is_path = model_name.startswith((".", "~", "/")) or model_name.count("/") > 1
    name = Path(model_name).name if is_path else model_name
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    return Path(save_path) / f"{stem}.h5"
