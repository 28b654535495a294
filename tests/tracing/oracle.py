"""A tiny model as a function of explicit tensors, in float64: what a trace must agree with.

Rule: nothing here uses the model's own forward pass or hooks, only its weights; one prompt at a time, without padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Edit = Callable[[Tensor], Tensor]
ACTIVATION = {
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu": functional.gelu,
    "silu": functional.silu,
}


@dataclass
class Norm:
    """Layer norm or RMS norm; its scale is a value of the graph of its own."""

    w: Tensor
    b: Tensor
    eps: float
    centred: bool

    def __call__(self, x: Tensor, keep: Callable[[str, Tensor], Tensor], name: str) -> Tensor:
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        scale = keep(f"{name}_scale", (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return keep(f"{name}_normalized", x / scale) * self.w + self.b


class Graph:
    """Every value of one forward pass by name: ``1.pattern``, ``embed``, ``final``, ``logits``.

    Dims as in names.ACTIVATIONS, of one prompt. Each is differentiable, unless it was detached.
    """

    def __init__(
        self, edits: Mapping[str, Edit], detach: Iterable[str], backward: Mapping[str, Edit]
    ) -> None:
        self.values: dict[str, Tensor] = {}
        self._edits, self._detach, self._backward = dict(edits), {*detach}, dict(backward)
        self._waiting = {*self._edits} | self._detach | {*self._backward}

    def keep(self, name: str, value: Tensor) -> Tensor:
        self._waiting.discard(name)
        if name in self._edits:
            value = self._edits[name](value)
        if name in self._detach:
            value = value.detach()
        elif not value.requires_grad:
            value = value.clone().requires_grad_()
        self.values[name] = value
        if name in self._backward:
            # What is kept stands before what is read downstream: its gradient is the changed one.
            changed = value.view_as(value)
            changed.register_hook(self._backward[name])
            return changed.view_as(changed)
        return value

    def check(self) -> None:
        assert not self._waiting, f"no such values: {sorted(self._waiting)}"

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]

    def grad(self, of: Tensor, *names: str) -> list[Tensor]:
        """Gradients; zeros where a value has nothing to do with it, or was detached.

        Zeros, too, above the diagonal of a pattern: no query gives a later key any attention.
        """
        found = {name: torch.zeros_like(self.values[name]) for name in names}
        free = [name for name in names if self.values[name].requires_grad]
        at = [self.values[name] for name in free]
        if of.requires_grad and free:
            grads = torch.autograd.grad(
                of, at, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            found |= dict(zip(free, grads, strict=True))
        return [grad.tril() if "pattern" in name else grad for name, grad in found.items()]


class Oracle:
    """The tensors of a bridge, and the model that they make."""

    def __init__(self, bridge: Any) -> None:
        cfg = bridge.cfg
        self.n_layers, self.n_heads, self.d_head = cfg.n_layers, cfg.n_heads, cfg.d_head
        self.parallel = bool(getattr(cfg, "parallel_attn_mlp", False))
        self.attn_only = bool(cfg.attn_only)
        self.act = ACTIVATION.get(cfg.act_fn, functional.relu)
        self.weights = {name: _weight(bridge, name) for name in _NAMES}
        self.n_kv_heads = self.w("W_K").shape[1]
        centred = cfg.normalization_type.startswith("LN")
        parts = {"ln_final": bridge.ln_final}
        for layer, block in enumerate(bridge.blocks):
            parts[f"{layer}.ln1"] = block.ln1
            if not self.attn_only:
                parts[f"{layer}.ln2"] = block.ln2
        self.norms = {name: _norm(part, cfg, centred) for name, part in parts.items()}
        self.rotary_dim = _rotary_dim(bridge, self.d_head)

    def w(self, name: str, layer: int | None = None) -> Tensor:
        """A weight, zeros where the model has none."""
        found = self.weights[name]
        assert found is not None, f"the model has no {name}"
        return found if layer is None else found[layer]

    def bias(self, name: str, layer: int, like: Tensor) -> Tensor:
        found = self.weights[name]
        return torch.zeros_like(like) if found is None else found[layer]

    def run(
        self,
        ids: Any,
        edits: Mapping[str, Edit] | None = None,
        *,
        detach: Iterable[str] = (),
        backward: Mapping[str, Edit] | None = None,
    ) -> Graph:
        """Forward pass of one prompt.

        Parameters
        ----------
        ids
            Dims (pos).
        edits
            What is done to a value before anything reads it.
        detach
            Values that are held constant: ``ln_final_scale``, ``1.ln1_scale``, ``1.rot_q``, ``1.rot_k``, …
        backward
            What is done to a gradient before it flows on.
        """
        graph = Graph(edits or {}, detach, backward or {})
        ids = torch.as_tensor([int(i) for i in ids])
        stream = graph.keep("embed", self.w("W_E")[ids])
        if self.weights["W_pos"] is not None:
            stream = stream + graph.keep("pos_embed", self.w("W_pos")[: len(ids)])
        for layer in range(self.n_layers):
            stream = self._block(graph, layer, stream)
        graph.keep("final", stream)
        normed = self.norms["ln_final"](graph["final"], graph.keep, "ln_final")
        logits = normed @ self.w("W_U")
        graph.keep("logits", logits if self.weights["b_U"] is None else logits + self.w("b_U"))
        graph.check()
        return graph

    def _block(self, graph: Graph, layer: int, stream: Tensor) -> Tensor:
        def keep(name: str, value: Tensor) -> Tensor:
            return graph.keep(f"{layer}.{name}", value)

        stream = keep("resid_pre", stream)
        middle = stream + keep("attn_out", self._attention(keep, layer, stream))
        if not self.attn_only:
            if not self.parallel:
                middle = stream = keep("resid_mid", middle)
            middle = middle + keep("mlp_out", self._mlp(keep, layer, stream))
        return keep("resid_post", middle)

    def _attention(self, keep: Any, layer: int, stream: Tensor) -> Tensor:
        x = self.norms[f"{layer}.ln1"](stream, keep, "ln1")
        q, k, v = (keep(name, self._projected(x, name, layer)) for name in "qkv")
        q, k = keep("rot_q", self._rotated(q)), keep("rot_k", self._rotated(k))
        k, v = (one.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1) for one in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(self.d_head)
        seen = torch.ones(len(stream), len(stream), dtype=torch.bool).tril()
        # The model's own scores above the diagonal are the lowest number, or -inf: as read here
        # they are finite, so that an edit can multiply them.
        scores = keep("attn_scores", scores.masked_fill(~seen, 0.0))
        pattern = keep("pattern", scores.masked_fill(~seen, -torch.inf).softmax(-1))
        z = keep("z", torch.einsum("hqk,khd->qhd", pattern, v))
        out = torch.einsum("qhd,hdm->qm", z, self.w("W_O", layer))
        return out + self.bias("b_O", layer, out[0])

    def _projected(self, x: Tensor, name: str, layer: int) -> Tensor:
        found = torch.einsum("pm,hmd->phd", x, self.w(f"W_{name.upper()}", layer))
        return found + self.bias(f"b_{name.upper()}", layer, found[0])

    def _rotated(self, x: Tensor) -> Tensor:
        if not self.rotary_dim:
            return x
        half = self.rotary_dim // 2
        steps = torch.arange(half, dtype=x.dtype) / half
        angles = torch.arange(len(x), dtype=x.dtype)[:, None, None] / 10_000.0**steps
        a, b, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)

    def _mlp(self, keep: Any, layer: int, stream: Tensor) -> Tensor:
        x = self.norms[f"{layer}.ln2"](keep("mlp_in", stream.view_as(stream)), keep, "ln2")
        gated = self.weights["W_gate"] is not None
        into = x @ self.w("W_in", layer)
        into = into + self.bias("b_in", layer, into[0])
        pre = keep("pre", x @ self.w("W_gate", layer) if gated else into)
        post = keep("post", self.act(pre) * into if gated else self.act(pre))
        out = post @ self.w("W_out", layer)
        return out + self.bias("b_out", layer, out[0])


_NAMES = (
    *("W_E", "W_pos", "W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"),
    *("W_in", "W_gate", "W_out", "b_in", "b_out", "W_U", "b_U"),
)


def _weight(bridge: Any, name: str) -> Tensor | None:
    try:
        found = getattr(bridge, name)
    except AttributeError:  # many models have no such weight
        return None
    return None if found is None else found.detach().double()


def _norm(part: Any, cfg: Any, centred: bool) -> Norm:
    w = part.w.detach().double()
    b = getattr(part, "b", None) if centred else None
    return Norm(w, torch.zeros_like(w) if b is None else b.detach().double(), cfg.eps, centred)


def _rotary_dim(bridge: Any, d_head: int) -> int:
    if bridge.cfg.positional_embedding_type != "rotary":
        return 0
    rope = bridge.original_model.config.rope_parameters
    return int(d_head * rope.get("partial_rotary_factor", 1.0))
