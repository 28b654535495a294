"""Autoencoders and a model -> which of its hooks each one reads, checked before anything runs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pattern_lens.activations.hooks import FINAL_LOGITS, resolve_names
from pattern_lens.activations.probe import probe
from pattern_lens.errors import AutoencoderError, HookSilentError, UnknownHookError
from pattern_lens.features.autoencoder import SparseAutoencoder
from pattern_lens.features.loading import load_autoencoder
from pattern_lens.names import POS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pattern_lens.activations.hooks import HookGroup
    from pattern_lens.models import CaptureModel


@dataclass(frozen=True, eq=False)
class Encoder:
    """An autoencoder where the model is, and the hook that it reads.

    Parameters
    ----------
    autoencoder
        On the model's device.
    hook
        Legacy name of the hook in this model.
    """

    autoencoder: SparseAutoencoder
    hook: str

    @property
    def name(self) -> str:
        """What the file calls its features."""
        return self.autoencoder.name

    @property
    def n_features(self) -> int:
        """Number of latents."""
        return self.autoencoder.n_features


def encoders_of(model: CaptureModel, sae: Any, ids: NDArray[np.int32]) -> list[Encoder]:
    """Autoencoders, each with the hook of the model that it reads.

    Parameters
    ----------
    sae
        One or several: what `load_autoencoder` takes, or a mapping from hook to it, or to a pair of a name and it.
    ids
        Token ids of a prompt, dims (pos), for which the model is run once to see how wide the hooks are.

    Raises
    ------
    AutoencoderError
        There is none, two have one name, or one does not fit its hook.
    UnknownHookError
        The model has no such hook.
    HookSilentError
        The hook never fires.
    """
    found = [Encoder(one, _hook(model, one)) for one in each_autoencoder(model, sae, ids)]
    if not found:
        raise AutoencoderError("no autoencoder is given: expected at least one")
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise AutoencoderError(
            f"{names.count(twice)} autoencoders are called {twice!r}: load them with load_autoencoder(…, name=) of their own"
        )
    _check_widths(model, found, ids)
    return [Encoder(_on_device(one.autoencoder, model), one.hook) for one in found]


def each_autoencoder(
    model: CaptureModel, sae: Any, ids: NDArray[np.int32]
) -> list[SparseAutoencoder]:
    """One autoencoder or several, loaded."""
    if isinstance(sae, Mapping):
        return [_at(model, str(hook), given, ids) for hook, given in sae.items()]
    if isinstance(sae, list | tuple):
        return [one for each in sae for one in each_autoencoder(model, each, ids)]
    return [load_autoencoder(sae)]


def _at(model: CaptureModel, hook: str, given: Any, ids: NDArray[np.int32]) -> SparseAutoencoder:
    name, own = given if isinstance(given, tuple) else (None, given)
    if isinstance(own, str | os.PathLike | Mapping | SparseAutoencoder):
        return load_autoencoder(own, hook=hook, name=name)
    group = _group(model, hook, f"the {type(own).__name__}")  # a live object may not say its width
    width = _width(model, group, ids, f"the {type(own).__name__}")
    return load_autoencoder(own, hook=hook, name=name, config={"d_in": width})


def _hook(model: CaptureModel, autoencoder: SparseAutoencoder) -> str:
    """Legacy name of the hook that an autoencoder reads."""
    return _group(model, autoencoder.hook, f"autoencoder {autoencoder.name!r}").hooks[0]


def _group(model: CaptureModel, hook: str, who: str) -> HookGroup:
    """The one hook that is meant, as a group of its own."""
    try:
        groups = resolve_names(hook, model)
    except UnknownHookError as err:
        err.add_note(f"{who} reads it; say another with hook=")
        raise
    hooks = [one for group in groups for one in group.hooks]
    if len(hooks) != 1 or hooks[0] == FINAL_LOGITS:
        raise AutoencoderError(
            f"{who} reads {hook!r}, which is not one hook with positions of model {model.name!r}: expected such as "
            "'blocks.0.mlp.hook_post'; say it with hook="
        )
    return groups[0]


def _check_widths(model: CaptureModel, encoders: list[Encoder], ids: NDArray[np.int32]) -> None:
    """Raise unless each hook fires, with positions, and is as wide as its autoencoder."""
    for encoder in encoders:
        (group,) = resolve_names(encoder.hook, model)
        width = _width(model, group, ids, f"autoencoder {encoder.name!r}")
        if width != encoder.autoencoder.d_in:
            raise AutoencoderError(
                f"autoencoder {encoder.name!r} does not fit {encoder.hook!r} of model {model.name!r}: it encodes "
                f"{encoder.autoencoder.d_in} numbers, the hook has {width}; "
                "use one that was trained at this hook, or say another with hook="
            )


def _width(model: CaptureModel, group: HookGroup, ids: NDArray[np.int32], who: str) -> int:
    """Numbers that a hook has for each position, heads side by side."""
    try:
        seen = probe(model, [group], ids)[group.name]
    except HookSilentError as err:
        err.add_note(f"{who} reads it; say another with hook=")
        raise
    if seen.dims[0] != POS or len(seen.shape) != len(seen.dims) - 1 or not seen.shape:
        raise AutoencoderError(
            f"{who} reads {group.hooks[0]!r}, which has dims {seen.dims}: expected a hook with a vector "
            "for each position; say another with hook="
        )
    return math.prod(seen.shape)


def _on_device(autoencoder: SparseAutoencoder, model: CaptureModel) -> SparseAutoencoder:
    is_there = autoencoder.device == model.device
    return autoencoder if is_there else autoencoder.to(model.device)
