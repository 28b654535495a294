"""Every kind of autoencoder computes what plain torch formulas say, and its hash is of its weights alone."""

import json
import pickle

import numpy as np
import pytest
import torch

from pattern_lens.errors import AutoencoderError
from pattern_lens.features.autoencoder import Settings, SparseAutoencoder
from pattern_lens.features.direction import FeatureDirection
from pattern_lens.features.loading import load_autoencoder
from pattern_lens.features.variants import KEYS

D_IN, N_FEATURES, K = 6, 11, 4
HOOK = "blocks.2.mlp.hook_post"
RANDOM = torch.Generator().manual_seed(3)


def random(*shape):
    return torch.randn(*shape, generator=RANDOM)


def weights_of(kind):
    sizes = {"W_enc": (D_IN, N_FEATURES), "W_dec": (N_FEATURES, D_IN), "b_dec": (D_IN,)}
    found = {key: random(*sizes.get(key, (N_FEATURES,))) for key in KEYS[kind]}
    if kind == "jumprelu":
        found["threshold"] = found["threshold"].abs()
    return found


def settings_of(kind, **settings):
    return Settings(k=K if kind == "topk" else None, **settings)


def reference(kind, w, x, *, subtract, normalise):
    """Latents and reconstruction, one input at a time."""
    latents, again = torch.zeros(len(x), N_FEATURES), torch.zeros(len(x), D_IN)
    for row, own in enumerate(x):
        shift, factor = torch.tensor(0.0), torch.tensor(1.0)
        if normalise == "layer_norm":
            shift = own.mean()
            factor = ((own - shift) ** 2).sum().div(D_IN - 1).sqrt() + 1e-5
        if normalise == "constant_norm_rescale":
            factor = (own**2).sum().sqrt() / D_IN**0.5
        inner = (own - shift) / factor - (w["b_dec"] if subtract else 0)
        for f in range(N_FEATURES):
            pre = (inner * w["W_enc"][:, f]).sum()
            if kind == "gated":
                magnitude = pre * torch.exp(w["r_mag"][f]) + w["b_mag"][f]
                latents[row, f] = max(magnitude, 0) if pre + w["b_gate"][f] > 0 else 0
                continue
            latents[row, f] = max(pre + w["b_enc"][f], 0)
            if kind == "jumprelu" and pre + w["b_enc"][f] <= w["threshold"][f]:
                latents[row, f] = 0
        if kind == "topk":
            pre = inner @ w["W_enc"] + w["b_enc"]
            latents[row, pre.argsort(descending=True)[K:]] = 0
        back = factor - 1e-5 if normalise == "layer_norm" else factor
        again[row] = (latents[row] @ w["W_dec"] + w["b_dec"]) * back + shift
    return latents, again


