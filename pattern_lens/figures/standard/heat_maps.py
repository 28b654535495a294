"""The pattern itself: queries down, keys across."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.figures.registry import register_attn_figure_func
from pattern_lens.figures.standard.axes import GREY, finished, label_positions, new_axes
from pattern_lens.names import KEY, QUERY

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

SMALLEST_SHOWN: Final = 1e-6
"""Attention below this has the last colour of the logarithmic scale."""

_FIGSIZE: Final = (6.4, 5.6)


@register_attn_figure_func(stored=False)
def raw(pattern: xr.DataArray) -> Figure:
    """Attention of each query to each key, from 0 to the largest there is."""
    from matplotlib.colors import Normalize

    values = np.asarray(pattern)
    largest = _largest(values)
    return _heat_map(pattern, values, "attention", "Blues", Normalize(0, largest))


@register_attn_figure_func(average=True)
def mean_over_prompts(pattern: xr.DataArray) -> Figure:
    """Attention of each query to each key, averaged over the prompts that reach it."""
    from matplotlib.colors import Normalize

    values = np.asarray(pattern)
    counts = pattern.coords.get("n_prompts")
    several = "" if counts is None else f" over {int(counts.max())} prompts"
    return _heat_map(pattern, values, f"mean{several}", "Blues", Normalize(0, _largest(values)))


@register_attn_figure_func
def log_scale(pattern: xr.DataArray) -> Figure:
    """Attention of each query to each key on a logarithmic scale; grey where there is none."""
    from matplotlib.colors import LogNorm

    values = np.asarray(pattern)
    some = values[values > 0]
    largest = _largest(values)
    smallest = max(float(some.min()), SMALLEST_SHOWN) if some.size else SMALLEST_SHOWN
    norm = LogNorm(min(smallest, largest / 10), largest, clip=True)
    shown = np.where(values > 0, values, np.nan)
    return _heat_map(pattern, shown, "attention, log scale", "cividis", norm)


def _largest(values: Any) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def _heat_map(pattern: xr.DataArray, values: Any, what: str, cmap: str, norm: Any) -> Figure:
    import matplotlib as mpl

    axes = new_axes(pattern, what, figsize=_FIGSIZE)
    colours = mpl.colormaps[cmap].with_extremes(bad=GREY)
    image = axes.imshow(values, cmap=colours, norm=norm, interpolation="none", aspect="auto")
    axes.set_box_aspect(values.shape[0] / values.shape[1])
    label_positions(axes.xaxis, pattern, KEY)
    label_positions(axes.yaxis, pattern, QUERY)
    units = pattern.attrs.get("units", "probability")
    bar = axes.figure.colorbar(image, ax=axes, label=f"attention ({units})")
    bar.minorticks_off()  # of a logarithmic scale; a third of the time of drawing
    return finished(axes)
