"""Patterns -> pictures: a registry of figure functions, savers, and what they make of one head.

Importing this loads no matplotlib and no xarray; drawing does.
"""

from __future__ import annotations

from pattern_lens.figures import standard
from pattern_lens.figures.matplotlib_savers import (
    matplotlib_figure_saver,
    matplotlib_multifigure_saver,
)
from pattern_lens.figures.matrix_savers import (
    matrix2drgb_to_png_bytes,
    matrix_as_svg,
    matrix_to_image_preprocess,
    save_matrix_wrapper,
)
from pattern_lens.figures.metadata import figure_records
from pattern_lens.figures.produce import produce
from pattern_lens.figures.products import Failure, Image, Picture, Product, Values
from pattern_lens.figures.registry import (
    ATTENTION_MATRIX_FIGURE_FUNCS,
    FigureFunction,
    figure_function,
    figure_functions,
    get_all_figure_names,
    register_attn_figure_func,
    register_attn_figure_multifunc,
)
from pattern_lens.figures.select import select_figure_functions

__all__ = [
    "ATTENTION_MATRIX_FIGURE_FUNCS",
    "Failure",
    "FigureFunction",
    "Image",
    "Picture",
    "Product",
    "Values",
    "figure_function",
    "figure_functions",
    "figure_records",
    "get_all_figure_names",
    "matplotlib_figure_saver",
    "matplotlib_multifigure_saver",
    "matrix2drgb_to_png_bytes",
    "matrix_as_svg",
    "matrix_to_image_preprocess",
    "produce",
    "register_attn_figure_func",
    "register_attn_figure_multifunc",
    "save_matrix_wrapper",
    "select_figure_functions",
    "standard",
]
