"""Heat map of one head's pattern."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from bokeh.layouts import column, row
from bokeh.models import CustomJS, GlyphRenderer, Toggle

from pattern_lens.errors import PlotError
from pattern_lens.names import KEY, QUERY
from pattern_lens.plots.bos import has_bos, without_bos
from pattern_lens.plots.checks import as_pattern
from pattern_lens.plots.colours import choose
from pattern_lens.plots.drawing import drawn, script
from pattern_lens.plots.heat_map import Look, Side, heat_map, pooled, square
from pattern_lens.plots.labels import labels_along, title_of
from pattern_lens.plots.plot import Plot

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from matplotlib.colors import Colormap

    from pattern_lens.plots.colours import Limits

LEAST_SIZE: Final = 560
MOST_SIZE: Final = 1100
"""Pixels of a pattern whose size is not given: a pixel a cell between these."""

MARGIN: Final = 230
"""Pixels beside the axes: labels, colour bar, buttons."""


def plot_pattern(
    pattern: xr.DataArray,
    *,
    bos: bool = True,
    cmap: str | Colormap | None = None,
    clim: Limits | None = None,
    log: bool = False,
    size: int | None = None,
) -> Plot:
    """Heat map of one head's pattern: queries downwards, keys to the right.

    Hover shows both tokens and the exact value. A button leaves out the first key, which is the BOS where there is one, and
    renormalises the rows; it works in a saved page too.

    Parameters
    ----------
    pattern
        Dims (query, key), of one head and one prompt: ``patterns.sel(head="L3H5")[hash]``. Other dims of size 1 are
        dropped. Numbers below 0, as in `attn_scores`, get a diverging map.
    bos
        Whether the first key is there at the start; if not, each row is divided by what it gives to the others.
    cmap
        Colour map of matplotlib, or its name.
    clim
        Numbers with the first and the last colour; otherwise 0 and the largest number.
    log
        Logarithmic colours; 0 has the first one.
    size
        Pixels of the longer side of what is inside the axes; if None, 560, or as many as there are tokens up to 1,100.

    Returns
    -------
    A plot; `.data` has the variable `pattern`, dims (query, key).

    Raises
    ------
    PlotTypeError, DimensionError, PlotError
        Not an array of one head, nothing in it, or limits that are none.
    UnknownColourMapError
        No such colour map.

    Notes
    -----
    The values are read from the file here, and only they. No cell is smaller than a pixel, because a screen would leave some
    out: of more tokens than `size`, the largest of each block is drawn, and the colour bar says so. `.data` has every one.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> pl.plot_pattern(patterns.sel(head="L1H0")[hash]).save("induction.html")  # doctest: +SKIP
    """
    array = as_pattern(pattern, "plot_pattern").compute()
    size = size_for(array.shape, size, LEAST_SIZE, MOST_SIZE)
    shown = array if bos else without_bos(array)
    step = step_for(array.shape, size)
    values = pooled(shown.values, step)
    rows, columns = sides(array)
    quantity = quantity_of(array, step)
    colours = choose(values, cmap=cmap, clim=clim, log=log)
    look = Look(title_of(array), quantity, colours, square(array.shape, size))
    image = heat_map(values, rows, columns, look, extent=covered(values, step))
    first = pooled(array.values, step) if has_bos(array) and array.min() >= 0 else None
    build = partial(_build, image, columns.labels[0], first, bos=bos, fixed=clim is not None)
    extent = (look.shape.width + MARGIN, look.shape.height + MARGIN)
    return Plot(image, shown.to_dataset(name="pattern"), look.title, extent, build)


def _build(image: Any, key: str, values: Any, *, bos: bool, fixed: bool) -> Any:
    figure = drawn(image)
    if values is None:
        return figure
    source = figure.select_one(GlyphRenderer).data_source
    mapper = figure.select_one(GlyphRenderer).glyph.color_mapper
    if not bos:
        source.data["whole"] = [values]
    button = Toggle(
        label=f"leave out key {key}", active=not bos, button_type="light", width=220, height=30
    )
    args = {"source": source, "mapper": mapper, "fixed": fixed, "axis": figure.xaxis[0]}
    button.js_on_change("active", CustomJS(args=args, code=script("bos")))
    return column(row(button), figure)


def sides(array: xr.DataArray) -> tuple[Side, Side]:
    """Labels of the queries and of the keys."""
    return Side("query", labels_along(array, QUERY)), Side("key", labels_along(array, KEY))


def quantity_of(array: xr.DataArray, step: int = 1) -> str:
    """What the numbers are, for the colour bar."""
    units = str(array.attrs.get("units", ""))
    name = "attention" if units == "probability" else str(array.name or "value")
    shown = f"{name} ({units})" if units else name
    return shown if step == 1 else f"{shown}, largest of {step}x{step}"


def covered(values: Any, step: int) -> tuple[float, float]:
    """Queries and keys that a matrix covers, the last block's missing ones included."""
    return step * values.shape[0], step * values.shape[1]


def step_for(sizes: Sequence[int], size: int) -> int:
    """Side of the blocks of which the largest is drawn, so that none is smaller than a pixel."""
    return max(1, -(-max(sizes) // size))


def size_for(sizes: Sequence[int], size: int | None, least: int, most: int) -> int:
    """Pixels of the longer side: what is given, or a pixel a cell within limits."""
    if size is None:
        return max(least, min(most, max(sizes)))
    check_size(size)
    return size


def check_size(size: Any) -> None:
    """Raise PlotError unless a number of pixels makes sense."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 50 <= size <= 10_000:
        raise PlotError(f"size={size!r}: expected a number of pixels, from 50 to 10,000")
