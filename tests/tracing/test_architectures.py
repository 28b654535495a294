"""Architectures whose attention hooks show copies: what is ablated and differentiated there is what the model computes."""

import numpy as np
import pytest
import torch

from pattern_lens.errors import SpecificationError
from pattern_lens.models import load_model
from pattern_lens.testing import tiny_tokenizer
from pattern_lens.tracing import Ablation, logit_diff, trace
from pattern_lens.tracing.attention import find_live_hooks

TEXTS = ["the cat sat on the mat", "hello world, hello there"]
DIFFERENCE = logit_diff(10, 20)

SIZES = {
    "GPTNeo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": 64,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 30,
    },
    "OPT": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 40,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 32,
    },
    "GPTJ": {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_inner": 40,
        "n_positions": 64,
        "rotary_dim": 4,
    },
    "Phi": {
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "Gemma2": {
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
}
COPIES = ("GPTNeo", "OPT", "GPTJ")


def bridge(name):
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    tokenizer = tiny_tokenizer()
    config = getattr(transformers, f"{name}Config")(vocab_size=len(tokenizer), **SIZES[name])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.config.architectures = [type(model).__name__]
    found = TransformerBridge.boot_transformers(
        f"tiny-{name}", hf_model=model, tokenizer=tokenizer, device="cpu", dtype=torch.float32
    )
    return found.eval()


@pytest.fixture(scope="module", params=[*SIZES])
def model(request):
    return load_model(bridge(request.param))


def traced(model, texts=TEXTS, **options):
    options.setdefault("objective", DIFFERENCE)
    return trace(model, texts, progress=False, **options)


@pytest.mark.parametrize("name", COPIES)
def test_hooks_that_show_copies_are_found(name):
    assert not find_live_hooks(load_model(bridge(name))).live


def test_parts_add_up(model):
    assert float(traced(model).closure_error.max()) < 1e-4


def test_a_pair_is_gone_when_it_is_ablated(model):
    """Without the pair, the head's z at the query is smaller by pattern times value."""
    query, key = 4, 2
    own = {"scalars": ("z", "pattern", "v")}
    before, after = traced(model, **own), traced(model, **own, ablate=f"L0H1@{query},{key}")
    heads = before.v.sizes.get("kv_head", before.v.sizes.get("head"))
    kv_head = 1 // (before.z.sizes["head"] // heads)
    value = before.v.isel(layer=0, pos=key)
    value = value.isel(kv_head=kv_head) if "kv_head" in value.dims else value.isel(head=kv_head)
    removed = before.pattern.isel(layer=0, head=1, query=query, key=key) * value
    found = (before.z - after.z).isel(layer=0, head=1, pos=query)
    np.testing.assert_allclose(found.values, removed.transpose(*found.dims).values, atol=1e-5)
    assert float(after.pattern.isel(layer=0, head=1, query=query, key=key).max()) == 0


def test_gradients_of_the_pattern_are_finite_differences(model):
    """Raise one probability by a little: the objective moves by its gradient."""
    eps = 2e-3  # less than the way to where a neuron begins to fire
    found = traced(model, TEXTS[:1], scalars=("pattern", "pattern_grad"), detach_norm=False)
    where = {"layer": 0, "head": 1, "query": 4, "key": 2}
    now = float(found.pattern[0].isel(where))

    def objective(value):
        ablation = Ablation("pattern", 0, head=1, query=4, key=2, value=value)
        return float(traced(model, TEXTS[:1], ablate=ablation).objective[0])

    slope = (objective(now + eps) - objective(now - eps)) / (2 * eps)
    np.testing.assert_allclose(
        float(found.pattern_grad[0].isel(where)), slope, rtol=0.05, atol=2e-3
    )


def test_scores_before_the_softmax_are_what_is_traced(model):
    """The node's value is the score whose softmax, over the row, is the pattern."""
    pattern = traced(model, TEXTS[:1], scalars="pattern").pattern[0].isel(layer=1, head=1, query=3)
    scores = [
        float(traced(model, TEXTS[:1], objective=None, trace=f"L1H1@3,{key}:QK").node_value[0])
        for key in range(4)
    ]
    expected = np.exp(scores - np.max(scores))
    np.testing.assert_allclose(pattern.values[:4], expected / expected.sum(), atol=1e-4)


@pytest.mark.parametrize("name", ["GPTJ", "Phi"])
def test_edges_of_a_shared_norm_are_refused(name):
    with pytest.raises(
        SpecificationError, match="its MLPs read the stream through the norm of attention"
    ):
        traced(load_model(bridge(name)), scalars="edges")
