"""Live tensors of one forward pass to blocks in stored layout, packed where they are.

On an accelerator values are packed there and cross to the host in the writer's thread; on the CPU they
are packed straight into the array that will be compressed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.store.packing import pack_triangle
from pattern_lens.store.writer import Block

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import torch

    from pattern_lens.activations.hooks import HookGroup
    from pattern_lens.store.layout import ArrayLayout


@dataclass(frozen=True)
class Recorded:
    """Where the values of one hook go: which layout, which slab of it."""

    layout: ArrayLayout
    slab: int


def places(groups: Sequence[HookGroup], layouts: Mapping[str, ArrayLayout]) -> dict[str, Recorded]:
    """For each hook name the place of its values."""
    return {
        hook: Recorded(layouts[group.name], slab)
        for group in groups
        for slab, hook in enumerate(group.hooks)
    }


class BatchBuffer:
    """The values of one batch, on their way from the hooks to a commit.

    Parameters
    ----------
    layouts
        What is recorded, by name.
    lengths
        Token ids of each prompt of the batch, the padding not counted.
    recorded
        The place of each hook, from `places`.
    """

    def __init__(
        self,
        layouts: Mapping[str, ArrayLayout],
        lengths: Sequence[int],
        recorded: Mapping[str, Recorded],
    ) -> None:
        self._layouts = layouts
        self._recorded = recorded
        self._lengths = lengths
        self._on_device: dict[str, dict[int, torch.Tensor]] = {}
        self._ready: Any = None
        self._host = {name: self._empty(layout) for name, layout in layouts.items()}

    @property
    def hooks(self) -> Collection[str]:
        """Names of the hooks that it takes."""
        return self._recorded.keys()

    @property
    def refused(self) -> Mapping[int, str]:
        """No prompt is, whatever its values."""
        return {}

    def _size(self, layout: ArrayLayout, n: int) -> tuple[int, int]:
        return {"line": (n, 1), "single": (1, 1)}.get(layout.packing, (n, n))

    def _empty(self, layout: ArrayLayout) -> np.ndarray[Any, Any]:
        total = sum(layout.length(*self._size(layout, n)) for n in self._lengths)
        return np.empty(layout.stored_shape(total), layout.stored_dtype)

    def sink(self, hook: str, value: torch.Tensor) -> None:
        """Take the live tensor of one hook, dims (batch, …); copies what it keeps."""
        place = self._recorded[hook]
        if value.device.type == "cpu":
            self._pack_on_host(place, value)
            return
        import torch

        packed = _pack_on_device(place.layout, value, self._lengths)
        self._on_device.setdefault(place.layout.name, {})[place.slab] = packed
        self._ready = (
            torch.cuda.current_stream(value.device).record_event() if value.is_cuda else None
        )

    def _pack_on_host(self, place: Recorded, value: torch.Tensor) -> None:
        layout = place.layout
        values = as_stored(value, layout)
        slab = self._host[layout.name]
        slab = slab[place.slab] if layout.has_layers else slab
        axis = layout.axis - int(layout.has_layers)
        at = 0
        for i, n in enumerate(self._lengths):
            stop = at + layout.length(*self._size(layout, n))
            out = slab[(slice(None),) * axis + (slice(at, stop),)]
            at = stop
            if layout.packing == "triangle":
                pack_triangle(values[i, ..., :n, :n], out)
            elif layout.packing == "rectangle":
                square = values[i][(slice(None),) * axis + (slice(n), slice(n))]
                out[...] = square.reshape(out.shape)
            elif layout.packing == "single":
                out[...] = values[i].reshape(out.shape)
            else:
                out[...] = values[i, :n].reshape(out.shape)

    def blocks(self) -> dict[str, Block]:
        """The blocks of the commit; waits for the device and fetches what is still there."""
        if self._on_device:
            self._fetch()
        return {
            name: Block([self._size(self._layouts[name], n) for n in self._lengths], data)
            for name, data in self._host.items()
        }

    def _fetch(self) -> None:
        import contextlib

        import torch

        first = next(iter(next(iter(self._on_device.values())).values()))
        stream: Any = contextlib.nullcontext()
        if first.is_cuda:  # a stream of its own, so that the next forward pass goes on meanwhile
            side = torch.cuda.Stream(first.device)  # type: ignore[no-untyped-call]
            side.wait_event(self._ready)
            stream = torch.cuda.stream(side)
        with stream:
            for name, slabs in self._on_device.items():
                layout, host = self._layouts[name], self._host[name]
                for slab, packed in slabs.items():
                    target = host[slab] if layout.has_layers else host
                    target[...] = as_stored(packed, layout).reshape(target.shape)
        self._on_device.clear()


def as_stored(value: torch.Tensor, layout: ArrayLayout) -> np.ndarray[Any, Any]:
    """A tensor as an array on the host in the dtype of the file; shares memory where it can."""
    import torch

    value = value.detach()
    target = getattr(torch, layout.dtype)
    if value.dtype != target:  # torch converts several times faster than numpy
        value = value.to(target)
    value = value.cpu()
    if layout.dtype == "bfloat16":
        value = value.view(torch.int16)
    return np.asarray(value.numpy().view(layout.stored_dtype))


@lru_cache(maxsize=32)
def _triangle_index(n: int, device: str) -> torch.Tensor:
    import torch

    rows, keys = torch.tril_indices(n, n, device=device)
    index: torch.Tensor = rows * n + keys
    return index


def _pack_on_device(
    layout: ArrayLayout, value: torch.Tensor, lengths: Sequence[int]
) -> torch.Tensor:
    """One hook's values in stored layout, still on the device."""
    import torch

    axis = layout.axis - int(layout.has_layers)
    parts = []
    for i, n in enumerate(lengths):
        if layout.packing in ("line", "single"):
            parts.append(value[i, :n] if layout.packing == "line" else value[i : i + 1])
            continue
        square = value[i, ..., :n, :n]
        flat = square.reshape(*square.shape[:-2], n * n)
        if layout.packing == "triangle":
            flat = flat.index_select(-1, _triangle_index(n, str(value.device)))
        parts.append(flat)
    return torch.cat(parts, dim=axis)
