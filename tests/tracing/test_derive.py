"""Scalars from stored data equal those that the trace computed, and what is missing is named."""

import subprocess
import sys

import numpy as np
import pytest

from pattern_lens.activations.capture import capture
from pattern_lens.errors import (
    DimensionError,
    SpecificationError,
    UnknownActivationError,
    UnknownPromptError,
    UnknownScalarError,
    UnknownTraceError,
    WeightsMissingError,
)
from pattern_lens.prompts import prompt_hash
from pattern_lens.tracing.deriving import derive
from pattern_lens.tracing.objectives import direction, logit_diff
from pattern_lens.tracing.run import trace
from pattern_lens.tracing.scalars import SCALARS, register_scalar, scalar_names
from pattern_lens.tracing.stored import open_traces

PROMPTS = ["the cat sat on the mat", "Hello there.", "one two three one two"]
RAW = (
    *("z_grad", "pattern_grad", "post_grad", "attn_out_grad", "mlp_out_grad", "resid_pre_grad"),
    "resid_final_grad",
)
KINDS = (
    *("head", "pair", "neuron", "attn", "mlp", "embed", "attn_bias", "mlp_bias"),
    *("resid_norm", "resid_projection", "z_grad", "resid_final_grad"),
)
OBJECTIVE = logit_diff(7, 11)
ABLATED = ("L0H1", "1_mlp_out@2")


class Autoencoder:
    """Latents at what a layer's attention writes, of which half are not zero."""

    def __init__(self):
        import torch

        make = torch.Generator().manual_seed(3)
        self.W_dec = torch.randn(11, 32, generator=make)

    def encode(self, x):
        return (x @ self.W_dec.T).relu()

    def decode(self, latents):
        return latents @ self.W_dec / 32


@pytest.fixture(scope="module")
def traced(make_model, tmp_path_factory):
    """Files by architecture: activations, weights and traces; not to be written to."""
    made = {}

    def make(kind="gpt2"):
        if kind not in made:
            model, path = make_model(kind), tmp_path_factory.mktemp("derive") / f"{kind}.h5"
            names = ["residual", "pattern", "v", "mlp_post"]
            capture(model, PROMPTS, path, names=names, progress=False)
            whole = {"path": path, "progress": False}
            trace(
                model,
                PROMPTS,
                objective=OBJECTIVE,
                scalars=[*RAW, *KINDS],
                name="clean",
                **whole,
            )
            if kind == "gpt2":
                _more(model, whole)
            made[kind] = path
        return made[kind]

    return make


def _more(model, whole):
    ablated = {"objective": OBJECTIVE, "ablate": ABLATED}
    trace(model, PROMPTS, **ablated, scalars="head_write_magnitude", name="bare", **whole)
    kept = ["head", "z", "z_grad", "resid_final_grad"]
    trace(model, PROMPTS, **ablated, scalars=kept, name="ablated", **whole)
    trace(model, PROMPTS, trace="L1N3@2", scalars=[*RAW, "head"], name="node", **whole)
    other = direction(np.arange(32.0), layer=0)
    trace(model, PROMPTS, objective=other, scalars=[*RAW, "head"], name="direction", **whole)
    last = direction(np.arange(32.0))
    trace(model, PROMPTS, objective=last, scalars=[*RAW, "head"], name="last", **whole)
    trace(
        model,
        PROMPTS[:2],
        objective=OBJECTIVE,
        sae={"blocks.1.hook_attn_out": Autoencoder()},
        scalars=["latent"],
        name="latents",
        **whole,
    )


