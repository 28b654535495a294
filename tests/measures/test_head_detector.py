"""TransformerLens' own head detector as the oracle of the scores that it has."""

import numpy as np
import pytest
import torch
import xarray as xr

from pattern_lens.measures import duplicate_token_score, induction_score, previous_token_score
from pattern_lens.testing import tiny_model

TEXTS = ["the cat sat on the mat, the cat sat on the log", "aaa bb aaa", "hello, hello world"]
SCORES = {
    "previous_token_head": previous_token_score,
    "duplicate_token_head": duplicate_token_score,
    "induction_head": induction_score,
}


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt2", n_layers=2)


def captured(model, text):
    """The pattern of one text, labelled, and its token ids."""
    ids = model.to_tokens(text)
    with torch.no_grad():
        _, cache = model.run_with_cache(ids, remove_batch_dim=True)
    values = np.stack([cache["pattern", layer].numpy() for layer in range(model.cfg.n_layers)])
    places = np.arange(ids.shape[1])
    pattern = xr.DataArray(
        values, dims=("layer", "head", "query", "key"), coords={"query": places, "key": places}
    )
    return pattern, ids[0].tolist()


def detected(model, text, name, **options):
    from transformer_lens.head_detector import detect_head

    with torch.no_grad():
        return detect_head(model, text, name, error_measure="mul", **options).numpy()


def n_queries_with_target(name, ids):
    """Queries that have a key of the kind among those before them."""
    back = {"duplicate_token_head": 0, "induction_head": 1}
    if name not in back:
        return len(ids) - 1
    copies = [ids[back[name] : query] for query in range(len(ids))]
    befores = [ids[: len(targets)] for targets in copies]
    return sum(ids[query] in before for query, before in enumerate(befores))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", SCORES)
def test_the_sum_is_theirs_and_the_divisor_is_not(model, text, name):
    pattern, ids = captured(model, text)
    options = {} if name == "previous_token_head" else {"token_ids": ids}
    n_queries = n_queries_with_target(name, ids)
    assert 0 < n_queries < len(ids)
    ours = SCORES[name](pattern, **options).values * n_queries
    exclude = name == "induction_head"  # theirs counts the second of two equal tokens
    attention = pattern.values.sum((-2, -1))
    if exclude:
        attention -= np.trace(pattern.values, axis1=-2, axis2=-1)
    theirs = detected(model, text, name, exclude_current_token=exclude) * attention
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_theirs_counts_attention_to_the_second_of_two_equal_tokens(model):
    text = "aaa bb aaa"
    pattern, ids = captured(model, text)
    twice = [q for q in range(1, len(ids)) if ids[q] == ids[q - 1]]
    assert twice
    own = pattern.values[..., twice, twice].sum(-1)
    n_queries = n_queries_with_target("induction_head", ids)
    ours = induction_score(pattern, token_ids=ids).values * n_queries
    theirs = detected(model, text, "induction_head") * pattern.values.sum((-2, -1))
    np.testing.assert_allclose(ours + own, theirs, rtol=1e-4)


def test_leaving_out_the_bos_changes_their_divisor_only(model):
    pattern, ids = captured(model, TEXTS[0])
    ours = previous_token_score(pattern.isel(query=slice(2, None))).values * (len(ids) - 2)
    rest = pattern.values[..., 1:].sum((-2, -1))
    theirs = detected(model, TEXTS[0], "previous_token_head", exclude_bos=True)
    np.testing.assert_allclose(ours, theirs * rest, rtol=1e-4)
