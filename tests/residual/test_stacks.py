"""Every stack and every option equals TransformerLens' ActivationCache."""

import itertools

import numpy as np
import pytest

from pattern_lens.errors import (
    OutOfRangeError,
    RawWeightsError,
    ResidualError,
    UnknownActivationError,
    WeightsMissingError,
)
from pattern_lens.residual import (
    accumulated_resid,
    apply_ln_to_stack,
    compute_head_results,
    decompose_resid,
    get_full_resid_decomposition,
    get_neuron_results,
    logit_attrs,
    stack_activation,
    stack_head_results,
    stack_neuron_results,
)

KINDS = [
    ("gpt2", "compatibility"),
    ("gpt2", "raw"),
    ("llama", "compatibility"),  # RMSNorm, grouped keys, no positional embeddings
    ("llama", "raw"),
    ("neox", "compatibility"),  # parallel attention and MLP
    ("attn_only", "compatibility"),
    pytest.param(("demo", "compatibility"), marks=pytest.mark.slow),
]

POSITIONS = [(None, None), (-1, -1), (slice(2, 5), (2, 5)), ([3, 0], [3, 0])]


@pytest.fixture(params=KINDS, ids="-".join)
def one(request, make_live):
    return make_live(*request.param)


def options(**values):
    names = list(values)
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def assert_same(ours, theirs, labels=None):
    expected = theirs.detach().numpy()
    if labels is not None:
        assert ours["component"].values.tolist() == labels
    assert ours.shape == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ours.values, expected, rtol=1e-5, atol=1e-5 * max(scale, 1e-3))


def without_batch(stack):
    return stack[:, 0]


def layers_of(one):
    n = one.model.cfg.n_layers
    return [None, -1, 0, 1, n - 1, n]


def is_refused(one, chosen):
    n = one.model.cfg.n_layers
    last = chosen["layer"] in (None, -1, n)
    has_mid = "resid_mid" in one.activations
    mid = chosen.get("incl_mid") or chosen.get("mlp_input")
    return (chosen["mlp_input"] and last) or ("incl_mid" in chosen and mid and not has_mid)


def test_accumulated_resid(one):
    for chosen in options(
        layer=layers_of(one),
        incl_mid=[False, True],
        apply_ln=[False, True],
        mlp_input=[False, True],
    ):
        for pos, theirs in POSITIONS:
            if is_refused(one, chosen):
                with pytest.raises((OutOfRangeError, ResidualError)):
                    accumulated_resid(one.activations, one.weights, **chosen, pos=pos)
                continue
            expected, labels = one.cache.accumulated_resid(
                **chosen, pos_slice=theirs, return_labels=True
            )
            found = accumulated_resid(one.activations, one.weights, **chosen, pos=pos)
            assert_same(found, without_batch(expected), labels)


def test_decompose_resid(one):
    for chosen in options(
        layer=layers_of(one),
        mlp_input=[False, True],
        mode=["all", "mlp", "attn"],
        apply_ln=[False, True],
        incl_embeds=[True, False],
    ):
        if is_refused(one, chosen):
            continue
        for pos, theirs in POSITIONS[:2]:
            try:
                expected, labels = one.cache.decompose_resid(
                    **chosen, pos_slice=theirs, return_labels=True
                )
            except (RuntimeError, KeyError):  # nothing to stack, or a model without that norm
                with pytest.raises((OutOfRangeError, UnknownActivationError)):
                    decompose_resid(one.activations, one.weights, **chosen, pos=pos)
                continue
            found = decompose_resid(one.activations, one.weights, **chosen, pos=pos)
            assert_same(found, without_batch(expected), labels)


def test_stack_head_results(one):
    for chosen in options(
        layer=[n for n in layers_of(one) if n != 0],
        incl_remainder=[False, True],
        apply_ln=[False, True],
    ):
        for pos, theirs in POSITIONS:
            expected, labels = one.cache.stack_head_results(
                **chosen, pos_slice=theirs, return_labels=True
            )
            found = stack_head_results(one.activations, one.weights, **chosen, pos=pos)
            assert_same(found, without_batch(expected), labels)


def test_compute_head_results(one):
    one.cache.compute_head_results()
    found = compute_head_results(one.activations, one.weights)
    assert found.dims == ("layer", "pos", "head", "d_model")
    for layer in range(one.model.cfg.n_layers):
        assert_same(found.sel(layer=layer), one.cache["result", layer][0])
    last = compute_head_results(one.activations, one.weights, pos=-1)
    np.testing.assert_allclose(last, found.isel(pos=-1), rtol=1e-4, atol=1e-6)


