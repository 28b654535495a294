"""The weights of a live model that are stored with its residual stream, as they act.

Rule: one layer at a time leaves the device; nothing of the model is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.activations.gather import as_stored
from pattern_lens.names import LAYER, WEIGHTS
from pattern_lens.store.weights import weight_layout

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from pattern_lens.models import CaptureModel
    from pattern_lens.store.layout import ArrayLayout

_BIASES: Final = ("b_O", "b_out", "b_U")
"""Zeros where the model has none, so that a reader need not ask."""


@dataclass(frozen=True, eq=False)
class ModelWeights:
    """The weights of one model.

    Parameters
    ----------
    model
        What `load_model` returned.
    neurons
        Whether what each neuron writes is wanted.
    """

    model: CaptureModel
    neurons: bool

    def layouts(self) -> list[ArrayLayout]:
        """How those that the model has will lie in the file."""
        return [found for name in self._wanted() if (found := self._layout(name)) is not None]

    def stored(self, layout: ArrayLayout) -> NDArray[Any]:
        """Values of one of `layouts`, as they are stored."""
        parts = [self.at(layout.name, layer) for layer in self._layers(layout.name)]
        values = [as_stored(part, layout) for part in parts if part is not None]
        return np.stack(values) if layout.has_layers else values[0]

    def n_bytes(self, name: str) -> int:
        """Size of a weight that the model has."""
        parts = (self.at(name, layer) for layer in self._layers(name))
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def at(self, name: str, layer: int | None) -> Tensor | None:
        """One weight of one layer, as it acts; None where the model has none."""
        found: Any = self.model.model
        for step in WEIGHTS[name].part.format(layer=layer).split("."):
            # a bridge raises where a checkpoint lacks a parameter, which is an AttributeError
            found = found[int(step)] if step.isdigit() else getattr(found, step, None)
        if found is None:
            return self._idle(name)
        value: Tensor = found.detach()
        is_offset = name.endswith("_w") and getattr(self._cfg, "rmsnorm_uses_offset", False)
        return value + 1 if is_offset else value

    def _idle(self, name: str) -> Tensor | None:
        """What a weight that the model lacks would be, if it did nothing."""
        import torch

        if name.startswith("W_"):
            return None
        unembed: Tensor = self.model.model.unembed.W_U.detach()
        n = unembed.shape[1] if name == "b_U" else unembed.shape[0]
        make = torch.ones if name.endswith("_w") else torch.zeros
        return make(n, dtype=unembed.dtype, device=unembed.device)

    def _wanted(self) -> list[str]:
        left_out = set() if self.neurons else {"W_out"}
        if self._cfg.attn_only:
            left_out |= {"W_out", "b_out", "ln2_w", "ln2_b"}
        return [name for name in WEIGHTS if name not in left_out]

    def _layout(self, name: str) -> ArrayLayout | None:
        layers = self._layers(name)
        parts = [self.at(name, layer) for layer in layers]
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            return None
        idle = 1 if name.endswith("_w") else 0
        if name.startswith("ln") and all(bool(part.eq(idle).all()) for part in found):
            return None
        own = tuple(found[0].shape)
        shape = (len(layers), *own) if LAYER in WEIGHTS[name].dims else own
        return weight_layout(name, shape, str(found[0].dtype).removeprefix("torch."))

    def _layers(self, name: str) -> list[int | None]:
        return [*range(self._cfg.n_layers)] if LAYER in WEIGHTS[name].dims else [None]

    @property
    def _cfg(self) -> Any:
        return self.model.model.cfg
