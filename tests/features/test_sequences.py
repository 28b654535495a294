"""Which tokens are chosen, against sorting all of them; windows at every edge of a prompt."""

import numpy as np
import pytest

from pattern_lens.features.parts.histograms import IntervalCounts
from pattern_lens.features.parts.sequences import (
    BOTTOM,
    RANDOM,
    TOP,
    Chooser,
    Counts,
    FirstFew,
    drawn,
    random_tokens,
    windows,
)

COUNTS = Counts(n_top=4, per_interval=2, n_intervals=5)


def stream(seed=0, n_prompts=9):
    """Entries sorted by prompt and position; feature 2 fires three times, feature 3 never; some values are equal."""
    rng = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(n_prompts), 12)
    position = np.tile(np.arange(12), n_prompts)
    rows = np.concatenate([np.zeros(108, int), np.ones(108, int), np.full(3, 2)])
    keep = np.concatenate([rng.random(216) < 0.4, np.ones(3, bool)])
    where = np.concatenate([np.arange(108), np.arange(108), [5, 40, 70]])
    value = np.round(rng.exponential(size=219), 1).astype(np.float32) + np.float32(0.1)
    order = np.lexsort((rows, where))[keep[np.lexsort((rows, where))]]
    return rows[order], prompt[where[order]], position[where[order]], value[order]


def choose(n_block, seed=7):
    rows, prompt, position, value = stream()
    high = np.array([value[rows == one].max(initial=0) for one in range(4)])
    counts, chooser = IntervalCounts((0 * high, high), 5), Chooser(4, COUNTS, seed)
    for first in range(0, len(rows), n_block):
        some = slice(first, first + n_block)
        interval = counts.add(rows[some], value[some])
        where = prompt[some], position[some]
        chooser.add(rows[some], rows[some] + 100, interval, where, value[some])
    return chooser.chosen(0, 4)


def test_groups_are_in_the_order_of_the_sequences():
    groups = COUNTS.groups
    assert (
        groups.tolist() == [TOP] * 4 + [4, 4, 3, 3, 2, 2, 1, 1, 0, 0] + [BOTTOM] * 2 + [RANDOM] * 2
    )


@pytest.mark.parametrize("n_block", [1, 13, 500])
def test_the_chosen_are_the_first_of_all_sorted(n_block):
    rows, prompt, position, value = stream()
    found = choose(n_block)
    groups = COUNTS.groups[:-2]
    for one in range(3):
        own = np.flatnonzero(rows == one)
        by_value = own[np.lexsort((position[own], prompt[own], -value[own].astype(float)))]
        lowest = own[np.lexsort((position[own], prompt[own], value[own]))]
        interval = np.ceil(value[own].astype(float) / float(value[own].max()) * 5) - 1
        for group, ranked in ((TOP, by_value[:4]), (BOTTOM, lowest[:2])):
            there = found[0][one][groups == group], found[1][one][groups == group]
            expected = np.full((2, len(there[0])), -1)
            expected[:, : len(ranked)] = prompt[ranked], position[ranked]
            np.testing.assert_array_equal(there, expected)
        for group in range(5):
            inner = own[interval == group]
            keys = drawn(7, np.full(len(inner), one + 100), prompt[inner], position[inner])
            some = inner[np.argsort(keys)][:2]
            some = some[np.argsort(-value[some], kind="stable")]
            there = found[0][one][groups == group], found[1][one][groups == group]
            assert there[0][: len(some)].tolist() == prompt[some].tolist()
            assert there[1][: len(some)].tolist() == position[some].tolist()
            assert (there[0][len(some) :] == -1).all()
    assert (found[0][3] == -1).all()


def test_another_seed_draws_others_from_the_intervals_only():
    one, other = choose(50, seed=7), choose(50, seed=8)
    inner = slice(4, 14)
    assert not np.array_equal(one[1][0, inner], other[1][0, inner])
    np.testing.assert_array_equal(one[1][:, :4], other[1][:, :4])


def test_drawn_numbers_look_uniform_and_stay_the_same():
    found = drawn(3, np.arange(20_000), np.full(20_000, 2))
    counts, _ = np.histogram(found, bins=20, range=(0, 1))
    assert abs(counts - 1000).max() < 150
    assert (found >= 0).all()
    assert (found < 1).all()
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.03
    assert drawn(3, np.array([5]), np.array([2]))[0] == found[5]


def test_no_room_keeps_nothing():
    few = FirstFew(3, 0)
    few.add(np.array([1]), np.array([0.5]), np.array([1]), np.array([2]), np.array([3.0]))
    assert few.prompt.shape == (3, 0)


def test_random_tokens_are_tokens_each_once():
    prompts, lengths = np.array([3, 5, 8]), np.array([2, 4, 1])
    prompt, position = random_tokens(1, np.array([10, 11]), 9, prompts, lengths)
    for one in range(2):
        pairs = {*zip(prompt[one][:7].tolist(), position[one][:7].tolist(), strict=True)}
        expected = {
            (p, i) for p, n in zip(prompts.tolist(), lengths, strict=True) for i in range(n)
        }
        assert pairs == expected
        assert (prompt[one][7:] == -1).all()
    alone, _ = random_tokens(1, np.array([11]), 9, prompts, lengths)
    np.testing.assert_array_equal(alone[0], prompt[1])
    assert (random_tokens(1, np.array([4]), 2, prompts[:0], lengths[:0])[0] == -1).all()


@pytest.mark.parametrize(("n", "before", "after"), [(1, 5, 5), (4, 5, 5), (30, 5, 5), (30, 0, 3)])
def test_a_window_is_cut_where_its_prompt_ends(n, before, after):
    position = np.arange(n)
    start, length, peak = windows(position, np.full(n, n), before, after)
    for i in range(n):
        tokens = [p for p in range(i - before, i + after + 1) if 0 <= p < n]
        assert (start[i], length[i]) == (tokens[0], len(tokens))
        assert tokens[peak[i]] == i


def test_no_token_no_window():
    start, length, peak = windows(np.array([[-1]]), np.array([[9]]), 5, 5)
    assert (start.item(), length.item(), peak.item()) == (0, 0, -1)
