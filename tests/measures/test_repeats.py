"""Attention to keys known by their token, against loops over queries and keys."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pattern_lens.errors import DimensionError, UnknownTokensError
from pattern_lens.measures import duplicate_token_score, induction_score

OFFSETS = {duplicate_token_score: 0, induction_score: 1}
SCORES = pytest.mark.parametrize("score", OFFSETS, ids=lambda score: score.__name__)
IDS = [0, 4, 2, 4, 4, 1, 2, 4, 3, 2, 1, 4]


def mean_by_loop(pattern, tokens, offset):
    """`tokens` by position; the token `offset` before a target is a copy of the query's."""
    found = {}
    for i, query in enumerate(pattern["query"].values.tolist()):
        for j, key in enumerate(pattern["key"].values.tolist()):
            copy = key - offset
            if key < query and copy in tokens and tokens[copy] == tokens[query]:
                found[query] = found.get(query, 0) + pattern.values[..., i, j].astype("f8")
    if not found:
        return np.full(pattern.shape[:2], np.nan)
    return sum(found.values()) / len(found)


def known_tokens(pattern):
    pairs = [*zip(pattern["query"].values, pattern["query_token"].values, strict=True)]
    pairs += [*zip(pattern["key"].values, pattern["key_token"].values, strict=True)]
    return {int(position): token for position, token in pairs}


@SCORES
def test_scores_from_token_texts_against_a_loop(score, pattern):
    expected = mean_by_loop(pattern, known_tokens(pattern), OFFSETS[score])
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(score(pattern).values, expected, rtol=1e-6)


@SCORES
def test_scores_from_token_ids_against_a_loop(score, pattern):
    expected = mean_by_loop(pattern, dict(enumerate(IDS)), OFFSETS[score])
    bare = pattern.drop_vars(["query_token", "key_token"])
    for ids in (IDS, np.array(IDS, "i4"), xr.DataArray(IDS, dims="pos")):
        np.testing.assert_allclose(score(bare, token_ids=ids).values, expected, rtol=1e-6)


def test_token_ids_stand_above_texts(make_pattern):
    pattern = make_pattern(5)
    pattern["query_token"][:] = pattern["key_token"][:] = " same"
    assert np.isnan(duplicate_token_score(pattern, token_ids=[1, 2, 3, 4, 5]).values).all()
    assert np.isfinite(duplicate_token_score(pattern).values).all()


@SCORES
@given(
    seed=st.integers(0, 99),
    ids=st.lists(st.integers(0, 4), min_size=1, max_size=9),
    new=st.permutations([-1, 11, 12, 40, 50256]),
)
def test_only_the_equality_of_ids_counts(score, make_pattern, seed, ids, new):
    pattern = make_pattern(len(ids), seed=seed)
    found = score(pattern, token_ids=ids).values
    np.testing.assert_array_equal(found, score(pattern, token_ids=[new[i] for i in ids]).values)
    assert np.isnan(found).all() or ((found >= 0) & (found <= 1)).all()


@given(ids=st.lists(st.integers(1, 50), min_size=2, max_size=6, unique=True), n=st.integers(2, 4))
def test_a_perfect_head_scores_1_on_repeated_tokens(ids, n):
    period, length = len(ids), 1 + n * len(ids)
    for score, back in ((duplicate_token_score, period), (induction_score, period - 1)):
        values = np.eye(length, k=-back)[:, :length]
        pattern = xr.DataArray(values, dims=("query", "key"))
        assert float(score(pattern, token_ids=[0, *ids * n])) == 1


def test_the_second_of_two_equal_tokens_is_no_induction_target_of_itself():
    values = np.array([[1, 0, 0], [0.25, 0.75, 0], [0.125, 0.25, 0.625]])
    pattern = xr.DataArray(values, dims=("query", "key"))
    assert np.isnan(induction_score(pattern, token_ids=[5, 5, 6]))
    assert float(induction_score(pattern, token_ids=[5, 5, 5])) == 0.25  # query 2 to key 1 only


