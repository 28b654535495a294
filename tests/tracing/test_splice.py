"""Autoencoders in the way: nothing changes until something is ablated, and gradients flow through what they encode."""

import numpy as np
import pytest
import torch
import xarray as xr

from pattern_lens.errors import NoGradientError, SpecificationError
from pattern_lens.features.direction import FeatureDirection
from pattern_lens.features.loading import load_autoencoder
from pattern_lens.testing import tiny_model
from pattern_lens.tracing import Ablation, Trace, direction, logit_diff, trace

TEXTS = ["the cat sat on the mat", "hello world, hello there"]
DIFFERENCE = logit_diff(10, 20)
HOOKS = {
    "post": "blocks.1.mlp.hook_post",
    "attn_out": "blocks.1.hook_attn_out",
    "mlp_out": "blocks.1.hook_mlp_out",
    "z": "blocks.1.attn.hook_z",
    "resid_post": "blocks.1.hook_resid_post",
    "resid_pre": "blocks.1.hook_resid_pre",
}
WIDTHS = {"post": 40, "attn_out": 32, "mlp_out": 32, "z": 32, "resid_post": 32, "resid_pre": 32}
TIMES = {"seconds", "memory_bytes"}


class Autoencoder(torch.nn.Module):
    def __init__(self, width, n_features, seed=0):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.W_enc = torch.nn.Parameter(torch.randn(width, n_features, generator=random) * 0.3)
        self.W_dec = torch.nn.Parameter(torch.randn(n_features, width, generator=random) * 0.3)
        self.b_enc = torch.nn.Parameter(torch.randn(n_features, generator=random) * 0.1)
        self.b_dec = torch.nn.Parameter(torch.randn(width, generator=random) * 0.1)

    def encode(self, x):
        return torch.relu(x @ self.W_enc + self.b_enc)

    def decode(self, latents):
        return latents @ self.W_dec + self.b_dec


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt2")


def traced(model, texts=TEXTS, **options):
    options.setdefault("objective", DIFFERENCE)
    return trace(model, texts, progress=False, **options)


def loaded(own, site="post", **options):
    config = {"apply_b_dec_to_input": False, **options}
    return load_autoencoder(dict(own.named_parameters()), hook=HOOKS[site], config=config)


def spliced(site, n_features=50):
    return {HOOKS[site]: ("ae", Autoencoder(WIDTHS[site], n_features))}


STREAMS = {
    "z": (("resid_mid", 1), ("resid_pre", 1)),
    "attn_out": (("resid_mid", 1), ("resid_pre", 1)),
    "post": (("resid_post", 1), ("resid_mid", 1)),
    "mlp_out": (("resid_post", 1), ("resid_mid", 1)),
    "resid_post": (("resid_pre", 2), ("resid_mid", 1)),
    "resid_pre": (("resid_pre", 1), ("resid_mid", 0)),
}
"""Streams that an autoencoder at a site of layer 1 has written to, and that it has not."""
VALUES = {"attn_out": "attn_out", "mlp_out": "mlp_out", "z": "z", "resid_post": "resid_post"}
VALUES |= {"post": "neuron_activation", "resid_pre": "resid_pre"}


def through(site, values, model):
    """Values of a site of layer 1, heads side by side, as what they write to the stream."""
    weights = {"post": model.blocks[1].mlp.W_out, "z": model.blocks[1].attn.W_O.flatten(0, 1)}
    return values @ weights[site].detach() if site in weights else values


def written_at(site, found, model):
    own = found[VALUES[site]].isel(layer=1)
    rest = [dim for dim in own.dims if dim not in ("prompt", "pos")]
    values = own.transpose("prompt", "pos", *rest).values
    written = through(site, torch.tensor(values).flatten(2), model)
    return xr.DataArray(written.numpy(), dims=("prompt", "pos", "d_model"))


@pytest.mark.parametrize("site", HOOKS)
def test_the_model_computes_what_it_does_without(model, site):
    plain, with_it = (
        traced(model, scalars=("default", "neuron")),
        traced(model, scalars=("default", "neuron"), sae=spliced(site)),
    )
    for name in set(plain.data_vars) - TIMES:
        np.testing.assert_allclose(
            with_it[name].values, plain[name].values, atol=2e-5, err_msg=name
        )


