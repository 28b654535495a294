"""Ablations as what happens to live tensors: where, and what is put there.

Rule: an ablation of one prompt of a batch touches its own row only; a later one of the same place stands above an earlier one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.errors import SpecificationError
from pattern_lens.names import HEAD, KEY, KV_HEAD, QUERY
from pattern_lens.tracing.batch import POSITIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from pattern_lens.tracing.ablations import Ablation
    from pattern_lens.tracing.batch import Batch
    from pattern_lens.tracing.sites import Sites

Place = tuple[str, int | None]
"""A site and its layer."""

Values = "Callable[[Ablation, int], Tensor]"

_OWN: Final = {KV_HEAD: HEAD}


@dataclass(frozen=True)
class Edits:
    """The ablations of one batch, by place and row.

    Attributes
    ----------
    forward, backward
        For each place what is done to which row, in order.
    values
        Gives the mean, or another prompt's values, of an ablation for a row: dims of the site, that broadcast.
    """

    batch: Batch
    sites: Sites
    values: Callable[[Ablation, int], Tensor]
    forward: dict[Place, list[tuple[int, Ablation]]] = field(default_factory=dict)
    backward: dict[Place, list[tuple[int, Ablation]]] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Batch, sites: Sites, values: Callable[[Ablation, int], Tensor]) -> Edits:
        """Those that the prompts of a batch are asked."""
        found: dict[str, dict[Place, list[tuple[int, Ablation]]]] = {
            "forward": defaultdict(list),
            "backward": defaultdict(list),
        }
        for row, asked in enumerate(batch.asked):
            for one in asked.ablate:
                place = sites.site(one.site, one.layer), one.layer
                found[one.pass_][place].append((row, one))
        return cls(batch, sites, values, dict(found["forward"]), dict(found["backward"]))

    @property
    def places(self) -> set[Place]:
        """Where something is done."""
        return {*self.forward, *self.backward}

    def changed(self, place: Place, value: Tensor) -> Tensor:
        """A value after its ablations; the same tensor where there are none."""
        if place not in self.forward:
            return value
        import torch

        mask, fill = self._mask(place, value, self.forward[place])
        return torch.where(mask, fill, value)

    def with_changed_gradient(self, place: Place, value: Tensor) -> Tensor:
        """The same value, of which the gradient is changed on its way back."""
        if place not in self.backward:
            return value
        mask, fill = self._mask(place, value, self.backward[place])
        found: Tensor = _set_gradient()(value, mask, fill)
        return found

    def _mask(
        self, place: Place, value: Tensor, todo: Sequence[tuple[int, Ablation]]
    ) -> tuple[Tensor, Tensor]:
        """What is changed, and to what: dims of `value`."""
        import torch

        mask = torch.zeros_like(value, dtype=torch.bool)
        fill = torch.zeros_like(value)
        for row, one in todo:
            own = self._chosen(place, row, one, value)
            mask[row] |= own
            fill[row] = torch.where(own, self._filling(place, row, one, value), fill[row])
        return mask, fill

    def _chosen(self, place: Place, row: int, one: Ablation, value: Tensor) -> Tensor:
        """Which elements of a row are meant: dims of the site, bool."""
        import torch

        dims = self.sites.dims(place[0])
        own = torch.ones(value.shape[1:], dtype=torch.bool)
        for axis, (dim, size) in enumerate(zip(dims, value.shape[1:], strict=True)):
            index = one.indices.get(_OWN.get(dim, dim))
            shape = [1] * len(dims)
            shape[axis] = size
            own &= self.batch.chosen(row, dim, size, index).view(shape)
        if dims[-2:] == (QUERY, KEY) and self.sites.model.causal:
            own = own.tril()
        return own.to(value.device)

    def _filling(self, place: Place, row: int, one: Ablation, value: Tensor) -> Tensor:
        """What is put where an ablation is, dims of the site; elsewhere it is not looked at."""
        import torch

        if isinstance(one.value, float):
            return torch.full_like(value[row], one.value)
        if isinstance(one.value, str):
            found = self.values(one, row).to(value)
            return found.expand(value.shape[1:]) if found.shape != value.shape[1:] else found
        given = torch.tensor(one.value, dtype=value.dtype, device=value.device)
        dims = self.sites.dims(place[0])
        axes = [
            self._in_order(row, dim, size, one)
            for dim, size in zip(dims, value.shape[1:], strict=True)
        ]
        fill = torch.zeros_like(value[row])
        fill[torch.meshgrid(*axes, indexing="ij")] = _fitting(given, [*map(len, axes)], one)
        return fill

    def _in_order(self, row: int, dim: str, size: int, one: Ablation) -> Tensor:
        """Entries of a dim in the order in which an ablation names them."""
        import torch

        index = one.indices.get(_OWN.get(dim, dim))
        if index is None:
            return self.batch.chosen(row, dim, size, None).nonzero()[:, 0]
        places = (index,) if isinstance(index, int) else index
        is_position = dim in POSITIONS
        return torch.tensor([self.batch.place(row, i) if is_position else i for i in places])


def _fitting(given: Tensor, sizes: Sequence[int], one: Ablation) -> Tensor:
    """An array that was given, with dims of the chosen block; those of one entry may be left out."""
    kept = [size for size in sizes if size > 1]
    for shape in (sizes, kept):
        try:
            return given.expand(list(shape)).reshape(list(sizes))
        except RuntimeError:
            continue
    raise SpecificationError(
        f"the value of the ablation {one.label!r} has shape {tuple(given.shape)}, which does not broadcast to what is chosen: {tuple(sizes)}"
    )


def _set_gradient() -> Any:
    import torch

    class SetGradient(torch.autograd.Function):
        """Gives its input; backward, some of the gradient is replaced."""

        @staticmethod
        def forward(ctx: Any, value: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
            ctx.save_for_backward(mask, fill)
            return value.view_as(value)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            mask, fill = ctx.saved_tensors
            return torch.where(mask, fill, grads[0]), None, None

    return SetGradient.apply