def test_stack_activation(one):
    for name in ("resid_pre", "z"):
        for layer in (-1, None, 1, one.model.cfg.n_layers):
            expected = without_batch(one.cache.stack_activation(name, layer))
            assert_same(stack_activation(one.activations, one.weights, name, layer), expected)


def test_neuron_results(one):
    if one.model.cfg.attn_only:
        with pytest.raises(ResidualError, match="has no neurons"):
            get_neuron_results(one.activations, one.weights, 0)
        return
    for layer in (0, -1, one.model.cfg.n_layers - 1):
        for neurons, theirs in (
            (None, None),
            ([5, 2], [5, 2]),
            (slice(1, 4), (1, 4)),
            ((1, 4),) * 2,
        ):
            for pos, their_pos in POSITIONS:
                expected = one.cache.get_neuron_results(
                    layer, neuron_slice=theirs, pos_slice=their_pos
                )[0]
                found = get_neuron_results(
                    one.activations, one.weights, layer, neurons=neurons, pos=pos
                )
                assert_same(found.transpose(..., "component", "d_model"), expected)
    assert found["component"].values[0] == f"L{one.model.cfg.n_layers - 1}N1"


def test_stack_neuron_results(one):
    if one.model.cfg.attn_only:
        with pytest.raises(ResidualError, match="has no neurons"):
            stack_neuron_results(one.activations, one.weights, -1)
        return
    for chosen in options(
        layer=[n for n in layers_of(one) if n != 0],
        incl_remainder=[False, True],
        apply_ln=[False, True],
    ):
        for neurons, pos, theirs in (
            (None, -1, -1),
            ([3, 1], None, None),
            ((2, 5), slice(2, 5), (2, 5)),
        ):
            expected, labels = one.cache.stack_neuron_results(
                **chosen, neuron_slice=neurons, pos_slice=theirs, return_labels=True
            )
            found = stack_neuron_results(
                one.activations, one.weights, **chosen, neurons=neurons, pos=pos
            )
            assert_same(found, without_batch(expected), labels)


def test_full_decomposition(one):
    for chosen in options(
        layer=layers_of(one),
        mlp_input=[False, True],
        expand_neurons=[False, True],
        apply_ln=[False, True],
    ):
        if is_refused(one, chosen):
            continue
        for pos, theirs in ((-1, -1), (slice(2, 5), (2, 5))):
            try:
                expected, labels = one.cache.get_full_resid_decomposition(
                    **chosen, pos_slice=theirs, return_labels=True
                )
            except KeyError:  # a model without that norm
                with pytest.raises(UnknownActivationError, match="ln2_scale"):
                    get_full_resid_decomposition(one.activations, one.weights, **chosen, pos=pos)
                continue
            found = get_full_resid_decomposition(one.activations, one.weights, **chosen, pos=pos)
            assert_same(found, without_batch(expected), labels)


def test_apply_ln_to_stack(one):
    stack = decompose_resid(one.activations, one.weights)
    theirs = one.cache.decompose_resid()
    has_ln2 = "ln2_scale" in one.activations
    n = one.model.cfg.n_layers
    for layer, mlp_input in ((None, False), (-1, False), (n, False), (0, False), (1, has_ln2)):
        for recompute in (False, True):
            expected = one.cache.apply_ln_to_stack(
                theirs, layer, mlp_input=mlp_input, recompute_ln=recompute
            )
            found = apply_ln_to_stack(
                stack,
                one.activations,
                one.weights,
                layer,
                mlp_input=mlp_input,
                recompute_ln=recompute,
            )
            assert_same(found, without_batch(expected), stack["component"].values.tolist())
    for pos, their_pos in POSITIONS[1:]:
        cut = decompose_resid(one.activations, one.weights, pos=pos)
        expected = one.cache.apply_ln_to_stack(
            one.cache.decompose_resid(pos_slice=their_pos), pos_slice=their_pos
        )
        assert_same(apply_ln_to_stack(cut, one.activations, one.weights), without_batch(expected))
        bare = cut.drop_vars("pos")
        same = apply_ln_to_stack(bare, one.activations, one.weights, pos=pos)
        assert_same(same, without_batch(expected))


