"""What `names="residual"` stores: enough to take the stream apart with numpy alone, or a refusal that says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import pattern_lens as pl
from pattern_lens.activations import capture_run as module
from pattern_lens.activations.capture import capture
from pattern_lens.activations.estimate import Estimate
from pattern_lens.activations.residual import model_facts
from pattern_lens.errors import (
    DiskSpaceWarning,
    ModelMismatchError,
    NoResidualStreamError,
    UnknownActivationError,
)
from pattern_lens.models import load_model
from pattern_lens.names import RESIDUAL_STREAM, WEIGHTS
from pattern_lens.prompts import prompt_hash
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.verify import verify
from pattern_lens.testing import N_CTX, tiny_model, tiny_tokenizer

TEXTS = ["the cat sat on the mat and then the cat", "Hello there.", "one two three one two", "a"]
QUIET = {"progress": False}
DECODERS = ["gpt2", "llama", "mistral", "neox", "attn_only"]


def own_logits(model, text: str) -> np.ndarray:
    """The model's logits at the last position of a prompt alone."""
    ids = torch.from_numpy(model.tokenize(text).ids.astype(np.int64))[None]
    with torch.no_grad():
        return model.model(ids, return_type="logits")[0, -1].numpy()


def put_together(run: pl.Run, text: str) -> np.ndarray:
    """Logits from the parts of the last stream: embeddings, heads, neurons and biases."""
    w, facts = run.weights, run.weights.attrs
    of = {name: array[prompt_hash(text)].isel(pos=-1) for name, array in last_values(run).items()}
    parts = of["embed"] + of.get("pos_embed", 0) + w.b_O.sum("layer")
    parts = parts + xr.dot(of["z"], w.W_O, dim=("layer", "head", "d_head"))
    if not facts["attn_only"]:
        parts = parts + w.b_out.sum("layer") + xr.dot(of["post"], w.W_out, dim=("layer", "neuron"))
    if facts["normalization"] == "LN":
        parts = parts - parts.mean("d_model")
    if facts["normalization"] != "none":
        parts = parts / of["ln_final_scale"]
        parts = parts * w.get("ln_final_w", 1) + w.get("ln_final_b", 0)
    return (xr.dot(parts, w.W_U, dim="d_model") + w.b_U).values


def last_values(run: pl.Run) -> dict[str, pl.Activations]:
    return {name: array for name, array in run.activations.items() if name != "final_logits"}


