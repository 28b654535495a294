"""Files of matrices: read back with Pillow, against the colours."""

import base64
import gzip
import io
import re

import numpy as np
import pytest
from matplotlib.colors import ListedColormap
from PIL import Image

from pattern_lens.errors import (
    FigureFormatError,
    FigureFunctionError,
    MatrixError,
    MatrixTypeError,
)
from pattern_lens.figures import (
    matrix2drgb_to_png_bytes,
    matrix_as_svg,
    matrix_to_image_preprocess,
    produce,
    save_matrix_wrapper,
)

RNG = np.random.default_rng(3)
WIDE = RNG.random((3, 7))


def pixels(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    image.load()
    return np.asarray(image.convert("RGB"))


def embedded(svg: str) -> np.ndarray:
    (png,) = re.findall('href="data:image/png;base64,([^"]+)"', svg)
    return pixels(base64.b64decode(png))


def test_a_png_holds_the_image():
    image = RNG.integers(0, 256, (4, 3, 3), np.uint8)
    np.testing.assert_array_equal(pixels(matrix2drgb_to_png_bytes(image)), image)


def test_a_png_in_a_buffer():
    image, buffer = RNG.integers(0, 256, (4, 3, 3), np.uint8), io.BytesIO()
    assert matrix2drgb_to_png_bytes(image, buffer) is None
    np.testing.assert_array_equal(pixels(buffer.getvalue()), image)


def test_what_is_no_image():
    with pytest.raises(MatrixError, match=r"image of shape \(4, 3\): expected \(n, m, 3\)"):
        matrix2drgb_to_png_bytes(np.zeros((4, 3), np.uint8))
    with pytest.raises(MatrixTypeError, match="image of dtype float64: expected uint8"):
        matrix2drgb_to_png_bytes(np.zeros((4, 3, 3)))


def test_svg_is_as_wide_as_the_matrix_has_columns():
    svg = matrix_as_svg(WIDE)
    assert svg.startswith("<svg")
    assert svg.endswith("</svg>")
    assert 'width="7" height="3" viewBox="0 0 7 3"' in svg
    np.testing.assert_array_equal(embedded(svg), matrix_to_image_preprocess(WIDE))


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (41, 23), (257, 259)])
def test_the_image_of_any_shape(shape):
    matrix = RNG.random(shape)
    np.testing.assert_array_equal(
        embedded(matrix_as_svg(matrix, cmap="Blues")),
        matrix_to_image_preprocess(matrix, cmap="Blues"),
    )


GREY_300 = ListedColormap(np.linspace(0, 1, 300)[:, np.newaxis].repeat(3, axis=1))
PALETTES = ["viridis", "tab10", GREY_300, GREY_300.resampled(255)]


@pytest.mark.parametrize("cmap", PALETTES, ids=["256", "10", "300", "255"])
@pytest.mark.parametrize("has_nan", [False, True])
def test_the_image_with_any_map(cmap, has_nan):
    matrix = WIDE.copy()
    matrix[1, 4] = np.nan if has_nan else 0.5
    np.testing.assert_array_equal(
        embedded(matrix_as_svg(matrix, cmap=cmap)), matrix_to_image_preprocess(matrix, cmap=cmap)
    )


def read(path):
    if path.suffix == ".png":
        return pixels(path.read_bytes())
    text = path.read_bytes()
    return embedded((gzip.decompress(text) if path.suffix == ".svgz" else text).decode())


@pytest.mark.parametrize("fmt", ["png", "svg", "svgz"])
def test_a_decorated_function_writes_its_file(fmt, tmp_path):
    @save_matrix_wrapper(fmt=fmt, normalize=True, cmap="Blues")
    def doubled(attn_matrix):
        """Doubled."""
        return attn_matrix * 2

    assert doubled(WIDE, tmp_path) is None
    assert [p.name for p in tmp_path.iterdir()] == [f"doubled.{fmt}"]
    expected = matrix_to_image_preprocess(WIDE * 2, normalize=True, cmap="Blues")
    np.testing.assert_array_equal(read(tmp_path / f"doubled.{fmt}"), expected)
    assert (doubled.figure_save_fmt, doubled.__doc__) == (fmt, "Doubled.")


def test_the_bare_decorator(tmp_path):
    @save_matrix_wrapper
    def same(attn_matrix):
        return attn_matrix

    same(WIDE, str(tmp_path))
    np.testing.assert_array_equal(read(tmp_path / "same.svgz"), matrix_to_image_preprocess(WIDE))
    also = save_matrix_wrapper(same.__wrapped__, fmt="png")
    also(WIDE, tmp_path)
    assert (tmp_path / "same.png").exists()


def test_svgz_is_the_gzip_of_svg_and_always_the_same(tmp_path):
    for fmt in ("svg", "svgz"):
        save_matrix_wrapper(lambda_free, fmt=fmt)(WIDE, tmp_path)
    svgz = (tmp_path / "lambda_free.svgz").read_bytes()
    assert gzip.decompress(svgz) == (tmp_path / "lambda_free.svg").read_bytes()
    assert svgz[4:8] == bytes(4)  # no time


def lambda_free(attn_matrix):
    return attn_matrix


@pytest.mark.parametrize("fmt", ["png", "svg", "svgz"])
def test_the_runner_gets_what_would_be_written(fmt, tmp_path, pattern):
    function = save_matrix_wrapper(lambda_free, fmt=fmt)
    function(pattern.values, tmp_path)
    (made,) = produce(function, pattern)
    assert (made.name, made.format) == ("lambda_free", fmt)
    assert made.data == (tmp_path / f"lambda_free.{fmt}").read_bytes()


def test_decorating_wrongly():
    with pytest.raises(FigureFunctionError, match="only supports keyword arguments"):
        save_matrix_wrapper("png")
    with pytest.raises(FigureFunctionError, match="only supports keyword arguments"):
        save_matrix_wrapper(lambda_free, "png")
    with pytest.raises(FigureFormatError, match="Invalid format fmt = 'pdf', must be one of"):
        save_matrix_wrapper(fmt="pdf")
    with pytest.raises(MatrixError, match="normalize_min cannot be used with normalize=False"):
        save_matrix_wrapper(normalize_min=0)
    with pytest.raises(FigureFunctionError, match="expected a function with a name"):
        save_matrix_wrapper(lambda m: m)
