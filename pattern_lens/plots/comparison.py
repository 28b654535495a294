"""Two patterns, mosaics or maps of scores, and their difference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import holoviews as hv
import numpy as np
import xarray as xr
from bokeh.layouts import row
from bokeh.models import CrosshairTool, Span

from pattern_lens.errors import PlotError
from pattern_lens.names import HEAD, KEY, LAYER, PROMPT, QUERY
from pattern_lens.plots.bos import without_bos
from pattern_lens.plots.checks import as_array, as_mosaic, as_pattern, as_scores
from pattern_lens.plots.colours import choose
from pattern_lens.plots.drawing import drawn
from pattern_lens.plots.heat_map import Look, Side, heat_map, pooled, square
from pattern_lens.plots.labels import head_of, isolated, labels_along, plain, short, text_of
from pattern_lens.plots.mosaic import Mosaic, step_of
from pattern_lens.plots.pattern import covered, quantity_of, size_for, step_for
from pattern_lens.plots.plot import Plot
from pattern_lens.plots.score_map import map_sides, score_map

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

    from pattern_lens.plots.colours import Limits

_LEAST_SIZE: Final = 340
_MOST_SIZE: Final = 700
_BESIDE: Final = 330
_BELOW: Final = 230


@dataclass(frozen=True, eq=False)
class Pair:
    """Two matrices of one shape, their difference, and how such a matrix is drawn."""

    dims: tuple[str, ...]
    values: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
    quantity: str
    shape: tuple[int, int]
    element: Callable[[NDArray[Any], Look], Any]


def compare(
    a: xr.DataArray,
    b: xr.DataArray,
    *,
    names: tuple[str, str] | None = None,
    bos: bool = True,
    cmap: str | Colormap | None = None,
    diff_cmap: str | Colormap | None = None,
    clim: Limits | None = None,
    log: bool = False,
    size: int | None = None,
) -> Plot:
    """Two models, prompts or runs side by side, and `a` minus `b`.

    Zoom and cross-hair are shared, hover shows both labels and the exact number in all three. The difference has a
    diverging map with 0 in its middle.

    Parameters
    ----------
    a, b
        Both patterns of one head, dims (query, key); of many heads, dims (layer, head, query, key); or scores, dims (layer, head)
        or (prompt, layer, head), of which the mean over prompts is shown. Of one size along each dim; they are compared by
        place, and where tokens, layers or heads differ a label shows both.
    names
        What the two are called; if None, what differs between them: model, head or prompt.
    bos
        Whether the first key is shown; if not, each row is divided by what it gives to the others.
    cmap, clim, log
        As for `plot_pattern`, for `a` and `b`, which share one scale.
    diff_cmap
        Colour map of the difference.
    size
        Pixels of the longer side of each; if None, 340, or as many as there are tokens up to 700. No cell is smaller than a
        pixel: of more, the largest of each block is shown, and the colour bar says so.

    Returns
    -------
    A plot; `.data` has the variables `a`, `b` and `difference`.

    Raises
    ------
    PlotTypeError, DimensionError
        Not labelled arrays, or not both of one of these kinds.
    PlotError
        Sizes differ (the message says which), or there is nothing in them.
    UnknownColourMapError
        No such colour map.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> pl.compare(patterns.sel(head="L1H0")[hash], patterns.sel(head="L1H5")[hash])  # doctest: +SKIP
    """
    check = _kind_of(a, b)
    a, b = check(a, "compare"), check(b, "compare")
    size = size_for(a.shape if check is as_pattern else (0,), size, _LEAST_SIZE, _MOST_SIZE)
    _check_sizes(a, b)
    called = _names(a, b) if names is None else _given(names)
    pair = _PAIRS[check](a, b, size=size, bos=bos)
    both = np.concatenate([pair.values[0].ravel(), pair.values[1].ravel()])
    colours = choose(both, cmap=cmap, clim=clim, log=log)
    differing = choose(pair.values[2], cmap=diff_cmap, centred=True)
    shape = square(pair.shape, size)
    looks = [
        Look(plain(called[0]), pair.quantity, colours, shape, colorbar=False),
        Look(plain(called[1]), pair.quantity, colours, shape),
        Look("difference", "first minus second", differing, shape),
    ]
    parts = [pair.element(v, look) for v, look in zip(pair.values, looks, strict=True)]
    title = plain(f"{called[0]} and {called[1]}")
    data = xr.Dataset(
        {n: (pair.dims, v) for n, v in zip(("a", "b", "difference"), pair.values, strict=True)}
    )
    extent = (3 * shape.width + _BESIDE + 90, shape.height + _BELOW)
    return Plot(hv.Layout(parts).cols(3), data, title, extent, partial(_build, parts))


def _kind_of(a: Any, b: Any) -> Callable[[Any, str], xr.DataArray]:
    arrays = [as_array(a, "compare"), as_array(b, "compare")]
    if all(QUERY not in array.dims for array in arrays):
        return as_scores
    counts = [[n for d, n in array.sizes.items() if d not in (QUERY, KEY)] for array in arrays]
    return as_pattern if all(n == 1 for ns in counts for n in ns) else as_mosaic


def _check_sizes(a: xr.DataArray, b: xr.DataArray) -> None:
    differing = [d for d in a.dims if d != PROMPT and a.sizes[d] != b.sizes.get(d)]
    if differing:
        words = ", ".join(f"{d} {a.sizes[d]} and {b.sizes.get(d)}" for d in differing)
        cut = ", ".join(f"{d}=slice({min(a.sizes[d], b.sizes.get(d, 0))})" for d in differing)
        raise PlotError(
            f"cannot compare arrays of different sizes: {words}; "
            f"give patterns of one size, or cut both with .isel({cut})"
        )


def _given(names: Any) -> tuple[str, str]:
    if isinstance(names, str) or len(names) != 2 or not all(isinstance(n, str) for n in names):
        raise PlotError(f"names={names!r}: expected two strings, one for each array")
    return (names[0], names[1])


def _names(a: xr.DataArray, b: xr.DataArray) -> tuple[str, str]:
    """What differs between the two, of model, head and prompt; a and b if nothing does."""

    def facts(array: xr.DataArray) -> list[str]:
        text = isolated(short(text_of(array), 28))
        named = [str(array.attrs.get("model", "")), head_of(array), text]
        return [*named, str(array.name or "")]

    pairs = list(zip(facts(a), facts(b), strict=True))
    differing = [pair for pair in pairs if pair[0] != pair[1] and all(pair)] or [("a", "b")]
    first, second = (" · ".join(pair[i] for pair in differing) for i in (0, 1))
    return first, second


def _both(a: Sequence[str], b: Sequence[str]) -> list[str]:
    return [x if x == y else f"{x} | {y}" for x, y in zip(a, b, strict=True)]


def _side(a: xr.DataArray, b: xr.DataArray, dim: str) -> Side:
    return Side(dim, _both(labels_along(a, dim), labels_along(b, dim)))


def _pair_of_patterns(a: xr.DataArray, b: xr.DataArray, *, size: int, bos: bool) -> Pair:
    step = step_for(a.shape, size)
    rows, columns = _side(a, b, QUERY), _side(a, b, KEY)
    values = _pooled_pair(a, b, step, bos=bos)

    def element(values: NDArray[Any], look: Look) -> Any:
        return heat_map(values, rows, columns, look, extent=covered(values, step))

    return Pair((QUERY, KEY), values, quantity_of(a, step), (len(rows), len(columns)), element)


def _pair_of_mosaics(a: xr.DataArray, b: xr.DataArray, *, size: int, bos: bool) -> Pair:
    step = step_of(a, size)
    layers = [
        _pooled_pair(a.isel({LAYER: i}), b.isel({LAYER: i}), step, bos=bos)
        for i in range(a.sizes[LAYER])
    ]
    first, second, difference = (np.stack(each) for each in zip(*layers, strict=True))
    numbers = [
        _both([str(n) for n in a[d].values], [str(n) for n in b[d].values]) for d in (LAYER, HEAD)
    ]

    def element(values: NDArray[Any], look: Look) -> Any:
        tokens = _side(a, b, QUERY), _side(a, b, KEY)
        return Mosaic(values, numbers[0], numbers[1], *tokens, step).element(look)

    dims = (LAYER, HEAD, QUERY, KEY)
    shape = (a.sizes[LAYER], a.sizes[HEAD])
    return Pair(dims, (first, second, difference), quantity_of(a, step), shape, element)


def _pooled_pair(a: xr.DataArray, b: xr.DataArray, step: int, *, bos: bool) -> Any:
    a, b = a.compute(), b.compute()
    if not bos:
        a, b = without_bos(a), without_bos(b)
    first, second = np.asarray(a.values, np.float32), np.asarray(b.values, np.float32)
    with np.errstate(invalid="ignore"):  # masked scores: infinity minus infinity
        difference = first - second
    most, least = pooled(difference, step), -pooled(-difference, step)
    return (
        pooled(first, step),
        pooled(second, step),
        np.where(np.abs(least) > np.abs(most), least, most),
    )


def _pair_of_scores(a: xr.DataArray, b: xr.DataArray, *, size: int, bos: bool) -> Pair:
    del size, bos  # scores are of whole patterns
    means = [array.mean(PROMPT) if PROMPT in array.dims else array for array in (a, b)]
    first, second = (np.asarray(mean.values, np.float32) for mean in means)
    sides = [
        Side(x.name, _both(x.labels, y.labels))
        for x, y in zip(map_sides(means[0]), map_sides(means[1]), strict=True)
    ]

    def element(values: NDArray[Any], look: Look) -> Any:
        return score_map(values, sides[0], sides[1], look)

    quantity = "mean over prompts" if PROMPT in a.dims else str(a.name or "score")
    return Pair((LAYER, HEAD), (first, second, first - second), quantity, first.shape, element)


_PAIRS: Final[dict[Callable[[Any, str], xr.DataArray], Callable[..., Pair]]] = {
    as_pattern: _pair_of_patterns,
    as_mosaic: _pair_of_mosaics,
    as_scores: _pair_of_scores,
}


def _build(parts: list[Any]) -> Any:
    figures = [drawn(part) for part in parts]
    down, across = (
        Span(dimension=d, line_color="#888888", line_dash="dotted") for d in ("height", "width")
    )
    for figure in figures:
        figure.x_range, figure.y_range = figures[0].x_range, figures[0].y_range
        figure.add_tools(CrosshairTool(overlay=[across, down]))
    for figure in figures[1:]:
        figure.yaxis.visible = False
    return row(*figures, spacing=16)
