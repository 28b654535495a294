"""A matrix as one image glyph: labelled axes, and on hover the exact number with both labels.

The rule: a place *i* along an axis is drawn at *i*, whatever its label; labels are looked up by place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import pi
from typing import TYPE_CHECKING, Any, Final

import holoviews as hv
import numpy as np
from bokeh.models import BasicTicker, CustomJSHover, CustomJSTickFormatter, HoverTool

from pattern_lens.plots.drawing import ready, script

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pattern_lens.plots.colours import Colours

FONT: Final = "12px"
_MONOSPACE: Final = "DejaVu Sans Mono, Menlo, Consolas, monospace"
_PIXELS_PER_LABEL: Final = 15
_PIXELS_PER_LETTER: Final = 7
_UPRIGHT_FROM: Final = 4


@dataclass(frozen=True)
class Side:
    """One axis of a matrix: what runs along it, and the label of each place."""

    name: str
    labels: list[str]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Shape:
    """Width and height of what is inside the axes, in pixels."""

    width: int
    height: int


def square(sizes: Sequence[int], size: int) -> Shape:
    """A shape with square cells whose longer side has a size, in pixels; none is too thin to see."""
    n_rows, n_columns = sizes
    longest = max(n_rows, n_columns)
    return Shape(max(60, size * n_columns // longest), max(60, size * n_rows // longest))


@dataclass(frozen=True)
class Look:
    """How a heat map looks: title, what its numbers are, colours and size."""

    title: str
    quantity: str
    colours: Colours
    shape: Shape
    colorbar: bool = True


def heat_map(
    values: NDArray[Any],
    rows: Side,
    columns: Side,
    look: Look,
    *,
    extent: tuple[float, float] | None = None,
    hover: Callable[[], Any] | None = None,
) -> Any:
    """A HoloViews image of a matrix, first row at the top.

    Parameters
    ----------
    extent
        Rows and columns, counted in places, that the matrix covers; one cell a place if None.
    hover
        Makes the hover tool; a new one for each drawing, because a tool belongs to one document.
    """
    ready()
    n_rows, n_columns = extent or values.shape
    hover = hover or partial(hover_tool, rows, columns, look.quantity)
    image = hv.Image(
        values[::-1],
        bounds=(-0.5, -0.5, n_columns - 0.5, n_rows - 0.5),
        kdims=[columns.name, rows.name],
        vdims=[look.quantity],
        rtol=1,
    )
    return image.opts(
        **look.colours.options(),
        **_frame(look),
        xlim=(-0.5, len(columns) - 0.5),
        ylim=(-0.5, len(rows) - 0.5),
        hooks=[partial(_dress, rows=rows, columns=columns, hover=hover)],
        backend="bokeh",
    )


def _dress(plot: Any, _: Any, *, rows: Side, columns: Side, hover: Callable[[], Any]) -> None:
    figure = plot.state
    if not figure.select({"type": HoverTool}):  # a live view comes here again when it changes
        label_axes(figure, rows, columns)
        figure.add_tools(hover())


def _frame(look: Look) -> dict[str, Any]:
    # a short bar has no room for what it shows
    fits = _PIXELS_PER_LETTER * len(look.quantity) < look.shape.height
    bar = {
        **({"title": look.quantity} if fits else {}),
        "title_text_font_style": "normal",
        "title_text_align": "center",
        "title_standoff": 8,
        "width": 12,
        "padding": 6,
        "bar_line_color": None,
    }
    return {
        "title": look.title if fits else f"{look.title} · {look.quantity}",
        "frame_width": look.shape.width,
        "frame_height": look.shape.height,
        "colorbar": look.colorbar,
        "colorbar_opts": bar if look.colorbar else {},
        "invert_yaxis": True,
        "default_tools": ["save", "pan", "box_zoom", "reset"],
        "active_tools": ["box_zoom"],
        "toolbar": "above",
        "fontsize": {"title": "12px", "labels": FONT, "ticks": "11px"},
    }


def label_axes(figure: Any, rows: Side, columns: Side) -> None:
    """Write labels instead of numbers, as many as there is room for."""
    for axis, side, pixels in (
        (figure.xaxis[0], columns, figure.frame_width),
        (figure.yaxis[0], rows, figure.frame_height),
    ):
        number = max(2, (pixels or 400) // _PIXELS_PER_LABEL)
        axis.ticker = BasicTicker(
            desired_num_ticks=number, min_interval=1, num_minor_ticks=0, mantissas=[1, 2, 5]
        )
        axis.formatter = CustomJSTickFormatter(
            args={"labels": side.labels}, code="return labels[tick] ?? ''"
        )
        axis.major_label_text_font = _MONOSPACE
        axis.major_tick_in, axis.major_tick_out = 0, 3
        axis.axis_line_color = axis.minor_tick_line_color = None
        axis.axis_label = side.name
        axis.axis_label_text_font_style = "normal"
    if max(map(len, columns.labels), default=0) >= _UPRIGHT_FROM:
        figure.xaxis[0].major_label_orientation = pi / 2
    figure.outline_line_color = "#bbbbbb"
    figure.grid.grid_line_color = None
    figure.toolbar.logo = None
    figure.title.text_font_style = "normal"
    # bounds keep panning from losing the matrix
    figure.x_range.bounds = (-0.5, len(columns) - 0.5)
    figure.y_range.bounds = (-0.5, len(rows) - 0.5)


def hover_tool(rows: Side, columns: Side, quantity: str) -> Any:
    """Both labels and the exact number of the cell under the pointer."""
    return HoverTool(
        tooltips=[
            (rows.name, "$y{custom}"),
            (columns.name, "$x{custom}"),
            (plain_name(quantity), "@image{custom}"),
        ],
        formatters={
            "$y": looked_up(rows.labels),
            "$x": looked_up(columns.labels),
            "@image": CustomJSHover(code=script("exact")),
        },
    )


def looked_up(labels: list[str]) -> Any:
    """The label of a place."""
    return CustomJSHover(args={"labels": labels}, code="return labels[Math.round(value)] ?? ''")


def plain_name(quantity: str) -> str:
    """A name in which Bokeh finds nothing to fill in."""
    return quantity.replace("@", "＠").replace("$", "＄")  # noqa: RUF001 - that is what they are for


def pooled(values: NDArray[Any], step: int) -> NDArray[Any]:
    """The largest of each `step` x `step` cells of the last two dims; what is no number does not count.

    Examples
    --------
    >>> pooled(np.array([[1, 2, 3], [4, 0, 0]]), 2)
    array([[4., 3.]], dtype=float32)
    """
    values = np.asarray(values, np.float32)
    if step == 1:
        return values
    n_rows, n_columns = values.shape[-2:]
    more = [(0, 0)] * (values.ndim - 2) + [(0, -n_rows % step), (0, -n_columns % step)]
    filled = np.pad(values, more, constant_values=np.nan)
    lead, (n_rows, n_columns) = filled.shape[:-2], filled.shape[-2:]
    cells = filled.reshape(*lead, n_rows // step, step, n_columns // step, step)
    return np.asarray(np.fmax.reduce(np.fmax.reduce(cells, axis=-1), axis=-2))
