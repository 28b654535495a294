"""Patterns -> pictures: a registry of figure functions, savers, and what they make of one head.

Importing this loads no matplotlib and no xarray; drawing does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

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

if TYPE_CHECKING:
    from pattern_lens.figures.predecessor import (
        HTConfigMock,
        compute_and_save_figures,
        figures_main,
        process_prompt,
        process_single_head,
        select_attn_figure_funcs,
    )

__all__ = [
    "ATTENTION_MATRIX_FIGURE_FUNCS",
    "Failure",
    "FigureFunction",
    "HTConfigMock",
    "Image",
    "Picture",
    "Product",
    "Values",
    "compute_and_save_figures",
    "figure_function",
    "figure_functions",
    "figure_records",
    "figures_main",
    "get_all_figure_names",
    "matplotlib_figure_saver",
    "matplotlib_multifigure_saver",
    "matrix2drgb_to_png_bytes",
    "matrix_as_svg",
    "matrix_to_image_preprocess",
    "process_prompt",
    "process_single_head",
    "produce",
    "register_attn_figure_func",
    "register_attn_figure_multifunc",
    "save_matrix_wrapper",
    "select_attn_figure_funcs",
    "select_figure_functions",
    "standard",
]

_OF_PREDECESSOR: Final = (
    "HTConfigMock",
    "compute_and_save_figures",
    "figures_main",
    "process_prompt",
    "process_single_head",
    "select_attn_figure_funcs",
)


def __getattr__(name: str) -> Any:
    # Imported on first use, because reading and writing files imports more than registering does.
    if name not in _OF_PREDECESSOR:
        raise AttributeError(f"module 'pattern_lens.figures' has no attribute {name!r}")
    return getattr(import_module("pattern_lens.figures.predecessor"), name)
