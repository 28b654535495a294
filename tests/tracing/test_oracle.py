"""The graph that is put together by hand is the model: its logits, its hooks, and their gradients."""

import numpy as np
import pytest
import torch

from pattern_lens.names import ACTIVATIONS
from tests.tracing.oracle import Graph, Oracle

TEXT = "the cat sat on the mat and the dog"
MODELS = [
    (k, mode) for k in ("gpt2", "llama", "neox", "attn_only") for mode in ("raw", "compatibility")
]
SITES = (
    *("pattern", "q", "v", "z", "pre", "post"),
    *("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"),
)


def hooks_of(model, oracle) -> dict[str, str]:
    """Hook by the name that the graph has for it."""
    there = model.model.hook_dict
    found = {
        f"{layer}.{site}": ACTIVATIONS[site].hook(layer)
        for layer in range(oracle.n_layers)
        for site in SITES
    }
    return {name: hook for name, hook in found.items() if hook in there}


def kept_of(model, ids, hooks) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The model's own live tensors by hook, and its logits."""
    kept: dict[str, torch.Tensor] = {}

    def keeping(name: str):
        def keep(value: torch.Tensor, hook: object) -> torch.Tensor:
            return kept.setdefault(
                name, value
            )  # given back: some hooks show a view of what flows on

        return name, keep

    pairs = [keeping(hook) for hook in hooks]
    logits = model.model.run_with_hooks(ids, return_type="logits", fwd_hooks=pairs)
    return kept, logits[0]


@pytest.mark.parametrize(("kind", "weights"), MODELS)
def test_values_and_gradients_are_those_of_the_model(make_model, kind, weights):
    model = make_model(kind, weights)
    oracle, ids = Oracle(model.model), torch.as_tensor(model.tokenize(TEXT).ids.astype(np.int64))
    graph = oracle.run(ids)
    hooks = hooks_of(model, oracle)
    assert len(hooks) == {"attn_only": 21, "neox": 30}.get(kind, 33)
    kept, logits = kept_of(model, ids[None], hooks.values())
    torch.testing.assert_close(graph["logits"], logits.double(), rtol=0, atol=1e-4)
    for name, hook in hooks.items():
        torch.testing.assert_close(graph[name], kept[hook][0].double(), rtol=0, atol=1e-4)
    asked = (logits[-1, 7] - logits[-1, 9], graph["logits"][-1, 7] - graph["logits"][-1, 9])
    own = torch.autograd.grad(asked[0], [kept[hook] for hook in hooks.values()])
    for name, theirs, mine in zip(hooks, own, graph.grad(asked[1], *hooks), strict=True):
        grad = theirs[0].double().tril() if "pattern" in name else theirs[0].double()
        assert mine.abs().max() > 1e-4
        torch.testing.assert_close(mine, grad, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def oracle(make_model) -> Oracle:
    return Oracle(make_model("gpt2").model)


IDS = [0, 17, 41, 17, 260]


def diff_of(graph: Graph) -> torch.Tensor:
    return graph["logits"][-1, 7] - graph["logits"][-1, 9]


def test_a_scale_that_is_held_constant_makes_the_final_norm_linear(oracle):
    graph = oracle.run(IDS, detach=["ln_final_scale"])
    (grad,) = graph.grad(diff_of(graph), "final")
    bias = oracle.norms["ln_final"].b @ oracle.w("W_U")
    expected = diff_of(graph) - (bias[7] - bias[9]) - (oracle.w("b_U")[7] - oracle.w("b_U")[9])
    torch.testing.assert_close((grad * graph["final"]).sum(), expected)
    free = oracle.run(IDS)
    assert not torch.allclose(free.grad(diff_of(free), "final")[0], grad, atol=1e-3)


def test_an_edit_is_what_everything_downstream_reads(oracle):
    plain = oracle.run(IDS)
    graph = oracle.run(IDS, {"1.z": lambda z: z * 0})
    assert torch.equal(graph["0.resid_post"], plain["0.resid_post"])
    torch.testing.assert_close(graph["1.attn_out"], oracle.w("b_O", 1).expand(5, -1))
    assert not torch.allclose(graph["logits"], plain["logits"], atol=1e-2)


def test_gradients_that_are_changed_flow_on_changed(oracle):
    graph = oracle.run(IDS, backward={"1.resid_pre": torch.zeros_like})
    before, after = graph.grad(diff_of(graph), "0.resid_pre", "1.resid_mid")
    assert not before.any()
    assert after.abs().max() > 0.01


def test_a_name_that_no_value_has(oracle):
    with pytest.raises(AssertionError, match=r"no such values: .*1\.zz"):
        oracle.run(IDS, {"1.zz": torch.zeros_like})
