"""Ablations against the same edit of a graph put together by hand: forward, backward, and what they leave alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pattern_lens.errors import SpecificationError
from pattern_lens.names import ACTIVATIONS, HEAD, KV_HEAD
from pattern_lens.tracing.ablations import Ablation
from pattern_lens.tracing.objectives import logit_diff, zero
from tests.tracing.traced import TEXTS, Both, close, objective_of, of, set_to

DIFF = logit_diff([259, 7], 288)
BACK = "backward"
NUMBERS = np.random.default_rng(5).standard_normal(8)
WIDE = np.random.default_rng(6).standard_normal(32)

ATTENTION = [
    Ablation("pattern", 1, head=2, query=4, key=3),
    Ablation("pattern", 1, head=2, query=4, key=3, value=0.25),
    Ablation("pattern", 0, head=1, query=-1),
    Ablation("pattern", 1, head=3, key=0),
    Ablation("pattern", 2, head=[0, 3]),
    Ablation("pattern", 1),
    Ablation("attn_scores", 1, head=2, query=4, key=3),
    Ablation("attn_scores", 1, head=2, query=4, key=[1, 3], value=-2.5),
    Ablation("attn_scores", 0, head=0, query=-1, key=-2, value=4.0),
    Ablation("z", 1, head=2),
    Ablation("z", 2, head=[1, 3], pos=-1),
    Ablation("z", 0, pos=[1, -1]),
    Ablation("z", 1),
    Ablation("z", 0, head=3, pos=2, value=-0.7),
    Ablation("z", 1, head=1, pos=3, value=NUMBERS),
    Ablation("z", 1, head=0, value=NUMBERS),
    Ablation("q", 1, head=2, pos=3),
    Ablation("q", 0),
    Ablation("resid_pre", 1, pos=2),
    Ablation("resid_pre", 2),
    Ablation("resid_pre", 1, pos=-1, d_model=[3, 31], value=1.5),
    Ablation("resid_pre", 0, pos=1, value=WIDE),
    Ablation("resid_post", 1, pos=0),
    Ablation("resid_post", 2, d_model=5),
    Ablation("attn_out", 1),
    Ablation("attn_out", 0, pos=-1, value=WIDE),
    Ablation("embed", pos=1),
    Ablation("embed", d_model=[0, 7], value=0.5),
]
GROUPED = [
    Ablation("k", 1, head=1, pos=2),
    Ablation("v", 0, head=0),
    Ablation("v", 1, pos=1),
]
NEURONS = [
    Ablation("post", 1, neuron=17),
    Ablation("post", 0, neuron=[3, 39], pos=-2),
    Ablation("post", 1, pos=0, value=0.4),
    Ablation("post", 2),
    Ablation("mlp_out", 1),
    Ablation("mlp_out", 0, pos=[2, -1], value=WIDE),
    Ablation("mlp_out", 2, d_model=4),
]
MIDDLE = [Ablation("resid_mid", 1, pos=3), Ablation("resid_mid", 0, d_model=[2, 30], value=0.1)]
ALL = [*ATTENTION, *GROUPED, *NEURONS, *MIDDLE]
CASES = [("gpt2", one) for one in ALL] + [("llama", one) for one in ALL]
CASES += [("attn_only", one) for one in [*ATTENTION, *GROUPED]]
CASES += [("neox", one) for one in [*ATTENTION[::5], *GROUPED, *NEURONS]]


@pytest.fixture(scope="module")
def both(make_model):
    """Both of a kind and weights mode; made once."""
    made: dict[tuple[str, str], Both] = {}

    def get(kind: str = "gpt2", weights: str = "raw") -> Both:
        return made.setdefault((kind, weights), Both(make_model(kind, weights)))

    return get


def said(given: Any) -> str:
    if not isinstance(given, Ablation):
        return given
    value = (
        ""
        if given.value == 0
        else f"={given.value}"
        if isinstance(given.value, float)
        else "=array"
    )
    chosen = ",".join(f"{dim}{i}".replace(" ", "") for dim, i in given.indices.items())
    return f"{given.site}{given.layer}-{chosen}{value}"


def name_of(one: Ablation) -> str:
    """The name of the graph for a site."""
    return one.site if one.layer is None else f"{one.layer}.{one.site}"


def dims_of(one: Ablation) -> tuple[str, ...]:
    return tuple(HEAD if dim == KV_HEAD else dim for dim in ACTIVATIONS[one.site].dims)


def edit_of(one: Ablation, value: Any = None) -> dict[str, Any]:
    """The same as an edit of the graph; an array is what the last dim is set to."""
    return {name_of(one): set_to(dims_of(one), one.indices, one.value if value is None else value)}


LOOKED_AT = ["resid_post", "pattern", "z", "attn_out"]


def check_forward(own: Both, result: Any, text: str, edits: dict[str, Any]) -> None:
    """Objective, values and gradients are those of the graph with the same edits."""
    n = len(own.ids(text))
    graph = own.graph(text, edits, detach=["ln_final_scale"])
    value = objective_of(graph, DIFF)
    close(of(result, "objective", text, n), value)
    for site in LOOKED_AT:
        names = [f"{layer}.{site}" for layer in range(own.n_layers)]
        close(of(result, site, text, n), torch.stack([graph[name] for name in names]))
        close(of(result, f"{site}_grad", text, n), torch.stack(graph.grad(value, *names)))


SCALARS = [*LOOKED_AT, *(f"{site}_grad" for site in LOOKED_AT)]


@pytest.mark.parametrize(("kind", "one"), CASES, ids=said)
def test_ablations(both, kind, one):
    own = both(kind)
    result = own.trace(objective=DIFF, ablate=[one], scalars=SCALARS)
    for text in TEXTS:
        check_forward(own, result, text, edit_of(one))


def test_several_ablations_at_once(both):
    several = [
        Ablation("z", 1, head=2),
        Ablation("z", 1, head=0, pos=-1, value=0.5),
        Ablation("pattern", 0, head=1, query=4, key=1, value=0.9),
        Ablation("post", 2, neuron=7),
    ]
    own = both("gpt2")
    result = own.trace(objective=DIFF, ablate=several, scalars=SCALARS)
    first, second = (edit_of(one)["1.z"] for one in several[:2])
    edits = edit_of(several[2]) | edit_of(several[3]) | {"1.z": lambda z: second(first(z))}
    for text in TEXTS:
        check_forward(own, result, text, edits)


def test_a_prompt_of_a_batch_is_ablated_alone(both):
    own = both("llama")
    one = Ablation("z", 0, head=2)
    result = own.trace(objective=DIFF, ablate=[[], [one], []], scalars=SCALARS)
    plain = own.trace(objective=DIFF, scalars=SCALARS)
    for number, text in enumerate(TEXTS):
        check_forward(own, result, text, edit_of(one) if number == 1 else {})
    for name in ("objective", "resid_post", "pattern_grad"):
        unchanged = plain[name].isel(prompt=[0, 2])
        np.testing.assert_allclose(result[name].isel(prompt=[0, 2]), unchanged, rtol=0, atol=1e-6)


def test_each_prompt_with_its_own_ablation_of_one_site(both):
    own = both("gpt2")
    each = [
        [Ablation("z", 1, head=2)],
        [Ablation("z", 1, head=0, pos=-1, value=0.3)],
        [Ablation("resid_pre", 1, pos=2), Ablation("z", 1, head=3)],
    ]
    result = own.trace(objective=DIFF, ablate=each, scalars=SCALARS)
    for text, ablations in zip(TEXTS, each, strict=True):
        edits: dict[str, Any] = {}
        for one in ablations:
            edits |= edit_of(one)
        check_forward(own, result, text, edits)


def test_an_array_lies_as_the_indices_are_given(both):
    own = both("gpt2")
    grid = np.array([[0.4, -0.3], [1.2, 2.5], [-0.9, 0.1]])
    neurons, places = [39, 3], [-1, 0, 2]
    one = Ablation("post", 1, pos=places, neuron=neurons, value=grid)
    result = own.trace(objective=DIFF, ablate=[one], scalars=SCALARS)

    def edit(post: torch.Tensor) -> torch.Tensor:
        changed = post.clone()
        for i, pos in enumerate(places):
            for j, neuron in enumerate(neurons):
                changed[pos, neuron] = grid[i, j]
        return changed

    for text in TEXTS:
        check_forward(own, result, text, {"1.post": edit})


def test_an_array_that_does_not_fit(both):
    with pytest.raises(SpecificationError, match=r"shape \(3,\), which does not broadcast"):
        both("gpt2").trace(
            objective=DIFF, ablate=[Ablation("z", 1, head=0, pos=1, value=[1, 2, 3])]
        )


# --- what a head writes --------------------------------------------------------------------------


def head_write(own: Both, graph: Any, layer: int, head: int) -> torch.Tensor:
    """Dims (query, d_model)."""
    return graph[f"{layer}.z"][:, head] @ own.oracle.w("W_O", layer)[head]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox", "attn_only"])
def test_a_head_with_nothing_downstream_is_taken_off_the_stream(both, kind):
    own = both(kind)
    rest = [] if kind in ("attn_only", "neox") else [Ablation("mlp_out", 2)]
    scalars = ["resid_post", "head_direct_effect"]
    plain = own.trace(objective=DIFF, ablate=rest, scalars=scalars)
    result = own.trace(objective=DIFF, ablate=[*rest, Ablation("z", 2, head=3)], scalars=scalars)
    for text in TEXTS:
        n = len(own.ids(text))
        write = head_write(own, own.graph(text), 2, 3)
        before, after = (of(r, "resid_post", text, n)[-1] for r in (plain, result))
        close(after, before - write)
        assert not of(result, "head_direct_effect", text, n)[2, 3].any()


# --- mean and resample ---------------------------------------------------------------------------

MEANS = [
    Ablation("z", 1, head=2, value="mean"),
    Ablation("z", 0, pos=-1, value="mean"),
    Ablation("post", 1, neuron=[3, 17], value="mean"),
    Ablation("mlp_out", 0, value="mean"),
    Ablation("resid_pre", 1, pos=1, value="mean"),
    Ablation("resid_mid", 1, pos=-2, value="mean"),
    Ablation("embed", pos=2, value="mean"),
]
OTHERS = ("hello world, hello there", "gave a fish to John", "and then the cat", TEXTS[0])
LONG = (
    "the dog lay on the log, and the cat",
    "hello there, who is there in the world?",
    "three two one, on the log: once I",
)
"""At least as long as each of `TEXTS`."""


def mean_of(own: Both, texts: tuple[str, ...], name: str) -> torch.Tensor:
    """Over prompts and positions."""
    return torch.cat([own.graph(text)[name].detach() for text in texts]).mean(0)


@pytest.mark.parametrize("one", MEANS, ids=said)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_means_are_over_prompts_and_positions(both, kind, one):
    own = both(kind)
    mean = mean_of(own, OTHERS, name_of(one))
    for batch_size in (32, 1):
        result = own.trace(
            objective=DIFF,
            ablate=[one],
            scalars=SCALARS,
            batch_size=batch_size,
            baseline=list(OTHERS),
        )
        for text in TEXTS:
            check_forward(own, result, text, edit_of(one, mean))


def mean_pattern(own: Both, texts: tuple[str, ...], layer: int, n: int) -> torch.Tensor:
    """Over the prompts that have a query and key: dims (head, query, key) of a prompt of n tokens."""
    longest = max(len(own.ids(text)) for text in texts)
    total = torch.zeros(4, longest, longest, dtype=torch.float64)
    count = torch.zeros(longest, longest)
    for text in texts:
        own_n = len(own.ids(text))
        total[:, :own_n, :own_n] += own.graph(text)[f"{layer}.pattern"].detach()
        count[:own_n, :own_n] += 1
    return (total / count.clamp(min=1))[:, :n, :n]


@pytest.mark.parametrize(
    "one",
    [
        Ablation("pattern", 1, head=2, value="mean"),
        Ablation("pattern", 0, head=1, query=-1, key=2, value="mean"),
    ],
    ids=said,
)
def test_means_of_patterns_are_over_prompts_at_each_place(both, one):
    own = both("gpt2")
    result = own.trace(objective=DIFF, ablate=[one], scalars=SCALARS, baseline=list(OTHERS))
    for text in TEXTS:
        mean = mean_pattern(own, OTHERS, one.layer, len(own.ids(text)))
        check_forward(own, result, text, edit_of(one, mean))


def test_a_mean_of_nothing(both):
    with pytest.raises(
        SpecificationError, match=r"mean of 'z' .* nothing to take it of.*baseline="
    ):
        both("gpt2").trace(objective=DIFF, ablate=[Ablation("z", 1, value="mean")])


RESAMPLED = [
    Ablation("z", 1, head=2, pos=3, value="resample"),
    Ablation("pattern", 0, head=[1, 3], value="resample"),
    Ablation("resid_pre", 1, pos=-1, value="resample"),
    Ablation("post", 2, neuron=[3, 17], value="resample"),
    Ablation("embed", value="resample"),
]


def value_of_partner(own: Both, one: Ablation, partner: str, n: int) -> torch.Tensor:
    value = own.graph(partner)[name_of(one)].detach()
    return value[:, :n, :n] if one.site == "pattern" else value[:n]


@pytest.mark.parametrize("one", RESAMPLED, ids=said)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_partners_in_order_give_what_is_resampled(both, kind, one):
    own = both(kind)
    partners = [LONG[2], TEXTS[0], LONG[0]]
    for batch_size in (32, 2):
        result = own.trace(
            objective=DIFF, ablate=[one], scalars=SCALARS, baseline=partners, batch_size=batch_size
        )
        for text, partner in zip(TEXTS, partners, strict=True):
            value = value_of_partner(own, one, partner, len(own.ids(text)))
            check_forward(own, result, text, edit_of(one, value))


def test_what_is_resampled_is_of_another_prompt_at_the_same_place(both):
    own = both("gpt2")
    one = Ablation("z", 1, head=2, pos=3, value="resample")
    texts = [*LONG, TEXTS[0]]
    result = own.trace(objective=DIFF, ablate=[one], scalars=["z"], baseline=texts)
    for text in TEXTS:
        n = len(own.ids(text))
        found = of(result, "z", text, n)[1, 3, 2]
        others = [own.graph(other)["1.z"][3, 2].detach() for other in texts if other != text]
        errors = [float((found - other).abs().max()) for other in others]
        assert min(errors) < 1e-4
        graph = own.graph(
            text,
            {"1.z": set_to(("pos", "head", "d_head"), one.indices, others[int(np.argmin(errors))])},
        )
        close(of(result, "objective", text, n), objective_of(graph, DIFF))


def test_resampling_depends_on_the_seed_alone(both):
    own = both("gpt2")
    one = Ablation("resid_pre", 1, pos=3, value="resample")
    texts = ["Mary and John", "the cat sat on", "one two three"]
    pool = [f"the{word} dog lay on the log" for word in (" a", " the", " and", " on")]
    assert len({len(own.ids(text)) for text in pool}) == 1
    asked = {"objective": DIFF, "ablate": [one], "scalars": ["embed"], "baseline": pool}
    found = {
        seed: [
            own.trace(texts, **asked, seed=seed, batch_size=size)["objective"].values
            for size in (32, 1)
        ]
        for seed in range(6)
    }
    for first, second in found.values():
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-5)
    assert len({tuple(np.round(first, 4)) for first, _ in found.values()}) > 1


def test_a_partner_that_is_too_short(both):
    with pytest.raises(SpecificationError, match=r"has 6 tokens and its partner .* has 17"):
        both("gpt2").trace(
            objective=DIFF,
            ablate=[Ablation("z", 1, value="resample")],
            baseline=[TEXTS[1], *LONG[:2]],
        )


# --- backward ------------------------------------------------------------------------------------

STOPS = [
    Ablation("z", 1, head=2, pass_=BACK),
    Ablation("pattern", 1, head=2, query=4, pass_=BACK),
    Ablation("pattern", 0, head=1, value=0.3, query=3, key=1, pass_=BACK),
    Ablation("attn_scores", 2, head=0, query=-1, key=1, value=-0.2, pass_=BACK),
    Ablation("q", 1, pos=3, pass_=BACK),
    Ablation("post", 0, neuron=[2, 9], pass_=BACK),
    Ablation("mlp_out", 1, pos=-1, pass_=BACK),
    Ablation("attn_out", 2, value=WIDE, pos=-1, pass_=BACK),
    Ablation("resid_mid", 1, d_model=4, pass_=BACK),
    Ablation("resid_pre", 1, pass_=BACK),
    Ablation("resid_post", 1, pos=-1, pass_=BACK),
    Ablation("embed", pos=1, pass_=BACK),
]
GRADIENTS = ["pattern", "z", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "post"]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("one", STOPS, ids=said)
def test_gradients_that_are_ablated(both, kind, one):
    own = both(kind)
    scalars = [f"{site}_grad" for site in GRADIENTS]
    result = own.trace(objective=DIFF, ablate=[one], scalars=scalars)
    for text in TEXTS:
        n = len(own.ids(text))
        graph = own.graph(text, detach=["ln_final_scale"], backward=edit_of(one))
        value = objective_of(graph, DIFF)
        close(of(result, "objective", text, n), value)
        for site in GRADIENTS:
            names = [f"{layer}.{site}" for layer in range(own.n_layers)]
            close(of(result, f"{site}_grad", text, n), torch.stack(graph.grad(value, *names)))


def test_a_gradient_that_is_stopped_does_not_flow_on(both):
    own = both("gpt2")
    one = Ablation("resid_pre", 1, pass_=BACK)
    result = own.trace(objective=DIFF, ablate=[one], scalars=["resid_pre_grad", "z_grad"])
    grads = result["resid_pre_grad"]
    assert (grads.sel(layer=[0, 1]).fillna(0) == 0).all()
    assert float(np.abs(grads.sel(layer=2)).max()) > 1e-3
    assert (result["z_grad"].sel(layer=0).fillna(0) == 0).all()


ELEMENTS = [
    ("post", 1, {"pos": 3, "neuron": 17}),
    ("pattern", 2, {"head": 1, "query": 4, "key": 2}),
    ("attn_scores", 1, {"head": 3, "query": 5, "key": 0}),
    ("z", 1, {"pos": -1, "head": 2}),
    ("resid_mid", 1, {"pos": 2, "d_model": 8}),
]


@pytest.mark.parametrize(("site", "layer", "indices"), ELEMENTS, ids=[e[0] for e in ELEMENTS])
def test_zero_with_a_gradient_of_one_is_the_gradient_of_that_element(both, site, layer, indices):
    own = both("gpt2")
    one = Ablation(site, layer, **indices, value=1.0, pass_=BACK)
    scalars = ["resid_pre_grad", "pattern_grad", "head_estimated_total_effect"]
    result = own.trace(objective=zero(), ablate=[one], scalars=scalars)
    for text in TEXTS:
        n = len(own.ids(text))
        graph = own.graph(text)
        value = graph[f"{layer}.{site}"][
            tuple(indices[d] for d in dims_of(one) if d in indices)
        ].sum()
        close(of(result, "objective", text, n), 0.0)
        z_names = [f"{i}.z" for i in range(own.n_layers)]
        pre, z = (
            torch.stack(graph.grad(value, *(f"{i}.{name}" for i in range(own.n_layers))))
            for name in ("resid_pre", "z")
        )
        close(of(result, "resid_pre_grad", text, n), pre)
        activation = torch.stack([graph[name] for name in z_names])
        expected = (activation * z).sum(-1).transpose(1, 2)
        close(of(result, "head_estimated_total_effect", text, n), expected)


def test_forward_and_backward_of_one_site_at_once(both):
    own = both("gpt2")
    forward = Ablation("z", 1, head=2, value=0.2)
    back = Ablation("z", 1, head=0, value=0.1, pass_=BACK)
    result = own.trace(objective=DIFF, ablate=[forward, back], scalars=SCALARS)
    for text in TEXTS:
        n = len(own.ids(text))
        graph = own.graph(text, edit_of(forward), detach=["ln_final_scale"], backward=edit_of(back))
        value = objective_of(graph, DIFF)
        for site in ("z", "pattern", "resid_post"):
            names = [f"{layer}.{site}" for layer in range(own.n_layers)]
            close(of(result, f"{site}_grad", text, n), torch.stack(graph.grad(value, *names)))