@pytest.mark.parametrize("site", HOOKS)
def test_latents_and_error_add_up_to_the_site(model, site):
    """Direct effects of latents, of the decoder's bias and of the error make that of the activation."""
    sae = spliced(site)
    found = traced(model, scalars=("latent", "sae_error"), sae=sae)
    bias = traced(model, scalars=("resid_final_grad", *VALUES.values()))
    whole = (bias.resid_final_grad * written_at(site, bias, model)).sum("d_model")
    decoder = through(site, sae[HOOKS[site]][1].b_dec.detach(), model)
    constant = (bias.resid_final_grad * decoder.numpy()).sum("d_model")
    parts = (
        found["ae.latent_direct_effect"].sum("feature") + found["ae.error_direct_effect"] + constant
    )
    np.testing.assert_allclose(parts.sum("pos").values, whole.sum("pos").values, atol=1e-5)


@pytest.mark.parametrize("site", HOOKS)
def test_latents_reach_what_is_read_behind_them_only(model, site):
    """The stream where an autoencoder's site joins it, and not the stream before."""
    behind, before = STREAMS[site]
    vector = np.linspace(-1, 1, 32)
    own = {"scalars": "latent_direct_effect", "sae": spliced(site)}
    for (name, layer), reaches in ((behind, True), (before, False)):
        objective = direction(vector, site=name, layer=layer)
        found = traced(model, objective=objective, **own)["ae.latent_direct_effect"]
        assert bool((abs(found) > 1e-6).any()) == reaches, (name, layer)


@pytest.mark.parametrize("site", HOOKS)
def test_gradients_of_latents_are_finite_differences(model, site):
    sae, eps = spliced(site), 1e-2
    found = traced(model, TEXTS[:1], scalars="latent", sae=sae, detach_norm=False)
    pos, feature = np.unravel_index(
        int(np.nanargmax(abs(found["ae.latent_estimated_total_effect"][0].values))),
        found["ae.latent_activation"][0].shape,
    )
    now = float(found["ae.latent_activation"][0, pos, feature])

    def objective(value):
        ablation = Ablation("ae", pos=int(pos), feature=int(feature), value=value)
        return float(
            traced(model, TEXTS[:1], sae=sae, ablate=ablation, detach_norm=False).objective[0]
        )

    slope = (objective(now + eps) - objective(now - eps)) / (2 * eps)
    np.testing.assert_allclose(
        float(found["ae.latent_gradient"][0, pos, feature]), slope, rtol=0.02, atol=1e-3
    )


def test_an_ablated_latent_takes_what_it_writes_from_the_stream(model):
    sae = spliced("mlp_out")
    own = {"scalars": ("mlp_out", "resid_post", "latent"), "sae": sae}
    before, after = traced(model, **own), traced(model, **own, ablate=Ablation("ae", feature=7))
    latent = before["ae.latent_activation"].isel(feature=7)
    change = (
        (before.resid_post - after.resid_post).isel(layer=1).transpose("prompt", "pos", "d_model")
    )
    row = sae[HOOKS["mlp_out"]][1].W_dec[7].detach().numpy()
    np.testing.assert_allclose(change.values, latent.values[..., None] * row, atol=1e-5)


def test_several_autoencoders_at_once(model):
    sae = {HOOKS["post"]: Autoencoder(40, 60), HOOKS["attn_out"]: ("att", Autoencoder(32, 50, 1))}
    found = traced(model, scalars="latent", sae=sae)
    assert found["1.post.latent_activation"].shape[-1] == 60
    assert found["att.latent_activation"].shape[-1] == 50
    table = found.nodes(k=5, kinds=["latent"])
    assert set(table.label.str.rsplit("F", n=1).str[0]) <= {"1.post", "att"}


def test_a_latent_is_traced(model):
    sae = spliced("post")
    latents = traced(model, scalars="latent", sae=sae)["ae.latent_activation"]
    pos = 3
    feature = int(latents[:, pos].min("prompt").values.argmax())
    assert float(latents[:, pos, feature].min()) > 0
    found = traced(model, objective=None, trace=Trace("ae", feature=feature, pos=pos), sae=sae)
    np.testing.assert_allclose(found.node_value.values, latents[:, pos, feature].values, atol=1e-5)


def test_a_latent_that_is_not_active_has_no_causes(model):
    sae = spliced("post")
    latents = traced(model, scalars="latent", sae=sae)["ae.latent_activation"]
    silent = int((latents[:, 3] == 0).all("prompt").values.argmax())
    with pytest.raises(NoGradientError, match=rf"no gradient arrived from 'aeF{silent}@3'"):
        traced(model, objective=None, trace=Trace("ae", feature=silent, pos=3), sae=sae)


