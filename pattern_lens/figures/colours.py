"""Numbers -> colours.

The rules: 0 has the middle of a diverging map, whether values are normalized or not; a matrix of one
value has the middle of any map it is normalized to; what is not finite has the absent colour, which is
the map's own colour for bad values if it has one, and light grey if not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pattern_lens.errors import MatrixError, MatrixTypeError, UnknownColourMapError

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from numpy.typing import ArrayLike, NDArray

ABSENT: Final = (204, 204, 204)
"""Colour of what is no finite number."""

_MIDDLE: Final = 0.5
_ROUNDING: Final = 1e-5  # a product of float32 probabilities may exceed 1 by this


class Palette(NamedTuple):
    """Colours of a map in order, dims (colour, channel), and that of what is not a number."""

    colours: NDArray[np.uint8]
    absent: NDArray[np.uint8]


class Indexed(NamedTuple):
    """A matrix as indexes into a palette's colours; `absent` says which are none, if any are."""

    indexes: NDArray[np.int32]
    absent: NDArray[np.bool_] | None


@dataclass(frozen=True, eq=False)
class Scale:
    """How numbers become colours.

    Parameters
    ----------
    normalize
        Stretch the values over the whole map. If not, they have to lie in [0, 1], or in [-1, 1]
        for a diverging map.
    cmap
        Colour map of matplotlib, or its name.
    diverging_colormap
        Whether 0 has the middle of the map.
    normalize_min
        Value that gets the map's first colour, instead of the smallest; generally 0.

    Raises
    ------
    MatrixError
        `normalize_min` together with `diverging_colormap`, or without `normalize`.
    """

    normalize: bool = False
    cmap: str | Colormap = "viridis"
    diverging_colormap: bool = False
    normalize_min: float | None = None

    def __post_init__(self) -> None:
        if self.normalize_min is None:
            return
        if self.diverging_colormap:
            raise MatrixError("normalize_min cannot be used with diverging_colormap=True")
        if not self.normalize:
            raise MatrixError("normalize_min cannot be used with normalize=False")

    @cached_property
    def palette(self) -> Palette:
        """Colours of the map; looked up once, when they are first asked for."""
        return palette(self.cmap)

    def indexed(self, matrix: ArrayLike) -> Indexed:
        """Index of each value's colour."""
        places = self.places(matrix)
        n = len(self.palette.colours)
        absent = np.isnan(places) if np.isnan(places.min()) else None
        if absent is not None:
            places = np.where(absent, 0, places)
        indexes = np.minimum((places * n).astype(np.int32), n - 1)
        return Indexed(indexes, absent)

    def coloured(self, matrix: ArrayLike) -> NDArray[np.uint8]:
        """Colours, dims (row, column, channel), uint8."""
        indexes, absent = self.indexed(matrix)
        image = self.palette.colours.take(indexes, axis=0)
        if absent is not None:
            image[absent] = self.palette.absent
        return image

    def places(self, matrix: ArrayLike) -> NDArray[np.floating[Any]]:
        """Where on the map each value lies, in [0, 1]; NaN for what is not finite."""
        values = real_matrix(matrix)
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low) or not np.isfinite(high):
            known = np.isfinite(values)
            if not known.any():
                return np.full(values.shape, np.nan)
            values = np.where(known, values, np.nan)
            low, high = float(np.nanmin(values)), float(np.nanmax(values))
        if not self.normalize:
            return self._checked(values, low, high)
        if self.diverging_colormap:
            largest = max(-low, high)
            return _stretched(values, -largest, largest)
        return _stretched(values, self._first(low, high), high)

    def _checked(
        self, values: NDArray[np.floating[Any]], low: float, high: float
    ) -> NDArray[np.floating[Any]]:
        first = -1 if self.diverging_colormap else 0
        if low < first - _ROUNDING or high > 1 + _ROUNDING:
            start = (
                "For diverging colormaps without normalization, matrix values must be in range [-1, 1]"
                if self.diverging_colormap
                else "Matrix values must be in range [0, 1], or normalize must be True"
            )
            raise MatrixError(f"{start}; got [{low:g}, {high:g}]")
        return np.asarray(np.clip(_stretched(values, first, 1), 0, 1))

    def _first(self, low: float, high: float) -> float:
        first = self.normalize_min
        if first is None:
            return low
        if first > high or (first == high and low < high):
            raise MatrixError(f"normalize_min must be less than matrix max: {first:g}, {high:g}")
        if first > low:
            raise MatrixError(
                f"normalize_min must be less than matrix min, or equal to it: {first:g}, {low:g}"
            )
        return float(first)


def real_matrix(matrix: ArrayLike) -> NDArray[np.floating[Any]]:
    """Two-dimensional, not empty, float32 or float64.

    Raises
    ------
    MatrixTypeError
        Not real numbers.
    MatrixError
        Not two dims, or nothing in them.
    """
    values = np.asarray(matrix)
    if values.dtype.kind not in "fiub":
        raise MatrixTypeError(
            f"cannot draw a matrix of dtype {values.dtype}: expected real numbers"
        )
    if values.ndim != 2:
        raise MatrixError(f"Matrix must be 2D, got shape {values.shape}")
    if values.size == 0:
        raise MatrixError(f"Matrix cannot be empty, got shape {values.shape}")
    if values.dtype in (np.float32, np.float64):
        return values
    return values.astype(np.float32 if values.dtype == np.float16 else np.float64)


def palette(cmap: str | Colormap) -> Palette:
    """Colours of a map.

    Raises
    ------
    UnknownColourMapError
        A name that matplotlib does not know.
    MatrixTypeError
        Neither a name nor a map.
    """
    import matplotlib as mpl
    from matplotlib.colors import Colormap

    if isinstance(cmap, str):
        try:
            cmap = mpl.colormaps[cmap]
        except KeyError as error:
            raise UnknownColourMapError(str(error.args[0])) from error
    if not isinstance(cmap, Colormap):
        raise MatrixTypeError(
            f"Invalid type for cmap = {cmap!r}: expected a name or a matplotlib Colormap, got {type(cmap).__name__}"
        )
    colours = _bytes(cmap(np.arange(cmap.N)))[:, :3]
    bad = _bytes(cmap(np.nan))
    return Palette(colours, bad[:3] if bad[3] else np.array(ABSENT, np.uint8))


def _bytes(colours: Any) -> NDArray[np.uint8]:
    return (np.asarray(colours) * 255).astype(np.uint8)


def _stretched(
    values: NDArray[np.floating[Any]], low: float, high: float
) -> NDArray[np.floating[Any]]:
    """`values` with `low` at 0 and `high` at 1; in the middle if these are one."""
    if high == low:
        return np.where(np.isnan(values), values, values.dtype.type(_MIDDLE))
    span = high - low
    if span > float(np.finfo(values.dtype).max):
        values, low, span = values.astype(np.float64) / 4, low / 4, high / 4 - low / 4
    return (values - low) / span
