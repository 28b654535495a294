"""Import path of pattern-lens 0.6 for the registry; nothing of its own."""

from __future__ import annotations

from pattern_lens.figures.pixels import raw
from pattern_lens.figures.registry import (
    ATTENTION_MATRIX_FIGURE_FUNCS,
    get_all_figure_names,
    register_attn_figure_func,
    register_attn_figure_multifunc,
)
from pattern_lens.figures.registry import FIGURE_NAMES_KEY as _FIGURE_NAMES_KEY

__all__ = [
    "ATTENTION_MATRIX_FIGURE_FUNCS",
    "_FIGURE_NAMES_KEY",
    "get_all_figure_names",
    "raw",
    "register_attn_figure_func",
    "register_attn_figure_multifunc",
]
