"""Import path of pattern-lens 0.6 for the registry; nothing of its own but its `raw`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pattern_lens.figures import save_matrix_wrapper
from pattern_lens.figures.registry import (
    ATTENTION_MATRIX_FIGURE_FUNCS,
    get_all_figure_names,
    register_attn_figure_func,
    register_attn_figure_multifunc,
)
from pattern_lens.figures.registry import FIGURE_NAMES_KEY as _FIGURE_NAMES_KEY

if TYPE_CHECKING:
    from pattern_lens.figures.matrix_savers import AttentionMatrix

__all__ = [
    "ATTENTION_MATRIX_FIGURE_FUNCS",
    "_FIGURE_NAMES_KEY",
    "get_all_figure_names",
    "raw",
    "register_attn_figure_func",
    "register_attn_figure_multifunc",
]


@save_matrix_wrapper(fmt="png", normalize=True, cmap="Blues")
def raw(attn_matrix: AttentionMatrix) -> AttentionMatrix:
    """The pattern as pixels, as the predecessor's viewer reads it; not registered."""
    return attn_matrix
