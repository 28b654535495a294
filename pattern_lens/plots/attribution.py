"""What each part of the stream adds to a logit: bars, and of heads a map beside them.

The rule: what is not drawn is said, so that the numbers of a plot sum to the logit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from bokeh.layouts import row

from pattern_lens.errors import DimensionError, PlotError, PlotTypeError
from pattern_lens.names import COMPONENT, HEAD, LAYER, NEURON, PROMPT
from pattern_lens.plots.bars import Bars, bar_chart
from pattern_lens.plots.colours import choose
from pattern_lens.plots.drawing import drawn
from pattern_lens.plots.heat_map import Look, square
from pattern_lens.plots.labels import plain, title_of
from pattern_lens.plots.pattern import MARGIN, check_size
from pattern_lens.plots.plot import Plot
from pattern_lens.plots.score_map import map_sides, score_map
from pattern_lens.residual.readings import Attribution
from pattern_lens.wording import counted

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

    from pattern_lens.plots.colours import Colours, Limits

MOST_BARS: Final = 200
_PARTS: Final = {"component": "components", "head": "heads", "neuron": "neurons"}
_GAP: Final = 15


@dataclass(frozen=True, eq=False)
class Summed:
    """An attribution over its prompts and positions.

    Parameters
    ----------
    parts
        `attribution`, `std`, `least` and `largest` of each component of the unit, dims (component).
    words
        What sums to what, in lines.
    n_over
        How many numbers each mean is of.
    """

    parts: xr.Dataset
    words: str
    n_over: int


def plot_attribution(
    attribution: Attribution,
    *,
    n: int = 15,
    title: str | None = None,
    cmap: str | Colormap | None = None,
    clim: Limits | None = None,
    size: int = 400,
) -> Plot:
    """Bars of the parts that add most to a logit, or take most away; of heads a layer x head map beside them.

    Of several prompts or positions a bar is the mean, and the line across its end one standard deviation to both sides. Hover
    shows the exact numbers. The title says how all parts sum to the logit, and the closure error.

    Parameters
    ----------
    attribution
        What ``pl.open_run(path).direct_logit_attribution(...)`` gives, with any unit but ``layer``.
    n
        Number of bars, the largest by amount first.
    title
        First line of the title, such as ``"' Mary' - ' John'"``; model and text of the prompt if None.
    cmap, clim
        As for `plot_pattern`; 0 has the middle of the map.
    size
        Pixels of the longer side of the map, or of the width of the bars where there is none.

    Returns
    -------
    A plot; `.data` has `attribution`, `std`, `least` and `largest` of every component, dims (component), largest amount first.

    Raises
    ------
    PlotTypeError
        Not an `Attribution`.
    DimensionError
        Its components are streams, which do not add up: `plot_accumulated` shows these.
    PlotError, UnknownColourMapError
        No number to show, `n` or `size` that make no sense, limits or a colour map that are none.

    Notes
    -----
    The remainder, which no head or neuron wrote, is often larger than all of these, and is in the title instead of a bar.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> found = run.direct_logit_attribution(None, " Mary", " John", unit="head")  # doctest: +SKIP
    >>> pl.plot_attribution(found).save("heads.html")  # doctest: +SKIP
    """
    _check(attribution)
    check_size(size)
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= MOST_BARS:
        raise PlotError(f"n={n!r}: expected a number of bars, from 1 to {MOST_BARS}")
    found = _summed(attribution, int(n))
    first = plain(title) if title is not None else _title(attribution)
    colours = choose(found.parts["attribution"].values, cmap=cmap, clim=clim, centred=True)
    bars = _bars(found, int(n), colours)
    if attribution.unit != "head":
        chart = bar_chart(bars, f"{first}\n{found.words}", size)
        extent = (size + MARGIN, bars.height + MARGIN)
        return Plot(chart, found.parts, first, extent, partial(drawn, chart))
    return _with_map(found, bars, colours, first, size)


def _with_map(found: Summed, bars: Bars, colours: Colours, title: str, size: int) -> Plot:
    grid = _grid(found.parts["attribution"])
    look = Look(title, bars.quantity, colours, square(grid.shape, size))
    image = score_map(np.asarray(grid.values, np.float32), *map_sides(grid), look)
    chart = bar_chart(bars, found.words, size)
    extent = (look.shape.width + size + 2 * MARGIN, max(look.shape.height, bars.height) + MARGIN)
    view = (image + chart).opts(shared_axes=False)
    return Plot(view, found.parts, title, extent, partial(_build, image, chart))


def _build(image: Any, chart: Any) -> Any:
    figures = [drawn(image), drawn(chart)]
    for figure in figures:
        figure.frame_align = False  # titles of different height would cut off what is below the map
    return row(figures, spacing=_GAP)


def _check(attribution: Any) -> None:
    if not isinstance(attribution, Attribution):
        raise PlotTypeError(
            f"plot_attribution cannot plot a {type(attribution).__name__}: expected an Attribution, as "
            "pl.open_run(path).direct_logit_attribution(...) gives it"
        )
    if attribution.unit not in _PARTS:
        raise DimensionError(
            f"plot_attribution shows parts that add up, and those of unit={attribution.unit!r} are whole streams: "
            "pl.plot_accumulated shows these"
        )
    if not attribution.scores.size:
        raise PlotError("plot_attribution has nothing to plot: there are no numbers in it")


def _summed(attribution: Attribution, n: int) -> Summed:
    scores = attribution.scores.compute().astype(np.float64)
    over = [dim for dim in scores.dims if dim != COMPONENT]
    known = scores.dropna(COMPONENT, how="all") if over else scores
    found = {
        "attribution": known.mean(over),
        "std": known.std(over),
        "least": known.min(over),
        "largest": known.max(over),
    }
    others = [name for name, c in scores.coords.items() if c.dims != (COMPONENT,)]
    whole = xr.Dataset(
        {name: array.drop_vars(others, errors="ignore") for name, array in found.items()}
    )
    is_part = _is_part(whole, attribution.unit)
    parts = whole.isel({COMPONENT: is_part})
    order = np.argsort(-np.abs(parts["attribution"].values), kind="stable")
    parts = parts.isel({COMPONENT: order})
    n_over = int(np.isfinite(scores.values).any(scores.dims.index(COMPONENT)).sum())
    rest = float(whole["attribution"].values[~is_part].sum())
    return Summed(parts, _words(attribution, parts, rest, n), n_over)


def _is_part(whole: xr.Dataset, unit: str) -> Any:
    """Which components are of the unit; the remainder is not."""
    dim = {"head": HEAD, "neuron": NEURON}.get(unit)
    if dim is None or dim not in whole.coords:
        return np.ones(whole.sizes[COMPONENT], bool)
    return whole[dim].values >= 0


def _words(attribution: Attribution, parts: xr.Dataset, rest: float, n: int) -> str:
    """How everything sums to the logit, in lines."""
    values = parts["attribution"].values
    kind = _PARTS[attribution.unit]
    cap = " before the soft cap" if attribution.softcap else ""
    mean = "mean " if attribution.scores.ndim > 1 else ""
    shown = [f"{values[:n].sum():.3g} ({min(n, len(values))} {kind} shown)"]
    if len(values) > n:
        shown.append(f"{values[n:].sum():.3g} ({len(values) - n} others)")
    if attribution.unit != "component":
        shown.append(f"{rest:.3g} (remainder)")
    shown.append(f"{float(attribution.unembed_bias.mean()):.3g} (b_U)")
    total = float(attribution.logit.mean())
    lines = [f"{mean}logit{cap} {total:.3g}", "= " + " + ".join(shown[:2])]
    lines += ["+ " + " + ".join(shown[2:])] if shown[2:] else []
    return "\n".join([*lines, closure_words(attribution)])


def closure_words(attribution: Attribution) -> str:
    """The largest closure error, as a title says it."""
    errors = np.asarray(attribution.closure_error.values, np.float64)
    known = errors[np.isfinite(errors)]
    if not known.size:
        return "closure error not known"
    return f"closure error {'at most ' if known.size > 1 else ''}{known.max():.1e}"


def _title(attribution: Attribution) -> str:
    return title_of(attribution.scores, *over_words(attribution.scores), f"by {attribution.unit}")


def over_words(array: xr.DataArray) -> list[str]:
    """Of how many prompts an array is, where it is of several."""
    return [counted(array.sizes[PROMPT], "prompt")] if PROMPT in array.dims else []


def _bars(found: Summed, n: int, colours: Colours) -> Bars:
    shown = found.parts.isel({COMPONENT: slice(n)})
    labels = [str(label) for label in shown[COMPONENT].values]
    spread = shown["std"].values if found.n_over > 1 else None
    more = None
    if spread is not None:
        numbers = zip(
            shown["std"].values, shown["least"].values, shown["largest"].values, strict=True
        )
        more = [f"std {std:.3g}, {low:.3g} to {high:.3g}" for std, low, high in numbers]
    quantity = "logit" if found.n_over == 1 else "mean logit"
    return Bars(labels, shown["attribution"].values, quantity, colours, spread, more)


def _grid(means: xr.DataArray) -> xr.DataArray:
    """Components that are heads as dims (layer, head)."""
    layers, rows = np.unique(means[LAYER].values, return_inverse=True)
    heads, columns = np.unique(means[HEAD].values, return_inverse=True)
    values = np.full((len(layers), len(heads)), np.nan)
    values[rows, columns] = means.values
    return xr.DataArray(values, {LAYER: layers, HEAD: heads}, (LAYER, HEAD))
