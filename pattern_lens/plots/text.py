"""The prompt's text, with a head's attention from one of its tokens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import holoviews as hv
import numpy as np
import pandas as pd
from bokeh.core.properties import value
from bokeh.layouts import column, row
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    CustomJSHover,
    GlyphRenderer,
    HoverTool,
    Quad,
    RadioButtonGroup,
    Text,
    Toggle,
)

from pattern_lens.errors import DimensionError, OutOfRangeError, PlotError, UnknownTokensError
from pattern_lens.names import KEY, POS, QUERY
from pattern_lens.plots.bos import without_bos
from pattern_lens.plots.checks import as_pattern
from pattern_lens.plots.colours import choose
from pattern_lens.plots.drawing import drawn, ready, script
from pattern_lens.plots.heat_map import plain_name
from pattern_lens.plots.labels import head_of, labels_along, plain, title_of, tokens_along
from pattern_lens.plots.lines import place
from pattern_lens.plots.pattern import check_size, quantity_of
from pattern_lens.plots.plot import Plot

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.colors import Colormap

    from pattern_lens.plots.colours import Colours

Direction = Literal["keys", "queries"]

MOST_TOKENS: Final = 2048
"""A page holds the whole pattern, so longer prompts are refused."""

_MONOSPACE: Final = "DejaVu Sans Mono, Menlo, Consolas, monospace"
_LETTER: Final = 8.43  # width of a letter of 14 pixels in such fonts
_LINE: Final = 27
_HALF: Final = 0.42
_LEAST_HEIGHT: Final = 130  # of the colour bar
_BAR: Final = {
    "width": 12,
    "height": 110,
    "bar_line_color": None,
    "title_text_font_style": "normal",
    "title_standoff": 8,
}
_INK: Final = "#222222"
_EDGE: Final = "#e4e4e4"
_DARK_FROM: Final = 0.55


def plot_tokens(
    pattern: xr.DataArray,
    *,
    token: int = -1,
    direction: Direction = "keys",
    bos: bool = True,
    cmap: str | Colormap = "Blues",
    size: int = 860,
) -> Plot:
    """The prompt's text, each token coloured by a head's attention from a chosen one.

    Hover previews another token, click locks it, click again unlocks it. Buttons turn the direction, and leave out the first
    key. All of it works in a saved page.

    Parameters
    ----------
    pattern
        Dims (query, key), of one head and one whole prompt: ``patterns.sel(head="L3H5")[hash]``; with its tokens.
    token
        Place of the token that is chosen at the start; negative counts from the end.
    direction
        What is coloured: the ``"keys"`` that the token looks at, or the ``"queries"`` that look at it.
    bos
        Whether the first key is there at the start; if not, each row is divided by what it gives to the others.
    cmap
        Colour map of matplotlib, or its name; the largest number has the last colour.
    size
        Pixels of a line of text.

    Returns
    -------
    A plot; `.data` has `pattern`, dims (query, key), and `attention`, dims (pos), of the chosen token.

    Raises
    ------
    PlotTypeError, DimensionError, PlotError
        Not an array of one head, queries and keys are not the same positions, or more than 2,048 tokens.
    UnknownTokensError
        The array does not say its tokens.
    OutOfRangeError
        No such token.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> pl.plot_tokens(patterns.sel(head="L1H0")[hash], token=12).save("text.html")  # doctest: +SKIP
    """
    array = as_pattern(pattern, "plot_tokens")
    check_size(size)
    _check_square(array)
    tokens = _tokens(array)
    token = _position(token, len(tokens))
    if direction not in ("keys", "queries"):
        raise PlotError(f"direction={direction!r}: expected 'keys' or 'queries'")
    array = array.compute()
    shown = array if bos else without_bos(array)
    chosen = shown.isel({QUERY: token} if direction == "keys" else {KEY: token}).values
    labels = labels_along(array, KEY)
    colours = choose(chosen if np.isfinite(chosen).any() else np.zeros(1), cmap=cmap)
    table = _table(tokens, labels, chosen, token, colours, round(size / _LETTER))
    title = _title(array, labels, chosen, token, direction)
    view = _element(table, colours, quantity_of(array), title, size)
    data = shown.to_dataset(name="pattern")
    data["attention"] = (POS, np.asarray(chosen, np.float32))
    extent = (size + 130, max(_LEAST_HEIGHT, _LINE * (int(table.line.max()) + 1)) + 130)
    build = partial(_build, view, array, token, direction, bos=bos, key=labels[0])
    return Plot(view, data, title_of(array), extent, build)


def _check_square(array: xr.DataArray) -> None:
    n_queries, n_keys = array.sizes[QUERY], array.sizes[KEY]
    if n_queries != n_keys or not np.array_equal(array[QUERY].values, array[KEY].values):
        raise DimensionError(
            f"plot_tokens needs the same positions as queries and as keys, got {n_queries} queries and "
            f"{n_keys} keys: give the whole pattern, or cut both alike"
        )
    if n_keys > MOST_TOKENS:
        raise PlotError(
            f"plot_tokens shows up to {MOST_TOKENS:,} tokens, got {n_keys:,}: "
            "cut both dims with .isel(query=slice(2048), key=slice(2048))"
        )


def _tokens(array: xr.DataArray) -> list[str]:
    tokens = tokens_along(array, KEY)
    if tokens is None:
        raise UnknownTokensError(
            "plot_tokens needs a coordinate key_token along key: arrays of pl.open_patterns(path) have it"
        )
    return tokens


def _position(token: Any, n: int) -> int:
    if not hasattr(token, "__index__") or isinstance(token, bool):
        raise PlotError(f"token={token!r}: expected the place of a token, an integer")
    if not -n <= token < n:
        raise OutOfRangeError(f"token={token} is out of range: the prompt has {n} tokens")
    return int(token) % n


def _table(
    tokens: list[str], labels: list[str], values: Any, token: int, colours: Colours, n_letters: int
) -> pd.DataFrame:
    """One row a token: where it is, and how it looks."""
    placed = place(tokens, max(8, n_letters))
    chosen = np.arange(len(tokens)) == token
    is_dark = np.nan_to_num(values) > _DARK_FROM * colours.high
    return pd.DataFrame(
        {
            "left": placed.left,
            "top": placed.line - _HALF,
            "right": placed.right,
            "bottom": placed.line + _HALF,
            "middle": (placed.left + placed.right) / 2,
            "line": placed.line,
            "text": placed.texts,
            "label": labels,
            "value": np.asarray(values, np.float32),
            "edge": np.where(chosen, _INK, _EDGE),
            "edge_width": np.where(chosen, 2.5, 1.0),
            "ink": np.where(is_dark, "#ffffff", _INK),
        }
    )


def _title(
    array: xr.DataArray, labels: list[str], values: Any, token: int, direction: Direction
) -> str:
    said, at = ("looks at", "at") if direction == "keys" else ("is looked at by", "by")
    most = ""
    if np.isfinite(values).any() and np.nanmax(values) > 0:
        best = int(np.nanargmax(values))
        most = f", most {at} {labels[best]} ({values[best]:.3g})"
    head = head_of(array)
    return plain(f"{head + ' · ' if head else ''}{labels[token]} {said}{most}")


def _element(table: pd.DataFrame, colours: Colours, quantity: str, title: str, size: int) -> Any:
    """HoloViews rectangles with text in them."""
    ready()
    corners = ["left", "top", "right", "bottom"]
    styles = ["value", "edge", "edge_width"]
    boxes = hv.Rectangles(table[corners + styles], corners, styles).opts(
        color="value",
        line_color="edge",
        line_width="edge_width",
        cmap=list(colours.colours),
        clim=(colours.low, colours.high),
        clipping_colors={"NaN": "white"},
        colorbar=True,
        clabel=quantity,
        colorbar_opts=_BAR,
        backend="bokeh",
    )
    texts = hv.Labels(table[["middle", "line", "text", "ink"]], ["middle", "line"], ["text", "ink"])
    texts = texts.opts(text_color="ink", text_font_size="14px", backend="bokeh")
    n_lines = int(table.line.max()) + 1
    return (boxes * texts).opts(
        title=title,
        frame_width=size,
        frame_height=max(_LEAST_HEIGHT, _LINE * n_lines),
        xlim=(-0.5, size / _LETTER + 0.5),
        ylim=(-0.6, max(_LEAST_HEIGHT / _LINE, n_lines) - 0.4),
        invert_yaxis=True,
        xaxis=None,
        yaxis=None,
        toolbar=None,
        default_tools=[],
        show_frame=False,
        fontsize={"title": "13px"},
        hooks=[partial(_dress, table=table, quantity=quantity)],
        backend="bokeh",
    )


def _dress(plot: Any, _: Any, *, table: pd.DataFrame, quantity: str) -> None:
    figure = plot.state
    figure.title.text_font_style = "normal"
    figure.outline_line_color = None
    glyphs = _glyphs(figure)
    if Quad not in glyphs or figure.select({"type": HoverTool}):
        return
    # HoloViews sends what it draws; the scripts also need to know which token it is
    glyphs[Quad].data_source.add(table.label.to_list(), "label")
    glyphs[Quad].data_source.add(table.line.to_numpy(), "line")
    glyphs[Text].glyph.update(
        text_font=value(_MONOSPACE), text_align="center", text_baseline="middle"
    )
    tips = [("token", "@label"), (plain_name(quantity), "@color{custom}")]
    exact = {"@color": CustomJSHover(code=script("exact"))}
    figure.add_tools(HoverTool(renderers=[glyphs[Quad]], tooltips=tips, formatters=exact))


def _glyphs(figure: Any) -> dict[type, Any]:
    return {type(r.glyph): r for r in figure.select({"type": GlyphRenderer})}


def _build(
    view: Any, array: xr.DataArray, token: int, direction: Direction, *, bos: bool, key: str
) -> Any:
    figure = drawn(view)
    glyphs = _glyphs(figure)
    boxes, texts = glyphs[Quad], glyphs[Text]
    whole = np.asarray(array.values, np.float32)
    state = {"token": token, "locked": -1}
    pattern = ColumnDataSource({"image": [whole]}, tags=[state])
    ways = ["looks at: keys", "is looked at by: queries"]
    way = RadioButtonGroup(labels=ways, active=0 if direction == "keys" else 1, height=30)
    leave = Toggle(label=f"leave out key {key}", active=not bos, button_type="light", height=30)
    head = head_of(array)
    args = {
        "boxes": boxes.data_source,
        "texts": texts.data_source,
        "mapper": boxes.glyph.fill_color.transform,
        "pattern": pattern,
        "way": way,
        "leave": leave,
        "title": figure.title,
        "head": f"{head} · " if head else "",
    }
    attend = CustomJS(args=args, code=script("attend"))
    for event in ("mousemove", "tap"):
        figure.js_on_event(event, attend)
    for button in (way, leave):
        button.js_on_change("active", attend)
    return column(row(way, leave), figure)
