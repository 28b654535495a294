"""How the activations of a model will lie in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.names import KEY, LAYER, QUERY, RAGGED_DIMS
from pattern_lens.store.layout import ArrayLayout, Packing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pattern_lens.activations.hooks import HookGroup


def layout_of(
    group: HookGroup, seen: Any, dtype: str | None, origin: Mapping[str, Any]
) -> ArrayLayout:
    """How one activation of a model will lie in the file.

    Parameters
    ----------
    group
        The hooks.
    seen
        What `probe` found of them.
    dtype
        What is asked for, or None for the model's own.
    """
    fixed = [dim for dim in seen.dims if dim not in RAGGED_DIMS]
    sizes = dict(zip(fixed, seen.shape, strict=True))
    square = QUERY in seen.dims and KEY in seen.dims
    fill = seen.fill_value
    if dtype == "float16" and fill < float(np.finfo(np.float16).min):
        fill = float("-inf")
    return ArrayLayout(
        name=group.name,
        dims=(LAYER, *seen.dims) if group.layers else seen.dims,
        sizes={LAYER: len(group.layers), **sizes} if group.layers else sizes,
        packing=_packing(seen, square=square),
        dtype=dtype or seen.dtype,
        layers=group.layers,
        hooks=group.hooks,
        fill_value=fill,
        units="probability" if group.template.endswith("hook_pattern") else "",
        origin=origin,
    )


def _packing(seen: Any, *, square: bool) -> Packing:
    if square:
        return "triangle" if seen.triangle else "rectangle"
    return "line" if any(dim in RAGGED_DIMS for dim in seen.dims) else "single"
