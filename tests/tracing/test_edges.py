"""Edges equal plain loops, finite differences through a whole small model, and are zero where nothing is upstream."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from pattern_lens.errors import SpecificationError
from pattern_lens.tracing.definitions.edges import edge_needs
from pattern_lens.tracing.edges import (
    Reader,
    ReadNorm,
    Writer,
    edge_labels,
    edge_matrix,
    pull_back_norm,
    reads_of_layer,
    through_weights,
)
from pattern_lens.tracing.scalars import SCALARS

EPS = 0.3  # large, so that it counts


def normalised(x, norm, scale=None):
    if norm.kind == "none":
        return x if norm.weight is None else x * norm.weight
    centred = x - x.mean(-1)[..., None] if norm.kind == "LN" else x
    if scale is None:
        scale = ((centred**2).mean(-1)[..., None] + norm.eps) ** 0.5
    return centred / scale * (1 if norm.weight is None else norm.weight)


def scale_of(x, norm):
    centred = x - x.mean(-1, keepdims=True) if norm.kind == "LN" else x
    return np.sqrt((centred**2).mean(-1, keepdims=True) + norm.eps)


@pytest.mark.parametrize("kind", ["LN", "RMS", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("detached", [False, True])
def test_a_norm_is_pulled_back(kind, weighted, detached):
    rng = np.random.default_rng(3)
    x, gradient = rng.normal(size=(2, 2, 3, 5))
    norm = ReadNorm(kind, EPS, rng.normal(size=5) if weighted else None)
    held = scale_of(x, norm) if detached else None
    step = 1e-5
    expected = np.empty_like(x)
    for place in np.ndindex(*x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] -= step
        moved[1][place] += step
        low, high = ((normalised(one, norm, held) * gradient).sum() for one in moved)
        expected[place] = (high - low) / (2 * step)
    found = pull_back_norm(gradient, x, norm, detached=detached)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    weight = None if norm.weight is None else torch.from_numpy(norm.weight)
    arrays = (torch.from_numpy(gradient), torch.from_numpy(x), ReadNorm(kind, EPS, weight))
    np.testing.assert_allclose(pull_back_norm(*arrays, detached=detached), found, rtol=1e-12)


def test_what_the_slots_of_a_layer_read():
    rng = np.random.default_rng(4)
    gradients = [rng.normal(size=(2, 3, n, 2)) for n in (4, 1, 1)]
    weights = [rng.normal(size=(n, 5, 2)) for n in (4, 1, 1)]
    stream, norm = rng.normal(size=(2, 3, 5)), ReadNorm("RMS", EPS, rng.normal(size=5))
    found = reads_of_layer(gradients, weights, stream, norm, detached=True)
    assert [part.shape for part in found] == [(2, 3, n, 5) for n in (4, 1, 1)]
    for part, gradient, weight in zip(found, gradients, weights, strict=True):
        for p, q, h in np.ndindex(part.shape[:3]):
            scale = np.sqrt((stream[p, q] ** 2).mean() + EPS)
            expected = weight[h] @ gradient[p, q, h] * norm.weight / scale
            np.testing.assert_allclose(part[p, q, h], expected)


# --- a whole model ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """Which small model."""

    kind: str = "RMS"
    n_kv_heads: int = 2
    parallel: bool = False
    has_mlp: bool = True
    qk_norm: bool = False


N_LAYERS, N_HEADS, D_HEAD, D_MODEL, N_NEURONS, N_POS, N_PROMPTS = 2, 4, 3, 5, 6, 4, 2

SHAPES = [
    Shape(),
    Shape(kind="LN", n_kv_heads=4),
    Shape(parallel=True),
    Shape(has_mlp=False, n_kv_heads=1),
    Shape(kind="none"),
]


class Model:
    """A transformer of two layers, whose readers can be made to read something else."""

    def __init__(self, shape: Shape):
        self.shape = shape
        make = torch.Generator().manual_seed(7)

        def random(*size):
            return torch.randn(*size, generator=make, dtype=torch.float64) / 2

        n_kv = shape.n_kv_heads
        self.layers = [
            {
                "W_Q": random(N_HEADS, D_MODEL, D_HEAD),
                "W_K": random(n_kv, D_MODEL, D_HEAD),
                "W_V": random(n_kv, D_MODEL, D_HEAD),
                "W_O": random(N_HEADS, D_HEAD, D_MODEL),
                "b_O": random(D_MODEL),
                "W_in": random(D_MODEL, N_NEURONS),
                "W_out": random(N_NEURONS, D_MODEL),
                "ln1_w": 1 + random(D_MODEL),
                "ln2_w": 1 + random(D_MODEL),
            }
            for _ in range(N_LAYERS)
        ]
        self.embedded = random(N_PROMPTS, N_POS, D_MODEL)
        self.unembed = random(D_MODEL)

    def norm(self, layer, name="ln1_w"):
        return ReadNorm(self.shape.kind, EPS, self.layers[layer][name])

    def run(self, add=None):
        """Objective of each prompt, and every activation; `add` goes to what a target reads."""
        add, seen, x = add or {}, {}, self.embedded.clone().requires_grad_()
        for layer, w in enumerate(self.layers):
            kept = seen[layer] = {"resid_pre": x}
            attn = self._attention(layer, w, x, kept, add)
            x_mid = x + attn
            if not self.shape.parallel and self.shape.has_mlp:
                kept["resid_mid"] = x_mid
            x = x_mid
            if self.shape.has_mlp:
                kept["mlp_in"] = (kept["resid_pre"] if self.shape.parallel else x_mid) * 1
                read = kept["mlp_in"] + add.get(f"{layer}_mlp_in", 0)
                hidden = normalised(read, self.norm(layer, "ln2_w")) @ w["W_in"]
                kept["mlp_out"] = torch.tanh(hidden) @ w["W_out"]
                x = x + kept["mlp_out"]
            kept["resid_post"] = x
        read = x[:, -1] + add.get("final", torch.zeros_like(x))[:, -1]
        return torch.tanh(read) @ self.unembed, seen

    def _attention(self, layer, w, x, kept, add):
        n_kv = self.shape.n_kv_heads

        def read(slot, heads, label):
            rows = []
            for head in range(heads):
                stream = x + add.get(f"L{layer}{label}{head}.{slot}", 0)
                rows.append(normalised(stream, self.norm(layer)) @ w[f"W_{slot.upper()}"][head])
            kept[slot] = torch.stack(rows, dim=2)
            if self.shape.qk_norm and slot != "v":  # its gradient is that of what was normed
                kept[slot] = normalised(kept[slot], ReadNorm("RMS", EPS))
            return kept[slot]

        shared = "H" if n_kv == N_HEADS else "KV"
        q, k, v = read("q", N_HEADS, "H"), read("k", n_kv, shared), read("v", n_kv, shared)
        kept["z"] = self._mix(q, k, v)
        return torch.einsum("pqhd,hdm->pqm", kept["z"], w["W_O"]) + w["b_O"]

    def _mix(self, q, k, v):
        k, v = (part.repeat_interleave(N_HEADS // part.shape[2], dim=2) for part in (k, v))
        scores = torch.einsum("pqhd,pkhd->phqk", q, k)
        causal = torch.ones(N_POS, N_POS).tril().bool()
        pattern = scores.masked_fill(~causal, float("-inf")).softmax(-1)
        return torch.einsum("phqk,pkhd->pqhd", pattern, v)


class Batch:
    """A run with its gradients, as the scalar of edges is given it."""

    n_layers, n_heads, layer = N_LAYERS, N_HEADS, None

    def __init__(self, model, *, detach_norm=False, numpy=False):
        self.model, self.detach_norm, self.numpy = model, detach_norm, numpy
        self.has_mlp, self.is_parallel = model.shape.has_mlp, model.shape.parallel
        objective, seen = model.run()
        parts = [(layer, name) for layer, kept in seen.items() for name in kept]
        values = [seen[layer][name] for layer, name in parts]
        grads = torch.autograd.grad(objective.sum(), values)
        self.values = {part: value.detach() for part, value in zip(parts, values, strict=True)}
        self.values |= {
            (layer, f"{name}_grad"): grad for (layer, name), grad in zip(parts, grads, strict=True)
        }

    def _of_kind(self, tensor):
        return tensor.numpy() if self.numpy else tensor

    def at(self, layer):
        return Layer(self, layer)

    def read_norm(self, layer):
        norm = self.model.norm(layer)
        return ReadNorm(norm.kind, norm.eps, self._of_kind(norm.weight))

    def __getitem__(self, name):
        return self.at(0)[name]

    def there(self, values):
        return values[:, -1:]

    def spread(self, values):
        shape = (values.shape[0], N_POS, *values.shape[2:])
        whole = np.zeros(shape) if self.numpy else values.new_zeros(shape)
        whole[:, -1:] = values
        return whole

    def direction(self, writer):
        return self.at(N_LAYERS - 1)["resid_post_grad"][:, -1:]


class Layer(Batch):
    def __init__(self, batch, layer):
        self.__dict__.update(batch.__dict__)
        self.layer = layer

    def __getitem__(self, name):
        return self._of_kind(self.values[self.layer, name])

    def weight(self, name):
        return self._of_kind(self.model.layers[self.layer][name])


def labels_of(shape):
    return edge_labels(N_LAYERS, N_HEADS, shape.n_kv_heads, has_mlp=shape.has_mlp)


def written(batch):
    """What each source writes, by label: (prompt, pos, d_model)."""
    found = {"embed": batch["resid_pre"]}
    for layer in range(N_LAYERS):
        here = batch.at(layer)
        for head in range(N_HEADS):
            found[f"L{layer}H{head}"] = here["z"][:, :, head] @ here.weight("W_O")[head]
        if batch.has_mlp:
            found[f"{layer}_mlp_out"] = here["mlp_out"]
    return found


def is_upstream(source, target, shape):
    if source == "embed" or target == "final":
        return True
    is_mlp = source.endswith("_mlp_out")
    writes = int(source[0]) if is_mlp else int(source[1])
    into_mlp = target.endswith("_mlp_in")
    reads = int(target[0]) if into_mlp else int(target[1])
    same = writes == reads and not is_mlp and into_mlp and not shape.parallel
    return writes < reads or same


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_edges_are_finite_differences(shape):
    model = Model(shape)
    batch = Batch(model)
    found = SCALARS["edges"].function(batch)
    sources, targets = labels_of(shape)
    assert found.shape == (N_PROMPTS, len(sources), len(targets))
    writes, step = written(batch), 1e-5
    for s, source in enumerate(sources):
        for t, target in enumerate(targets):
            edge = found[:, s, t]
            if not is_upstream(source, target, shape):
                assert (edge == 0).all(), (source, target)
                continue
            low, high = (model.run({target: sign * step * writes[source]})[0] for sign in (-1, 1))
            expected = (high - low).detach() / (2 * step)
            np.testing.assert_allclose(edge, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("detach_norm", [False, True])
def test_numpy_gives_the_same(shape, detach_norm):
    model = Model(shape)
    found = SCALARS["edges"].function(Batch(model, detach_norm=detach_norm, numpy=True))
    assert isinstance(found, np.ndarray)
    expected = SCALARS["edges"].function(Batch(model, detach_norm=detach_norm))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert np.abs(found).max() > 0.01


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_a_held_scale_makes_each_reader_linear(shape):
    """With it, and with the bias b_O, the sources of a reader sum to what it reads along its gradient."""
    batch = Batch(Model(shape), detach_norm=True, numpy=True)
    found = SCALARS["edges"].function(batch)
    here, first = batch.at(1), batch.at(0)
    norm = batch.read_norm(1)
    targets = labels_of(shape)[1]
    for slot, weight in (("q", "W_Q"), ("k", "W_K"), ("v", "W_V")):
        for head in range(here.weight(weight).shape[0]):
            read = here[f"{slot}_grad"][:, :, head] @ here.weight(weight)[head].T
            seen = normalised(here["resid_pre"], norm)
            bias = normalised(first.weight("b_O"), norm, scale_of(here["resid_pre"], norm))
            expected = ((seen - bias) * read).sum((1, 2))
            own = "H" if slot == "q" or shape.n_kv_heads == N_HEADS else "KV"
            column = targets.index(f"L1{own}{head}.{slot}")
            np.testing.assert_allclose(found[:, :, column].sum(1), expected, rtol=1e-9)


def test_a_model_that_reads_otherwise_is_refused():
    normed = Batch(Model(Shape(qk_norm=True)))
    with pytest.raises(SpecificationError, match="may have a norm of queries and keys"):
        SCALARS["edges"].function(normed)
    whole = Batch(Model(Shape()))
    whole.model.layers[1]["W_K"] = whole.model.layers[1]["W_K"] * 1.1
    with pytest.raises(SpecificationError, match=r"edges into layer 1: .*leave out 'edges'"):
        SCALARS["edges"].function(whole)
    broken = Batch(Model(Shape()))
    broken.values[0, "q_grad"][1, 0] = float("nan")
    with pytest.raises(SpecificationError, match="edges into layer 0"):
        SCALARS["edges"].function(broken)


def test_a_scale_that_the_backward_pass_held_is_no_other_architecture():
    rng = np.random.default_rng(8)
    gradients = [rng.normal(size=(2, 3, 4, 2)) for _ in range(3)]
    weights = [rng.normal(size=(4, 5, 2)) for _ in range(3)]
    stream, norm = rng.normal(size=(2, 3, 5)), ReadNorm("LN", EPS)
    total = sum(through_weights(g, w).sum(2) for g, w in zip(gradients, weights, strict=True))
    past = rng.normal(size=(2, 3, 5))
    sent = pull_back_norm(total, stream, norm, detached=False)
    sent[1] = pull_back_norm(total, stream, norm, detached=True)[1]
    arrays = (gradients, weights, stream, norm)
    reads_of_layer(*arrays, detached=True, passed=(past + sent, past))
    sent[1] *= 1.01
    with pytest.raises(SpecificationError, match=r"edges into layer 5: .* of length"):
        reads_of_layer(*arrays, detached=True, passed=(past + sent, past), layer=5)
    past *= 1e5  # what attention sends back is now lost in rounding
    reads_of_layer(*arrays, detached=True, passed=(past + sent, past))


def test_what_edges_need():
    assert edge_needs() == SCALARS["edges"].needs
    assert {"mlp_out", "mlp_in_grad", "resid_mid_grad"} <= set(edge_needs())
    assert "resid_mid_grad" not in edge_needs(is_parallel=True)
    assert not {"mlp_out", "mlp_in_grad", "resid_mid_grad"} & set(edge_needs(has_mlp=False))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_edges_take_what_they_need_and_nothing_else(shape, monkeypatch):
    taken = set()
    for method, said in (("__getitem__", None), ("weight", None), ("direction", "direction")):
        own = getattr(Layer, method)

        def watched(self, name, *, own=own, said=said):
            taken.add(said or name)
            return own(self, name)

        monkeypatch.setattr(Layer, method, watched)
    model = Model(shape)
    batch = Batch(model)
    final = batch.at(N_LAYERS - 1)["resid_post_grad"][:, -1:]
    taken.clear()
    monkeypatch.setattr(Batch, "direction", lambda self, writer: final)
    monkeypatch.setattr(Layer, "direction", lambda self, writer: (taken.add("direction"), final)[1])
    SCALARS["edges"].function(batch)
    assert taken == set(edge_needs(has_mlp=shape.has_mlp, is_parallel=shape.parallel))


def test_labels():
    sources, targets = edge_labels(2, 2)
    assert sources == ["embed", "L0H0", "L0H1", "0_mlp_out", "L1H0", "L1H1", "1_mlp_out"]
    assert targets[:7] == ["L0H0.q", "L0H1.q", "L0H0.k", "L0H1.k", "L0H0.v", "L0H1.v", "0_mlp_in"]
    assert targets[-1] == "final"
    sources, targets = edge_labels(1, 3, 1, has_mlp=False)
    assert sources == ["embed", "L0H0", "L0H1", "L0H2"]
    assert targets == ["L0H0.q", "L0H1.q", "L0H2.q", "L0KV0.k", "L0KV0.v", "final"]


def test_only_one_reader_and_one_writer_are_held():
    """Written and read are made when they are needed, and only for what is upstream."""
    made = []

    def make(name, array):
        made.append(name)
        return array

    rng = np.random.default_rng(2)
    arrays = rng.normal(size=(4, 1, 3, 2, 5))
    writers = [
        Writer(("a", "b"), lambda: make("first", arrays[0]), lambda: arrays[0, :, 0, :, 0]),
        Writer(("c", "d"), lambda: make("second", arrays[1]), lambda: arrays[1, :, 0, :, 0]),
    ]
    readers = [
        Reader(("r", "s"), lambda: make("early", arrays[2]), 1),
        Reader(("t", "u"), lambda: make("late", arrays[3]), 2),
    ]
    found = edge_matrix(writers, readers)
    assert made == ["early", "first", "late", "first", "second"]
    assert found.shape == (1, 4, 5)
    assert (found[:, 2:, :2] == 0).all()
    for s, t in np.ndindex(2, 2):
        np.testing.assert_allclose(found[0, s, t], (arrays[0, 0, :, s] * arrays[2, 0, :, t]).sum())
        np.testing.assert_allclose(
            found[0, 2 + s, 2 + t], (arrays[1, 0, :, s] * arrays[3, 0, :, t]).sum()
        )
