"""What each stream would say next: a table of streams and positions, each cell its most probable token.

The rule: what a cell leaves out, the rest of a token and the tokens behind the first, is on hover.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import holoviews as hv
import numpy as np
import xarray as xr
from bokeh.core.properties import value
from bokeh.models import CustomJSHover, GlyphRenderer, HoverTool, Quad, Text

from pattern_lens.errors import DimensionError, PlotError, PlotTypeError
from pattern_lens.names import COMPONENT, POS, PROMPT, RANK
from pattern_lens.plots.attribution import over_words
from pattern_lens.plots.colours import choose
from pattern_lens.plots.drawing import drawn, ready, script
from pattern_lens.plots.labels import (
    isolated,
    labels_along,
    plain,
    short,
    title_of,
    tokens_along,
)
from pattern_lens.plots.lens_table import LETTERS, NAMES, Table, boxes, cells, said_at, texts
from pattern_lens.plots.pattern import check_size
from pattern_lens.plots.plot import Plot
from pattern_lens.wording import visible

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

    from pattern_lens.plots.colours import Colours, Limits

Quantity = Literal["top_probability", "answer_probability", "answer_rank", "kl_to_final"]

MOST_CELLS: Final = 12_000
"""Cells of a table; a page with more is slow to open."""

_SAID: Final = {
    "top_probability": "probability of the token shown",
    "answer_probability": "probability of the answer",
    "answer_rank": "rank of the answer, plus 1",
    "kl_to_final": "KL to the last stream (bits)",
}
_ON_HOVER: Final = {
    "answer_probability": "answer",
    "answer_rank": "its rank",
    "kl_to_final": "KL, bits",
}
_CELL: Final = (74, 22)
_MONOSPACE: Final = "DejaVu Sans Mono, Menlo, Consolas, monospace"
_ORDINALS: Final = {1: "1st", 2: "2nd", 3: "3rd"}


def plot_logit_lens(
    lens: xr.Dataset,
    *,
    colour: Quantity = "top_probability",
    title: str | None = None,
    cmap: str | Colormap | None = None,
    clim: Limits | None = None,
    size: int = 1000,
) -> Plot:
    """Table of what each stream would say next: the most probable token as text, a number as colour.

    Streams go down, positions to the right; a long prompt is broken into blocks. Hover shows the top tokens with their
    probabilities, and of an answer its probability and rank.

    Parameters
    ----------
    lens
        What ``pl.open_run(path).logit_lens(prompt=hash)`` gives: dims (component, pos, rank). With one position there is one
        column, and of several prompts one for each.
    colour
        What the colours show: ``top_probability`` of the token in the cell, ``answer_probability``, ``answer_rank`` (plus
        1, on a logarithmic scale), or ``kl_to_final``.
    title
        Instead of model and text of the prompt.
    cmap, clim
        As for `plot_pattern`.
    size
        Pixels of a line of the table.

    Returns
    -------
    A plot; `.data` is the lens with dims (component, pos or prompt, rank), in memory.

    Raises
    ------
    PlotTypeError
        Not what the logit lens of one prompt gives.
    DimensionError
        Several positions of several prompts.
    PlotError, UnknownColourMapError
        No such number in the lens, no cell, more than 12,000, or limits, a size or a colour map that are none.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> lens = run.logit_lens(prompt=hash, answer_tokens=" Mary")  # doctest: +SKIP
    >>> pl.plot_logit_lens(lens, colour="answer_rank").save("lens.html")  # doctest: +SKIP
    """
    found = _as_lens(lens)
    check_size(size)
    if colour not in get_args(Quantity):
        raise PlotError(
            f"colour={colour!r}: expected one of {', '.join(map(repr, get_args(Quantity)))}"
        )
    if colour not in found:
        raise PlotError(
            f"colour={colour!r} needs an answer: logit_lens(..., answer_tokens=' Mary') takes one"
        )
    table = _table(found, colour, size)
    log = colour == "answer_rank"
    default = "Blues_r" if log else "Blues"
    colours = choose(table.numbers, cmap=cmap or default, clim=clim, log=log)
    first = plain(title) if title is not None else _title(found)
    view = _element(table, colours, _SAID[colour], first)
    width, height = _pixels(table)
    return Plot(view, found, first, (width + 130, height + 110), partial(drawn, view))


def _as_lens(lens: Any) -> xr.Dataset:
    """A lens in memory, dims (component, pos or prompt, rank)."""
    if not isinstance(lens, xr.Dataset) or "top_id" not in lens:
        hint = {"LogitLens": "; lens[hash] is the Dataset of one prompt"}.get(
            type(lens).__name__, ""
        )
        raise PlotTypeError(
            f"plot_logit_lens cannot plot a {type(lens).__name__}: expected the Dataset that "
            f"pl.open_run(path).logit_lens(prompt=hash) gives{hint}"
        )
    columns = [str(dim) for dim in lens["top_id"].dims if dim not in (COMPONENT, RANK)]
    if len(columns) > 1 or COMPONENT not in lens["top_id"].dims:
        raise DimensionError(
            f"plot_logit_lens shows one prompt, or one position of several, and the lens has dims "
            f"({', '.join(map(str, lens['top_id'].dims))}): choose with .isel(prompt=0) or .isel(pos=-1)"
        )
    if not columns:
        lens = lens.expand_dims(POS)
        columns = [POS]
    dim = columns[0]
    if dim not in lens.coords:
        lens = lens.assign_coords({dim: np.arange(lens.sizes[dim])})
    _check_cells(lens.sizes[COMPONENT], lens.sizes[dim], dim)
    ordered: xr.Dataset = lens.transpose(COMPONENT, dim, RANK, ...).compute()
    return ordered


def _check_cells(n_streams: int, n_columns: int, dim: str) -> None:
    if not n_streams * n_columns:
        raise PlotError(f"plot_logit_lens has nothing to plot: there is no {dim}")
    most = MOST_CELLS // n_streams
    if n_columns > most:
        raise PlotError(
            f"plot_logit_lens shows up to {MOST_CELLS:,} cells, which are {most:,} columns of {n_streams} streams, got "
            f"{n_columns:,}: cut with .isel({dim}=slice(-{most}, None))"
        )


def _title(lens: xr.Dataset) -> str:
    array = lens["top_id"].assign_attrs(lens.attrs)
    return title_of(array, *over_words(array))


def _table(lens: xr.Dataset, colour: str, size: int) -> Table:
    dim = str(lens["top_id"].dims[1])
    numbers = lens[colour].isel({RANK: 0}) if RANK in lens[colour].dims else lens[colour]
    values = np.asarray(numbers.transpose(COMPONENT, dim).values, np.float64)
    if colour == "answer_rank":
        values = values + 1  # the most probable has rank 0
    labels, headers = _labels(lens["top_id"], dim)
    n_columns = max(1, min(len(labels), int(size / _CELL[0] - NAMES)))
    streams = [str(one) for one in lens[COMPONENT].values]
    return Table(lens, values, streams, labels, headers, n_columns)


def _labels(array: xr.DataArray, dim: str) -> tuple[list[str], list[str]]:
    """Of each position its index and token, or each prompt's hash; whole, and as long as a cell."""
    if dim == PROMPT:
        hashes = [visible(str(one)) for one in array[PROMPT].values]
        return hashes, [short(one, LETTERS) for one in hashes]
    if "token" in array.coords and not array["token"].dims:  # of the one position that was chosen
        array = array.assign_coords(token=(POS, [array["token"].item()]))
    tokens = tokens_along(array, POS)
    numbers = [f"{number}: " if tokens else str(number) for number in array[POS].values]
    texts_of = map(visible, tokens or [""] * len(numbers))
    rows = zip(numbers, texts_of, strict=True)
    headers = [number + isolated(short(text, LETTERS - len(number))) for number, text in rows]
    return labels_along(array, POS), headers