@pytest.mark.parametrize("normalise", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("kind", KEYS)
def test_every_kind_is_its_formula(kind, subtract, normalise):
    w, x = weights_of(kind), random(7, D_IN) * 2 + 0.5
    settings = settings_of(kind, apply_b_dec_to_input=subtract, normalize_activations=normalise)
    own = SparseAutoencoder(kind, HOOK, w, settings=settings)
    latents, again = reference(kind, w, x, subtract=subtract, normalise=normalise)
    found = own.encode(x)
    torch.testing.assert_close(found, latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own.decode(found), again, atol=1e-4, rtol=1e-4)
    assert 0 < int((found > 0).sum()) < found.numel()
    several = own.encode(x[:6].view(2, 3, D_IN))
    torch.testing.assert_close(several.view(6, -1), found[:6])


@pytest.mark.parametrize("kind", KEYS)
def test_latents_are_the_preactivation_where_they_are_active(kind):
    own = SparseAutoencoder(kind, HOOK, weights_of(kind), settings=settings_of(kind))
    x = random(9, D_IN)
    latents, pre = own.encode(x), own.preactivation(x)
    assert torch.equal(latents[latents > 0], pre[latents > 0])


def test_topk_keeps_fewer_where_fewer_are_positive():
    w = weights_of("topk") | {"b_enc": torch.full((N_FEATURES,), -50.0)}
    w["b_enc"][5] = 50
    own = SparseAutoencoder("topk", HOOK, w, settings=Settings(k=K))
    assert (own.encode(random(3, D_IN)) > 0).sum(-1).tolist() == [1, 1, 1]


def test_gradients_go_through():
    for kind in KEYS:
        own = SparseAutoencoder(kind, HOOK, weights_of(kind), settings=settings_of(kind))
        x = random(4, D_IN).requires_grad_()
        own.decode(own.encode(x)).square().sum().backward()
        assert torch.isfinite(x.grad).all()
        assert x.grad.any()


# --- inputs that are normalised --------------------------------------------------------------------


def test_decoding_what_was_normalised_needs_what_was_encoded():
    settings = Settings(normalize_activations="layer_norm")
    own = SparseAutoencoder("standard", HOOK, weights_of("standard"), settings=settings)
    x, other = random(5, D_IN), random(4, D_IN) * 9
    with pytest.raises(AutoencoderError, match="needs what was encoded"):
        own.decode(torch.zeros(5, N_FEATURES))
    latents = own.encode(x)
    expected = own.decode(latents)
    own.encode(other)
    with pytest.raises(AutoencoderError, match=r"shape \(5, 11\) are not of the last input"):
        own.decode(latents)
    torch.testing.assert_close(own.decode(latents, like=x), expected)
    assert own.scales_with_input


@pytest.mark.parametrize("normalise", ["layer_norm", "constant_norm_rescale"])
def test_an_input_of_zeros_gives_no_nan(normalise):
    settings = Settings(normalize_activations=normalise)
    own = SparseAutoencoder("standard", HOOK, weights_of("standard"), settings=settings)
    latents = own.encode(torch.zeros(2, D_IN))
    assert torch.isfinite(latents).all()
    assert torch.isfinite(own.decode(latents)).all()


# --- what it is ------------------------------------------------------------------------------------


def made(kind="standard", weights=None, **options):
    return SparseAutoencoder(kind, HOOK, weights or weights_of(kind), **options)


@pytest.mark.parametrize("kind", KEYS)
def test_the_hash_is_of_the_weights(kind):
    w = weights_of(kind)
    own = made(kind, w)
    again = made(kind, {key: value.clone() for key, value in w.items()}, name="other")
    assert again.hash == own.hash == own.to(dtype="float64").hash == own.to("cpu").hash
    assert len(own.hash) == 32
    assert int(own.hash, 16)
    for key in KEYS[kind]:
        changed = {name: value.clone() for name, value in w.items()}
        changed[key].view(-1)[-1] += 1e-4
        assert made(kind, changed).hash != own.hash, key


def test_the_hash_of_the_same_numbers_is_the_same_in_half_precision():
    halves = {key: value.half() for key, value in weights_of("standard").items()}
    assert made(weights=halves).hash == made(weights={k: v.float() for k, v in halves.items()}).hash


def test_the_hash_stays_what_it_is():
    """Files hold it."""
    sizes = {"W_enc": (2, 3), "b_enc": (3,), "W_dec": (3, 2), "b_dec": (2,)}
    own = {key: torch.ones(size) / 3 for key, size in sizes.items()}
    assert made(weights=own).hash == "77be81924ce7cf142d2711a7c211f8ec"


def test_the_identity_is_json_and_tells_settings_apart():
    own = made("topk", settings=Settings(k=3, apply_b_dec_to_input=False), name="mine")
    identity = own.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert {key: identity[key] for key in ("name", "hook", "site", "layer", "kind")} == {
        "name": "mine",
        "hook": HOOK,
        "site": "post",
        "layer": 2,
        "kind": "topk",
    }
    assert (identity["n_features"], identity["d_in"]) == (N_FEATURES, D_IN)
    assert identity["config"]["k"] == 3
    other = made("topk", own.weights, settings=Settings(k=4, apply_b_dec_to_input=False))
    assert other.hash == own.hash
    assert other.identity()["config"] != identity["config"]


@pytest.mark.parametrize(
    ("hook", "name"),
    [
        ("blocks.0.mlp.hook_post", "mlp.0"),
        ("blocks.3.hook_resid_post", "resid_post.3"),
        ("blocks.1.hook_attn_out", "attn_out.1"),
        ("blocks.2.hook_mlp_out", "mlp_out.2"),
        ("blocks.1.attn.hook_z", "z.1"),
        ("hook_embed", "embed"),
    ],
)
def test_names_come_from_hooks(hook, name):
    assert SparseAutoencoder("standard", hook, weights_of("standard")).name == name


@pytest.mark.parametrize("name", ["", "a/b", ".", " ", "a\0b"])
def test_names_that_no_file_can_hold(name):
    with pytest.raises(AutoencoderError, match="an autoencoder cannot be called"):
        made(name=name)


def test_another_type_is_another_object():
    own = made("gated")
    half = own.to(dtype=torch.float16)
    assert (own.dtype, half.dtype) == (torch.float32, torch.float16)
    assert (half.hash, half.name, half.kind) == (own.hash, own.name, own.kind)
    x = random(3, D_IN)
    torch.testing.assert_close(half.encode(x).float(), own.encode(x), atol=0.05, rtol=0.02)
    assert half.encode(x).dtype == torch.float16
    with pytest.raises(AutoencoderError, match="unknown dtype 'int8'"):
        own.to(dtype="int8")


def test_it_can_be_renamed_and_sent():
    own = made(settings=Settings(normalize_activations="layer_norm"))
    other = own.renamed(hook="blocks.0.hook_mlp_out", name="moved")
    assert (other.name, other.site, other.layer) == ("moved", "mlp_out", 0)
    assert other.hash == own.hash
    assert own.renamed() is own
    own.encode(random(2, D_IN).requires_grad_())
    again = pickle.loads(pickle.dumps(own))  # noqa: S301 - our own
    assert again.identity() == own.identity()


def test_another_width_is_refused():
    with pytest.raises(AutoencoderError, match=r"encodes 6 numbers, got 7"):
        made().encode(random(2, 7))


def test_its_repr():
    text = repr(made("gated"))
    assert (
        text
        == "<SparseAutoencoder 'mlp.2': 11 features of 6 at blocks.2.mlp.hook_post, gated, float32>"
    )


# --- directions ------------------------------------------------------------------------------------


def test_a_direction_is_a_feature():
    vector, x = np.array([1.0, -2, 0, 0.5, 0, 3]), random(8, D_IN)
    own = FeatureDirection("blocks.1.hook_resid_post", vector, "way")
    v = torch.tensor(vector, dtype=torch.float32)
    torch.testing.assert_close(own.encode(x)[:, 0], x @ v)
    left = x - own.decode(own.encode(x))
    torch.testing.assert_close(left @ v, torch.zeros(8), atol=1e-5, rtol=0)
    assert (own.encode(x) < 0).any()
    assert own.is_signed
    positive = FeatureDirection("blocks.1.hook_resid_post", vector, "way", relu=True)
    torch.testing.assert_close(positive.encode(x)[:, 0], (x @ v).relu())
    assert not positive.is_signed
    assert (own.n_features, own.d_in, own.kind, own.name) == (1, D_IN, "direction", "way")
    assert own.identity() != positive.identity()


def test_a_direction_stays_one():
    own = FeatureDirection("blocks.1.hook_resid_post", [3.0, 4.0], "way", relu=True)
    for other in (own.to(dtype="float64"), own.renamed(name="else"), load_autoencoder(own)):
        assert isinstance(other, FeatureDirection)
        assert (other.hash, other.kind) == (own.hash, own.kind)
    assert own.hash != FeatureDirection(own.hook, [3.0, 4.1], "way", relu=True).hash


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([0.0, 0.0], "is zero or holds NaN"),
        ([1.0, float("nan")], "is zero or holds NaN"),
        ([[1.0, 2.0]], r"has 2 dims, expected 1"),
        ("north", "is a str, expected a vector"),
    ],
)
def test_what_is_no_direction(vector, message):
    with pytest.raises(AutoencoderError, match=message):
        FeatureDirection("blocks.1.hook_resid_post", vector, "way")
