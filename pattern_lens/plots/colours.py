"""Numbers -> colours: which map, and which numbers have its ends.

The rules: 0 has the middle of a diverging map; numbers of both signs get a diverging map; maps are fit for
colour-blind readers unless one is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import PlotError, UnknownColourMapError
from pattern_lens.figures.colours import palette

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

Limits = tuple[float, float]

SEQUENTIAL: Final = "viridis"
DIVERGING: Final = "RdBu_r"
_LOG_SPAN: Final = 1e-4


@dataclass(frozen=True)
class Colours:
    """Colours in order, and the numbers of the first and the last.

    Parameters
    ----------
    colours
        As ``#rrggbb``.
    low, high
        Numbers at the ends; `low` is above 0 if `log`.
    """

    colours: tuple[str, ...]
    low: float
    high: float
    log: bool = False

    def options(self) -> dict[str, Any]:
        """Options of a HoloViews image."""
        return {"cmap": list(self.colours), "clim": (self.low, self.high), "logz": self.log}


def choose(
    values: NDArray[Any],
    *,
    cmap: str | Colormap | None = None,
    clim: Limits | None = None,
    log: bool = False,
    centred: bool | None = None,
) -> Colours:
    """Colours for some values; what is not finite is left out of account.

    Parameters
    ----------
    centred
        Whether 0 has the middle; None: where there are numbers below it.

    Raises
    ------
    PlotError
        Limits that are none, a logarithm of what is below 0, or nothing but NaN.
    UnknownColourMapError, MatrixTypeError
        No such colour map.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise PlotError("nothing to plot: there is no finite number in the array")
    is_signed = bool(finite.min() < 0) if centred is None else centred
    low, high = _limits(finite, clim, is_signed=is_signed)
    if log:
        low = _log_start(finite, low, high, given=clim is not None)
    name = cmap if cmap is not None else DIVERGING if is_signed else SEQUENTIAL
    return Colours(_hex(name), low, high, log)


def _limits(finite: NDArray[Any], clim: Limits | None, *, is_signed: bool) -> Limits:
    if clim is not None:
        low, high = _checked(clim)
    elif is_signed:
        high = float(np.abs(finite).max())
        low = -high
    else:
        low, high = min(0.0, float(finite.min())), float(finite.max())
    return (low, high) if low < high else (low, low + 1.0)


def _checked(clim: Any) -> Limits:
    try:
        low, high = map(float, clim)
    except (TypeError, ValueError):
        raise PlotError(
            f"clim={clim!r}: expected two numbers, the lowest and the highest"
        ) from None
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise PlotError(f"clim={clim!r}: expected two finite numbers, the lower one first")
    return low, high


def _log_start(finite: NDArray[Any], low: float, high: float, *, given: bool) -> float:
    if finite.min() < 0:
        raise PlotError("log=True needs numbers from 0 on, and some are below 0; leave log out")
    if given and low <= 0:
        raise PlotError(f"clim=({low:g}, {high:g}) with log=True: the lowest must be above 0")
    if given:
        return low
    above = finite[finite > 0]
    return (
        max(float(above.min()), high * _LOG_SPAN) * (1 - 1e-6) if above.size else high * _LOG_SPAN
    )


def _hex(cmap: str | Colormap) -> tuple[str, ...]:
    try:
        colours = palette(cmap).colours.tolist()
    except UnknownColourMapError:
        raise UnknownColourMapError(
            f"no colour map {cmap!r}: list(matplotlib.colormaps) names them, for example 'cividis'"
        ) from None
    return tuple(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours)
