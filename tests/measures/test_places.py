"""Attention to keys known by their place, against loops over queries and keys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pattern_lens.measures import (
    attention_by_distance,
    current_token_score,
    first_token_score,
    previous_token_score,
)

TARGETS = {
    previous_token_score: lambda query, key: key == query - 1,
    current_token_score: lambda query, key: key == query and query > 0,
    first_token_score: lambda query, key: key == 0 and query > 0,
}
SCORES = pytest.mark.parametrize("score", TARGETS, ids=lambda score: score.__name__)


def mean_by_loop(pattern, is_target):
    """Of (layer, head, query, key): attention to targets, mean over the queries that have any."""
    found = {}
    for i, query in enumerate(pattern["query"].values.tolist()):
        for j, key in enumerate(pattern["key"].values.tolist()):
            if is_target(query, key):
                found[query] = found.get(query, 0) + pattern.values[..., i, j].astype("f8")
    if not found:
        return np.full(pattern.shape[:2], np.nan)
    return sum(found.values()) / len(found)


@SCORES
def test_scores_against_a_loop(score, pattern):
    expected = mean_by_loop(pattern, TARGETS[score])
    np.testing.assert_allclose(score(pattern).values, expected, rtol=1e-6)


@SCORES
@given(seed=st.integers(0, 99), n=st.integers(2, 9), share=st.floats(0, 1))
def test_scores_are_linear_and_full_attention_scores_1(score, make_pattern, seed, n, share):
    pattern = make_pattern(n, seed=seed)
    queries, keys = pattern["query"].values, pattern["key"].values
    perfect = pattern.copy(
        data=np.broadcast_to(
            np.vectorize(TARGETS[score])(queries[:, None], keys).astype("f4"), pattern.shape
        )
    )
    mixed = score(share * perfect + (1 - share) * pattern)
    np.testing.assert_allclose(mixed, share + (1 - share) * score(pattern), rtol=1e-5)


def test_query_0_is_left_out(make_pattern):
    pattern = make_pattern(5)
    for score in TARGETS:
        np.testing.assert_array_equal(score(pattern), score(pattern.isel(query=slice(1, None))))


@SCORES
def test_a_prompt_of_one_token_has_no_score(score, make_pattern):
    assert np.isnan(score(make_pattern(1)).values).all()


def test_a_first_token_that_was_not_chosen_has_no_score(make_pattern):
    assert np.isnan(first_token_score(make_pattern(5).isel(key=slice(1, None))).values).all()


@SCORES
def test_queries_without_values_are_left_out(score, make_pattern):
    pattern = make_pattern(6)
    holed = pattern.copy()
    holed[0, 1, 3] = np.nan
    expected = score(pattern).values.copy()
    expected[0, 1] = score(pattern.isel(query=[1, 2, 4, 5])).values[0, 1]
    np.testing.assert_allclose(score(holed).values, expected, rtol=1e-6)


def test_places_are_counted_from_0_without_coordinates(make_pattern):
    pattern = make_pattern(6)
    bare = pattern.drop_vars(["query", "key", "query_token", "key_token"])
    for score in TARGETS:
        np.testing.assert_array_equal(score(bare), score(pattern))


def test_the_previous_token_is_at_distance_1(pattern):
    profile = attention_by_distance(pattern).sel(distance=1)
    np.testing.assert_allclose(previous_token_score(pattern), profile, rtol=1e-6)
