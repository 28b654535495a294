"""Traced numbers against a graph put together by hand, finite differences, and sums that must close."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pattern_lens.errors import NoGradientError, SpecificationError, UnknownScalarError
from pattern_lens.models import load_model
from pattern_lens.prompts import prompt_hash
from pattern_lens.testing import tiny_model
from pattern_lens.tracing.ablations import Ablation
from pattern_lens.tracing.objectives import (
    Objective,
    direction,
    logit_diff,
    logit_minus_mean,
    node,
    probs,
    zero,
)
from pattern_lens.tracing.traces import Trace
from tests.tracing.traced import TEXTS, Both, close, objective_of, of, scaled

KINDS = ["gpt2", "llama", "neox", "attn_only"]
VECTOR = np.random.default_rng(3).standard_normal(32)

OBJECTIVES = [
    logit_diff(259, 288),
    logit_diff([259, 7, 71], [288, 260], position=-2),
    logit_minus_mean(259),
    logit_minus_mean([288, 3], position=2),
    probs(259),
    probs([259, 288, 71], position=-3),
    direction(VECTOR),
    direction(VECTOR, site="resid_pre", layer=1, position=-2),
    zero(),
    node("pattern", 1, head=2, query=-1, key=3),
    node("attn_scores", 2, head=1, query=4, key=0),
    node("z", 1, pos=3, head=2, d_head=5),
    node("resid_pre", 2, pos=-1, d_model=9),
]
LINEAR = [
    logit_diff(259, 288),
    logit_diff([259, 7], [288, 260, 71], position=-2),
    logit_minus_mean(259),
    logit_minus_mean([288, 3], position=2),
    direction(VECTOR),
    direction(VECTOR, site="resid_pre", layer=1, position=-2),
]
STREAMS = ("resid_pre", "resid_post", "attn_out")
MLP_SITES = ("post", "mlp_out")


@pytest.fixture(scope="module")
def both(make_model):
    """Both of a kind and weights mode; made once."""
    made: dict[tuple[str, str], Both] = {}

    def get(kind: str = "gpt2", weights: str = "raw") -> Both:
        return made.setdefault((kind, weights), Both(make_model(kind, weights)))

    return get


def named(objective: Objective) -> str:
    at = "" if objective.position == -1 else f"@{objective.position}"
    several = f"x{len(objective.target)}" if len(objective.target) > 1 else ""
    return objective.kind + several + at + (f"-{objective.site}" if objective.site else "")


def length(own: Both, text: str) -> int:
    return len(own.ids(text))


# --- objectives and gradients --------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_objectives(both, kind, objective):
    own = both(kind)
    result = own.trace(objective=objective, scalars=["pattern"])
    for text in TEXTS:
        close(of(result, "objective", text, 0), objective_of(own.graph(text), objective))


def test_objectives_of_tokens_as_text(both):
    own = both("gpt2")
    texts = own.trace(objective=logit_diff([" the", " on"], " and"), scalars=["embed"])
    ids = own.trace(objective=logit_diff([259, 268], 288), scalars=["embed"])
    for name in ids.data_vars:
        if name not in ("seconds", "memory_bytes"):
            assert np.array_equal(texts[name], ids[name], equal_nan=True)


def test_each_prompt_with_its_own_objective(both):
    own = both("gpt2")
    asked = [logit_diff(259, 288), probs(7, position=-2), direction(VECTOR, layer=0)]
    result = own.trace(objective=asked, scalars=["head"])
    for text, objective in zip(TEXTS, asked, strict=True):
        alone = own.trace([text], objective=objective, scalars=["head"])
        n = length(own, text)
        close(of(result, "objective", text, n), objective_of(own.graph(text), objective))
        for measure in ("estimated_total_effect", "direct_effect", "write_magnitude"):
            name = f"head_{measure}"
            close(of(result, name, text, n), of(alone, name, text, n), atol=1e-5)


def sites_of(own: Both) -> list[str]:
    sites = ["pattern", "attn_scores", "q", "k", "v", "z", *STREAMS]
    if not own.oracle.attn_only:
        sites += MLP_SITES
        sites += [] if own.oracle.parallel else ["resid_mid"]
    return sites


def held(objective: Objective, *, detach_norm: bool) -> list[str]:
    """What of the graph is held constant: the scale of the norm that the objective reads."""
    reads_logits = objective.kind not in ("direction", "node")
    if not detach_norm:
        return []
    if reads_logits:
        return ["ln_final_scale"]
    attention = objective.kind == "node" and objective.site not in STREAMS
    return [f"{objective.layer}.ln1_scale"] if attention else []


@pytest.mark.parametrize("detach_norm", [False, True], ids=["free", "held"])
@pytest.mark.parametrize(
    "objective",
    [logit_diff([259, 7], 288), probs(259, position=-2), node("z", 1, pos=3, head=2, d_head=5)],
    ids=named,
)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(both, kind, objective, detach_norm):
    own = both(kind)
    sites = sites_of(own)
    result = own.trace(
        objective=objective,
        scalars=[*sites, *(f"{site}_grad" for site in sites)],
        detach_norm=detach_norm,
    )
    for text in TEXTS:
        graph = own.graph(text, detach=held(objective, detach_norm=detach_norm))
        value = objective_of(graph, objective)
        for site in sites:
            names = [f"{layer}.{site}" for layer in range(own.n_layers)]
            found = of(result, f"{site}_grad", text, length(own, text))
            close(found, torch.stack(graph.grad(value, *names)))
            if site != "attn_scores":  # those of later keys are no numbers that mean anything
                expected = torch.stack([graph[name] for name in names])
                close(of(result, site, text, length(own, text)), expected)


INSIDE_NORMS = [
    *("ln1_scale", "ln2_scale", "ln_final_scale"),
    *("ln1_normalized", "ln2_normalized", "ln_final_normalized"),
]


@pytest.mark.parametrize("detach_norm", [False, True], ids=["free", "held"])
@pytest.mark.parametrize("site", INSIDE_NORMS)
@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_gradients_inside_norms_are_right_or_refused(both, kind, site, detach_norm):
    own, objective = both(kind), logit_diff(259, 288)
    asked = {"objective": objective, "detach_norm": detach_norm}
    try:
        result = own.trace(**asked, scalars=[f"{site}_grad"])
    except (NoGradientError, SpecificationError):
        return  # the hooks of this architecture show copies, and that is said
    for text in TEXTS:
        n = length(own, text)
        graph = own.graph(text, detach=held(objective, detach_norm=detach_norm))
        names = [site] if "final" in site else [f"{i}.{site}" for i in range(own.n_layers)]
        expected = graph.grad(objective_of(graph, objective), *names)
        found = of(result, f"{site}_grad", text, n)
        close(found, torch.stack(expected).reshape(found.shape))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_gradients_of_streams(both, kind):
    own, objective = both(kind), logit_diff(259, 288)
    result = own.trace(objective=objective, scalars=["mlp_in_grad", "resid_final_grad"])
    for text in TEXTS:
        n = length(own, text)
        graph = own.graph(text, detach=["ln_final_scale"])
        *read, final = graph.grad(
            objective_of(graph, objective), *(f"{i}.mlp_in" for i in range(own.n_layers)), "final"
        )
        close(of(result, "mlp_in_grad", text, n), torch.stack(read))
        close(of(result, "resid_final_grad", text, n), final)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_gradients_of_compatibility_weights(both, kind):
    own = both(kind, "compatibility")
    objective = logit_diff(259, 288)
    result = own.trace(objective=objective, scalars=["pattern_grad", "z_grad"])
    for text in TEXTS:
        graph = own.graph(text, detach=["ln_final_scale"])
        value = objective_of(graph, objective)
        for site in ("pattern", "z"):
            expected = torch.stack(graph.grad(value, *(f"{i}.{site}" for i in range(own.n_layers))))
            close(of(result, f"{site}_grad", text, length(own, text)), expected)


# --- activation x gradient -----------------------------------------------------------------------

EPS = 1e-4
PLACES = [
    ("head_estimated_total_effect", (1, 2, 3), "1.z", (3, 2)),
    ("head_estimated_total_effect", (0, 3, -1), "0.z", (-1, 3)),
    ("head_estimated_total_effect", (2, 0, -1), "2.z", (-1, 0)),
    ("pair_estimated_total_effect", (1, 1, 4, 2), "1.pattern", (1, 4, 2)),
    ("pair_estimated_total_effect", (0, 3, -1, 0), "0.pattern", (3, -1, 0)),
    ("neuron_estimated_total_effect", (0, 4, 17), "0.post", (4, 17)),
    ("neuron_estimated_total_effect", (2, -1, 30), "2.post", (-1, 30)),
    ("attn_estimated_total_effect", (1, 3), "1.attn_out", (3,)),
    ("mlp_estimated_total_effect", (1, -1), "1.mlp_out", (-1,)),
    ("embed_estimated_total_effect", (2,), "0.resid_pre", (2,)),
    ("embed_estimated_total_effect", (-1,), "0.resid_pre", (-1,)),
]
EFFECTS = ["head", "pair", "neuron", "attn", "mlp", "embed"]


@pytest.mark.parametrize("objective", [logit_diff(259, 288), probs([259, 7])], ids=named)
@pytest.mark.parametrize("kind", KINDS)
def test_total_effects_are_finite_differences(both, kind, objective):
    own = both(kind)
    mlps = {"neuron", "mlp"} if own.oracle.attn_only else set()
    wanted = [f"{one}_estimated_total_effect" for one in EFFECTS if one not in mlps]
    result = own.trace(objective=objective, scalars=wanted, detach_norm=False)
    for text in TEXTS:
        for name, place, site, where in PLACES:
            if name not in wanted:
                continue
            ends = [
                objective_of(own.graph(text, {site: scaled(where, 1 + step)}), objective)
                for step in (EPS, -EPS)
            ]
            expected = (ends[0] - ends[1]) / (2 * EPS)
            assert abs(expected) > 1e-9
            close(of(result, name, text, length(own, text))[place], expected)


def test_total_effects_are_activation_times_gradient(both):
    own = both("llama")
    result = own.trace(
        objective=logit_diff(259, 288),
        scalars=[
            "head",
            "pair",
            "neuron",
            "z",
            "z_grad",
            "pattern",
            "pattern_grad",
            "post",
            "post_grad",
        ],
    )
    products = {name: result[name] * result[f"{name}_grad"] for name in ("z", "pattern", "post")}
    head = products["z"].sum("d_head", skipna=False).rename(pos="query")
    for name, expected in (
        ("head", head),
        ("pair", products["pattern"]),
        ("neuron", products["post"]),
    ):
        found = result[f"{name}_estimated_total_effect"]
        np.testing.assert_allclose(
            found, expected.transpose(*found.dims).values, rtol=0, atol=1e-5, equal_nan=True
        )


# --- sums that close -----------------------------------------------------------------------------


def summed(result: Any, text: str, n: int, *names: str) -> torch.Tensor:
    return sum(
        (of(result, f"{name}_direct_effect", text, n).sum() for name in names), torch.tensor(0.0)
    )


@pytest.mark.parametrize("objective", LINEAR, ids=named)
@pytest.mark.parametrize(
    ("kind", "weights"),
    [*((kind, "raw") for kind in KINDS), ("gpt2", "compatibility"), ("llama", "compatibility")],
)
def test_direct_effects_sum_to_the_objective(both, kind, objective, weights):
    own = both(kind, weights)
    alone = own.oracle.attn_only
    mlps = () if alone else ("neuron", "mlp", "mlp_bias")
    scalars = [
        f"{name}_direct_effect" for name in ("embed", "head", "pair", "attn", "attn_bias", *mlps)
    ]
    result = own.trace(objective=objective, scalars=scalars)
    for text in TEXTS:
        n = length(own, text)
        value, constant = (of(result, name, text, n) for name in ("objective", "constant"))
        close(value, objective_of(own.graph(text), objective))
        biases = ("attn_bias",) if alone else ("attn_bias", "mlp_bias")
        finest = ("embed", "head", *biases, *(() if alone else ("neuron",)))
        coarse = ("embed", "attn", *(() if alone else ("mlp",)))
        close(summed(result, text, n, *finest) + constant, value)
        close(summed(result, text, n, *coarse) + constant, value)
        pairs = of(result, "pair_direct_effect", text, n).sum(-1)
        close(pairs, of(result, "head_direct_effect", text, n))
        assert abs(float(of(result, "closure_error", text, n))) < 1e-4


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox", "attn_only"])
def test_direct_effects_are_writes_into_the_gradient_of_the_final_stream(both, kind):
    own = both(kind)
    objective = logit_diff(259, [288, 7], position=-2)
    scalars = [
        "head_direct_effect",
        "head_write_magnitude",
        "pair_direct_effect",
        "pair_write_magnitude",
    ]
    scalars += ["attn_write_magnitude", "embed_direct_effect", "embed_write_magnitude"]
    scalars += [] if own.oracle.attn_only else ["neuron_direct_effect", "neuron_write_magnitude"]
    result = own.trace(objective=objective, scalars=scalars)
    for text in TEXTS:
        n = length(own, text)
        graph = own.graph(text, detach=["ln_final_scale"])
        (toward,) = graph.grad(objective_of(graph, objective), "final")
        for layer in range(own.n_layers):
            writes = writes_of(own, graph, layer)
            for kind_of_node, write in writes.items():
                expected = (
                    torch.einsum("...qm,qm->...q", write, toward)
                    if kind_of_node == "head"
                    else None
                )
                if kind_of_node == "pair":
                    expected = torch.einsum("hqkm,qm->hqk", write, toward)
                if kind_of_node == "neuron":
                    expected = torch.einsum("pnm,pm->pn", write, toward)
                close(of(result, f"{kind_of_node}_direct_effect", text, n)[layer], expected)
                magnitude = of(result, f"{kind_of_node}_write_magnitude", text, n)[layer]
                close(magnitude, write.norm(dim=-1))
            close(
                of(result, "attn_write_magnitude", text, n)[layer],
                graph[f"{layer}.attn_out"].norm(dim=-1),
            )
        embed = graph["0.resid_pre"]
        close(of(result, "embed_direct_effect", text, n), (embed * toward).sum(-1))
        close(of(result, "embed_write_magnitude", text, n), embed.norm(dim=-1))


def writes_of(own: Both, graph: Any, layer: int) -> dict[str, torch.Tensor]:
    """Vectors that nodes of a layer write: (head, query, d_model), (head, query, key, d_model), (pos, neuron, d_model)."""
    oracle = own.oracle
    w_o = oracle.w("W_O", layer)
    v = graph[f"{layer}.v"].repeat_interleave(oracle.n_heads // oracle.n_kv_heads, dim=1)
    found = {
        "head": torch.einsum("qhd,hdm->hqm", graph[f"{layer}.z"], w_o),
        "pair": torch.einsum("hqk,khd,hdm->hqkm", graph[f"{layer}.pattern"], v, w_o),
    }
    if not oracle.attn_only:
        found["neuron"] = graph[f"{layer}.post"][..., None] * oracle.w("W_out", layer)
    return found


# --- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_batch_gives_what_each_prompt_gives_alone(both, kind):
    own = both(kind)
    asked = {
        "objective": logit_diff(259, 288, position=-2),
        "scalars": ["head", "pair", "neuron", "attn", "mlp", "embed", "resid_pre_grad"],
        "ablate": [Ablation("z", 1, head=2, pos=-1), Ablation("post", 0, neuron=[3, 17])],
    }
    together = own.trace(**asked)
    for text in TEXTS:
        alone = own.trace([text], **asked)
        assert {*alone.data_vars} == {*together.data_vars}
        for name in alone.data_vars:
            if name in ("seconds", "memory_bytes", "spec") or alone[name].dtype.kind != "f":
                continue
            n = length(own, text)
            close(of(together, name, text, n), of(alone, name, text, n), atol=1e-5, rtol=1e-5)


def test_the_same_specification_gives_the_same_bits(both):
    own = both("llama")
    asked = {
        "objective": logit_diff(259, 288),
        "ablate": [Ablation("z", 1, head=2, value="resample")],
        "baseline": ["the dog lay on the log, and the cat", "three two one, on the log: once I"],
    }
    first, second = (own.trace(**asked, batch_size=2) for _ in range(2))
    for name in first.data_vars:
        if name not in ("seconds", "memory_bytes"):
            assert np.array_equal(
                first[name], second[name], equal_nan=first[name].dtype.kind == "f"
            )


def test_the_order_of_prompts_is_kept(both):
    result = both("gpt2").trace(objective=logit_diff(259, 288), batch_size=1, scalars=["embed"])
    assert result.prompt.values.tolist() == [prompt_hash(text) for text in TEXTS]


def test_nothing_stays_behind(both):
    own = both("gpt2")
    model = own.model.model
    ids = torch.tensor([own.ids(TEXTS[1])])
    before = model(ids, return_type="logits")
    flags = [p.requires_grad for p in model.parameters()]
    own.trace(objective=logit_diff(259, 288), ablate=["L1H2", "backward:0_mlp_out"])
    with pytest.raises(SpecificationError):
        own.trace(objective=logit_diff(259, 288), ablate=["L1H7"])
    assert torch.equal(model(ids, return_type="logits"), before)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())


# --- what cannot be traced -----------------------------------------------------------------------

DIFF = logit_diff(259, 288)
BAD = [
    ({"ablate": [Ablation("pattrn", 0)]}, r"no site 'pattrn'.*did you mean 'pattern'"),
    ({"ablate": [Ablation("z", 3)]}, r"no layer 3 in model 'tiny-gpt2': it has 3, 0 to 2"),
    ({"ablate": [Ablation("z")]}, r"'z' needs a layer"),
    ({"ablate": [Ablation("z", 0, head=4)]}, r"no head 4 .* has 4, 0 to 3"),
    ({"ablate": [Ablation("post", 0, neuron=40)]}, r"no neuron 40 .* has 40, 0 to 39"),
    ({"ablate": [Ablation("post", 0, head=1)]}, r"'post' by 'head'"),
    ({"ablate": [Ablation("z", 0, pos=6)]}, r"no pos 6 in prompt .*6 positions, 0 to 5"),
    ({"objective": logit_diff("the cat", 7)}, r"'the cat' is 4 tokens .*'t', 'he', ' c', 'at'"),
    ({"objective": logit_diff(300, 7)}, r"no token 300.*0 to 299"),
    ({"objective": logit_diff(7, 8, position=6)}, r"no position 6 in prompt .*6 positions"),
    ({"objective": None}, r"nothing to differentiate"),
    ({"objective": direction(VECTOR[:5])}, r"5 numbers, expected d_model .*32"),
    ({"objective": node("z", 1, pos=0, head=4, d_head=0)}, r"no head 4"),
    ({"objective": node("z", 1, pos=0, head=1)}, r"missing: d_head"),
    ({"objective": node("k", 1, pos=0, d_head=1)}, r"missing: .*head"),
    ({"objective": node("z", 1, pos=0, head=1, d_head=8)}, r"no d_head 8"),
    ({"objective": node("pattern", 1, head=1, query=2, key=-1)}, r"query 2 to key"),
    (
        {"trace": Trace("pattern", 1, head=0, query=3, key=2, path="Q")},
        r"logit_diff.*L1H0@3,2:Q.*contradict",
    ),
    (
        {"objective": None, "trace": Trace("pattern", 1, head=0, query=3, key=2, path="V")},
        r"L1H0@3,2:V.*objective, and there is none",
    ),
    (
        {"objective": None, "trace": Trace("pattern", 1, head=0, query=2, key=3, path="K")},
        r"query 2 to key 3",
    ),
    (
        {"objective": None, "trace": Trace("pattern", 1, head=0, query=2, key=-1, path="K")},
        r"query 2 to key",
    ),
    (
        {"objective": None, "trace": Trace("pattern", 1, head=0, query=-3, key=-1, path="Q")},
        r"query -3 to key",
    ),
    (
        {"objective": None, "trace": Trace("post", 0, pos=2, neuron=41)},
        r"no neuron 41",
    ),
]


@pytest.mark.parametrize(("options", "why"), BAD, ids=[why[:30] for _, why in BAD])
def test_what_the_model_does_not_have(both, options, why):
    with pytest.raises(SpecificationError, match=why):
        both("gpt2").trace(**({"objective": DIFF, "scalars": ["embed"]} | options))


@pytest.mark.parametrize(
    ("kind", "site"), [("attn_only", "post"), ("attn_only", "mlp_out"), ("neox", "resid_mid")]
)
def test_sites_that_an_architecture_lacks(both, kind, site):
    with pytest.raises(SpecificationError, match=f"no '{site}' in model"):
        both(kind).trace(objective=DIFF, ablate=[Ablation(site, 0)], scalars=["embed"])


def test_an_unknown_scalar(both):
    with pytest.raises(UnknownScalarError, match=r"head_direct_efect.*head_direct_effect"):
        both("gpt2").trace(objective=DIFF, scalars=["head_direct_efect"])


@pytest.mark.parametrize(
    ("kind", "name"),
    [("gpt2", "rot_q"), ("neox", "rot_k_grad"), ("llama", "pos_embed_grad")],
)
def test_scalars_of_hooks_that_a_model_lacks(both, kind, name):
    site = name.removesuffix("_grad")
    with pytest.raises((SpecificationError, NoGradientError), match=site):
        both(kind).trace(objective=DIFF, scalars=[name])


def test_half_precision_warns():
    model = load_model(tiny_model("llama").to(torch.bfloat16), prepend_bos=True)
    with pytest.warns(UserWarning, match="bfloat16"):
        result = Both(model).trace(objective=DIFF, scalars=["head"])
    assert np.isfinite(result["objective"]).all()


LAST = ["blocks.2", "ln_final", "unembed"]
STOPPED = [(where, name) for where in LAST for name in ("head", "embed", "head_direct_effect")]
STOPPED += [
    (where, name) for where in ("blocks.0", "blocks.1") for name in ("head", "embed", "edges")
]


@pytest.mark.parametrize(("where", "scalars"), STOPPED)
def test_no_gradient_is_never_zeros(where, scalars):
    own = Both(load_model(tiny_model("gpt2"), prepend_bos=True))
    module = own.model.model.get_submodule(where)
    module.register_forward_hook(lambda _, __, output: detached(output))
    with pytest.raises(NoGradientError):
        own.trace(objective=DIFF, scalars=[scalars], detach_norm=False)


def detached(output: Any) -> Any:
    if isinstance(output, tuple):
        return (output[0].detach(), *output[1:])
    return output.detach()
