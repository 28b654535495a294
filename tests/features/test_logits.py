"""Tables, histograms and alignments against sorting and numpy's histogram; the readout against torch's own end of a model."""

import numpy as np
import pytest

from pattern_lens.features.parts.logits import Readout, logit_histograms, logit_tables
from pattern_lens.features.parts.neurons import alignment
from pattern_lens.features.parts.ranks import first_ranks

RNG = np.random.default_rng(4)


def test_tables_are_the_ends_of_a_stable_sort():
    logits = RNG.integers(0, 30, size=(5, 90)).astype(np.float32)  # many are equal
    tables = logit_tables(logits, 10)
    for i, row in enumerate(logits):
        top, bottom = (
            np.argsort(-row, kind="stable")[:10],
            np.argsort(row, kind="stable")[:10],
        )
        assert tables["top_logit_token"][i].tolist() == top.tolist()
        assert tables["bottom_logit_token"][i].tolist() == bottom.tolist()
        assert tables["top_logit"][i].tolist() == row[top].tolist()
        assert tables["bottom_logit"][i].tolist() == row[bottom].tolist()


def test_fewer_numbers_than_ranks_leave_ranks_empty():
    places, found = first_ranks(np.array([[2.0, np.nan, 5.0], [np.nan] * 3]), 4, largest=True)
    assert places.tolist() == [[2, 0, -1, -1], [-1] * 4]
    np.testing.assert_array_equal(found, [[5, 2, np.nan, np.nan], [np.nan] * 4])
    assert first_ranks(np.empty((2, 0)), 3, largest=False)[0].tolist() == [[-1] * 3] * 2


def test_histograms_are_those_of_numpy():
    logits = RNG.normal(size=(4, 500)).astype(np.float32)
    logits[2, 7] = np.nan
    logits[3] = 0
    found = logit_histograms(logits)
    for i in (0, 1, 3):
        counts, edges = np.histogram(logits[i].astype(np.float64), bins=40)
        assert found["logits_histogram"][i].tolist() == counts.tolist()
        np.testing.assert_array_equal(found["logits_edges"][i], edges)
    assert not found["logits_histogram"][2].any()
    assert np.isnan(found["logits_edges"][2]).all()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_logits_are_those_of_torch_but_for_the_divisor(make_model, kind):
    import torch

    model = make_model(kind).model
    gain = model.ln_final.w.detach().numpy()
    w_out = model.blocks[1].mlp.W_out.detach().numpy()
    readout = Readout(model.unembed.W_U.detach().numpy(), gain, kind == "gpt2", w_out)
    directions = RNG.normal(size=(3, w_out.shape[0])).astype(np.float32)
    with torch.no_grad():
        stream = torch.from_numpy(directions) @ model.blocks[1].mlp.W_out
        normed = model.ln_final(stream[None])[0]
        if kind == "gpt2":
            normed = normed - model.ln_final.b
            divisor = torch.sqrt(stream.var(-1, unbiased=False, keepdim=True) + model.cfg.eps)
        else:
            divisor = torch.sqrt(stream.square().mean(-1, keepdim=True) + model.cfg.eps)
        expected = (normed @ model.unembed.W_U * divisor).numpy()
    np.testing.assert_allclose(readout.logits(directions), expected, rtol=1e-4, atol=1e-4)


def test_alignment_is_by_magnitude_with_its_sign_and_share():
    found = alignment(np.array([[1.0, -4.0, 3.0], [0, 0, 0]]), 4)
    assert found["neuron"][0].tolist() == [1, 2, 0, -1]
    np.testing.assert_array_equal(found["neuron_alignment"][0], [-4, 3, 1, np.nan])
    np.testing.assert_allclose(found["neuron_l1_share"][0], [0.5, 0.375, 0.125, np.nan])
    assert np.isnan(found["neuron_l1_share"][1]).all()
