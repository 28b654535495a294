"""Matrices as images, with the names and signatures of pattern-lens 0.6."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, TypeAlias, get_args, overload

import numpy as np
from numpy.typing import NDArray

from pattern_lens.errors import FigureFormatError, FigureFunctionError
from pattern_lens.figures.colours import Scale, real_matrix
from pattern_lens.figures.encode import check_rgb, gzipped, image_png, matrix_png, matrix_svg
from pattern_lens.figures.saver import as_saver
from pattern_lens.figures.signature import name_of

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from numpy.typing import ArrayLike

    from pattern_lens.figures.saver import FilesFunction

MatrixSaveFormat: TypeAlias = Literal["png", "svg", "svgz"]
AttentionMatrix: TypeAlias = NDArray[np.floating[Any]]
Matrix2D: TypeAlias = NDArray[np.generic]
Matrix2Drgb: TypeAlias = NDArray[np.uint8]
AttentionMatrixToMatrixFunc: TypeAlias = Callable[[AttentionMatrix], Matrix2D]

MATRIX_SAVE_NORMALIZE: Final = False
MATRIX_SAVE_CMAP: Final = "viridis"
MATRIX_SAVE_FMT: Final = "svgz"
_FORMATS: Final = get_args(MatrixSaveFormat)


def matrix_to_image_preprocess(
    matrix: ArrayLike,
    normalize: bool = False,  # noqa: FBT001, FBT002 - the predecessor's signature
    cmap: str | Colormap = MATRIX_SAVE_CMAP,
    diverging_colormap: bool = False,  # noqa: FBT001, FBT002
    normalize_min: float | None = None,
) -> Matrix2Drgb:
    """Colours of a matrix.

    Parameters
    ----------
    matrix
        Real numbers, dims (row, column).
    normalize
        Stretch the values over the whole map. If not, they have to lie in [0, 1], or in [-1, 1]
        for a diverging map.
    cmap
        Colour map of matplotlib, or its name.
    diverging_colormap
        Whether 0 has the middle of the map.
    normalize_min
        Value that gets the map's first colour, instead of the smallest; generally 0.

    Returns
    -------
    Dims (row, column, channel), uint8. A matrix of one value has the middle colour if normalized. What is
    not finite has the map's colour for bad values, or light grey.

    Raises
    ------
    MatrixError
        Not two dims, empty, values out of range, or options that exclude each other.
    MatrixTypeError
        No real numbers, or no colour map.
    UnknownColourMapError
        A name that no map has.

    Examples
    --------
    >>> matrix_to_image_preprocess([[0.0, 0.5, 1.0]], cmap="gray")[..., 0].tolist()
    [[0, 128, 255]]
    """
    return Scale(normalize, cmap, diverging_colormap, normalize_min).coloured(matrix)


def matrix2drgb_to_png_bytes(matrix: Matrix2Drgb, buffer: BinaryIO | None = None) -> bytes | None:
    """PNG file of an image, uint8, dims (row, column, channel).

    Returns
    -------
    The bytes; None if they were written to `buffer`.
    """
    data = image_png(check_rgb(matrix))
    if buffer is None:
        return data
    buffer.write(data)
    return None


def matrix_as_svg(
    matrix: ArrayLike,
    normalize: bool = False,  # noqa: FBT001, FBT002
    cmap: str | Colormap = MATRIX_SAVE_CMAP,
    diverging_colormap: bool = False,  # noqa: FBT001, FBT002
    normalize_min: float | None = None,
) -> str:
    """A matrix as SVG text, as wide as it has columns; parameters as `matrix_to_image_preprocess`."""
    scale = Scale(normalize, cmap, diverging_colormap, normalize_min)
    return matrix_svg(real_matrix(matrix), scale)


@overload
def save_matrix_wrapper(
    func: Callable[..., Any],
    *,
    fmt: MatrixSaveFormat = ...,
    normalize: bool = ...,
    cmap: str | Colormap = ...,
    diverging_colormap: bool = ...,
    normalize_min: float | None = ...,
) -> FilesFunction: ...
@overload
def save_matrix_wrapper(
    func: None = None,
    *,
    fmt: MatrixSaveFormat = ...,
    normalize: bool = ...,
    cmap: str | Colormap = ...,
    diverging_colormap: bool = ...,
    normalize_min: float | None = ...,
) -> Callable[[Callable[..., Any]], FilesFunction]: ...
def save_matrix_wrapper(
    func: Callable[..., Any] | None = None,
    *args: Any,
    fmt: MatrixSaveFormat = MATRIX_SAVE_FMT,
    normalize: bool = MATRIX_SAVE_NORMALIZE,
    cmap: str | Colormap = MATRIX_SAVE_CMAP,
    diverging_colormap: bool = False,
    normalize_min: float | None = None,
) -> FilesFunction | Callable[[Callable[..., Any]], FilesFunction]:
    """Decorate a function that turns a pattern's matrix into another one, to save that as an image.

    Parameters
    ----------
    func
        Takes the attention matrix, gives a matrix. The file is called ``{func.__name__}.{fmt}``.
    fmt
        ``png``, ``svg`` or ``svgz``.
    normalize, cmap, diverging_colormap, normalize_min
        As in `matrix_to_image_preprocess`.

    Returns
    -------
    A function ``f(attn_matrix, save_dir)``; or a decorator, if `func` is left out.

    Raises
    ------
    FigureFunctionError
        Positional arguments other than the function.
    FigureFormatError
        Another format.
    """
    if args or not (func is None or callable(func)):
        raise FigureFunctionError(
            "This decorator only supports keyword arguments, such as @save_matrix_wrapper(fmt='png')"
        )
    if fmt not in _FORMATS:
        raise FigureFormatError(f"Invalid format fmt = {fmt!r}, must be one of {_FORMATS}")
    scale = Scale(normalize, cmap, diverging_colormap, normalize_min)
    if func is None:
        return lambda function: _saving(function, fmt, scale)
    return _saving(func, fmt, scale)


def _saving(function: Callable[..., Any], fmt: str, scale: Scale) -> FilesFunction:
    file_name = f"{name_of(function)}.{fmt}"

    def draw(matrix: NDArray[Any]) -> list[tuple[str, bytes]]:
        return [(file_name, matrix_file(real_matrix(function(matrix)), fmt, scale))]

    options = {
        "normalize": scale.normalize,
        "cmap": scale.cmap if isinstance(scale.cmap, str) else getattr(scale.cmap, "name", "?"),
        "diverging_colormap": scale.diverging_colormap,
        "normalize_min": scale.normalize_min,
    }
    return as_saver(function, draw, fmt, options)


def matrix_file(matrix: NDArray[Any], fmt: str, scale: Scale) -> bytes:
    """A matrix as the bytes of a png, svg or svgz file."""
    if fmt == "png":
        return matrix_png(matrix, scale)
    svg = matrix_svg(matrix, scale).encode("ascii")
    return svg if fmt == "svg" else gzipped(svg, is_compressed=True)
