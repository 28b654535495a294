"""Traces of nodes against autograd through a graph put together by hand, with the other side held constant."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pattern_lens.errors import NoGradientError
from pattern_lens.tracing.ablations import Ablation
from pattern_lens.tracing.objectives import direction, logit_diff, logit_minus_mean
from pattern_lens.tracing.traces import STREAMS, Trace, parse_trace
from tests.tracing.oracle import Graph
from tests.tracing.traced import TEXTS, Both, close, objective_of, of, set_to

HELD = {"Q": ("rot_k",), "K": ("rot_q",), "QK": (), "V": ("pattern",)}
"""What of an attention node's layer is constant along a path."""

SCORES = ["L1H2@-1,3:Q", "L2H0@5,2:K", "L2H3@4,4:QK", "L1H1@-2,0:K", "L0H3@3,1:Q"]
OTHERS = ["L1N17@4", "L2N3@-1", "L0N30@2", "2_preC9@3", "1_postC4@-1", "1_midC30@2"]
VALUES = ["L1H2@-1,3:V", "L2H0@-1,-1:V", "L0H3@-1,1:V"]
CHAINS = [
    "L0H1@3,2:V>L1H2@-1,3:K",
    "L1H3@5,0:V>L2H0@5,2:Q",
    "L0H2@4,1:V>L1N17@4",
    "L1H0@-1,3:V>2_midC7@-1",
    "L0H0@2,1:V>L1H2@3,2:V>L2H1@-1,3:K",
]
KINDS = ["gpt2", "llama", "neox", "attn_only"]
LACKING = {"attn_only": ("post", "resid_mid"), "neox": ("resid_mid",)}


def is_there(kind: str, trace: Trace | None) -> bool:
    """Whether an architecture has a node, and what reads it."""
    if trace is None:
        return True
    return trace.site not in LACKING.get(kind, ()) and is_there(kind, trace.downstream)


def of_each_kind(labels: list[str]) -> list[tuple[str, str]]:
    return [
        (kind, label) for kind in KINDS for label in labels if is_there(kind, parse_trace(label))
    ]


@pytest.fixture(scope="module")
def both(make_model):
    """Both of a kind and weights mode; made once."""
    made: dict[tuple[str, str], Both] = {}

    def get(kind: str = "gpt2", weights: str = "raw") -> Both:
        return made.setdefault((kind, weights), Both(make_model(kind, weights)))

    return get


# --- the node, put together by hand --------------------------------------------------------------


def read_by(own: Both, trace: Trace | None) -> str:
    """Name of the stream that a node reads."""
    if trace is None:
        return "final"
    if trace.site in STREAMS:
        return f"{trace.layer}.{trace.site}"
    is_mid = trace.site == "post" and not own.oracle.parallel
    return f"{trace.layer}.{'resid_mid' if is_mid else 'resid_pre'}"


def scale_of(trace: Trace) -> list[str]:
    """The norm between a node and the stream that it reads."""
    if trace.site in STREAMS:
        return []
    return [f"{trace.layer}.{'ln2' if trace.site == 'post' else 'ln1'}_scale"]


def held_for(trace: Trace | None, *, detach_norm: bool) -> list[str]:
    if trace is None:
        return ["ln_final_scale"] if detach_norm else []
    constant = [f"{trace.layer}.{name}" for name in HELD.get(trace.path or "", ())]
    return constant + (scale_of(trace) if detach_norm else [])


