"""The pattern as an image of one pixel a number, from which the tools of pattern-lens 0.6 read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pattern_lens.figures.matrix_savers import save_matrix_wrapper
from pattern_lens.figures.registry import STORED_KEY

if TYPE_CHECKING:
    from pattern_lens.figures.matrix_savers import AttentionMatrix


@save_matrix_wrapper(fmt="png", normalize=True, cmap="Blues")
def raw(attn_matrix: AttentionMatrix) -> AttentionMatrix:
    """The pattern, one pixel a number; not registered."""
    return attn_matrix


setattr(raw, STORED_KEY, False)  # files hold the pattern itself
