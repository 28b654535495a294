"""Sparse autoencoders in the way of a model's activations: what they encode can be looked at, changed and differentiated.

Rule: as long as nothing is ablated the model computes what it does without them. What an autoencoder does not
reconstruct, its error, is added back, as a node of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from pattern_lens.activations.hooks import legacy_names
from pattern_lens.errors import SpecificationError
from pattern_lens.names import ACTIVATIONS, D_MODEL, NEURON, short_name, split_hook

if TYPE_CHECKING:
    from torch import Tensor

    from pattern_lens.models import CaptureModel

SITES: Final = ("post", "attn_out", "mlp_out")
"""Where an autoencoder can be spliced in."""


@runtime_checkable
class Autoencoder(Protocol):
    """Anything that encodes and decodes."""

    def encode(self, x: Any) -> Any:
        """Latents: (..., width) -> (..., feature)."""

    def decode(self, latents: Any) -> Any:
        """Reconstruction: (..., feature) -> (..., width)."""


@dataclass(frozen=True, eq=False)
class Spliced:
    """An autoencoder at one hook.

    Attributes
    ----------
    name
        What its latents are called.
    site, layer
        Where it stands.
    n_features
        Number of latents.
    """

    name: str
    site: str
    layer: int
    autoencoder: Any
    n_features: int

    def encode(self, values: Tensor) -> Tensor:
        """Latents: dims (batch, pos, feature)."""
        latents: Tensor = self.autoencoder.encode(values)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Reconstruction: dims (batch, pos, width)."""
        values: Tensor = self.autoencoder.decode(latents)
        return values

    @cached_property
    def decoder(self) -> Tensor:
        """What each latent writes for each unit: dims (feature, width)."""
        import torch

        own = getattr(self.autoencoder, "W_dec", None)
        if own is not None:
            return own.detach()  # type: ignore[no-any-return]
        with torch.no_grad():  # any decoder that is affine
            parameter = next(iter(self.autoencoder.parameters()))
            eye = torch.eye(self.n_features, dtype=parameter.dtype, device=parameter.device)
            found: Tensor = self.decode(eye) - self.decode(torch.zeros_like(eye[:1]))
            return found

    def to_json(self) -> dict[str, Any]:
        """What a file says of it."""
        import hashlib

        raw = self.decoder.detach().float().cpu().contiguous().numpy().tobytes()
        return {
            "name": self.name,
            "site": self.site,
            "layer": self.layer,
            "n_features": self.n_features,
            "decoder_md5": hashlib.md5(raw, usedforsecurity=False).hexdigest(),
        }


def splice(model: CaptureModel, autoencoders: Any) -> dict[str, Spliced]:
    """Autoencoders by name, checked against the model.

    Parameters
    ----------
    autoencoders
        None, or a mapping from hook (``blocks.3.mlp.hook_post``, ``blocks.3.hook_attn_out``, ``blocks.3.hook_mlp_out``)
        to an object with ``encode`` and ``decode``; or to a pair of a name and such an object.

    Raises
    ------
    SpecificationError
        An unknown hook, a hook where none can stand, an autoencoder of another width, or something that is none.
    """
    if autoencoders is None:
        return {}
    if not isinstance(autoencoders, Mapping):
        raise SpecificationError(
            f"sae= is a {type(autoencoders).__name__}, expected a mapping from hook to autoencoder, such as "
            "{'blocks.3.mlp.hook_post': sae}"
        )
    found: dict[str, Spliced] = {}
    for hook, given in autoencoders.items():
        name, own = given if isinstance(given, tuple) else (None, given)
        one = _spliced(model, str(hook), name, own)
        if one.name in found or any(one.name == site for site in ACTIVATIONS):
            raise SpecificationError(
                f"the name {one.name!r} of an autoencoder is taken: give another"
            )
        found[one.name] = one
    return found


def _spliced(model: CaptureModel, hook: str, name: str | None, autoencoder: Any) -> Spliced:
    legacy = legacy_names(model)
    if hook not in legacy:
        raise SpecificationError(
            f"no hook {hook!r} in model {model.name!r} for an autoencoder: expected such as 'blocks.0.mlp.hook_post'"
        )
    template, layer = split_hook(legacy[hook])
    site = short_name(template)
    if site not in SITES or layer is None:
        raise SpecificationError(
            f"an autoencoder cannot be spliced in at {hook!r}: expected a hook of {', '.join(SITES)}"
        )
    if not isinstance(autoencoder, Autoencoder):
        raise SpecificationError(
            f"the autoencoder at {hook!r} is a {type(autoencoder).__name__} without encode and decode"
        )
    cfg = model.model.cfg
    width = int(cfg.d_mlp if ACTIVATIONS[site].dims[-1] == NEURON else cfg.d_model)
    return Spliced(
        name or f"{layer}.{site}", site, layer, autoencoder, _tried(model, hook, autoencoder, width)
    )


def _tried(model: CaptureModel, hook: str, autoencoder: Any, width: int) -> int:
    """Number of latents, after a try with values of the hook's width."""
    import torch

    given = torch.zeros(1, 2, width, device=model.device, dtype=getattr(torch, model.dtype))
    try:
        with torch.no_grad():
            latents = autoencoder.encode(given)
            again = autoencoder.decode(latents)
    except (RuntimeError, ValueError, TypeError) as err:
        raise SpecificationError(
            f"the autoencoder at {hook!r} does not take values of its width, {width}: {str(err).splitlines()[0]}"
        ) from err
    if again.shape != given.shape:
        raise SpecificationError(
            f"the autoencoder at {hook!r} gives {again.shape[-1]} numbers, expected {width}, the "
            f"{'d_mlp' if width == model.model.cfg.d_mlp else D_MODEL} of model {model.name!r}"
        )
    return int(latents.shape[-1])
