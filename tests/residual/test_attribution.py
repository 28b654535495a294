"""Attribution and the logit lens of one prompt, against TransformerLens and against NumPy."""

import numpy as np
import pytest
import torch
import xarray as xr

from pattern_lens.errors import (
    AnswerTokenError,
    DimensionError,
    OutOfRangeError,
    RawWeightsError,
    ResidualError,
    UnknownActivationError,
)
from pattern_lens.residual import (
    direct_logit_attribution,
    logit_attrs,
    logit_lens,
    stack_head_results,
)
from pattern_lens.residual.attribution import last_place
from pattern_lens.residual.tokens import Vocabulary

KINDS = ["gpt2", "llama", "neox", "attn_only", pytest.param("demo", marks=pytest.mark.slow)]
UNITS = ["component", "layer", "head"]


@pytest.fixture(params=KINDS)
def one(request, make_live):
    return make_live(request.param)


def theirs_of(one, unit, answer, incorrect, pos=-1):
    from transformer_lens.tools.analysis import direct_logit_attribution as attribute

    if unit == "layer" and "resid_mid" not in one.activations:
        stack, labels = one.cache.accumulated_resid(return_labels=True, pos_slice=pos)
        found = one.cache.logit_attrs(stack, answer, incorrect, pos_slice=pos)
        return found[:, 0].detach().numpy(), labels
    found = attribute(
        one.model,
        cache=one.cache,
        answer_tokens=answer,
        incorrect_tokens=incorrect,
        unit=unit,
        pos=pos,
    )
    return found.attribution[:, 0].detach().numpy(), found.labels


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("answer", "incorrect"), [(7, None), (7, 3)])
@pytest.mark.parametrize("pos", [-1, 2, None])
def test_equals_transformer_lens(one, unit, answer, incorrect, pos):
    expected, labels = theirs_of(one, unit, answer, incorrect, pos)
    found = direct_logit_attribution(
        one.activations, one.weights, answer, incorrect, unit=unit, pos=pos
    )
    assert found.scores["component"].values.tolist() == labels
    np.testing.assert_allclose(
        found.scores, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("unit", [*UNITS, "neuron"])
def test_the_sum_of_parts_is_the_model_s_logit(one, unit):
    if unit == "neuron" and one.model.cfg.attn_only:
        with pytest.raises(ResidualError, match="has no neurons"):
            direct_logit_attribution(one.activations, one.weights, 7, unit=unit)
        return
    found = direct_logit_attribution(one.activations, one.weights, 7, 3, unit=unit)
    logits = one.logits[0, -1].numpy()
    assert float(found.closure_error) < 1e-4
    np.testing.assert_allclose(found.logit, logits[7] - logits[3], atol=1e-4)
    if unit != "layer":
        total = found.scores.sum() + found.unembed_bias
        np.testing.assert_allclose(total, found.logit, atol=1e-5)


def test_neurons_are_what_a_stack_of_them_gives(make_live):
    one = make_live("gpt2")
    stack, labels = one.cache.stack_neuron_results(
        -1, incl_remainder=True, return_labels=True, pos_slice=-1
    )
    expected = one.cache.logit_attrs(stack, 7, 3, pos_slice=-1)[:, 0].detach().numpy()
    found = direct_logit_attribution(one.activations, one.weights, 7, 3, unit="neuron")
    assert found.scores["component"].values.tolist() == labels
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5, atol=1e-6)


def test_closure_is_known_at_the_last_position_only(make_live):
    one = make_live("gpt2")
    inner = direct_logit_attribution(one.activations, one.weights, 7, pos=2)
    assert np.isnan(inner.closure_error)
    every = direct_logit_attribution(one.activations, one.weights, 7, pos=None)
    assert np.isnan(every.closure_error[:-1]).all()
    assert every.closure_error[-1] < 1e-5
    without = {k: v for k, v in one.activations.items() if k != "final_logits"}
    assert np.isnan(direct_logit_attribution(without, one.weights, 7).closure_error)


@pytest.mark.parametrize(
    ("pos", "place"),
    [
        (None, -1),
        (-1, 0),
        (3, None),
        (slice(2, None), -1),
        (slice(0, 3), None),
        ([0, -1], 1),
        ([0, 2], None),
        ((1, None), -1),
    ],
)
def test_where_the_last_position_is(pos, place):
    assert last_place(pos) == place


def test_a_wrong_part_shows_in_the_closure_error(make_live):
    one = make_live("gpt2")
    wrong = {**one.activations, "attn_out": one.activations["attn_out"] * 1.5}
    assert direct_logit_attribution(wrong, one.weights, 7).closure_error > 1e-3


def test_top(make_live):
    one = make_live("gpt2")
    found = direct_logit_attribution(one.activations, one.weights, 7, 3, unit="head")
    top = found.top(3)
    order = np.argsort(-found.scores.values)[:3]
    assert top.index.tolist() == found.scores["component"].values[order].tolist()
    assert list(top.columns) == ["attribution", "std", "layer", "head"]
    largest = found.top(1, absolute=True)
    assert abs(largest["attribution"].iloc[0]) == np.abs(found.scores.values).max()
    assert "Attribution by head" in repr(found)
    assert "closure error at most" in found._repr_html_()
    assert set(found.to_dataset()) == {"attribution", "logit", "unembed_bias", "closure_error"}


