"""All heads of all layers at a glance."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import holoviews as hv
import xarray as xr
from bokeh.events import Tap
from bokeh.layouts import row
from bokeh.models import ColorBar, ColumnDataSource, CustomJS, GlyphRenderer

from pattern_lens.errors import OutOfRangeError
from pattern_lens.heads import parse_heads
from pattern_lens.names import HEAD, KEY, LAYER, QUERY, TOKEN_COORDS, head_label
from pattern_lens.plots.bos import without_bos
from pattern_lens.plots.checks import as_mosaic
from pattern_lens.plots.colours import choose
from pattern_lens.plots.drawing import drawn, script
from pattern_lens.plots.heat_map import Look, heat_map, pooled, square
from pattern_lens.plots.labels import title_of
from pattern_lens.plots.mosaic import read_mosaic
from pattern_lens.plots.pattern import MARGIN, check_size, covered, quantity_of, sides, step_for
from pattern_lens.plots.plot import Plot

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

    from pattern_lens.heads import Head
    from pattern_lens.plots.colours import Limits
    from pattern_lens.plots.mosaic import Mosaic

_LARGE_SIZE: Final = 420
_ORANGE: Final = "#d55e00"


def plot_heads(
    patterns: xr.DataArray,
    *,
    large: str | Head | None = None,
    bos: bool = True,
    cmap: str | Colormap | None = None,
    clim: Limits | None = None,
    log: bool = False,
    size: int = 640,
) -> Plot:
    """All heads of all layers as one mosaic, and one of them large.

    Tap a tile to see it large; hover shows head, both tokens and the number. Both work in a saved page.

    Parameters
    ----------
    patterns
        Dims (layer, head, query, key), of one prompt: ``patterns[hash]``. A missing layer or head dim has size 1.
    large
        The head that is large at the start: ``"L1H0"`` or ``(1, 0)``; the first one if None.
    bos
        Whether the first key is shown; if not, each row is divided by what it gives to the others.
    cmap, clim, log
        As for `plot_pattern`; one scale for all tiles, so that heads can be compared.
    size
        Pixels of the longer side of the mosaic.

    Returns
    -------
    A plot; `.data` has the variable `pattern`, dims (layer, head, query, key), as fine as it is shown.

    Raises
    ------
    PlotTypeError, DimensionError, PlotError, UnknownColourMapError
        As `plot_pattern`.
    HeadSelectionError, OutOfRangeError
        `large` names no head that is there.

    Notes
    -----
    Read from the file one layer at a time. The mosaic is one glyph, in which no cell is smaller than a pixel: of longer prompts
    each cell is the largest of a block, which keeps thin lines visible, and the colour bar says so. A page also holds each
    head as it is shown large, in at most 4 million cells: of 144 heads, prompts up to 170 tokens whole. `.view`, live in a
    notebook, reads the head that is tapped from the file, and shows it as fine as the screen allows.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> pl.plot_heads(patterns[hash], large="L1H0").save("heads.html")  # doctest: +SKIP
    """
    array = as_mosaic(patterns, "plot_heads")
    check_size(size)
    place = _place(array, large)
    mosaic = read_mosaic(array, size=size, large=_LARGE_SIZE, bos=bos)
    colours = choose(mosaic.tiles, cmap=cmap, clim=clim, log=log)
    shape = square(mosaic.tiles.shape[:2], size)
    look = Look(title_of(array), quantity_of(array, mosaic.step * mosaic.coarse), colours, shape)
    tiles = mosaic.element(look)
    enlarged = partial(_enlarged, array, bos=bos, cmap=cmap, clim=clim, log=log)
    first = enlarged(*place)
    # an element of its own: what Python listens to cannot go into a page
    listened = mosaic.element(look)
    tapped = hv.streams.Tap(source=listened, x=place[1], y=place[0])
    live = hv.DynamicMap(lambda x, y: enlarged(round(y), round(x)), streams=[tapped])
    view = (listened + live).opts(shared_axes=False)
    extent = (shape.width + _LARGE_SIZE + 2 * MARGIN, max(shape.height, _LARGE_SIZE) + MARGIN)
    build = partial(_build, tiles, first, mosaic, place, quantity_of(array), fixed=clim is not None)
    return Plot(view, _data(mosaic, array), look.title, extent, build)


def _place(array: xr.DataArray, large: Any) -> tuple[int, int]:
    """Where a head is in the array."""
    if large is None:
        return 0, 0
    layers, heads = array[LAYER].values.tolist(), array[HEAD].values.tolist()
    layer, head = parse_heads(large, n_layers=max(layers) + 1, n_heads=max(heads) + 1)[0]
    if layer not in layers or head not in heads:
        raise OutOfRangeError(
            f"large={large!r}: {head_label(layer, head)} is not among the heads that are plotted"
        )
    return layers.index(layer), heads.index(head)


def _enlarged(array: xr.DataArray, layer: int, head: int, *, bos: bool, **options: Any) -> Any:
    """One head, as fine as it is stored."""
    layer = min(max(layer, 0), array.sizes[LAYER] - 1)
    head = min(max(head, 0), array.sizes[HEAD] - 1)
    one = array.isel({LAYER: layer, HEAD: head}).compute()
    shown = one if bos else without_bos(one)
    step = step_for(one.shape, _LARGE_SIZE)
    values = pooled(shown.values, step)
    look = Look(
        head_label(int(one[LAYER]), int(one[HEAD])),
        quantity_of(one, step),
        choose(values, **options),
        square(one.shape, _LARGE_SIZE),
    )
    return heat_map(values, *sides(one), look, extent=covered(values, step))


def _build(
    tiles: Any, large: Any, mosaic: Mosaic, place: tuple[int, int], quantity: str, *, fixed: bool
) -> Any:
    overview, detail = drawn(tiles), drawn(large)
    image = detail.select_one(GlyphRenderer)
    stack = ColumnDataSource({"image": [mosaic.tiles.reshape(-1, mosaic.tiles.shape[-1])]})
    box = ColumnDataSource({"x": [place[1]], "y": [place[0]]})
    overview.rect("x", "y", 1, 1, source=box, fill_color=None, line_color=_ORANGE, line_width=3)
    args = {
        "mosaic": mosaic.geometry(),
        "stack": stack,
        "large": image.data_source,
        "mapper": image.glyph.color_mapper,
        "title": detail.title,
        "bar": detail.select_one(ColorBar),
        "quantity": quantity,
        "box": box,
        "fixed": fixed,
    }
    overview.js_on_event(Tap, CustomJS(args=args, code=script("enlarge")))
    return row(overview, detail)


def _data(mosaic: Mosaic, array: xr.DataArray) -> xr.Dataset:
    thin = slice(None, None, mosaic.step)
    coords = {
        name: array.coords[name].isel(
            {dim: thin for dim in array.coords[name].dims if dim in TOKEN_COORDS}
        )
        for name in (*array.dims, *TOKEN_COORDS.values())
        if name in array.coords
    }
    return xr.Dataset({"pattern": ((LAYER, HEAD, QUERY, KEY), mosaic.tiles)}, coords)