@SCORES
def test_no_repetition_no_score(score, make_pattern):
    assert np.isnan(score(make_pattern(4), token_ids=[3, 1, 4, 2]).values).all()
    assert np.isnan(score(make_pattern(1)).values).all()


def test_a_key_behind_an_unknown_token_is_no_target(whole_pattern):
    cut = whole_pattern.isel(query=[11], key=[2, 4, 5])
    known = {11: 4, 2: 2, 4: 4, 5: 1}
    expected = mean_by_loop(cut, known, 1)
    texts = {dim: (dim, [f"<{known[p]}>" for p in cut[dim].values]) for dim in ("query", "key")}
    named = cut.assign_coords(query_token=texts["query"], key_token=texts["key"])
    np.testing.assert_allclose(induction_score(named).values, expected, rtol=1e-6)
    with_ids = mean_by_loop(cut, dict(enumerate(IDS)), 1)  # key 2 follows the 4 at position 1
    np.testing.assert_allclose(induction_score(cut, token_ids=IDS).values, with_ids, rtol=1e-6)
    assert (with_ids > expected).all()


@SCORES
def test_queries_whose_targets_have_no_values_are_left_out(score, make_pattern):
    pattern = make_pattern(8, seed=4)
    ids = [0, 1, 2, 1, 2, 1, 2, 1]
    holed = pattern.copy()
    holed[1, 0, 5] = np.nan
    without = pattern.isel(query=[0, 1, 2, 3, 4, 6, 7])
    expected = score(pattern, token_ids=ids).values.copy()
    expected[1, 0] = score(without, token_ids=ids).values[1, 0]
    np.testing.assert_allclose(score(holed, token_ids=ids).values, expected, rtol=1e-6)


def test_one_missing_target_of_several_counts_as_none():
    values = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.5, 0], [0.2, 0.3, np.nan, 0]])
    pattern = xr.DataArray(values, dims=("query", "key"))
    found = duplicate_token_score(pattern, token_ids=[9, 9, 9, 9])
    assert float(found) == pytest.approx((0.5 + 0.5 + 0.5) / 3)


@SCORES
def test_unknown_tokens_are_refused(score, make_pattern):
    pattern = make_pattern(5)
    with pytest.raises(UnknownTokensError, match=r"'key_token' along 'key', but it is not there"):
        score(pattern.drop_vars("key_token"))
    with pytest.raises(UnknownTokensError, match=r"'query_token' along 'query'.*token_ids="):
        score(pattern.drop_vars("query_token"))
    two = xr.concat([pattern, pattern], "prompt")
    per_prompt = two.assign_coords(query_token=(("prompt", "query"), [["a"] * 5, ["b"] * 5]))
    with pytest.raises(UnknownTokensError, match=r"it is with dims \('prompt', 'query'\)"):
        score(per_prompt)


@SCORES
@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2, 3, 4, 5]], [1.0, 2, 3, 4, 5], 3], ids=str)
def test_token_ids_of_another_prompt_are_refused(score, make_pattern, ids):
    with pytest.raises(UnknownTokensError, match="expected at least 5 integers, because 'pattern'"):
        score(make_pattern(5), token_ids=ids)


@SCORES
def test_token_ids_go_by_position_not_by_place(score, make_pattern):
    last = make_pattern(5).isel(query=[4], key=[4])
    with pytest.raises(UnknownTokensError, match="has position 4; pass the ids of the whole"):
        score(last, token_ids=[7])


@SCORES
def test_queries_and_keys_of_two_texts_are_refused(score, make_pattern):
    pattern = make_pattern(4)
    other = pattern.assign_coords(key_token=("key", ["<bos>", "x", "y", "z"]))
    with pytest.raises(UnknownTokensError, match="key 1 is 'x', but the query there is another"):
        score(other)


@SCORES
def test_positions_are_checked(score, make_pattern):
    pattern = make_pattern(3)
    with pytest.raises(DimensionError, match="expected distinct positions from 0"):
        score(pattern.assign_coords(key=[-1, 0, 1]))
