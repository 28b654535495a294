import numpy as np
import pytest

from pattern_lens.errors import PlotError, UnknownColourMapError
from pattern_lens.plots.colours import choose

VALUES = np.array([0.0, 0.2, 0.5, np.nan, np.inf], np.float32)


def test_probabilities_begin_at_0_and_what_is_not_finite_does_not_count():
    colours = choose(VALUES)
    assert (colours.low, colours.high) == (0, 0.5)
    assert colours.colours[0] == "#440154"


def test_both_signs_get_a_diverging_map_around_0():
    colours = choose(np.array([-3.0, 1.0]))
    assert (colours.low, colours.high) == (-3, 3)
    assert colours.colours[0] == "#053061"


def test_a_difference_of_nothing_is_still_centred():
    colours = choose(np.zeros(3), centred=True)
    assert colours.low < colours.high


def test_log_begins_at_the_smallest_number_above_0():
    colours = choose(VALUES, log=True)
    assert 0.19 < colours.low <= 0.2
    assert colours.log


def test_log_of_a_wide_range_is_cut():
    assert choose(np.array([1e-12, 1.0]), log=True).low == pytest.approx(1e-4, rel=1e-3)


def test_given_limits_stay():
    colours = choose(VALUES, clim=(0.1, 2), log=True)
    assert (colours.low, colours.high) == (0.1, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clim": (1, 0)}, "expected two finite numbers, the lower one first"),
        ({"clim": (0, np.nan)}, "expected two finite numbers"),
        ({"clim": 3}, "expected two numbers, the lowest and the highest"),
        ({"clim": "ab"}, "expected two numbers, the lowest and the highest"),
        ({"clim": (0, 1), "log": True}, "the lowest must be above 0"),
    ],
)
def test_limits_that_are_none(options, words):
    with pytest.raises(PlotError, match=words):
        choose(VALUES, **options)


def test_log_of_numbers_below_0():
    with pytest.raises(PlotError, match="log=True needs numbers from 0 on"):
        choose(np.array([-1.0, 1.0]), log=True)


def test_nothing_but_nan():
    with pytest.raises(PlotError, match="there is no finite number in the array"):
        choose(np.full(3, np.nan))


def test_a_colour_map_that_is_none():
    with pytest.raises(UnknownColourMapError, match="no colour map 'sunshine': list"):
        choose(VALUES, cmap="sunshine")