def native(**options: Any) -> pl.models.CaptureModel:
    """A live model of TransformerLens' own kind."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources import native as source

    tokenizer = tiny_tokenizer()
    sizes = {"d_model": 32, "d_head": 8, "n_heads": 4, "n_layers": 2, "d_mlp": 40, "n_ctx": N_CTX}
    config = TransformerBridgeConfig(
        **sizes, d_vocab=len(tokenizer), act_fn="gelu", seed=0, **options
    )
    bridge = source.boot(config, tokenizer=tokenizer, device="cpu", model_name="tiny-native")
    return load_model(bridge.eval(), prepend_bos=True)


def hugging_face(prefix: str, **options: Any) -> pl.models.CaptureModel:
    """A live model of an architecture that `tiny_model` does not have."""
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "max_position_embeddings": N_CTX}
    config = getattr(transformers, f"{prefix}Config")(
        vocab_size=len(tokenizer), **sizes, **heads, **options
    )
    model_class = getattr(transformers, f"{prefix}ForCausalLM")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = model_class(config)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.config.architectures = [model_class.__name__]
    bridge = TransformerBridge.boot_transformers(
        f"tiny-{prefix}", hf_model=model.eval(), tokenizer=tokenizer, device="cpu"
    )
    return load_model(bridge.eval(), prepend_bos=True)


# --- the parts are the whole ---------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["raw", "compatibility"])
@pytest.mark.parametrize("kind", DECODERS)
def test_what_is_stored_gives_the_models_own_logits(make_model, tmp_path, kind, weights):
    model = make_model(kind, weights)
    names = ["residual"] if kind == "attn_only" else ["residual", "mlp_post"]
    capture(model, TEXTS, tmp_path / "m.h5", names=names, batch_size=3, **QUIET)
    with pl.open_run(tmp_path / "m.h5") as run:
        for text in TEXTS:
            stored = run.activations["final_logits"][prompt_hash(text)]
            assert stored.dims == ("token",)
            expected = own_logits(model, text)
            np.testing.assert_allclose(stored, expected, rtol=0, atol=1e-5)
            np.testing.assert_allclose(put_together(run, text), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", DECODERS)
def test_what_is_stored_of_each_kind(make_model, tmp_path, kind):
    model = make_model(kind)
    capture(model, TEXTS[:2], tmp_path / "m.h5", names="residual", **QUIET)
    missing = {
        "gpt2": set(),
        "llama": {"pos_embed"},
        "mistral": {"pos_embed"},
        "neox": {"pos_embed", "resid_mid"},
        "attn_only": {"mlp_out", "resid_mid", "ln2_scale"},
    }
    with pl.open_run(tmp_path / "m.h5") as run:
        assert set(RESIDUAL_STREAM) - set(run.activations) == missing[kind]
        assert set(run.activations) <= set(RESIDUAL_STREAM)
        last = run.activations["resid_post"][prompt_hash(TEXTS[0])]
        assert last.layer.values.tolist() == [2]  # of the others resid_pre is a copy
        facts = run.weights.attrs
        assert facts["normalization"] == ("RMS" if kind in ("llama", "mistral") else "LN")
        assert facts["parallel_attn_mlp"] is (kind == "neox")
        assert facts["n_kv_heads"] == (2 if kind in ("llama", "mistral") else 4)
        assert facts["weights"] == "raw"


def test_weights_are_those_of_the_model(make_model, tmp_path):
    model = make_model("gpt2")
    capture(model, TEXTS[:1], tmp_path / "m.h5", names=["residual", "mlp_post"], **QUIET)
    with pl.open_run(tmp_path / "m.h5") as run:
        for name in ("W_O", "b_O", "W_out", "b_out", "W_U", "b_U"):
            expected = getattr(model.model, name).detach().numpy()
            assert np.array_equal(run.weights[name], expected)
            assert run.weights[name].dims == WEIGHTS[name].dims
        gain = model.model.blocks[1].ln2.w.detach().numpy()
        assert np.array_equal(run.weights["ln2_w"].sel(layer=1), gain)


def test_norms_that_were_folded_are_left_out(make_model, tmp_path):
    capture(
        make_model("gpt2", "compatibility"), TEXTS[:1], tmp_path / "m.h5", names="residual", **QUIET
    )
    with pl.open_run(tmp_path / "m.h5") as run:
        assert sorted(run.weights) == ["W_O", "W_U", "b_O", "b_U", "b_out"]
        assert run.weights.attrs["weights"] == "compatibility"


def test_a_soft_cap_is_told_and_not_applied(tmp_path):
    model = native(output_logits_soft_cap=5.0)
    capture(model, TEXTS, tmp_path / "m.h5", names=["residual", "mlp_post"], **QUIET)
    with pl.open_run(tmp_path / "m.h5") as run:
        assert run.weights.attrs["logit_softcap"] == 5.0
        for text in TEXTS:
            before = put_together(run, text)
            stored = run.activations["final_logits"][prompt_hash(text)]
            np.testing.assert_allclose(stored, before, rtol=0, atol=1e-5)
            capped = 5 * np.tanh(before / 5)
            np.testing.assert_allclose(capped, own_logits(model, text), rtol=0, atol=1e-5)


def test_a_logit_scale_is_told_and_not_applied(tmp_path):
    model = hugging_face("Cohere", logit_scale=0.25)
    capture(model, TEXTS[:1], tmp_path / "m.h5", names="residual", **QUIET)
    with pl.open_run(tmp_path / "m.h5") as run:
        assert run.weights.attrs["logit_scale"] == pytest.approx(0.25, rel=1e-5)
        stored = run.activations["final_logits"][prompt_hash(TEXTS[0])]
        np.testing.assert_allclose(stored / 4, own_logits(model, TEXTS[0]), rtol=0, atol=1e-5)


def test_a_norm_that_is_stored_less_one_is_stored_as_it_acts(tmp_path):
    model = hugging_face("Gemma", num_key_value_heads=2, head_dim=8)
    capture(model, TEXTS, tmp_path / "m.h5", names=["residual", "mlp_post"], **QUIET)
    with pl.open_run(tmp_path / "m.h5") as run:
        expected = own_logits(model, TEXTS[0])
        np.testing.assert_allclose(put_together(run, TEXTS[0]), expected, rtol=0, atol=2e-5)


def test_a_model_without_norms(tmp_path):
    model = native(normalization_type=None)
    capture(model, TEXTS, tmp_path / "m.h5", names=["residual", "mlp_post"], **QUIET)
    with pl.open_run(tmp_path / "m.h5") as run:
        assert "ln_final_scale" not in run.activations
        assert run.weights.attrs["normalization"] == "none"
        expected = own_logits(model, TEXTS[1])
        np.testing.assert_allclose(put_together(run, TEXTS[1]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_precisions(tmp_path, dtype):
    model = load_model(tiny_model("llama").to(getattr(torch, dtype)), prepend_bos=True)
    capture(model, TEXTS, tmp_path / "m.h5", names="residual", **QUIET)
    with pl.open_run(tmp_path / "m.h5") as run:
        expected = model.model.W_U.detach().float().numpy()
        assert np.array_equal(run.weights["W_U"], expected)
        assert run.weights["W_U"].dtype == (np.float16 if dtype == "float16" else np.float32)


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("bert", "the stream that block 0 is given is another one"),
        ("t5", "model 'tiny-t5' has no 'embed'|model 'tiny-t5' has no 'resid_pre'"),
    ],
)
def test_models_without_a_stream_that_is_a_sum(tmp_path, kind, why):
    model = load_model(tiny_model(kind))
    with pytest.raises(NoResidualStreamError, match=why):
        capture(model, TEXTS, tmp_path / "m.h5", names="residual", **QUIET)
    assert not (tmp_path / "m.h5").exists()


def test_attention_that_is_normed_again(tmp_path):
    model = hugging_face("Gemma2", num_key_value_heads=2, head_dim=8)
    with pytest.raises(
        NoResidualStreamError, match="attn_out of block 0 is not the sum of its heads"
    ):
        capture(model, TEXTS, tmp_path / "m.h5", names="residual", **QUIET)


def test_neurons_of_experts(tmp_path):
    model = hugging_face("Mixtral", num_key_value_heads=2, num_local_experts=2)
    capture(model, TEXTS[:1], tmp_path / "m.h5", names="residual", **QUIET)
    ids = model.tokenize(TEXTS[0]).ids[:6]
    with pytest.raises(NoResidualStreamError, match="it has no 'post'; it cannot be taken apart"):
        model_facts(model, ids, neurons=True)


def test_logits_that_are_changed_later(make_model, monkeypatch):
    model = make_model("gpt2")
    forward = type(model.model).forward
    monkeypatch.setattr(
        type(model.model), "forward", lambda *args, **options: forward(*args, **options) ** 2
    )
    ids = model.tokenize(TEXTS[0]).ids[:6]
    with pytest.raises(NoResidualStreamError, match="changes its logits after the unembedding"):
        model_facts(model, ids, neurons=False)


# --- in the file ---------------------------------------------------------------------------------


def rows_of_weights(path) -> dict[str, int]:
    reader = StoreReader(path)
    with reader.handle.open() as file:
        found = {name: len(file[f"weights/{name}/index"]) for name in file["weights"]}
    reader.close()
    return found


def test_weights_are_written_once(make_model, tmp_path):
    model, path = make_model("gpt2"), tmp_path / "m.h5"
    capture(model, TEXTS[:2], path, **QUIET)
    capture(model, TEXTS[:2], path, names=["pattern", "residual"], **QUIET)
    size = path.stat().st_size
    assert capture(model, TEXTS[:2], path, names=["pattern", "residual"], **QUIET).n_stored == 0
    assert path.stat().st_size == size
    assert set(rows_of_weights(path).values()) == {1}
    capture(model, TEXTS, path, names=["residual", "mlp_post"], **QUIET)
    assert rows_of_weights(path)["W_out"] == 1
    assert set(rows_of_weights(path).values()) == {1}
    report = verify(path, progress=False)
    assert report.ok
    assert (report.n_values["final_logits"], report.n_values["weights"]) == (4, 12)


def test_weights_that_are_not_there_come_without_a_prompt(make_model, tmp_path):
    model, path = make_model("gpt2"), tmp_path / "m.h5"
    capture(model, TEXTS, path, names=list(RESIDUAL_STREAM), **QUIET)
    with (
        pl.open_run(path) as run,
        pytest.raises(
            UnknownActivationError,
            match=r"no weight 'W_U' in .* it holds none; capture with names=\['residual'\]",
        ),
    ):
        _ = run.weights
    assert capture(model, TEXTS, path, names="residual", **QUIET).n_stored == 0
    with pl.open_run(path) as run:
        assert "W_U" in run.weights


def test_all_layers_of_a_stream_stay_all(make_model, tmp_path):
    model, path = make_model("gpt2"), tmp_path / "m.h5"
    capture(model, TEXTS[:2], path, names="resid_post", **QUIET)
    capture(model, TEXTS, path, names="residual", **QUIET)
    with pl.open_run(path) as run:
        stored = run.activations["resid_post"]
        assert len(stored) == len(TEXTS)
        assert stored[prompt_hash(TEXTS[3])].layer.values.tolist() == [0, 1, 2]


def test_residual_beside_the_hooks_that_it_shares(make_model, tmp_path):
    model, path = make_model("gpt2"), tmp_path / "m.h5"
    capture(model, TEXTS, path, names=["unembed", "residual", "resid_post"], **QUIET)
    with pl.open_run(path) as run:
        assert run.activations["resid_post"][prompt_hash(TEXTS[0])].sizes["layer"] == 3
        for text in TEXTS:
            last = run.activations["unembed"][prompt_hash(text)].isel(pos=-1).values
            stored = run.activations["final_logits"][prompt_hash(text)].values
            np.testing.assert_allclose(stored, last, rtol=0, atol=1e-6)


def test_final_logits_alone(make_model, tmp_path):
    model, path = make_model("llama"), tmp_path / "m.h5"
    capture(model, TEXTS, path, names="final_logits", batch_size=4, **QUIET)
    with pl.open_activations(path, "final_logits") as stored:
        assert stored.dims == ("token",)
        for text in TEXTS:
            np.testing.assert_allclose(
                stored[prompt_hash(text)], own_logits(model, text), rtol=0, atol=1e-5
            )
        best = stored.argmax("token")
        assert best.dims == ("prompt",)
        assert stored.sel(token=[7, 2])[prompt_hash("a")].shape == (2,)


def test_no_hook_stays_behind(make_model, tmp_path):
    model = make_model("gpt2")
    before = own_logits(model, TEXTS[0])
    capture(model, TEXTS, tmp_path / "m.h5", names="residual", **QUIET)
    unembed = model.model.unembed
    assert not unembed._forward_pre_hooks
    assert np.array_equal(own_logits(model, TEXTS[0]), before)


def test_another_model_is_refused(make_model, tmp_path):
    path = tmp_path / "m.h5"
    capture(make_model("gpt2"), TEXTS[:1], path, names="residual", **QUIET)
    other = load_model(tiny_model("gpt2", seed=5), prepend_bos=True)
    with pytest.raises(ModelMismatchError, match="weights_hash"):
        capture(other, TEXTS, path, names="residual", **QUIET)


def test_a_file_of_an_interrupted_capture_gets_the_rest(make_model, tmp_path, monkeypatch):
    model, path = make_model("gpt2"), tmp_path / "m.h5"
    monkeypatch.setattr(module.StoreWriter, "commit", _stop)
    with pytest.raises(KeyboardInterrupt):
        capture(model, TEXTS, path, names="residual", **QUIET)
    monkeypatch.undo()
    assert set(rows_of_weights(path).values()) == {1}
    assert capture(model, TEXTS, path, names="residual", **QUIET).n_stored == len(TEXTS)
    assert set(rows_of_weights(path).values()) == {1}


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


# --- how much ------------------------------------------------------------------------------------


def test_what_will_be_stored_is_told_before(make_model, tmp_path):
    model, path = make_model("gpt2"), tmp_path / "m.h5"
    told: list[Estimate] = []

    def note(found: Estimate) -> None:
        assert not path.exists()
        told.append(found)

    capture(model, TEXTS, path, names=["pattern", "residual"], on_estimate=note, **QUIET)
    with pl.open_run(path) as run:
        lengths = run.prompts["n_ctx"].to_numpy()
        weight_bytes = {name: array.nbytes for name, array in run.weights.items()}
    (found,) = told
    assert found.n_prompts == len(TEXTS)
    assert found.activation_bytes["resid_pre"] == 4 * 3 * 32 * lengths.sum()
    assert found.activation_bytes["final_logits"] == 4 * 300 * len(TEXTS)
    assert found.activation_bytes["pattern"] == 4 * 12 * (lengths * (lengths + 1) // 2).sum()
    assert found.weight_bytes == weight_bytes
    assert found.summary().startswith("4 prompts to store: ")
    assert "weights, once" in found.summary()


def test_nothing_is_told_where_nothing_is_stored(make_model, tmp_path):
    capture(make_model("gpt2"), TEXTS, tmp_path / "m.h5", **QUIET)
    told: list[Estimate] = []
    capture(make_model("gpt2"), TEXTS, tmp_path / "m.h5", on_estimate=told.append, **QUIET)
    assert told == []


def test_a_disk_that_may_be_too_small(make_model, tmp_path, monkeypatch):
    from pattern_lens.activations import estimate

    usage = estimate.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda _: usage._replace(free=70_000))
    monkeypatch.setattr(module.StoreWriter, "_check_space", lambda *_: None)
    with pytest.warns(DiskSpaceWarning, match=r"may not fit: .* before compression, 70\.0 kB free"):
        capture(make_model("gpt2"), TEXTS, tmp_path / "m.h5", names="residual", **QUIET)
