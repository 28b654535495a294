"""Pixels -> bytes of image files.

The rule: fast and always the same. Matrix images are drawn by the thousand, so they are PNG with a
palette, one byte a pixel, without a search for repetitions: against RGB through Pillow a thirtieth of the
time and half the size, for 198 tokens. Nothing here writes a time into a file.
"""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from pattern_lens.errors import MatrixError, MatrixTypeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pattern_lens.figures.colours import Scale

SVG_TEMPLATE: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
    'viewBox="0 0 {width} {height}" image-rendering="pixelated"> '
    '<image href="data:image/png;base64,{png}" width="{width}" height="{height}" /> </svg>'
)

_GZIP: Final = 16 + zlib.MAX_WBITS  # the container; its time stays 0
_PALETTE_SIZE: Final = 256


def matrix_png(matrix: NDArray[np.generic], scale: Scale) -> bytes:
    """A matrix as a PNG file, one pixel a number."""
    indexes, absent = scale.indexed(matrix)
    colours = scale.palette.colours
    if absent is not None:
        indexes = np.where(absent, np.int32(len(colours)), indexes)
        colours = np.vstack([colours, scale.palette.absent])
    if len(colours) > _PALETTE_SIZE:
        return image_png(scale.coloured(matrix))
    return palette_png(indexes.astype(np.uint8, copy=False), colours)


def palette_png(indexes: NDArray[np.uint8], colours: NDArray[np.uint8]) -> bytes:
    """A PNG file of indexes, dims (row, column), into at most 256 colours, dims (colour, 3)."""
    height, width = indexes.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = indexes
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    pixels = deflate.compress(rows.data) + deflate.flush()
    parts = (
        (b"IHDR", header),
        (b"PLTE", colours.tobytes()),
        (b"IDAT", pixels),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checked = kind + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))


def image_png(image: NDArray[np.uint8]) -> bytes:
    """A PNG file of an image, uint8, dims (row, column) in grey or (row, column, 3 or 4)."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def check_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Raise unless an image is uint8 with dims (row, column, 3).

    Raises
    ------
    MatrixTypeError
        Another dtype.
    MatrixError
        Another shape, or an empty one.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise MatrixTypeError(f"cannot write an image of dtype {image.dtype}: expected uint8")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise MatrixError(f"cannot write an image of shape {image.shape}: expected (n, m, 3)")
    return image


def matrix_svg(matrix: NDArray[np.generic], scale: Scale) -> str:
    """A matrix as SVG text around a PNG file; as wide as it has columns."""
    height, width = np.shape(matrix)
    png = base64.b64encode(matrix_png(matrix, scale)).decode("ascii")
    return SVG_TEMPLATE.format(width=width, height=height, png=png)


def gzipped(data: bytes, *, is_compressed: bool = False) -> bytes:
    """Gzip file of some bytes; `is_compressed`: they hold base64, so there is nothing to look for."""
    level, strategy = (1, zlib.Z_HUFFMAN_ONLY) if is_compressed else (6, zlib.Z_DEFAULT_STRATEGY)
    deflate = zlib.compressobj(level, zlib.DEFLATED, _GZIP, 9, strategy)
    return deflate.compress(data) + deflate.flush()
