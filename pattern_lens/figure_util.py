"""Import path of pattern-lens 0.6 for the savers; nothing of its own."""

from __future__ import annotations

from pattern_lens.figures.encode import SVG_TEMPLATE as MATRIX_SAVE_SVG_TEMPLATE
from pattern_lens.figures.matplotlib_savers import (
    MATPLOTLIB_FIGURE_FMT,
    AttentionMatrixFigureFunc,
    matplotlib_figure_saver,
    matplotlib_multifigure_saver,
)
from pattern_lens.figures.matrix_savers import (
    MATRIX_SAVE_CMAP,
    MATRIX_SAVE_FMT,
    MATRIX_SAVE_NORMALIZE,
    AttentionMatrix,
    AttentionMatrixToMatrixFunc,
    Matrix2D,
    Matrix2Drgb,
    MatrixSaveFormat,
    matrix2drgb_to_png_bytes,
    matrix_as_svg,
    matrix_to_image_preprocess,
    save_matrix_wrapper,
)

__all__ = [
    "MATPLOTLIB_FIGURE_FMT",
    "MATRIX_SAVE_CMAP",
    "MATRIX_SAVE_FMT",
    "MATRIX_SAVE_NORMALIZE",
    "MATRIX_SAVE_SVG_TEMPLATE",
    "AttentionMatrix",
    "AttentionMatrixFigureFunc",
    "AttentionMatrixToMatrixFunc",
    "Matrix2D",
    "Matrix2Drgb",
    "MatrixSaveFormat",
    "matplotlib_figure_saver",
    "matplotlib_multifigure_saver",
    "matrix2drgb_to_png_bytes",
    "matrix_as_svg",
    "matrix_to_image_preprocess",
    "save_matrix_wrapper",
]
