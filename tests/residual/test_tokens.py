"""Answers as people write them: one token, or an error that says why it is none."""

import numpy as np
import pytest
import xarray as xr

from pattern_lens.errors import AnswerTokenError
from pattern_lens.residual.tokens import Vocabulary, in_order, token_id, token_ids

TEXTS = ["<bos>", " Mary", "Mary", " John", " ", "J", "o", "hn", "\ufffd", "\ufffd", ""]
RAW = ["<bos>", "ĠMary", "Mary", "ĠJohn", "Ġ", "J", "o", "hn", "é1", "é2", ""]
WORDS = Vocabulary({"text": TEXTS, "token": RAW})
WEIGHTS = xr.Dataset({"b_U": ("token", np.zeros(11))})


@pytest.mark.parametrize(
    ("token", "number"),
    [(" Mary", 1), ("ĠMary", 1), ("Mary", 2), (3, 3), (np.int64(0), 0), ("é2", 9)],
)
def test_one_token(token, number):
    assert token_id(token, WEIGHTS, WORDS) == number


@pytest.mark.parametrize(
    ("token", "match"),
    [
        (
            " Mary John",
            r"is 2 tokens, ' Mary', ' John' .*holds no tokenizer.*expected a single token",
        ),
        ("John", r"is 3 tokens, 'J', 'o', 'hn'.*did you mean ' John'\? A leading space"),
        ("Peter", "no token 'Peter' in the model's vocabulary of 11"),
        ("", "the empty string is no token"),
        ("\ufffd", "is the text of 2 tokens, with ids 8, 9; give the id"),
        (11, "no token 11: expected an id from 0 to 10"),
        (-1, "no token -1: expected an id from 0 to 10"),
        (True, "no token True"),
        (1.5, "1.5 is no token: expected its text or its id"),
        (None, "None is no token"),
    ],
)
def test_no_single_token(token, match):
    with pytest.raises(AnswerTokenError, match=match):
        token_id(token, WEIGHTS, WORDS)


def test_without_a_vocabulary_ids_only():
    assert token_id(4, WEIGHTS) == 4
    with pytest.raises(AnswerTokenError, match="without a vocabulary; give its id"):
        token_id(" Mary", WEIGHTS)
    with pytest.raises(AnswerTokenError, match="the file holds no vocabulary"):
        token_id(" Mary", WEIGHTS, Vocabulary({"text": [], "token": []}))


def test_shapes():
    assert token_ids(" John", WEIGHTS, WORDS).shape == ()
    assert token_ids(np.array(3), WEIGHTS, WORDS).tolist() == 3
    assert token_ids([" John", 1], WEIGHTS, WORDS).tolist() == [3, 1]


def test_one_for_each_prompt():
    assert in_order({"b": 2, "a": 1}, ["a", "b"]) == [1, 2]
    assert in_order(" Mary", ["a", "b"]) == " Mary"
    assert in_order(None, ["a", "b"]) is None
    with pytest.raises(AnswerTokenError, match="no answer token for prompt 'b'"):
        in_order({"a": 1}, ["a", "b"])
    with pytest.raises(AnswerTokenError, match="3 answer tokens for 2 prompts"):
        in_order([1, 2, 3], ["a", "b"])