class Node:
    """A node's number and the gradient of what it reads, each in a graph of its own."""

    def __init__(
        self, own: Both, text: str, trace: Trace, objective: Any, *, detach_norm: bool, edits: Any
    ) -> None:
        self.own, self.text, self.trace, self.objective = own, text, trace, objective
        self.detach_norm, self.edits = detach_norm, edits
        self.graph = self._graph(trace)
        self.value = self._value()

    def _graph(self, trace: Trace | None) -> Graph:
        held = held_for(trace, detach_norm=self.detach_norm)
        return self.own.graph(self.text, self.edits, detach=held)

    def _value(self) -> Tensor:
        trace, i = self.trace, self.trace.indices
        at = self.graph[f"{trace.layer}.{self._site()}"]
        if trace.site != "pattern":
            return at[i["pos"], i.get("neuron", i.get("d_model"))]
        if trace.path != "V":
            return at[i["head"], i["query"], i["key"]]
        oracle, head = self.own.oracle, i["head"]
        shared = oracle.n_heads // oracle.n_kv_heads
        write = (
            self.graph[f"{trace.layer}.v"][i["key"], head // shared]
            @ oracle.w("W_O", trace.layer)[head]
        )
        weight = self.graph[f"{trace.layer}.pattern"][head, i["query"], i["key"]]
        return weight * (write @ self._toward()[i["query"]])

    def _site(self) -> str:
        """Scores of attention; a neuron before its nonlinearity, or after it where that is a product."""
        if self.trace.site == "post":
            return "pre" if self.own.oracle.weights["W_gate"] is None else "post"
        return "attn_scores" if self.trace.site == "pattern" else self.trace.site

    def _toward(self) -> Tensor:
        reader = self.trace.downstream
        if reader is None:
            graph = self._graph(None)
            value = objective_of(graph, self.objective)
        else:
            node = Node(
                self.own,
                self.text,
                reader,
                self.objective,
                detach_norm=self.detach_norm,
                edits=self.edits,
            )
            graph, value = node.graph, node.value
        (toward,) = graph.grad(value, self._stream_of(reader))
        return toward.detach()

    def _stream_of(self, reader: Trace | None) -> str:
        if reader is None and self.objective.kind == "direction":
            return f"{self.objective.layer % self.own.n_layers}.{self.objective.site}"
        return read_by(self.own, reader)


# --- checks --------------------------------------------------------------------------------------


def upstream(own: Both, trace: Trace) -> tuple[list[int], list[int]]:
    """Layers whose attention, and whose MLP, writes before the node reads."""
    layer, stream = int(trace.layer or 0), read_by(own, trace).split(".")[1]
    attention = list(range(layer + (stream != "resid_pre")))
    return attention, list(range(layer + (stream == "resid_post")))


def check(
    own: Both,
    label: str,
    *,
    objective: Any = None,
    detach_norm: bool = True,
    edits: Any = None,
    **options: Any,
) -> None:
    trace = parse_trace(label)
    alone = own.oracle.attn_only
    kinds = ["head", "embed", "attn", *([] if alone else ["mlp", "neuron"])]
    sites = ["z", "resid_pre", "pattern", *([] if alone else ["post"])]
    scalars = [f"{kind}_direct_effect" for kind in kinds] + [f"{site}_grad" for site in sites]
    result = own.trace(
        objective=objective, trace=label, scalars=scalars, detach_norm=detach_norm, **options
    )
    for text in TEXTS:
        n = len(own.ids(text))
        node = Node(own, text, trace, objective, detach_norm=detach_norm, edits=edits)
        close(of(result, "node_value", text, n), node.value)
        for site in sites:
            names = [f"{layer}.{site}" for layer in range(own.n_layers)]
            expected = torch.stack(node.graph.grad(node.value, *names))
            close(of(result, f"{site}_grad", text, n), expected)
        check_direct_effects(own, result, node, kinds, n)


def check_direct_effects(own: Both, result: Any, node: Node, kinds: list[str], n: int) -> None:
    """Each upstream node's write, times the gradient of the stream that is read; 0 of what is not upstream."""
    graph, oracle = node.graph, own.oracle
    (toward,) = graph.grad(node.value, read_by(own, node.trace))
    attention, mlps = upstream(own, node.trace)
    for layer in range(own.n_layers):
        heads = torch.einsum("qhd,hdm,qm->hq", graph[f"{layer}.z"], oracle.w("W_O", layer), toward)
        expected = {
            "head": (layer in attention) * heads,
            "attn": (layer in attention) * (graph[f"{layer}.attn_out"] * toward).sum(-1),
        }
        if "mlp" in kinds:
            neurons = graph[f"{layer}.post"] * (toward @ oracle.w("W_out", layer).T)
            expected["neuron"] = (layer in mlps) * neurons
            expected["mlp"] = (layer in mlps) * (graph[f"{layer}.mlp_out"] * toward).sum(-1)
        for kind, value in expected.items():
            close(of(result, f"{kind}_direct_effect", node.text, n)[layer], value)
    embed = (graph["0.resid_pre"] * toward).sum(-1)
    close(of(result, "embed_direct_effect", node.text, n), embed)


@pytest.mark.parametrize("detach_norm", [False, True], ids=["free", "held"])
@pytest.mark.parametrize(("kind", "label"), of_each_kind([*SCORES, *OTHERS]))
def test_nodes(both, kind, label, detach_norm):
    check(both(kind), label, detach_norm=detach_norm)


@pytest.mark.parametrize("detach_norm", [False, True], ids=["free", "held"])
@pytest.mark.parametrize("label", VALUES)
@pytest.mark.parametrize("kind", KINDS)
def test_values_of_attention_toward_the_objective(both, kind, label, detach_norm):
    objective = logit_diff([259, 7], 288)
    check(both(kind), label, objective=objective, detach_norm=detach_norm)


def test_values_of_attention_toward_a_position_and_a_direction(both):
    own = both("gpt2")
    check(own, "L1H2@3,1:V", objective=logit_minus_mean(259, position=3))
    vector = torch.linspace(-1, 2, 32).square().tolist()
    check(own, "L0H2@-2,1:V", objective=direction(vector, site="resid_mid", layer=1, position=-2))


def test_a_value_that_nothing_reads(both):
    """The objective reads the last position only: what is written elsewhere is not zero, it is no question."""
    with pytest.raises(NoGradientError, match=r"no gradient arrived from 'L1H2@3,1:V' .* query 3"):
        both("gpt2").trace(objective=logit_diff(259, 288), trace="L1H2@3,1:V", scalars=["head"])


@pytest.mark.parametrize("detach_norm", [False, True], ids=["free", "held"])
@pytest.mark.parametrize(("kind", "label"), of_each_kind(CHAINS))
def test_chains(both, kind, label, detach_norm):
    check(both(kind), label, detach_norm=detach_norm)


@pytest.mark.parametrize("label", ["L1H2@-1,3:Q", "L2N3@-1", "L0H1@3,2:V>L1H2@-1,3:K"])
def test_nodes_of_compatibility_weights(both, label):
    check(both("gpt2", "compatibility"), label)


def test_a_node_downstream_of_an_ablation(both):
    own = both("gpt2")
    edits = {"0.z": set_to(("pos", "head", "d_head"), {"head": 1}, 0.0)}
    check(own, "L1H2@-1,3:K", ablate=[Ablation("z", 0, head=1)], edits=edits)
    check(own, "L0H2@4,1:V>L1N17@4", ablate=["L0H1"], edits=edits)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_mean_between_two_nodes(both, kind):
    """Baselines are as they are: neither held norms nor ablations reach the prompts that a mean is of."""
    own = both(kind)
    texts = ["hello world, hello there", "gave a fish to John", "and then the cat", TEXTS[0]]
    mean = torch.cat([own.graph(text)["1.z"].detach() for text in texts]).mean(0)
    edits = {"1.z": set_to(("pos", "head", "d_head"), {"head": 0}, mean)}
    ablate = [Ablation("z", 1, head=0, value="mean")]
    for label in ("L0H1@3,2:V>L2H1@-1,3:K", "L0H3@3,1:Q"):
        check(own, label, ablate=ablate, edits=edits, baseline=texts)


def test_each_prompt_with_its_own_node(both):
    own = both("gpt2")
    labels = ["L2H1@-1,3:K", "L1N17@4", "L1H2@-1,3:Q"]
    scalars = ["head_direct_effect", "resid_pre_grad", "mlp_direct_effect", "embed"]
    result = own.trace(trace=[parse_trace(label) for label in labels], scalars=scalars)
    for text, label in zip(TEXTS, labels, strict=True):
        n = len(own.ids(text))
        alone = own.trace([text], trace=label, scalars=scalars)
        for name in alone.data_vars:
            if name not in ("seconds", "memory_bytes") and alone[name].dtype.kind == "f":
                if alone[name].isnull().all():
                    assert result[name].sel(prompt=alone.prompt[0]).isnull().all()
                    continue
                close(of(result, name, text, n), of(alone, name, text, n), atol=1e-5)


@pytest.mark.parametrize("traced", [0, 1, 2])
def test_some_prompts_have_a_node_and_others_an_objective(both, traced):
    own, label, objective = both("gpt2"), "L1N17@4", logit_diff(259, 288)
    traces: list[Any] = [None, None, None]
    objectives: list[Any] = [objective] * 3
    traces[traced], objectives[traced] = label, None
    scalars = ["head_direct_effect", "resid_pre_grad"]
    result = own.trace(trace=traces, objective=objectives, scalars=scalars)
    for number, text in enumerate(TEXTS):
        n, is_node = len(own.ids(text)), number == traced
        asked = {"trace": label} if is_node else {"objective": objective}
        alone = own.trace([text], **asked, scalars=scalars)
        for name in (*scalars, "node_value" if is_node else "objective"):
            close(of(result, name, text, n), of(alone, name, text, n), atol=1e-5)
        assert bool(result["objective" if is_node else "node_value"].isnull()[number])


@pytest.mark.parametrize("label", ["L1H2@-1,3:Q", "L2H0@5,2:K", "2_preC9@3", "L2H0@-1,3:V"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "attn_only"])
def test_direct_effects_and_the_constant_sum_to_the_node(both, kind, label):
    own = both(kind)
    alone = own.oracle.attn_only
    objective = logit_diff(259, 288) if label.endswith("V") else None
    names = ["embed", "head", "attn_bias", *([] if alone else ["neuron", "mlp_bias"])]
    result = own.trace(
        trace=label, objective=objective, scalars=[f"{name}_direct_effect" for name in names]
    )
    for text in TEXTS:
        n = len(own.ids(text))
        total = sum(of(result, f"{name}_direct_effect", text, n).sum() for name in names)
        value, constant = (of(result, name, text, n) for name in ("node_value", "constant"))
        close(total + constant, value)