def _pixels(table: Table) -> tuple[int, int]:
    return round((table.n_columns + NAMES) * _CELL[0]), table.height * _CELL[1]


def _element(table: Table, colours: Colours, quantity: str, title: str) -> Any:
    ready()
    rectangles = hv.Rectangles(
        boxes(table, colours), ["left", "top", "right", "bottom"], ["value"]
    ).opts(
        color="value",
        line_color="#e4e4e4",
        cmap=list(colours.colours),
        clim=(colours.low, colours.high),
        logz=colours.log,
        clipping_colors={"NaN": "white"},
        colorbar=True,
        clabel=quantity,
        colorbar_opts={"width": 12, "bar_line_color": None, "title_text_font_style": "normal"},
        backend="bokeh",
    )
    words = hv.Labels(texts(table, colours), ["x", "y"], ["text", "ink"])
    words = words.opts(text_color="ink", text_font_size="11px", backend="bokeh")
    width, height = _pixels(table)
    fits = 6 * len(quantity) < height
    return (rectangles * words).opts(
        hv.opts.Rectangles(clabel=quantity if fits else "", backend="bokeh"),
        hv.opts.Overlay(
            title=title if fits else f"{title}\ncolour: {quantity}",
            frame_width=width,
            frame_height=max(height, 90),
            xlim=(-NAMES - 0.5, table.n_columns - 0.5),
            ylim=(-1.6, max(table.height, 90 / _CELL[1]) - 1.4),
            invert_yaxis=True,
            xaxis=None,
            yaxis=None,
            default_tools=["save"],
            toolbar="above",
            show_frame=False,
            fontsize={"title": "13px"},
            hooks=[partial(_dress, table=table)],
            backend="bokeh",
        ),
    )


def _dress(plot: Any, _: Any, *, table: Table) -> None:
    figure = plot.state
    glyphs = {type(r.glyph): r for r in figure.select({"type": GlyphRenderer})}
    if Quad not in glyphs or figure.select({"type": HoverTool}):
        return
    figure.title.text_font_style = "normal"
    figure.outline_line_color = None
    figure.toolbar.logo = None
    glyphs[Text].glyph.update(
        text_font=value(_MONOSPACE), text_align="center", text_baseline="middle"
    )
    _add_hover(figure, glyphs[Quad], table)


def _add_hover(figure: Any, quads: Any, table: Table) -> None:
    source, (rows, columns) = quads.data_source, cells(table)
    source.add([table.streams[row] for row in rows], "stream")
    source.add([table.labels[column] for column in columns], "at")
    tips = [("stream", "@stream"), ("at", "@at")]
    for rank in range(table.lens.sizes[RANK]):
        source.add(said_at(table, rank), f"top_{rank}")
        tips.append((_ORDINALS.get(rank + 1, f"{rank + 1}th"), f"@top_{rank}"))
    formatters = {}
    for name in filter(table.lens.__contains__, _ON_HOVER):
        source.add(np.asarray(table.lens[name].values.ravel(), np.float32), name)
        tips.append((_ON_HOVER[name], f"@{name}{{custom}}"))
        formatters[f"@{name}"] = CustomJSHover(code=script("exact"))
    figure.add_tools(HoverTool(renderers=[quads], tooltips=tips, formatters=formatters))
