"""Curves that say what a head does: drawn from the measures of the same names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.figures.registry import register_attn_figure_func
from pattern_lens.figures.standard.axes import (
    BLUE,
    GREY,
    ORANGE,
    finished,
    label_positions,
    new_axes,
)
from pattern_lens.names import KEY, QUERY

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FIGSIZE: Final = (6.4, 4.0)
_LEAST_SHOWN: Final = 1e-4  # of the largest singular value; less is rounding


@register_attn_figure_func
def query_entropy(pattern: xr.DataArray) -> Figure:
    """Entropy of the attention of each query, and the most it could be."""
    from pattern_lens.measures import entropy

    bits = np.asarray(entropy(pattern))
    axes = _new(pattern, "entropy of each query's attention")
    places = np.arange(len(bits))
    axes.plot(places, _most_bits(pattern), color=ORANGE, linestyle="--", label="evenly spread")
    axes.plot(places, bits, color=BLUE, marker=_marker(len(bits)), markersize=4, label="this head")
    label_positions(axes.xaxis, pattern, QUERY)
    axes.set_ylabel("entropy (bits)")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="upper left")
    return finished(axes)


@register_attn_figure_func
def attention_by_distance(pattern: xr.DataArray) -> Figure:
    """Mean attention to the key that lies a number of tokens back; also without the first key."""
    axes = _new(pattern, "attention by distance")
    curve = _by_distance(pattern)
    axes.step(curve.distance, curve, where="mid", color=ORANGE, linewidth=1, label="all keys")
    others = np.flatnonzero(pattern[KEY].values)
    if len(others):  # many heads rest on the first key, which is far from most queries
        whole = pattern.assign_coords({dim: pattern[dim].values for dim in (QUERY, KEY)})
        curve = _by_distance(whole.isel({KEY: others}))
        axes.fill_between(curve.distance, curve, step="mid", color=BLUE, alpha=0.25, linewidth=0)
        axes.step(curve.distance, curve, where="mid", color=BLUE, label="without key 0")
    axes.set_xlabel("distance from query back to key (tokens)")
    axes.set_ylabel("mean attention (probability)")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.legend(frameon=False, loc="upper center")
    return finished(axes)


def _by_distance(pattern: xr.DataArray) -> xr.DataArray:
    """The measure, without the distances that a causal mask leaves empty."""
    from pattern_lens import measures

    found = measures.attention_by_distance(pattern)
    if pattern.attrs.get("causal"):
        return found
    is_later = found.distance < 0
    is_causal = not (found.where(is_later, 0) > 0).any()
    return found.where(~is_later, drop=True) if is_causal else found


@register_attn_figure_func
def singular_values(pattern: xr.DataArray) -> Figure:
    """Singular values of the pattern as a matrix, from the largest on."""
    from pattern_lens import measures

    found = np.asarray(measures.singular_values(pattern))
    axes = _new(pattern, "singular values")
    places = np.arange(1, len(found) + 1)
    axes.plot(places, found, color=BLUE, marker=_marker(len(found)), markersize=4)
    axes.set_xlabel("index, from the largest")
    axes.set_ylabel("singular value (no unit)")
    if found[0] > 0:
        axes.set_yscale("log")
        axes.set_ylim(max(found[-1], found[0] * _LEAST_SHOWN) / 1.5, found[0] * 1.5)
        axes.minorticks_off()
    return finished(axes)


def _new(pattern: xr.DataArray, what: str) -> Axes:
    axes = new_axes(pattern, what, figsize=_FIGSIZE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GREY, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _most_bits(pattern: xr.DataArray) -> Any:
    """Entropy of attention spread over all keys that a query can see."""
    queries, keys = pattern[QUERY].values, pattern[KEY].values
    is_later = keys > queries[:, np.newaxis]
    is_causal = not np.asarray(pattern)[is_later].any()
    n_seen = (~is_later).sum(1) if is_causal else np.full(len(queries), len(keys))
    return np.log2(np.maximum(n_seen, 1))


def _marker(n: int) -> str:
    return "o" if n <= 60 else ""