def same(found, expected, names):
    for name in names:
        assert found[name].dims == expected[name].dims
        scale = np.nanmax(np.abs(expected[name].values))
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])  # whose heads share keys
def test_the_same_as_while_the_model_ran(traced, kind):
    with open_traces(traced(kind)) as traces:
        expected = traces["clean"].load()
    found = derive(traced(kind), KINDS, trace="clean")
    assert list(found.data_vars) == list(scalar_names(KINDS))
    same(found, expected, found.data_vars)
    for coord in ("query_token", "key_token", "token", "n_ctx", "target_token", "prompt", "layer"):
        np.testing.assert_array_equal(found[coord], expected[coord])
    assert found.spec == expected.spec
    of_trace = expected.nodes(k=20, kinds=["head"])
    assert found.nodes(k=20, kinds=["head"])["label"].tolist() == of_trace["label"].tolist()
    assert found["pair_activation"].attrs == expected["pair_activation"].attrs


def test_no_torch_is_needed(traced):
    code = (
        "import sys; from pattern_lens.tracing.deriving import derive; "
        f"print(derive({str(traced())!r}, 'head', trace='clean').sizes['query'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["15", "False"]


def test_from_the_file_alone(traced):
    names = ["head_write_magnitude", "neuron_write_magnitude", "resid_norm", "pattern"]
    found = derive(traced(), names)
    with open_traces(traced()) as traces:
        expected = traces["clean"].load()
    same(found, expected, names[:3])
    np.testing.assert_array_equal(found["pattern"], expected["pair_activation"])
    assert found.attrs["trace"] == ""
    assert found.spec == {}
    assert found["token"].isel(prompt=1).values.tolist()[-1] == ""


def test_of_some_prompts(traced):
    wanted = [prompt_hash(PROMPTS[2]), prompt_hash(PROMPTS[0])]
    whole = derive(traced(), "head", trace="clean")
    some = derive(traced(), "head", trace="clean", prompts=wanted)
    assert some["prompt"].values.tolist() == wanted
    same(some, whole.sel(prompt=wanted), some.data_vars)
    one = derive(traced(), "head_write_magnitude", prompts=wanted[0])
    same(one, whole.sel(prompt=wanted[:1]), one.data_vars)
    for name in (None, "clean"):
        with pytest.raises(UnknownPromptError, match="no prompt 'nowhere'"):
            derive(traced(), "head_write_magnitude", trace=name, prompts="nowhere")


def test_from_what_was_opened(traced):
    expected = derive(traced(), "head", trace="clean")
    with open_traces(traced()) as traces:
        same(derive(traces, "head", trace="clean"), expected, expected.data_vars)
        result = traces["clean"]
        same(derive(result, "head"), expected, expected.data_vars)
        one = prompt_hash(PROMPTS[1])
        cut = derive(result.sel(prompt=[one]), "head_estimated_total_effect")
        n = cut.sizes["query"]
        assert n == 6
        same(cut, expected.sel(prompt=[one]).isel(query=slice(n)), cut.data_vars)
        with pytest.raises(
            UnknownTraceError, match="no trace 'node' in the result of trace 'clean'"
        ):
            derive(result, "head", trace="node")
        with pytest.raises(DimensionError, match=r"'z_grad'.*nothing may be chosen of it"):
            derive(result.isel(head=2), "head_estimated_total_effect")


def test_an_ablated_trace_has_activations_of_its_own(traced):
    with open_traces(traced()) as traces:
        expected, clean = traces["ablated"].load(), traces["clean"].load()
    found = derive(traced(), "head", trace="ablated")
    same(found, expected, found.data_vars)
    assert (found["head_write_magnitude"].sel(layer=0, head=1).isel(query=slice(6)) == 0).all()
    assert np.nanmax(np.abs(found["head_write_magnitude"] - clean["head_write_magnitude"])) > 0.1
    with pytest.raises(
        UnknownTraceError,
        match=r"'head_write_magnitude' of trace 'bare' in .*gpt2\.h5: it needs 'z'.*without the ablation\); "
        r"trace with scalars=\[\.\.\., 'z'\]$",
    ):
        derive(traced(), "head_write_magnitude", trace="bare")


def test_layers_of_which_everything_is_stored(traced):
    whole = derive(traced(), "head_estimated_total_effect", trace="clean")
    with open_traces(traced()) as traces:
        result = traces["clean"].isel(layer=[2, 1])
        found = derive(result, ["head_estimated_total_effect"])
        with pytest.raises(UnknownActivationError, match=r"'embed_est.* is stored of layer 0"):
            derive(result, "embed_estimated_total_effect")
    assert found["layer"].values.tolist() == [1, 2]
    same(found, whole.sel(layer=[1, 2]), whole.data_vars)


def test_latents(traced):
    with open_traces(traced()) as traces:
        expected = traces["latents"].load()
    found = derive(
        traced(), ["latent_activation", "latent_estimated_total_effect"], trace="latents"
    )
    assert len(found.data_vars) == 2
    same(found, expected, found.data_vars)
    with pytest.raises(SpecificationError, match="needs 'W_write', which no file holds"):
        derive(traced(), "latent_direct_effect", trace="latents")
    with pytest.raises(UnknownTraceError, match="nothing of an autoencoder is stored"):
        derive(traced(), "latent_activation", trace="clean")
    with pytest.raises(UnknownTraceError, match="needs 'sae_error', 'sae_error_grad'"):
        derive(traced(), "sae_error_estimated_total_effect", trace="latents")


def test_what_is_not_stored_is_named(traced, make_model, tmp_path):
    path = traced()
    with pytest.raises(
        UnknownTraceError,
        match=r"needs 'z_grad', and there is no such thing; choose a trace that stored it, trace= one of 'ablated'",
    ):
        derive(path, "head_estimated_total_effect")
    with pytest.raises(UnknownActivationError, match=r"needs 'rot_q'.*names='rot_q'\) adds it"):
        derive(path, "rot_q", trace="clean")
    with pytest.raises(UnknownTraceError, match="no trace 'other'"):
        derive(path, "head", trace="other")
    with pytest.raises(UnknownScalarError, match="did you mean 'head'"):
        derive(path, "haed", trace="clean")
    with pytest.raises(
        SpecificationError, match=r"'edges'.*needs 'W_Q', 'W_K', 'W_V', which no file"
    ):
        derive(path, "edges", trace="clean")
    bare = tmp_path / "bare.h5"
    capture(make_model("gpt2"), PROMPTS, bare, names=["z"], progress=False)
    with pytest.raises(WeightsMissingError, match=r"head_write_magnitude needs .* weights 'W_O'"):
        derive(bare, "head_write_magnitude")
    with pytest.raises(UnknownTraceError, match="it is in no file"):
        derive(trace(make_model("gpt2"), PROMPTS[:1], objective=OBJECTIVE, progress=False), "head")


@pytest.mark.parametrize("name", ["node", "direction"])
def test_no_direct_effects_on_what_is_read_before_the_end(traced, name):
    with pytest.raises(
        SpecificationError, match=f"'head_direct_effect' of trace '{name}'.*last block"
    ):
        derive(traced(), "head_direct_effect", trace=name)
    with open_traces(traced()) as traces:
        expected = traces[name].load()
    found = derive(traced(), "head_estimated_total_effect", trace=name)
    same(found, expected, found.data_vars)


def test_a_direction_in_the_last_stream(traced):
    with open_traces(traced()) as traces:
        expected = traces["last"].load()
    found = derive(traced(), "head", trace="last")
    same(found, expected, found.data_vars)


def test_a_scalar_of_ones_own(traced):
    @register_scalar(
        "my_share", dims=("layer", "pos"), needs=("mlp_out", "resid_post"), definition="x"
    )
    def my_share(at):
        return (at["mlp_out"] ** 2).sum(-1) / (at["resid_post"] ** 2).sum(-1)

    found = derive(traced(), "my_share", prompts=prompt_hash(PROMPTS[1]))
    del SCALARS["my_share"]
    assert found["layer"].values.tolist() == [2]  # of which the stream behind is captured
    assert found["my_share"].shape == (1, 1, 6)
    assert (found["my_share"] > 0).all()
