"""A stored result: which heads have it, and how it is distributed over prompts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import holoviews as hv
import numpy as np
import xarray as xr
from bokeh.events import Tap
from bokeh.layouts import row
from bokeh.models import ColumnDataSource, CustomJS, GlyphRenderer, HoverTool

from pattern_lens.errors import PlotError
from pattern_lens.names import HEAD, LAYER, PROMPT, head_label
from pattern_lens.plots.checks import as_scores
from pattern_lens.plots.colours import choose
from pattern_lens.plots.drawing import drawn, script
from pattern_lens.plots.heat_map import Look, square
from pattern_lens.plots.labels import plain
from pattern_lens.plots.pattern import MARGIN, check_size
from pattern_lens.plots.plot import Plot
from pattern_lens.plots.score_map import map_sides, score_map
from pattern_lens.wording import counted

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

    from pattern_lens.plots.colours import Limits

Statistic = Literal["mean", "median", "min", "max", "std"]

N_BINS: Final = 30
BIN: Final = "bin"
BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
_HISTOGRAM: Final = (380, 280)
_BELOW_HISTOGRAM: Final = 60


def plot_scores(
    result: xr.DataArray,
    *,
    over_prompts: Statistic = "mean",
    cmap: str | Colormap | None = None,
    clim: Limits | None = None,
    log: bool = False,
    size: int = 480,
) -> Plot:
    """Map of a score of every head, and beside it the distribution over prompts of one.

    Tap a head to see its distribution; hover shows the exact number. Both work in a saved page.

    Parameters
    ----------
    result
        Dims (prompt, layer, head), as ``pl.open_results(path)["induction_score"]``, or (layer, head), of which only the map is
        shown. Numbers below 0 get a diverging map. A prompt without the result is NaN, and left out.
    over_prompts
        What the map shows of each head's prompts.
    cmap, clim, log
        As for `plot_pattern`.
    size
        Pixels of the longer side of the map.

    Returns
    -------
    A plot; `.data` has `score`, dims (layer, head), and where there are prompts `count`, dims (layer, head, bin), the number of
    prompts in each of 30 bins that are the same for all heads; coordinate `bin` is where each begins.

    Raises
    ------
    PlotTypeError, DimensionError, PlotError, UnknownColourMapError
        More dims than these (the message names what to reduce), or as `plot_pattern`.

    Notes
    -----
    The result is read whole, here; a page holds the counts and not the numbers of each prompt, so its size does not grow with
    the prompts.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> pl.plot_scores(pl.open_results("demo.h5")["induction_score"])  # doctest: +SKIP
    """
    array = as_scores(result, "plot_scores").compute()
    check_size(size)
    name = str(array.name or "score")
    scores = _reduced(array, over_prompts)
    quantity = f"{over_prompts} over prompts" if PROMPT in array.dims else name
    title = plain(" · ".join(filter(None, [name, str(array.attrs.get("model", ""))])))
    colours = choose(scores.values, cmap=cmap, clim=clim, log=log)
    look = Look(title, quantity, colours, square(scores.shape, size))
    plot = _map_alone if PROMPT not in array.dims else _with_distribution
    return plot(array, scores, name, look)


def _map_alone(array: xr.DataArray, scores: xr.DataArray, name: str, look: Look) -> Plot:
    del array, name
    image = score_map(np.asarray(scores.values, np.float32), *map_sides(scores), look)
    return Plot(image, _data(scores), look.title, _extent(look), partial(drawn, image))


def _with_distribution(array: xr.DataArray, scores: xr.DataArray, name: str, look: Look) -> Plot:
    values = np.asarray(scores.values, np.float32)
    image = score_map(values, *map_sides(scores), look, more=_summaries(array))
    edges, counts = _binned(array.values)
    data = _data(scores).assign({"count": ((LAYER, HEAD, BIN), counts)})
    data = data.assign_coords({BIN: edges[:-1]})
    place = _highest(scores.values)
    titles = _titles(array)
    bars = _histogram(edges, counts[place], titles[place[0]][place[1]], name)
    width, height = _extent(look)
    extent = (width + _HISTOGRAM[0] + 100, max(height, _HISTOGRAM[1] + 140))
    view = (image + bars).opts(shared_axes=False)
    return Plot(view, data, look.title, extent, partial(_build, image, bars, counts, titles, place))


def _data(scores: xr.DataArray) -> xr.Dataset:
    others = [name for name in scores.coords if name not in scores.dims]
    return xr.Dataset({"score": scores.drop_vars(others)})


def _extent(look: Look) -> tuple[int, int]:
    return look.shape.width + MARGIN, look.shape.height + MARGIN


def _reduced(array: xr.DataArray, statistic: str) -> xr.DataArray:
    if statistic not in get_args(Statistic):
        raise PlotError(
            f"over_prompts={statistic!r}: expected one of {', '.join(map(repr, get_args(Statistic)))}"
        )
    if PROMPT not in array.dims:
        return array
    reduced: xr.DataArray = getattr(array.astype(float), statistic)(PROMPT)
    return reduced


def _binned(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Edges of bins that all heads share, and how many prompts of each head are in them."""
    values = np.asarray(values, float)
    finite = values[np.isfinite(values)]
    edges = np.histogram_bin_edges(finite, N_BINS)
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, N_BINS - 1)
    counts = np.zeros((*values.shape[1:], N_BINS), np.int64)
    _, layers, heads = np.nonzero(np.isfinite(values))
    np.add.at(counts, (layers, heads, bins[np.isfinite(values)]), 1)
    return edges, counts


