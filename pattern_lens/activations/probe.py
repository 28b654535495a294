"""Activations of a model -> what each looks like: dims, sizes, type, mask.

Rule: nothing is assumed of a hook that one small forward pass can tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.activations.forward import pad_right, run_until_last
from pattern_lens.errors import HookSilentError
from pattern_lens.names import D_HEAD, D_MODEL, HEAD, KEY, KV_HEAD, POS, QUERY, RAGGED_DIMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from pattern_lens.activations.hooks import HookGroup
    from pattern_lens.models import CaptureModel

WIDTH: Final = "width"
"""The last dim of an activation that has no name for it."""

_N_PROBED: Final = 8
_MASKED: Final = -1e4
"""No score is as low as this; what stands above the diagonal of masked scores is lower still."""


@dataclass(frozen=True)
class Probe:
    """What one activation of a model looks like.

    Parameters
    ----------
    dims
        Dims of the value for one prompt and one layer.
    shape
        Sizes of those of `dims` that are the same for every prompt, in their order.
    dtype
        Numpy's name of the type, or ``bfloat16``.
    triangle
        Whether it is square and everything above the diagonal is masked, so the lower triangle is
        all there is.
    fill_value
        What stands above the diagonal of a triangle; 0 elsewhere.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    triangle: bool
    fill_value: float


def probe(
    model: CaptureModel, groups: Sequence[HookGroup], ids: NDArray[np.int32]
) -> dict[str, Probe]:
    """Look at each activation once, on the first few tokens of a real prompt.

    Parameters
    ----------
    model
        What `load_model` returned.
    groups
        Activations of this model.
    ids
        Token ids of a prompt, dims (pos).

    Returns
    -------
    By the name of the group. Groups that a filter matched and nobody named are left out if they
    never fire or have dims of another kind, but not if they fire at some layers only.

    Raises
    ------
    HookSilentError
        A group that was asked for by name never fires or cannot be labelled, layers of a group
        differ, or nothing is left.
    """
    looks = _look(model, groups, ids)
    probes = {}
    for group in groups:
        found = [looks[hook] for hook in group.hooks]
        silent = [look.hook for look in found if look.shape is None]
        strange = [look for look in found if look.shape is not None and look.probe is None]
        if not group.named and (strange or len(silent) == len(found)):
            continue
        if silent:
            raise HookSilentError(f"hooks of model {model.name!r} that never fired: {silent}")
        if strange:
            raise HookSilentError(_unlabelled(strange[0], group))
        probes[group.name] = _agreed(found)
    if not probes:
        raise HookSilentError(
            f"none of {[group.name for group in groups]} can be recorded from {model.name!r}; "
            "if it is a live model, load it with attn_implementation='eager'"
        )
    return probes


@dataclass(frozen=True)
class _Look:
    """One hook's value: its shape, None if it never fired; its probe, None if dims are strange."""

    hook: str
    shape: tuple[int, ...] | None = None
    probe: Probe | None = None


def _look(
    model: CaptureModel, groups: Sequence[HookGroup], ids: NDArray[np.int32]
) -> dict[str, _Look]:
    # A prompt too short to tell a mask from nothing is repeated.
    few = np.resize(ids, min(max(len(ids), _N_PROBED // 2), _N_PROBED))
    group_of = {hook: group for group in groups for hook in group.hooks}
    looks = {hook: _Look(hook) for hook in group_of}

    def keep(hook: str, value: Any) -> None:
        shape = tuple(getattr(value, "shape", ()))
        dims = _dims(group_of[hook], shape, len(few), model.model.cfg)
        looks[hook] = _Look(hook, shape, None if dims is None else _seen(value, dims, model))

    tokens, mask = pad_right([few], masked=not model.causal)
    run_until_last(model, tokens, list(group_of), keep, mask)
    return looks


def _dims(group: HookGroup, shape: tuple[int, ...], n_pos: int, cfg: Any) -> tuple[str, ...] | None:
    """Dims of a value of this shape, batch first; None if there are no names for them."""
    if shape[:1] != (1,) or len(shape) == 1:
        return None
    sizes = shape[1:]
    if group.dims is None:
        return _guessed_dims(sizes, n_pos, cfg)
    if len(sizes) == len(group.dims) + 1 and sizes[-1] == 1:
        sizes = sizes[:-1]
    if len(sizes) != len(group.dims):
        return None
    pairs = zip(group.dims, sizes, strict=True)
    return group.dims if all(size == n_pos for dim, size in pairs if dim in RAGGED_DIMS) else None


def _guessed_dims(sizes: tuple[int, ...], n_pos: int, cfg: Any) -> tuple[str, ...] | None:
    if sizes[0] != n_pos or len(sizes) > 3:
        return None
    if sizes[1:] in {(), (1,)}:
        return (POS,)
    widths = {cfg.d_model: D_MODEL}
    if len(sizes) == 2:
        return POS, widths.get(sizes[1], WIDTH)
    heads = {getattr(cfg, "n_key_value_heads", None): KV_HEAD, cfg.n_heads: HEAD}
    if sizes[1] not in heads:
        return None
    return POS, heads[sizes[1]], (widths | {cfg.d_head: D_HEAD}).get(sizes[2], WIDTH)


def _seen(value: Tensor, dims: tuple[str, ...], model: CaptureModel) -> Probe:
    fixed = tuple(
        size
        for dim, size in zip(dims, value.shape[1 : len(dims) + 1], strict=True)
        if dim not in RAGGED_DIMS
    )
    fill = _constant_above_diagonal(value) if model.causal and dims[-2:] == (QUERY, KEY) else None
    dtype = str(value.dtype).removeprefix("torch.")
    return Probe(dims, fixed, dtype, triangle=fill is not None, fill_value=fill or 0.0)


def _constant_above_diagonal(square: Tensor) -> float | None:
    """Value that masks all that is above the diagonal; None if something else is there."""
    rows, columns = np.triu_indices(square.shape[-2], 1, square.shape[-1])
    above = square[..., rows, columns]
    first = float(above.flatten()[0])
    is_mask = first == 0.0 or first <= _MASKED
    return first if is_mask and bool((above == first).all()) else None


def _agreed(looks: Sequence[_Look]) -> Probe:
    """Probe of all layers together; only that of its layers which they share."""
    first, *others = looks
    probes = [look.probe for look in looks if look.probe is not None]
    for look, other in zip(others, probes[1:], strict=True):
        if (other.shape, other.dtype) != (probes[0].shape, probes[0].dtype):
            raise HookSilentError(
                f"layers differ: {first.hook!r} has shape {first.shape} of {probes[0].dtype}, "
                f"{look.hook!r} has {look.shape} of {other.dtype}; record them in separate files"
            )
    if len({(other.triangle, other.fill_value) for other in probes}) == 1:
        return probes[0]
    return replace(probes[0], triangle=False, fill_value=0.0)


def _unlabelled(look: _Look, group: HookGroup) -> str:
    expected = "(pos), (pos, width) or (pos, head, d_head)" if group.dims is None else group.dims
    return (
        f"hook {look.hook!r} gave shape {look.shape} for a batch of one prompt, expected dims "
        f"{expected} after the batch; leave it out"
    )
