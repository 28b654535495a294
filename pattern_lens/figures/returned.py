"""What a function of the labelled kind returned -> products.

The rule that tells numbers from images: **a labelled array is numbers, a bare array is an image**. So
numbers are returned as a number or an `xarray.DataArray`; images as a NumPy array, grey levels
(row, column) or colours (row, column, 3 or 4), uint8 or floats in [0, 1]. A dict holds several of
these under names.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import FigureKindError, FigureShapeError, MatrixError
from pattern_lens.figures.encode import image_png
from pattern_lens.figures.products import Image, Picture, Values
from pattern_lens.figures.signature import check_figure_names
from pattern_lens.names import HEAD, LAYER, PROMPT

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

_CELL: Final = (PROMPT, LAYER, HEAD)
_EXPECTED: Final = (
    "expected a number, an xarray.DataArray, an image as a numpy array, a matplotlib figure, "
    "pattern_lens.figures.Image(data, format), or a dict of these"
)
_HINTS: Final = {
    "NoneType": "return what it made, or take a folder as second argument and write files",
    "bytes": "say their format: return Image(data, 'png')",
    "str": "return Image(text.encode(), 'svg')",
    "list": "return an xarray.DataArray(values, dims=...) or a dict",
    "tuple": "return a dict to name several figures",
    "Tensor": "return an xarray.DataArray(tensor.numpy(force=True), dims=...)",
    "Series": "return its .to_xarray()",
    "DataFrame": "return its .to_xarray().to_dataarray()",
}


def returned(name: str, value: Any, fmt: str) -> list[Picture | Values]:
    """Products of a value that a figure function returned.

    Parameters
    ----------
    name
        Figure name.
    fmt
        Format of matplotlib figures.

    Raises
    ------
    FigureKindError
        Nothing of what can be kept.
    FigureShapeError
        An array of a shape that is no image's, or with dims that the collection of heads has.
    MatrixError
        An image with values out of range.
    """
    if isinstance(value, Mapping):
        if not value:
            raise FigureKindError(f"returned an empty {type(value).__name__}: {_EXPECTED}")
        check_figure_names(value)
        return [_one(f"{name}.{key}", item, fmt) for key, item in value.items()]
    return [_one(name, value, fmt)]


def _one(name: str, value: Any, fmt: str) -> Picture | Values:
    import xarray as xr

    if isinstance(value, Image):
        if not value.data:
            raise FigureKindError(f"returned an image for {name!r} without anything in it")
        return Picture(name, value.format, value.data)
    if isinstance(value, xr.DataArray):
        return Values(name, _numbers(name, value))
    if isinstance(value, np.ndarray) and value.ndim:
        return Picture(name, "png", image_png(_pixels(name, value)))
    if isinstance(value, numbers.Real | np.generic | np.ndarray):
        return Values(name, _numbers(name, xr.DataArray(_scalar(value))))
    figure = _figure(value)
    if figure is None:
        kind = type(value).__name__
        hint = f"; {_HINTS[kind]}" if kind in _HINTS else ""
        raise FigureKindError(f"returned {kind} for figure {name!r}: {_EXPECTED}{hint}")
    return Picture(name, fmt, _drawn(figure, fmt))


def _scalar(value: Any) -> Any:
    is_plain = isinstance(value, bool | int | float | np.generic | np.ndarray)
    return value if is_plain else float(value)


def _numbers(name: str, values: xr.DataArray) -> xr.DataArray:
    if values.dtype.kind not in "fiub":
        raise FigureKindError(
            f"returned an array of dtype {values.dtype} for {name!r}: expected real numbers"
        )
    taken = [dim for dim in values.dims if dim in _CELL or not isinstance(dim, str)]
    if taken:
        raise FigureShapeError(
            f"returned dims {values.dims} for {name!r}: {', '.join(map(repr, taken))} cannot be a dim of one head's "
            "result; rename it"
        )
    return values.compute().drop_vars(_CELL, errors="ignore")


def _pixels(name: str, image: NDArray[Any]) -> NDArray[np.uint8]:
    is_grey, is_coloured = image.ndim == 2, image.ndim == 3 and image.shape[-1] in (3, 4)
    if not (is_grey or is_coloured) or not image.size:
        raise FigureShapeError(
            f"returned a numpy array of shape {image.shape} for {name!r}: an image has shape (n, m), (n, m, 3) or "
            "(n, m, 4); for numbers return an xarray.DataArray(values, dims=...)"
        )
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "fb":
        raise FigureKindError(
            f"returned a numpy array of dtype {image.dtype} for {name!r}: an image is uint8, or floats in [0, 1]; "
            "for numbers return an xarray.DataArray(values, dims=...)"
        )
    if not (image.min() >= 0 and image.max() <= 1):  # false for NaN too
        raise MatrixError(
            f"returned an image for {name!r} with values in [{image.min():g}, {image.max():g}], expected [0, 1]; for "
            "numbers return an xarray.DataArray, or colour them with matrix_to_image_preprocess(normalize=True)"
        )
    return np.rint(image * 255.0).astype(np.uint8)


def _figure(value: Any) -> Any:
    """The matplotlib figure of a figure or of axes; None for anything else."""
    matplotlib = sys.modules.get("matplotlib.figure")
    if matplotlib is None:
        return None  # who has no matplotlib has no figure
    if isinstance(value, matplotlib.Figure):
        return value
    from matplotlib.axes import Axes

    return value.get_figure(root=True) if isinstance(value, Axes) else None


def _drawn(figure: Any, fmt: str) -> bytes:
    from pattern_lens.figures.canvases import figure_bytes
    from pattern_lens.figures.pyplot_use import close

    try:
        return figure_bytes(figure, fmt)
    finally:
        close(figure)