def test_an_autoencoder_without_decoder_weights(model):
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Autoencoder(32, 50)

        def encode(self, x):
            return self.inner.encode(x)

        def decode(self, latents):
            return self.inner.decode(latents)

    hook = HOOKS["mlp_out"]
    one = traced(model, scalars="latent_direct_effect", sae={hook: ("ae", Plain())})
    other = traced(model, scalars="latent_direct_effect", sae=spliced("mlp_out"))
    np.testing.assert_allclose(
        one["ae.latent_direct_effect"], other["ae.latent_direct_effect"], atol=1e-5
    )


@pytest.mark.parametrize(
    ("sae", "message"),
    [
        ({HOOKS["post"]: Autoencoder(32, 50)}, "does not take values of its width, 40"),
        ({"blocks.1.attn.hook_q": Autoencoder(32, 50)}, "cannot be spliced in at"),
        (
            {"blocks.0.hook_resid_pre": Autoencoder(32, 50)},
            "expected a hook of z, attn_out, post, mlp_out, resid_post, or of resid_pre after layer 0",
        ),
        (
            Autoencoder(40, 50),
            "does not say at which hook it stands: expected what load_autoencoder",
        ),
        ([1], "sae= is of type int, which does not say"),
        (
            [loaded(Autoencoder(40, 50)), loaded(Autoencoder(40, 60))],
            "the name 'mlp.1' of an autoencoder is taken",
        ),
        ({HOOKS["post"]: torch.nn.Linear(40, 40)}, "without encode and decode"),
        ({HOOKS["post"]: ("z", Autoencoder(40, 50))}, "the name 'z' of an autoencoder is taken"),
    ],
)
def test_what_cannot_be_spliced_in(model, sae, message):
    with pytest.raises(SpecificationError, match=message):
        traced(model, sae=sae)


def test_loaded_autoencoders_know_where_they_stand(model):
    """What `load_autoencoder` gives, alone or among several, is what a mapping from its hook gives."""
    own = Autoencoder(40, 50)
    scalars = ("latent_activation", "latent_direct_effect")
    expected = traced(model, scalars=scalars, sae={HOOKS["post"]: ("mlp.1", own)})
    other = loaded(Autoencoder(32, 60, 1), "resid_pre")
    for sae in (loaded(own), [other, loaded(own)], (loaded(own), other)):
        found = traced(model, scalars=scalars, sae=sae)
        for name in ("mlp.1.latent_activation", "mlp.1.latent_direct_effect"):
            np.testing.assert_allclose(found[name].values, expected[name].values, atol=1e-5)
    assert found["resid_pre.1.latent_activation"].shape[-1] == 60


def test_direct_effects_of_what_is_normalised_are_refused(model):
    sae = loaded(Autoencoder(32, 50), "mlp_out", normalize_activations="layer_norm")
    found = traced(model, scalars="latent_estimated_total_effect", sae=sae)
    assert abs(found["mlp_out.1.latent_estimated_total_effect"]).max() > 0
    plain, with_it = traced(model), traced(model, sae=sae)
    np.testing.assert_allclose(with_it.objective.values, plain.objective.values, atol=1e-5)
    with pytest.raises(SpecificationError, match="leave out the scalars latent_write_magnitude"):
        traced(model, scalars="latent_direct_effect", sae=sae)


def test_a_direction_is_an_autoencoder(model):
    """What is ablated is the part of the stream along it."""
    vector = torch.linspace(-1, 2, 32)
    sae = FeatureDirection(HOOKS["resid_post"], vector, "way")
    before = traced(model, scalars="resid_post")
    after = traced(model, scalars="resid_pre", sae=sae, ablate=Ablation("way", feature=0))
    stream = torch.tensor(before.resid_post.isel(layer=1).values)
    along = (stream @ vector)[..., None] * vector / vector.square().sum()
    np.testing.assert_allclose(after.resid_pre.isel(layer=2).values, stream - along, atol=1e-5)


def test_unknown_latents(model):
    with pytest.raises(SpecificationError, match=r"no feature 50 .* has 50, 0 to 49"):
        traced(model, sae=spliced("post"), ablate=Ablation("ae", feature=50))
    with pytest.raises(SpecificationError, match="no site 'other'"):
        traced(model, sae=spliced("post"), ablate=Ablation("other", feature=5))
