"""Norms whose divisor is a constant to gradients: values stay bit for bit, only the way back is another one.

Rule: a norm is only taken for what it is said to be after a look at what it gives.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.activations.model_weights import ModelWeights
from pattern_lens.errors import SpecificationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from pattern_lens.models import CaptureModel

_TOLERANCE: Final = 1e-2


@dataclass(frozen=True)
class Norms:
    """The norms of a model, by the module that they are: ``ln1`` and ``ln2`` of a layer, and ``ln_final``."""

    model: CaptureModel

    @property
    def kind(self) -> str:
        """``LN``, ``RMS`` or ``none``."""
        kind = getattr(self.model.model.cfg, "normalization_type", None)
        return "none" if kind is None else str(kind).removesuffix("Pre")

    @property
    def eps(self) -> float:
        """What is added to the variance."""
        return float(self.model.model.cfg.eps)

    @cached_property
    def _weights(self) -> ModelWeights:
        return ModelWeights(self.model, neurons=False)

    def factor(self, name: str, layer: int | None) -> Any:
        """What a norm multiplies by, as it acts: dims (d_model)."""
        return self._weights.at(f"{name}_w", layer)

    def offset(self, name: str, layer: int | None) -> Any:
        """What a norm adds, as it acts: dims (d_model)."""
        return self._weights.at(f"{name}_b", layer)

    def module(self, name: str, layer: int | None) -> Any:
        """The module of a norm; None where the model has none."""
        home = self.model.model if layer is None else self.model.model.blocks[layer]
        return getattr(home, name, None)

    @contextmanager
    def detached(self, rows: Mapping[tuple[str, int | None], Tensor | None]) -> Iterator[None]:
        """Hold the divisor of some norms constant.

        Parameters
        ----------
        rows
            By norm, ``("ln1", 3)`` or ``("ln_final", None)``: for which prompts of the batch, dims (batch), bool; None for all.

        Raises
        ------
        SpecificationError
            A norm is not the LayerNorm or RMSNorm that the model's configuration says.
        """
        handles = []
        try:
            for (name, layer), chosen in rows.items():
                module = self.module(name, layer)
                if module is None or self.kind == "none":
                    continue
                factor = self.factor(name, layer)
                offset = self.offset(name, layer)
                handles.append(
                    module.register_forward_hook(
                        self._hook(f"{name} of layer {layer}", factor, offset, chosen)
                    )
                )
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, who: str, factor: Tensor, offset: Tensor, rows: Tensor | None) -> Any:
        def hold(_: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            import torch

            stream = inputs[0]
            with torch.no_grad():
                wide = stream.detach().float()
                centred = wide - wide.mean(-1, keepdim=True) if self.kind == "LN" else wide
                scale = (centred.square().mean(-1, keepdim=True) + self.eps).sqrt()
                gain = factor.float() / scale
                self._check(who, centred * gain + offset.float(), output)
            held = _held_norm()(stream, output.detach(), gain, self.kind == "LN")
            if rows is None:
                return held  # type: ignore[no-any-return]
            shape = (len(rows), -1, output.shape[-1])  # some models give it flat
            own = torch.where(rows[:, None, None], held.view(shape), output.view(shape))
            return own.view(output.shape)

        return hold

    def _check(self, who: str, ours: Tensor, output: Tensor) -> None:
        error = float((ours - output).abs().max() / output.abs().max().clamp_min(1e-30))
        if not error < _TOLERANCE:
            raise SpecificationError(
                f"the scale of {who} of model {self.model.name!r} cannot be held constant: it is no {self.kind} norm "
                f"(off by {error:.1g}); trace with detach_norm=False"
            )


def _held_norm() -> Any:
    import torch

    class HeldNorm(torch.autograd.Function):
        """Gives a norm's own output; backward, the norm is a product with constants (and a mean taken off)."""

        @staticmethod
        def forward(
            ctx: Any, _stream: Tensor, output: Tensor, gain: Tensor, centres: Any
        ) -> Tensor:
            ctx.save_for_backward(gain)
            ctx.centres = centres
            return output.view_as(output)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            (gain,) = ctx.saved_tensors
            grad = grads[0].float() * gain
            if ctx.centres:
                grad = grad - grad.mean(-1, keepdim=True)
            return grad.to(grads[0].dtype), None, None, None

    return HeldNorm.apply