def test_raw_weights_are_refused(make_live):
    one = make_live("gpt2", "raw")
    with pytest.raises(RawWeightsError, match=r"the file has 'raw' weights.*'compatibility'"):
        direct_logit_attribution(one.activations, one.weights, 7)
    with pytest.raises(RawWeightsError, match="logit_lens needs weights='compatibility'"):
        logit_lens(one.activations, one.weights)
    stack = stack_head_results(one.activations, one.weights)
    with pytest.raises(RawWeightsError, match="logit_attrs needs weights='compatibility'"):
        logit_attrs(stack, one.activations, one.weights, 7)


def test_a_gain_that_is_not_folded_is_multiplied_in(make_live):
    raw = make_live("gpt2", "raw")
    weights = raw.weights.assign_attrs(weights="compatibility")
    found = direct_logit_attribution(raw.activations, weights, 7, 3, unit="head")
    assert found.closure_error < 1e-5
    lens = logit_lens(raw.activations, weights, pos=-1)
    assert lens["closure_error"] < 1e-5


def test_bad_input(make_live):
    one = make_live("gpt2")
    given = one.activations, one.weights
    with pytest.raises(ResidualError, match="no unit 'block': expected one of component, layer"):
        direct_logit_attribution(*given, 7, unit="block")
    with pytest.raises(AnswerTokenError, match="expected an id from 0 to 299"):
        direct_logit_attribution(*given, 300)
    with pytest.raises(OutOfRangeError, match="no pos 99"):
        direct_logit_attribution(*given, 7, pos=99)
    with pytest.raises(DimensionError, match="one answer token for one prompt"):
        direct_logit_attribution(*given, [7, 8])
    held = {k: v for k, v in one.activations.items() if k != "ln_final_scale"}
    with pytest.raises(UnknownActivationError, match="needs 'ln_final_scale'"):
        direct_logit_attribution(held, one.weights, 7)
    with pytest.raises(ResidualError, match="k=0 tokens: expected 1 to 300"):
        logit_lens(*given, k=0)


def soft_capped(one, cap, scale=1.0):
    weights = one.weights.assign_attrs(logit_softcap=cap, logit_scale=scale)
    return one.activations, weights


def test_a_soft_capped_logit_is_attributed_before_the_cap(make_live):
    one = make_live("gpt2")
    plain = direct_logit_attribution(one.activations, one.weights, 7, 3)
    capped = direct_logit_attribution(*soft_capped(one, 2.0), 7, 3)
    np.testing.assert_array_equal(capped.scores, plain.scores)
    assert capped.closure_error < 1e-5
    assert "before the soft cap at 2" in repr(capped)
    assert capped.scores.attrs["long_name"].endswith("before the soft cap")


# --- the logit lens ------------------------------------------------------------------------------


def lens_oracle(one, answer, cap=0.0, scale=1.0):
    """Probabilities of every stream, by torch: dims (component, pos, token)."""
    stack = one.cache.accumulated_resid(apply_ln=True)[:, 0]
    before = stack @ one.model.W_U + one.model.b_U
    logits = before * scale
    if cap:
        logits = torch.tanh(logits / cap) * cap
    return before.detach(), torch.log_softmax(logits.detach().double(), -1)


@pytest.mark.parametrize(("cap", "scale"), [(0.0, 1.0), (1.5, 1.0), (3.0, 0.5)])
def test_logit_lens(one, cap, scale):
    answer = 7
    before, log_p = lens_oracle(one, answer, cap, scale)
    found = logit_lens(*soft_capped(one, cap, scale), answer_token=answer, k=4)
    probability = log_p.exp().topk(4, dim=-1).values
    np.testing.assert_allclose(found["top_probability"], probability, rtol=1e-4, atol=1e-6)
    own = np.take_along_axis(log_p.numpy(), found["top_id"].values, -1)  # ties have no order
    np.testing.assert_allclose(own, probability.log(), rtol=1e-4, atol=1e-5)
    own = log_p[..., answer]
    np.testing.assert_allclose(found["answer_probability"], own.exp(), rtol=1e-4, atol=1e-7)
    rank = (log_p > own[..., None]).sum(-1)
    assert np.abs(found["answer_rank"].values - rank.numpy()).max() <= 1
    np.testing.assert_allclose(found["answer_logit"], before[..., answer], rtol=1e-4, atol=1e-4)
    divergence = (log_p[-1].exp() * (log_p[-1] - log_p)).sum(-1) / np.log(2)
    np.testing.assert_allclose(found["kl_to_final"], divergence, rtol=1e-3, atol=1e-5)
    assert found["kl_to_final"].sel(component="final_post").max() == 0
    assert found["closure_error"][-1] < 1e-4
    assert np.isnan(found["closure_error"][:-1]).all()


def test_lens_says_tokens_as_text(make_live):
    one = make_live("gpt2")
    texts = [f"t{i}" for i in range(300)]
    word = texts[7]
    words = Vocabulary({"text": texts, "token": texts})
    found = logit_lens(
        one.activations, one.weights, pos=-1, vocabulary=words, answer_token=word, incl_mid=True
    )
    assert (
        found["top_token"].sel(component="final_post", rank=0) == f"t{one.logits[0, -1].argmax()}"
    )
    assert found["component"].values.tolist()[:2] == ["0_pre", "0_mid"]
    assert found["answer_id"] == 7


def test_small_blocks_give_the_same(make_live, monkeypatch):
    one = make_live("gpt2")
    whole = logit_lens(one.activations, one.weights, answer_token=3)
    monkeypatch.setattr("pattern_lens.residual.unembedding._BLOCK_BYTES", 10_000)
    again = logit_lens(one.activations, one.weights, answer_token=3)
    xr.testing.assert_allclose(again, whole, rtol=1e-4, atol=1e-5)
