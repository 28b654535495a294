"""Numbers along the stream, from the embeddings to the end: one line a prompt or position, and their mean."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr
from bokeh.models import (
    CustomJSHover,
    CustomJSTickFormatter,
    FixedTicker,
    GlyphRenderer,
    HoverTool,
    MultiLine,
    Scatter,
)

from pattern_lens.errors import DimensionError, PlotError, PlotTypeError
from pattern_lens.names import COMPONENT, POS
from pattern_lens.plots.attribution import closure_words, over_words
from pattern_lens.plots.drawing import drawn, ready, script
from pattern_lens.plots.heat_map import plain_name
from pattern_lens.plots.labels import labels_along, plain, short, title_of
from pattern_lens.plots.pattern import MARGIN, check_size
from pattern_lens.plots.plot import Plot
from pattern_lens.residual.readings import Attribution
from pattern_lens.wording import visible

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_LINES: Final = 200
"""More lines are no picture: this many, evenly chosen, are drawn, and the mean of all."""

_UPRIGHT: Final = 0.9
_BLUE: Final = "#0072b2"
_GREY: Final = "#999999"


@dataclass(frozen=True, eq=False)
class Curves:
    """Lines along the streams, dims (line, component), and what each is of."""

    values: NDArray[np.float64]
    labels: list[str]
    streams: list[str]
    quantity: str


def plot_accumulated(
    curves: Attribution | xr.DataArray, *, title: str | None = None, size: int = 560
) -> Plot:
    """What would be read from the stream after each layer: one thin line a prompt or position, and their mean.

    Hover shows the line and the exact number.

    Parameters
    ----------
    curves
        What ``direct_logit_attribution(..., unit="layer")`` gives: the logit, or difference of logits, of each stream, with what
        the unembedding's bias adds, so that the last is the model's own. Or numbers of the logit lens, such as
        ``lens["answer_probability"]``: dims (component), (component, pos) or (prompt, component).
    title
        Instead of model and text of the prompt.
    size
        Pixels of the width.

    Returns
    -------
    A plot; `.data` has `value`, dims (component) or (pos or prompt, component), and `mean` and `std`, dims (component).

    Raises
    ------
    PlotTypeError
        Neither of these.
    DimensionError
        An attribution of parts instead of streams, or more dims than these.
    PlotError
        No number to show, or a size that makes no sense.

    Notes
    -----
    An attribution divides every stream by the scale of the last norm, the logit lens by a scale of its own, so the two differ
    before the end. Of more than 200 lines 200 are drawn, evenly chosen; the mean is of all.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> found = run.direct_logit_attribution(None, " Mary", " John", unit="layer")  # doctest: +SKIP
    >>> pl.plot_accumulated(found).save("streams.html")  # doctest: +SKIP
    """
    array, quantity = _as_curves(curves)
    check_size(size)
    lines = _lines(array, quantity)
    more = [closure_words(curves)] if isinstance(curves, Attribution) else []
    first = plain(title) if title is not None else title_of(array, *over_words(array))
    if len(lines.values) > MOST_LINES:
        more.insert(0, f"{MOST_LINES} of {len(lines.values):,} lines drawn, mean of all")
    shape = (size, round(0.6 * size))
    view = _element(lines, "\n".join([first, *more]), shape)
    extent = (shape[0] + MARGIN, shape[1] + MARGIN)
    return Plot(view, _data(array), first, extent, partial(drawn, view))


def _as_curves(curves: Any) -> tuple[xr.DataArray, str]:
    """An array with dims (component) or (line, component), and what its numbers are."""
    if isinstance(curves, Attribution):
        if curves.unit != "layer":
            raise DimensionError(
                f"plot_accumulated shows streams, and this is an attribution by {curves.unit}: "
                "direct_logit_attribution(..., unit='layer') gives them; pl.plot_attribution shows parts"
            )
        array = (curves.scores + curves.unembed_bias).assign_attrs(curves.scores.attrs)
        quantity = "logit before the soft cap" if curves.softcap else "logit"
    elif isinstance(curves, xr.DataArray) and curves.dtype.kind in "fiu":
        array, quantity = curves, str(curves.name or "value")
    else:
        raise PlotTypeError(
            f"plot_accumulated cannot plot a {type(curves).__name__}: expected what direct_logit_attribution(..., "
            "unit='layer') gives, or numbers of the logit lens, such as lens['answer_probability']"
        )
    more = [str(dim) for dim in array.dims if dim != COMPONENT]
    if COMPONENT not in array.dims or len(more) > 1:
        raise DimensionError(
            f"plot_accumulated cannot plot dims ({', '.join(map(str, array.dims))}): expected (component), or (pos or "
            "prompt, component); choose or reduce the others first, for example with .isel(pos=-1)"
        )
    array = array.transpose(*more, COMPONENT).compute()
    if not np.isfinite(array.values).any():
        raise PlotError("plot_accumulated has nothing to plot: there is no finite number")
    return array, quantity


def _lines(array: xr.DataArray, quantity: str) -> Curves:
    values = np.atleast_2d(np.asarray(array.values, np.float64))
    streams = [str(label) for label in array[COMPONENT].values]
    if array.ndim == 1:
        return Curves(values, [""], streams, quantity)
    dim = str(array.dims[0])
    if dim not in array.coords:
        array = array.assign_coords({dim: np.arange(array.sizes[dim])})
    labels = (
        labels_along(array, dim)
        if dim == POS
        else [short(visible(str(v)), 40) for v in array[dim].values]
    )
    return Curves(values, labels, streams, quantity)


def _data(array: xr.DataArray) -> xr.Dataset:
    over = [dim for dim in array.dims if dim != COMPONENT]
    others = [name for name, c in array.coords.items() if not c.dims]
    bare = array.drop_vars(others)
    return xr.Dataset({"value": bare, "mean": bare.mean(over), "std": bare.std(over)})


def _element(lines: Curves, title: str, shape: tuple[int, int]) -> Any:
    ready()
    n_lines, n_streams = lines.values.shape
    places = np.arange(n_streams)
    chosen = np.unique(np.linspace(0, n_lines - 1, min(n_lines, MOST_LINES)).astype(int))
    thin = [np.column_stack([places, lines.values[i]]) for i in chosen] if n_lines > 1 else []
    known = np.isfinite(lines.values)
    mean = np.where(known, lines.values, 0).sum(0) / np.maximum(known.sum(0), 1)
    table = pd.DataFrame({"stream": places, "value": np.asarray(mean, np.float32)})
    drawing = (
        hv.Path(thin, ["stream", "value"]).opts(color=_GREY, alpha=0.45, line_width=1)
        * hv.Curve(table, "stream", "value").opts(color=_BLUE, line_width=3)
        * hv.Scatter(table, "stream", "value").opts(color=_BLUE, size=8)
    )
    return drawing.opts(
        title=title,
        frame_width=shape[0],
        frame_height=shape[1],
        xlabel="stream",
        ylabel=lines.quantity,
        xlim=(-0.3, n_streams - 0.7),
        default_tools=["save", "pan", "box_zoom", "reset"],
        active_tools=[],
        toolbar="above",
        show_legend=False,
        fontsize={"title": "12px", "labels": "12px", "ticks": "11px"},
        hooks=[partial(_dress, lines=lines, labels=[lines.labels[i] for i in chosen])],
        backend="bokeh",
    )


def _dress(plot: Any, _: Any, *, lines: Curves, labels: list[str]) -> None:
    figure = plot.state
    glyphs = {type(r.glyph): r for r in figure.select({"type": GlyphRenderer})}
    if Scatter not in glyphs or figure.select({"type": HoverTool}):
        return
    axis = figure.xaxis[0]
    step = max(1, -(-len(lines.streams) * 18 // figure.frame_width))
    axis.ticker = FixedTicker(ticks=list(range(0, len(lines.streams), step)))
    axis.formatter = CustomJSTickFormatter(
        args={"labels": lines.streams}, code="return labels[tick] ?? ''"
    )
    axis.major_label_orientation = _UPRIGHT
    figure.title.text_font_style = "normal"
    figure.axis.axis_label_text_font_style = "normal"
    figure.axis.minor_tick_line_color = None
    figure.outline_line_color = figure.xgrid.grid_line_color = None
    figure.toolbar.logo = None
    said = lines.quantity if len(lines.labels) == 1 else f"mean {lines.quantity}"
    glyphs[Scatter].data_source.add(lines.streams, "label")
    tips = [("stream", "@label"), (plain_name(said), "@value{custom}")]
    exact = {"@value": CustomJSHover(code=script("exact"))}
    figure.add_tools(HoverTool(renderers=[glyphs[Scatter]], tooltips=tips, formatters=exact))
    if MultiLine in glyphs and len(labels) > 1:
        glyphs[MultiLine].data_source.add(labels, "label")
        figure.add_tools(HoverTool(renderers=[glyphs[MultiLine]], tooltips=[("line", "@label")]))
