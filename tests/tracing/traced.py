"""A tiny model traced, beside the graph of it that is put together by hand.

Rule: what is expected is computed of one prompt alone, from token ids, and of nothing that `trace` gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pattern_lens.models import CaptureModel
from pattern_lens.names import ACTIVATIONS, KEY, QUERY, RAGGED_DIMS
from pattern_lens.prompts import prompt_hash
from pattern_lens.tracing.objectives import Objective
from pattern_lens.tracing.run import trace
from tests.tracing.oracle import Edit, Graph, Oracle

TEXTS = ("the cat sat on the mat and the dog", "Hello there.", "one two three one two")
"""17, 6 and 15 tokens."""


class Both:
    """One model and its graph."""

    def __init__(self, model: CaptureModel) -> None:
        self.model = model

    @cached_property
    def oracle(self) -> Oracle:
        return Oracle(self.model.model)

    @property
    def n_layers(self) -> int:
        return self.oracle.n_layers

    def ids(self, text: str) -> list[int]:
        return self.model.tokenize(text).ids.tolist()

    def trace(self, texts: Sequence[str] = TEXTS, **options: Any) -> Any:
        return trace(self.model, list(texts), progress=False, **options)

    def graph(self, text: str, edits: Mapping[str, Edit] | None = None, **options: Any) -> Graph:
        return self.oracle.run(self.ids(text), edits, **options)


def of(result: Any, name: str, text: str, n: int) -> Tensor:
    """A variable of one prompt, cut to its own length; beyond that there is nothing but NaN."""
    one = result[name].sel(prompt=prompt_hash(text))
    ragged = [dim for dim in one.dims if dim in RAGGED_DIMS]
    own = one.isel({dim: slice(n) for dim in ragged})
    assert int(one.notnull().sum()) == int(own.notnull().sum())
    assert not own.isnull().any(), f"{name} has gaps"
    return torch.from_numpy(own.values.astype(np.float64))


def close(found: Any, expected: Any, *, atol: float = 1e-4, rtol: float = 0.0) -> None:
    """Raise unless both are equal, as far as the model's float32 goes."""
    found, expected = (torch.as_tensor(x, dtype=torch.float64).detach() for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def objective_of(graph: Graph, objective: Objective) -> Tensor:
    """The number that an objective is; tokens as ids."""
    at = graph["logits"][objective.position]
    target, distractor = list(objective.target), list(objective.distractor)
    if objective.kind == "logit_diff":
        return at[target].mean() - at[distractor].mean()
    if objective.kind == "logit_minus_mean":
        return at[target].mean() - at.mean()
    if objective.kind == "probs":
        return at.softmax(-1)[target].sum()
    if objective.kind == "direction":
        layer = objective.layer % max(1, 1 + max(int(n[0]) for n in graph.values if n[0].isdigit()))
        stream = graph[f"{layer}.{objective.site}"][objective.position]
        return stream @ torch.tensor(objective.vector, dtype=stream.dtype)
    if objective.kind == "node":
        value = graph[f"{objective.layer}.{objective.site}"]
        return value[tuple(objective.indices[dim] for dim in ACTIVATIONS[objective.site].dims)]
    return 0 * at.sum()


def chosen(x: Tensor, dims: Sequence[str], indices: Mapping[str, Any]) -> Tensor:
    """Where a value is chosen by indices along some of its dims; bool, in its shape."""
    found = torch.ones(x.shape, dtype=torch.bool)
    for axis, dim in enumerate(dims):
        if dim in indices:
            along = torch.zeros(x.shape[axis], dtype=torch.bool)
            along[np.atleast_1d(indices[dim]).tolist()] = True
            found &= along.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    is_square = tuple(dims[-2:]) == (QUERY, KEY)
    return found.tril() if is_square else found  # later keys are never touched


def set_to(dims: Sequence[str], indices: Mapping[str, Any], value: Any) -> Edit:
    """An edit that sets what is chosen to a number, or to what stands there in another value."""

    def edit(x: Tensor) -> Tensor:
        other = torch.as_tensor(value, dtype=x.dtype).expand(x.shape)
        return torch.where(chosen(x, dims, indices), other, x)

    return edit


def scaled(place: tuple[Any, ...], factor: float) -> Edit:
    """An edit that multiplies one place."""

    def edit(x: Tensor) -> Tensor:
        changed = x.clone()
        changed[place] = x[place] * factor
        return changed

    return edit
