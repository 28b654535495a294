"""Numbers with names as horizontal bars, first one at the top."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import holoviews as hv
import numpy as np
import pandas as pd
from bokeh.models import (
    CustomJSHover,
    CustomJSTickFormatter,
    FixedTicker,
    GlyphRenderer,
    HoverTool,
    Quad,
    Span,
)

from pattern_lens.plots.drawing import ready, script
from pattern_lens.plots.heat_map import plain_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pattern_lens.plots.colours import Colours

_HALF: Final = 0.4
_BAR_PIXELS: Final = 20
_ROOM: Final = 1.08
_INK: Final = "#222222"


@dataclass(frozen=True, eq=False)
class Bars:
    """What bars show.

    Parameters
    ----------
    spread
        Length of the line to each side of a bar's end; None for no lines.
    more
        What hover says of each besides its number.
    """

    labels: list[str]
    values: NDArray[np.float64]
    quantity: str
    colours: Colours
    spread: NDArray[np.float64] | None = None
    more: list[str] | None = None

    @property
    def height(self) -> int:
        """Pixels of all bars."""
        return max(120, _BAR_PIXELS * len(self.labels))


def bar_chart(bars: Bars, title: str, width: int) -> Any:
    """HoloViews rectangles, coloured by their numbers."""
    ready()
    places = np.arange(len(bars.values))
    table = pd.DataFrame(
        {
            "left": np.minimum(bars.values, 0),
            "top": places - _HALF,
            "right": np.maximum(bars.values, 0),
            "bottom": places + _HALF,
            "value": np.asarray(bars.values, np.float32),
        }
    )
    boxes = hv.Rectangles(table, ["left", "top", "right", "bottom"], ["value"]).opts(
        color="value",
        cmap=list(bars.colours.colours),
        clim=(bars.colours.low, bars.colours.high),
        line_color="#666666",
        line_width=0.5,
        backend="bokeh",
    )
    return (boxes * _whiskers(bars, places)).opts(
        title=title,
        frame_width=width,
        frame_height=bars.height,
        xlim=_ends(bars),
        ylim=(-0.6, len(places) - 0.4),
        invert_yaxis=True,
        xlabel=bars.quantity,
        ylabel="",
        default_tools=["save"],
        toolbar="above",
        fontsize={"title": "12px", "labels": "12px", "ticks": "11px"},
        hooks=[partial(_dress, bars=bars)],
        backend="bokeh",
    )


def _whiskers(bars: Bars, places: NDArray[Any]) -> Any:
    spread = np.zeros(0) if bars.spread is None else bars.spread
    n = len(spread)
    rows = {
        "from": bars.values[:n] - spread,
        "at": places[:n],
        "to": bars.values[:n] + spread,
        "at_too": places[:n],
    }
    lines = hv.Segments(pd.DataFrame(rows, dtype=float), ["from", "at", "to", "at_too"])
    return lines.opts(color=_INK, line_width=1.2, backend="bokeh")


def _ends(bars: Bars) -> tuple[float, float]:
    spread = 0.0 if bars.spread is None else bars.spread
    low = min(0.0, float((bars.values - spread).min()))
    high = max(0.0, float((bars.values + spread).max()))
    return (low * _ROOM, high * _ROOM) if low < high else (-1.0, 1.0)


def _dress(plot: Any, _: Any, *, bars: Bars) -> None:
    figure = plot.state
    quads = [r for r in figure.select({"type": GlyphRenderer}) if isinstance(r.glyph, Quad)]
    if not quads or figure.select({"type": HoverTool}):
        return
    axis = figure.yaxis[0]
    axis.ticker = FixedTicker(ticks=list(range(len(bars.labels))))
    axis.formatter = CustomJSTickFormatter(
        args={"labels": bars.labels}, code="return labels[tick] ?? ''"
    )
    axis.axis_line_color = axis.major_tick_line_color = None
    figure.title.text_font_style = "normal"
    figure.axis.axis_label_text_font_style = "normal"
    figure.axis.minor_tick_line_color = None
    figure.outline_line_color = None
    figure.ygrid.grid_line_color = None
    figure.toolbar.logo = None
    figure.add_layout(Span(location=0, dimension="height", line_color=_INK, line_width=1))
    _add_hover(figure, quads[0], bars)


def _add_hover(figure: Any, quads: Any, bars: Bars) -> None:
    quads.data_source.add(bars.labels, "label")
    tips = [("component", "@label"), (plain_name(bars.quantity), "@color{custom}")]
    if bars.more is not None:
        quads.data_source.add(bars.more, "more")
        tips.append(("spread", "@more"))
    exact = {"@color": CustomJSHover(code=script("exact"))}
    figure.add_tools(HoverTool(renderers=[quads], tooltips=tips, formatters=exact))
