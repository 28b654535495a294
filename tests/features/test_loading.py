"""Autoencoders from folders, files, arrays and objects; and what is refused, with the reason."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pattern_lens.errors import AutoencoderError
from pattern_lens.features.autoencoder import Settings, SparseAutoencoder
from pattern_lens.features.direction import FeatureDirection
from pattern_lens.features.live import LiveAutoencoder
from pattern_lens.features.loading import load_autoencoder
from pattern_lens.features.saelens import write_autoencoder
from pattern_lens.features.variants import KEYS

D_IN, N_FEATURES = 6, 11
HOOK = "blocks.2.mlp.hook_post"
X = torch.randn(5, D_IN, generator=torch.Generator().manual_seed(1))


def weights_of(kind="standard", d_in=D_IN, n_features=N_FEATURES):
    rng = torch.Generator().manual_seed(5)
    sizes = {"W_enc": (d_in, n_features), "W_dec": (n_features, d_in), "b_dec": (d_in,)}
    return {
        key: torch.randn(*sizes.get(key, (n_features,)), generator=rng).abs() - 0.4
        for key in KEYS[kind]
    }


def loaded(weights, **options):
    return load_autoencoder(weights, hook=HOOK, **options)


def same(one, other):
    torch.testing.assert_close(one.encode(X), other.encode(X))
    torch.testing.assert_close(one.decode(one.encode(X)), other.decode(other.encode(X)))


def folder(path, config, weights=None, name="sae_weights.safetensors"):
    path.mkdir()
    save_file(weights or weights_of(), path / name)
    (path / "cfg.json").write_text(json.dumps(config))
    return path


# --- folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KEYS)
def test_what_is_written_is_read_back(kind, tmp_path):
    settings = Settings(
        apply_b_dec_to_input=kind == "gated",
        normalize_activations="layer_norm" if kind == "standard" else "none",
        k=3 if kind == "topk" else None,
    )
    own = SparseAutoencoder(kind, HOOK, weights_of(kind), settings=settings)
    path = write_autoencoder(tmp_path / "sae", own, metadata={"model_name": "tiny"})
    again = load_autoencoder(path)
    assert again.identity() == own.identity()
    same(again, own)
    assert json.loads((path / "cfg.json").read_text())["metadata"]["model_name"] == "tiny"
    half = load_autoencoder(write_autoencoder(tmp_path / "half", own.to(dtype="float16")))
    assert half.dtype == torch.float32
    assert half.W_dec.half().float().equal(half.W_dec)


def test_other_kinds_are_not_written(tmp_path):
    with pytest.raises(AutoencoderError, match="cannot be written in SAELens' format"):
        write_autoencoder(tmp_path / "sae", FeatureDirection(HOOK, [1.0, 2.0], "way"))
    assert not (tmp_path / "sae").exists()


OLD = {
    "architecture": "standard",
    "d_in": D_IN,
    "d_sae": N_FEATURES,
    "activation_fn_str": "relu",
    "apply_b_dec_to_input": True,
    "finetuning_scaling_factor": False,
    "hook_name": HOOK,
    "hook_layer": 2,
    "hook_head_index": None,
    "normalize_activations": "none",
    "dtype": "torch.float32",
    "device": "cuda",
    "activation_fn_kwargs": {},
}
OLDEST = {"hook_point": HOOK, "d_in": D_IN, "d_sae": N_FEATURES, "normalize_activations": False}
NEW = {
    "architecture": "standard",
    "d_in": D_IN,
    "d_sae": N_FEATURES,
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "metadata": {"hook_name": HOOK, "hook_head_index": None, "sae_lens_version": "6.0"},
}


@pytest.mark.parametrize("config", [OLD, OLDEST, NEW], ids=["old", "oldest", "new"])
def test_every_version_of_the_configuration(config, tmp_path):
    own = load_autoencoder(folder(tmp_path / "sae", config))
    assert (own.hook, own.kind, own.name) == (HOOK, "standard", "mlp.2")
    same(own, loaded(weights_of()))
    again = load_autoencoder(tmp_path / "sae" / "sae_weights.safetensors")
    assert again.identity() == own.identity()
    other = load_autoencoder(tmp_path / "sae", hook="blocks.0.hook_mlp_out", name="it")
    assert (other.hook, other.name, other.hash) == ("blocks.0.hook_mlp_out", "it", own.hash)


@pytest.mark.parametrize(
    "said", [{"architecture": "topk", "k": 3}, {"activation_fn_str": "topk", "k": 3}]
)
def test_topk_in_the_words_of_two_versions(said, tmp_path):
    own = load_autoencoder(folder(tmp_path / "sae", OLD | said))
    assert (own.kind, own.settings.k) == ("topk", 3)
    kwargs = {key: value for key, value in said.items() if key != "k"}
    config = OLD | kwargs | {"activation_fn_kwargs": {"k": 3}}
    same(load_autoencoder(folder(tmp_path / "other", config)), own)


def test_what_sparsify_writes(tmp_path):
    w = weights_of()
    given = {
        "encoder.weight": w["W_enc"].T.contiguous(),
        "encoder.bias": w["b_enc"],
        "W_dec": w["W_dec"],
        "b_dec": w["b_dec"],
    }
    config = {"expansion_factor": 2, "num_latents": N_FEATURES, "k": 4, "d_in": D_IN}
    own = load_autoencoder(folder(tmp_path / "sae", config, given, "sae.safetensors"), hook=HOOK)
    same(own, loaded(w, config={"k": 4}))


def test_constant_factors_are_in_the_weights(tmp_path):
    w, factor = weights_of(), torch.linspace(0.5, 2, N_FEATURES)
    latents = ((X * 3 - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    config = OLD | {"normalize_activations": "expected_average_only_in", "scale": 3.0}
    own = load_autoencoder(folder(tmp_path / "scaled", config))
    torch.testing.assert_close(own.encode(X), latents)
    torch.testing.assert_close(own.decode(latents), (latents @ w["W_dec"] + w["b_dec"]) / 3)
    config = OLD | {"finetuning_scaling_factor": True}
    own = load_autoencoder(folder(tmp_path / "tuned", config, w | {"scaling_factor": factor}))
    torch.testing.assert_close(
        own.decode(latents), (latents * factor) @ w["W_dec"] + w["b_dec"], rtol=1e-4, atol=1e-4
    )
    config = OLD | {"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": True}
    own = load_autoencoder(folder(tmp_path / "rescaled", config))
    length = w["W_dec"].norm(dim=-1)
    pre = ((X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * length
    kept = pre * (pre >= pre.topk(3).values[:, -1:]) * (pre > 0)
    torch.testing.assert_close(own.encode(X), kept, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        own.decode(kept), (kept / length) @ w["W_dec"] + w["b_dec"], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"architecture": "temporal"},
            r"architecture 'temporal' .* is not computed here: expected",
        ),
        ({"architecture": "batchtopk"}, "save it for inference, which makes it a jumprelu one"),
        ({"architecture": "jumprelu"}, "lacks threshold: a jumprelu autoencoder has W_enc"),
        ({"activation_fn_str": "tanh-relu"}, "activation function 'tanh-relu' .* is not computed"),
        ({"normalize_activations": "whiten"}, "normalize_activations 'whiten' .* expected none"),
        (
            {"normalize_activations": "expected_average_only_in"},
            r"that it does not say: give config=\{'scale'",
        ),
        ({"normalize_activations": True}, r"expected_average_only_in\) that it does not say"),
        ({"scale": -1}, "scale -1 .* expected a positive number"),
        ({"hook_head_index": 3}, r"is of head 3 alone \(hook_head_index\)"),
        ({"hook_name_out": "blocks.2.hook_mlp_out"}, "is a transcoder"),
        ({"architecture": "topk"}, "k None .* expected a number from 1 to its 11 features"),
        ({"architecture": "topk", "k": 12}, "k 12 of .* from 1 to its 11 features"),
        (
            {"d_sae": 12},
            r"b_enc|W_enc .* has shape \(6, 11\), expected \(d_in, feature\) = \(6, 12\)",
        ),
        ({"d_in": "six"}, "d_in 'six' .* expected a whole number"),
        ({"finetuning_scaling_factor": True}, "says finetuning_scaling_factor, expected"),
        ({"hook_name": None}, "does not say at which hook it stands: give hook="),
    ],
)
def test_configurations_that_are_refused(said, message, tmp_path):
    with pytest.raises(AutoencoderError, match=message):
        load_autoencoder(folder(tmp_path / "sae", OLD | said))


def test_folders_that_are_none(tmp_path):
    with pytest.raises(AutoencoderError, match=r"no autoencoder at .*: expected a folder with cfg"):
        load_autoencoder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AutoencoderError, match=r"expected sae_weights.safetensors, found nothing"):
        load_autoencoder(tmp_path / "empty")
    save_file(weights_of(), tmp_path / "empty" / "sae_weights.safetensors")
    with pytest.raises(AutoencoderError, match=r"no cfg.json in folder"):
        load_autoencoder(tmp_path / "empty")
    for text, message in (
        ("{", "is no JSON file"),
        ("[1]", "holds a list, expected a JSON object"),
    ):
        (tmp_path / "empty" / "cfg.json").write_text(text)
        with pytest.raises(AutoencoderError, match=message):
            load_autoencoder(tmp_path / "empty")


# --- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ae.pt", "ae.pth", "model.bin", "ae.pkl", "ae.safetensors", "ae"])
def test_pickles_are_refused(name, tmp_path):
    torch.save(weights_of(), tmp_path / name)
    with pytest.raises(AutoencoderError, match="is a pickle, which runs whatever code its author"):
        load_autoencoder(tmp_path / name, hook=HOOK)
    (tmp_path / "sae").mkdir()
    (tmp_path / name).rename(tmp_path / "sae" / name)
    (tmp_path / "sae" / "cfg.json").write_text(json.dumps(OLD))
    with pytest.raises(
        AutoencoderError, match=r"is a pickle, which .* safetensors.torch.save_file"
    ):
        load_autoencoder(tmp_path / "sae")


def test_no_pickle_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "sae.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(AutoencoderError, match="is a pickle"):
        load_autoencoder(tmp_path / "sae.safetensors", hook=HOOK)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"hello, this is no file of tensors"])
def test_damaged_files(content, tmp_path):
    (tmp_path / "sae.safetensors").write_bytes(content)
    with pytest.raises(AutoencoderError, match="cannot be read as safetensors"):
        load_autoencoder(tmp_path / "sae.safetensors", hook=HOOK)


def test_a_truncated_file(tmp_path):
    path = tmp_path / "sae.safetensors"
    save_file(weights_of(), path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(AutoencoderError, match="cannot be read as safetensors"):
        load_autoencoder(path, hook=HOOK)


def test_a_plain_file_says_what_its_header_says(tmp_path):
    path = tmp_path / "sae.safetensors"
    save_file(weights_of(), path)
    with pytest.raises(AutoencoderError, match="does not say at which hook it stands: give hook="):
        load_autoencoder(path)
    same(load_autoencoder(path, hook=HOOK), loaded(weights_of()))
    save_file(weights_of(), path, metadata={"hook_name": HOOK, "k": "3"})
    own = load_autoencoder(path)
    assert (own.hook, own.kind, own.settings.k) == (HOOK, "topk", 3)


# --- arrays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("standard", {}),
        ("gated", {}),
        ("jumprelu", {"apply_b_dec_to_input": False}),
        ("topk", {"k": 2}),
    ],
)
def test_the_kind_is_found_from_the_keys(kind, config):
    own = loaded(weights_of(kind), config=config)
    assert own.kind == kind
    arrays = {key: value.numpy().astype(np.float64) for key, value in weights_of(kind).items()}
    assert loaded(arrays, config=config).identity() == own.identity()


@pytest.mark.parametrize("turned", [("W_enc",), ("W_dec",), ("W_enc", "W_dec")])
def test_matrices_are_turned_where_their_shape_tells(turned):
    w = weights_of()
    given = {key: value.T if key in turned else value for key, value in w.items()}
    assert loaded(given).hash == loaded(w).hash


def test_square_matrices_are_turned_by_nobody():
    w = weights_of(d_in=7, n_features=7)
    with pytest.raises(AutoencoderError, match=r"W_enc .* is square, \(7, 7\), and nothing says"):
        loaded(w)
    own = loaded(w, config={"d_in": 7})
    assert own.W_enc.equal(w["W_enc"])
    linear = {
        "encoder.weight": w["W_enc"].T,
        "encoder.bias": w["b_enc"],
        "decoder.weight": w["W_dec"].T,
        "decoder.bias": w["b_dec"],
    }
    assert loaded(linear).hash == own.hash


def test_what_training_code_calls_weights():
    w = weights_of("jumprelu")
    w["threshold"] = w["threshold"].abs()
    given = dict(w, log_threshold=w["threshold"].log())
    del given["threshold"]
    config = {"apply_b_dec_to_input": True}
    same(loaded(given, config=config), loaded(w, config=config))
    one = dict(w, threshold=torch.tensor(0.3))
    many = dict(w, threshold=torch.full((N_FEATURES,), 0.3))
    assert loaded(one, config=config).hash == loaded(many, config=config).hash


def test_bare_jumprelu_weights_can_be_read_in_two_ways():
    w = weights_of("jumprelu")
    with pytest.raises(AutoencoderError, match="does not say whether b_dec is subtracted"):
        loaded(w)
    loaded(w | {"b_dec": torch.zeros(D_IN)})  # both are the same


BAD = [
    ({"W_enc": None}, "lacks W_enc: a standard autoencoder has W_enc, b_enc, W_dec, b_dec; found"),
    ({"b_dec": None}, "lacks b_dec"),
    ({"W_dec": torch.zeros(12, D_IN)}, r"W_dec .* has shape \(12, 6\), expected \(feature, d_in\)"),
    ({"W_enc": torch.zeros(3, 4)}, r"W_enc .* has shape \(3, 4\), expected \(d_in, feature\)"),
    ({"b_enc": torch.zeros(1, N_FEATURES)}, r"b_enc .* has shape \(1, 11\), expected \(11,\)"),
    (
        {"W_dec": torch.full((N_FEATURES, D_IN), torch.nan)},
        "W_dec .* holds 66 numbers that are NaN",
    ),
    ({"b_enc": torch.full((N_FEATURES,), torch.inf)}, "b_enc .* holds 11 numbers that are NaN or"),
    ({"b_enc": torch.zeros(N_FEATURES, dtype=torch.int32)}, "b_enc .* has dtype torch.int32"),
    ({"b_enc": "zeros"}, "b_enc .* is a str, expected a tensor or an array"),
    ({"encoder.weight": torch.zeros(3)}, r"encoder.weight .* has 1 dims, expected 2"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_weights_that_are_refused(changes, message):
    given = {key: value for key, value in (weights_of() | changes).items() if value is not None}
    with pytest.raises(AutoencoderError, match=message):
        loaded(given)


def test_weights_of_another_kind_than_is_said():
    with pytest.raises(AutoencoderError, match="says architecture 'standard', and has the weights"):
        loaded(weights_of("gated"), config={"architecture": "standard"})
    with pytest.raises(AutoencoderError, match=r"lacks W_enc.* found none of them"):
        loaded({})


def test_types_are_as_asked():
    halves = {key: value.to(torch.bfloat16) for key, value in weights_of().items()}
    assert loaded(halves).dtype == torch.float32
    own = loaded(halves, dtype="bfloat16", device="cpu")
    assert own.dtype == torch.bfloat16
    assert own.hash == loaded(halves).hash
    with pytest.raises(AutoencoderError, match="unknown dtype 'float3'"):
        loaded(halves, dtype="float3")


# --- objects ---------------------------------------------------------------------------------------


class Module(torch.nn.Module):
    """Subtracts nothing, and has no W_dec."""

    def __init__(self):
        super().__init__()
        w = weights_of()
        self.inner, self.outer = (
            torch.nn.Linear(D_IN, N_FEATURES),
            torch.nn.Linear(N_FEATURES, D_IN),
        )
        given = (w["W_enc"].T, w["b_enc"], w["W_dec"].T, w["b_dec"])
        for own, value in zip(self.parameters(), given, strict=True):
            own.data = value.contiguous()

    def encode(self, x):
        return self.inner(x).relu()

    def decode(self, latents):
        return self.outer(latents)


def test_an_object_is_used_as_it_is():
    own = loaded(Module())
    plain = loaded(weights_of(), config={"apply_b_dec_to_input": False})
    assert isinstance(own, LiveAutoencoder)
    assert (own.kind, own.n_features, own.d_in, own.name) == ("object", N_FEATURES, D_IN, "mlp.2")
    same(own, plain)
    torch.testing.assert_close(own.W_dec, plain.W_dec)
    torch.testing.assert_close(own.b_dec, plain.b_dec)
    assert own.hash == loaded(Module()).hash
    changed = Module()
    changed.inner.bias.data[3] += 1e-3
    assert loaded(changed).hash != own.hash
    assert own.to(dtype="float16").encode(X.half()).dtype == torch.float16
    with pytest.raises(AutoencoderError, match="is a live object, of which only latents are known"):
        own.preactivation(X)
    with pytest.raises(AutoencoderError, match="encodes 6 numbers, got 7"):
        own.encode(torch.zeros(2, 7))


def test_an_object_may_say_where_it_stands():
    class Config:
        hook_name = None
        d_in = D_IN

    own = Module()
    own.cfg = Config()
    own.cfg.hook_name = "blocks.1.hook_resid_pre"
    assert load_autoencoder(own).name == "resid_pre.1"
    own.cfg.normalize_activations = "layer_norm"
    assert load_autoencoder(own).scales_with_input


def test_functions_that_are_no_module():
    class Plain:
        def encode(self, x):
            return (x @ weights_of()["W_enc"]).relu()

        def decode(self, latents):
            return latents @ weights_of()["W_dec"]

    with pytest.raises(AutoencoderError, match=r"how wide its input is; give config=\{'d_in'"):
        loaded(Plain())
    own = loaded(Plain(), config={"d_in": D_IN})
    torch.testing.assert_close(own.W_dec, weights_of()["W_dec"])
    with pytest.raises(AutoencoderError, match="7 numbers are not taken"):
        loaded(Plain(), config={"d_in": 7})


@pytest.mark.parametrize("source", [None, 3, torch.nn.Linear(3, 3)])
def test_what_is_no_autoencoder(source):
    with pytest.raises(AutoencoderError, match="is no autoencoder: expected a folder"):
        loaded(source)


def test_an_object_without_a_hook():
    with pytest.raises(AutoencoderError, match="the Module does not say at which hook it stands"):
        load_autoencoder(Module())


def test_an_object_that_takes_heads_apart():
    own = Module()
    own.hook_z_reshaping_mode = True
    with pytest.raises(AutoencoderError, match="call turn_off_forward_pass_hook_z_reshaping"):
        loaded(own)


def test_what_is_loaded_is_taken_as_it_is():
    own = loaded(weights_of())
    assert load_autoencoder(own) is own
    assert load_autoencoder(own, name="other").identity() == own.identity() | {"name": "other"}
    assert load_autoencoder(own, dtype="float64").dtype == torch.float64