def refuses_logits(one, stack):
    """Whether the weights are raw, with which no logit is attributed."""
    if one.weights.attrs["weights"] != "raw":
        return False
    with pytest.raises(RawWeightsError, match="raw"):
        logit_attrs(stack, one.activations, one.weights, 7)
    return True


def test_logit_attrs(one):
    stack = stack_head_results(one.activations, one.weights, incl_remainder=True)
    if refuses_logits(one, stack):
        return
    theirs = one.cache.stack_head_results(incl_remainder=True)
    for tokens, incorrect in ((7, None), (7, 3)):
        expected = without_batch(one.cache.logit_attrs(theirs, tokens, incorrect))
        found = logit_attrs(stack, one.activations, one.weights, tokens, incorrect)
        assert_same(found, expected, stack["component"].values.tolist())
    last = stack_head_results(one.activations, one.weights, pos=-1)
    expected = one.cache.logit_attrs(one.cache.stack_head_results(pos_slice=-1), 7, 3, pos_slice=-1)
    assert_same(logit_attrs(last, one.activations, one.weights, 7, 3), without_batch(expected))


def test_one_token_for_each_position(one):
    import torch

    stack = decompose_resid(one.activations, one.weights)
    if refuses_logits(one, stack):
        return
    tokens = np.arange(stack.sizes["pos"]) + 4
    theirs = one.cache.logit_attrs(one.cache.decompose_resid(), torch.tensor(tokens)[None])
    assert_same(logit_attrs(stack, one.activations, one.weights, tokens), without_batch(theirs))


def test_labels_say_where_a_component_stands(make_live):
    one = make_live("gpt2")
    stack = stack_head_results(one.activations, one.weights, incl_remainder=True, pos=0)
    assert stack.sel(component="L2H1")["layer"] == 2
    assert stack.sel(component="L2H1")["head"] == 1
    assert stack.sel(component="remainder")["head"] == -1
    streams = accumulated_resid(one.activations, one.weights, incl_mid=True, pos=0)
    assert streams["layer"].values.tolist() == [0, 0, 1, 1, 2, 2, 3]


def test_what_is_missing_is_named_with_the_call_that_adds_it(make_live):
    one = make_live("gpt2")
    held = {"resid_pre": one.activations["resid_pre"].sel(layer=[0, 1])}
    with pytest.raises(
        UnknownActivationError, match=r"needs 'z', and there are 'resid_pre'.*names='residual'"
    ):
        stack_head_results(held, one.weights)
    with pytest.raises(
        UnknownActivationError, match=r"'resid_pre' of layers 2, and .* layers 0, 1"
    ):
        accumulated_resid(held, one.weights, 2)
    with pytest.raises(UnknownActivationError, match=r"names=\('residual', 'mlp_post'\)"):
        get_neuron_results(held, one.weights, 0)
    with pytest.raises(UnknownActivationError, match=r"names='q'\) adds them"):
        stack_activation(held, one.weights, "q")
    with pytest.raises(WeightsMissingError, match=r"needs the model's weights 'W_O'"):
        stack_head_results(one.activations, one.weights.drop_vars("W_O"))


@pytest.mark.parametrize(("layer", "match"), [(4, "expected 0 to 3"), (-5, "expected 0 to 3")])
def test_layers_out_of_range(make_live, layer, match):
    one = make_live("gpt2")
    with pytest.raises(OutOfRangeError, match=match):
        decompose_resid(one.activations, one.weights, layer)
    with pytest.raises(OutOfRangeError, match="no layer stands before layer 0"):
        stack_head_results(one.activations, one.weights, 0)


def test_bad_places_and_modes(make_live):
    one = make_live("gpt2")
    with pytest.raises(OutOfRangeError, match="no pos 500"):
        decompose_resid(one.activations, one.weights, pos=500)
    with pytest.raises(OutOfRangeError, match="no neuron 40"):
        get_neuron_results(one.activations, one.weights, 0, neurons=40)
    with pytest.raises(ResidualError, match="no mode 'heads': expected one of all, mlp, attn"):
        decompose_resid(one.activations, one.weights, mode="heads")
    parallel = make_live("neox")
    with pytest.raises(ResidualError, match="which are parallel"):
        accumulated_resid(parallel.activations, parallel.weights, incl_mid=True)
    weights = one.weights.assign_attrs(normalization="")
    with pytest.raises(WeightsMissingError, match="which kind"):
        decompose_resid(one.activations, weights, apply_ln=True)
