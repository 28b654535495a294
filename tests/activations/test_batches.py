"""Batches: longest first, within memory, of one length where padding would change values."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pattern_lens.activations.batches import BatchPlan, TokenizedPrompt, bytes_per_prompt
from pattern_lens.prompts import Prompt
from pattern_lens.store.layout import ArrayLayout

LAYOUT = ArrayLayout(
    "pattern", ("layer", "head", "query", "key"), {"layer": 2, "head": 3}, "triangle", "float32"
)


def prompts(lengths):
    return [
        TokenizedPrompt(Prompt(str(i), hash=str(i)), np.arange(n, dtype=np.int32), False, False)
        for i, n in enumerate(lengths)
    ]


def plan(lengths, **options):
    defaults = {"batch_size": 4, "n_heads": 3, "budget_bytes": 10**9}
    return BatchPlan(prompts(lengths), [LAYOUT], **(defaults | options))


def lengths_of(batches):
    return [[len(one.ids) for one in batch] for batch in batches]


def test_longest_come_first():
    assert lengths_of(plan([3, 9, 5, 7, 4])) == [[9, 7, 5, 4], [3]]


def test_memory_limits_a_batch_by_the_square_of_its_length():
    budget = 2 * bytes_per_prompt([LAYOUT], 10, 3)
    batches = lengths_of(plan([10, 10, 10, 5, 5, 5, 5, 5], budget_bytes=budget, batch_size=8))
    assert batches == [[10, 10], [10, 5], [5, 5, 5, 5]]


def test_one_prompt_always_fits():
    assert lengths_of(plan([100, 90], budget_bytes=1)) == [[100], [90]]


def test_bytes_count_values_three_times():
    assert bytes_per_prompt([LAYOUT], 10, 3) == 3 * 2 * 3 * 100 * 4


def test_lengths_are_not_mixed_where_padding_changes_values():
    assert lengths_of(plan([4, 6, 4, 6, 4], equal_lengths=True)) == [[6, 6], [4, 4, 4]]


def test_halving_holds_for_the_batches_to_come():
    chosen = plan([5] * 8)
    batches = iter(chosen)
    assert len(next(batches)) == 4
    chosen.halve()
    assert [len(batch) for batch in batches] == [2, 2]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 9), st.booleans())
def test_every_prompt_comes_once(lengths, batch_size, equal_lengths):
    batches = list(plan(lengths, batch_size=batch_size, equal_lengths=equal_lengths))
    names = sorted(one.prompt.hash for batch in batches for one in batch)
    assert names == sorted(map(str, range(len(lengths))))
