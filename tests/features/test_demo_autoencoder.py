"""The bundled autoencoder is as good as its README says, and training it again gives the same."""

import json
import re

import numpy as np
import pytest
import torch

import pattern_lens.demo
from pattern_lens.demo import autoencoder_path, model_path, prompts_path
from pattern_lens.demo.train_autoencoder import Learner, train
from pattern_lens.features.loading import load_autoencoder
from pattern_lens.models import load_model
from pattern_lens.tracing import logit_diff, trace

README = (
    (autoencoder_path().parent / "README.md").read_text(encoding="utf-8").split("# Its auto")[1]
)


@pytest.fixture(scope="module")
def model():
    return load_model(model_path())


@pytest.fixture(scope="module")
def neurons(model):
    """Neurons on the demo prompts, dims (token, d_in), and the text of each token."""
    values, texts = [], []
    for line in prompts_path().read_text(encoding="utf-8").splitlines():
        ids = model.tokenize(json.loads(line)["text"]).ids
        with torch.no_grad():
            _, cache = model.model.run_with_cache(
                torch.tensor(ids)[None].long(), names_filter="blocks.0.mlp.hook_post"
            )
        values.append(cache["blocks.0.mlp.hook_post"][0])
        texts += [model.model.tokenizer.decode([int(one)]) for one in ids]
    return torch.cat(values), np.array(texts)


@pytest.fixture(scope="module")
def autoencoder():
    return load_autoencoder(autoencoder_path())


def test_it_fits_the_package(autoencoder):
    assert sum(one.stat().st_size for one in autoencoder_path().iterdir()) <= 600_000
    assert (autoencoder.name, autoencoder.hook) == ("mlp.0", "blocks.0.mlp.hook_post")
    assert (autoencoder.n_features, autoencoder.d_in, autoencoder.kind) == (256, 512, "jumprelu")
    assert (autoencoder_path() / "sae_weights.safetensors").stat().st_mode & 0o444 == 0o444


def test_it_is_as_good_as_its_readme_says(autoencoder, neurons):
    x, _ = neurons
    latents = autoencoder.encode(x)
    left = (x - autoencoder.decode(latents)).square().sum() / (x - x.mean(0)).square().sum()
    silent = (latents.amax(0) == 0).nonzero().flatten().tolist()
    found = re.search(
        r"demo prompts L0 is ([\d.]+), ([\d.]+) % is explained,\s+and (\d+) of the 256 features, (\d+), never",
        README,
    )
    l0, explained, n_silent, first = map(float, found.groups())
    assert float((latents > 0).sum(-1).float().mean()) == pytest.approx(l0, abs=0.06)
    assert 100 * (1 - float(left)) == pytest.approx(explained, abs=0.06)
    assert (len(silent), silent[0]) == (n_silent, first)


def test_features_are_sparse_and_of_few_kinds_of_token(autoencoder, neurons):
    x, texts = neurons
    latents = autoencoder.encode(x)
    density = (latents > 0).float().mean(0)
    assert float(density.median()) < 0.05
    assert int((density > 0.1).sum()) < 20
    top = [latents[:, f].topk(10) for f in range(256)]
    n_kinds = [
        len(set(texts[one.indices[one.values > 0].numpy()])) for one in top if one.values[5] > 0
    ]
    assert np.median(n_kinds) <= 5


def test_the_model_computes_what_it_did_with_it(model, autoencoder):
    text = json.loads(prompts_path().read_text(encoding="utf-8").splitlines()[0])["text"]
    options = {"objective": logit_diff(10, 20), "progress": False}
    plain = trace(model, [text], scalars=("default",), **options)
    found = trace(model, [text], scalars=("latent_activation",), sae=autoencoder, **options)
    np.testing.assert_allclose(found.objective.values, plain.objective.values, atol=1e-4)
    assert found["mlp.0.latent_activation"].sizes["feature"] == 256


# --- training --------------------------------------------------------------------------------------


def trained(seed):
    rng = torch.Generator().manual_seed(seed)
    directions = torch.randn(40, 24, generator=torch.Generator().manual_seed(9))

    def batch():
        active = torch.rand(300, 40, generator=rng) < 0.05
        return (active * torch.rand(300, 40, generator=rng)) @ directions + 0.3

    return train(batch, 300, rng), batch


def test_training_is_reproducible_and_learns(capsys):
    (learner, scale), batch = trained(4)
    (again, _), _ = trained(4)
    (other, _), _ = trained(5)
    own = learner.finished(scale)
    assert own.hash == again.finished(scale).hash != other.finished(scale).hash
    x = batch()
    wide = own.to(dtype="float32")
    left = (x - wide.decode(wide.encode(x))).square().sum() / (x - x.mean(0)).square().sum()
    assert float(left) < 0.5
    torch.testing.assert_close(wide.W_dec.norm(dim=-1), torch.ones(256), atol=1e-2, rtol=0)
    assert "step 300 loss" in capsys.readouterr().out


def test_features_that_died_are_learnt_from_what_is_missed():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(50, 12, generator=rng)
    learner = Learner.start(x, rng)
    learner.b_enc.data[7] = -100
    learner.loss(x).backward()
    assert not learner.W_dec.grad[7].any()
    learner.silent[7] = 1000
    learner.b_enc.data[7] = -1
    for one in learner.parameters:
        one.grad = None
    learner.loss(x).backward()
    assert learner.W_dec.grad[7].any()


def test_where_it_lies():
    assert pattern_lens.demo.autoencoder_path() == model_path().parent / "demo-autoencoder"
