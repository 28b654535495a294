"""Colours against matplotlib itself, in float64."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import ListedColormap

from pattern_lens.errors import MatrixError, MatrixTypeError, UnknownColourMapError
from pattern_lens.figures import matrix_to_image_preprocess as coloured
from pattern_lens.figures.colours import ABSENT

RAMP = np.linspace(0, 1, 257 * 2).reshape(2, 257)
SIGNED = np.array([[-1.5, 0.0, 0.75], [3.0, -0.25, 1.0]])


def oracle(places, cmap):
    return (np.asarray(mpl.colormaps[cmap](np.asarray(places, float)))[..., :3] * 255).astype(
        np.uint8
    )


@pytest.mark.parametrize("cmap", ["viridis", "Blues", "tab10", "gray"])
def test_values_from_0_to_1(cmap):
    np.testing.assert_array_equal(coloured(RAMP, cmap=cmap), oracle(RAMP, cmap))


def test_normalized():
    found = coloured(SIGNED, normalize=True, cmap="Blues")
    np.testing.assert_array_equal(found, oracle((SIGNED + 1.5) / 4.5, "Blues"))


def test_normalize_min_is_where_the_map_begins():
    found = coloured(RAMP + 1, normalize=True, normalize_min=0)
    np.testing.assert_array_equal(found, oracle((RAMP + 1) / 2, "viridis"))


def test_normalize_min_of_a_matrix_of_zeros():
    zeros = np.zeros((2, 3))
    assert (coloured(zeros, normalize=True, normalize_min=0) == oracle(0.5, "viridis")).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("normalize", [False, True])
def test_0_has_the_middle_of_a_diverging_map(dtype, normalize):
    matrix = (SIGNED / 3).astype(dtype)
    found = coloured(matrix, normalize=normalize, cmap="RdBu", diverging_colormap=True)
    np.testing.assert_array_equal(found[0, 1], oracle(0.5, "RdBu"))
    assert (found[0, 0] != found[0, 1]).any()


@pytest.mark.parametrize("sign", [1, -1])
def test_diverging_is_symmetrical_about_0(sign):
    found = coloured(sign * SIGNED, normalize=True, cmap="RdBu", diverging_colormap=True)
    np.testing.assert_array_equal(found, oracle(sign * SIGNED / 6 + 0.5, "RdBu"))


def test_diverging_without_normalization_keeps_the_scale():
    found = coloured(SIGNED / 4, cmap="RdBu", diverging_colormap=True)
    np.testing.assert_array_equal(found, oracle(SIGNED / 8 + 0.5, "RdBu"))


@pytest.mark.parametrize("value", [-2.0, 0.0, 5.0])
def test_a_constant_matrix_has_the_middle_colour(value):
    found = coloured(np.full((2, 3), value), normalize=True, cmap="gray")
    assert (found == oracle(0.5, "gray")).all()


def test_zeros_have_the_middle_of_a_diverging_map():
    found = coloured(np.zeros((1, 2)), normalize=True, cmap="RdBu", diverging_colormap=True)
    assert (found == oracle(0.5, "RdBu")).all()


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("options", [{}, {"normalize": True}])
def test_what_is_not_finite_has_a_colour_of_its_own(nothing, options):
    found = coloured([[0.0, nothing, 1.0]], **options)
    assert found[0, 1].tolist() == list(ABSENT)
    np.testing.assert_array_equal(found[0, ::2], oracle([0, 1], "viridis"))


def test_a_matrix_of_nan():
    found = coloured(np.full((2, 3), np.nan, np.float32), normalize=True)
    assert (found == np.array(ABSENT, np.uint8)).all()


def test_a_maps_own_colour_for_bad_values():
    cmap = mpl.colormaps["viridis"].with_extremes(bad="red")
    assert coloured([[np.nan, 0.5]], cmap=cmap)[0, 0].tolist() == [255, 0, 0]


def test_integers_are_values_not_indexes():
    np.testing.assert_array_equal(coloured([[0, 1]], cmap="gray")[..., 0], [[0, 255]])
    np.testing.assert_array_equal(coloured([[True, False]], cmap="gray")[..., 0], [[255, 0]])


def test_a_map_of_more_than_256_colours():
    ramp = ListedColormap(np.linspace(0, 1, 300)[:, np.newaxis].repeat(3, axis=1))
    assert coloured([[0.0, 1.0]], cmap=ramp)[..., 0].tolist() == [[0, 255]]


def test_values_that_float32_cannot_subtract():
    huge = np.array([[-3e38, 0.0, 3e38]], np.float32)
    np.testing.assert_array_equal(coloured(huge, normalize=True), oracle([[0, 0.5, 1]], "viridis"))


def test_rounding_above_1_is_no_error():
    found = coloured(np.array([[0.0, 1 + 1e-6]], np.float32))
    np.testing.assert_array_equal(found[0, 1], oracle(1.0, "viridis"))


def test_the_matrix_is_left_as_it_was():
    matrix = SIGNED.copy()
    coloured(matrix, normalize=True)
    np.testing.assert_array_equal(matrix, SIGNED)


@pytest.mark.parametrize(
    ("matrix", "options", "message"),
    [
        (np.zeros(3), {}, r"Matrix must be 2D, got shape \(3,\)"),
        (np.zeros((0, 3)), {}, "Matrix cannot be empty"),
        ([[0.0, 2.0]], {}, r"Matrix values must be in range \[0, 1\], or normalize must be True"),
        ([[-0.1, 0.5]], {}, r"got \[-0.1, 0.5\]"),
        (
            [[-1.5, 0.5]],
            {"diverging_colormap": True},
            r"diverging colormaps without normalization, matrix values must be in range \[-1, 1\]",
        ),
        (
            [[0.0, 1.0]],
            {"normalize_min": 0, "normalize": True, "diverging_colormap": True},
            "normalize_min cannot be used with diverging_colormap=True",
        ),
        ([[0.0, 1.0]], {"normalize_min": 0}, "normalize_min cannot be used with normalize=False"),
        (
            [[0.0, 1.0]],
            {"normalize_min": 2, "normalize": True},
            "normalize_min must be less than matrix max",
        ),
        (
            [[0.0, 1.0]],
            {"normalize_min": 0.5, "normalize": True},
            "normalize_min must be less than matrix min",
        ),
    ],
)
def test_what_cannot_be_drawn(matrix, options, message):
    with pytest.raises(MatrixError, match=message):
        coloured(np.asarray(matrix), **options)


def test_text_cannot_be_drawn():
    with pytest.raises(MatrixTypeError, match="cannot draw a matrix of dtype <U1"):
        coloured([["a", "b"]])


def test_unknown_colour_maps():
    with pytest.raises(UnknownColourMapError, match=r"'nope' is not a .* colormap"):
        coloured([[0.0]], cmap="nope")
    with pytest.raises(MatrixTypeError, match="Invalid type for cmap = 3"):
        coloured([[0.0]], cmap=3)