def _highest(scores: np.ndarray[Any, Any]) -> tuple[int, int]:
    layer, head = np.unravel_index(
        np.nanargmax(np.where(np.isfinite(scores), scores, np.nan)), scores.shape
    )
    return int(layer), int(head)


def _summaries(array: xr.DataArray) -> list[list[str]]:
    """Least, median and largest of each head, in words."""
    least, median, largest = (
        getattr(array.astype(float), how)(PROMPT).values for how in ("min", "median", "max")
    )
    return [
        [
            f"{low:.3g} to {high:.3g}, median {middle:.3g}"
            for low, middle, high in zip(*rows, strict=True)
        ]
        for rows in zip(least, median, largest, strict=True)
    ]


def _titles(array: xr.DataArray) -> list[list[str]]:
    known = np.isfinite(array.values).sum(axis=0)
    return [
        [
            f"{head_label(int(layer), int(head))} · {counted(int(n), 'prompt')}"
            for head, n in zip(array[HEAD].values, ns, strict=True)
        ]
        for layer, ns in zip(array[LAYER].values, known, strict=True)
    ]


def _histogram(edges: Any, counts: Any, title: str, name: str) -> Any:
    return hv.Histogram((edges, counts), kdims=[name], vdims=["prompts"]).opts(
        title=title,
        frame_width=_HISTOGRAM[0],
        frame_height=_HISTOGRAM[1],
        fill_color=BLUE,
        line_color="white",
        toolbar=None,
        default_tools=[],
        ylim=(0, 1.05 * max(1, int(counts.max()))),
        fontsize={"title": "12px", "labels": "12px", "ticks": "11px"},
        hooks=[_dress],
        backend="bokeh",
    )


def _dress(plot: Any, _: Any) -> None:
    figure = plot.state
    figure.title.text_font_style = "normal"
    figure.axis.axis_label_text_font_style = "normal"
    figure.axis.minor_tick_line_color = None
    figure.outline_line_color = None
    figure.min_border_bottom = _BELOW_HISTOGRAM
    if not figure.select({"type": HoverTool}):
        tips = [("from", "@left"), ("to", "@right"), ("prompts", "@top{0}")]
        figure.add_tools(HoverTool(tooltips=tips))


def _build(
    image: Any, bars: Any, counts: Any, titles: list[list[str]], place: tuple[int, int]
) -> Any:
    overview, detail = drawn(image), drawn(bars)
    box = ColumnDataSource({"x": [place[1]], "y": [place[0]]})
    overview.rect("x", "y", 1, 1, source=box, fill_color=None, line_color=ORANGE, line_width=3)
    args = {
        "counts": counts.tolist(),
        "titles": titles,
        "bars": detail.select_one(GlyphRenderer).data_source,
        "title": detail.title,
        "range": detail.y_range,
        "box": box,
    }
    overview.js_on_event(Tap, CustomJS(args=args, code=script("distribution")))
    return row(overview, detail)
