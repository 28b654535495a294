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
from pattern_lens.names import ACTIVATIONS, D_MODEL, HEAD, NEURON, short_name, split_hook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from pattern_lens.models import CaptureModel


@dataclass(frozen=True)
class SplicedSite:
    """What is known of a site where an autoencoder can be spliced in.

    Attributes
    ----------
    joins
        Where what it writes joins the stream: 0 with attention, 0.5 with the MLP of its layer.
    through
        The weight that leads from the site to the stream, if it is not the stream itself or added to it.
    """

    joins: float
    through: str | None = None


SITES: Final[Mapping[str, SplicedSite]] = {
    "z": SplicedSite(0.0, "W_O"),
    "attn_out": SplicedSite(0.0),
    "post": SplicedSite(0.5, "W_out"),
    "mlp_out": SplicedSite(0.5),
    "resid_post": SplicedSite(0.5),
}
"""Where an autoencoder can be spliced in. The stream before a block is that after the one before it."""

_BEFORE: Final = "resid_pre"


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
        """Latents of a site's values, heads side by side: dims (batch, pos, feature)."""
        latents: Tensor = self.autoencoder.encode(values.flatten(2))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Reconstruction: dims (batch, pos, width)."""
        values: Tensor = self.autoencoder.decode(latents)
        return values

    @property
    def decoder(self) -> Tensor:
        """What each latent writes for each unit: dims (feature, width).

        Raises
        ------
        SpecificationError
            It depends on the input.
        """
        if getattr(self.autoencoder, "scales_with_input", False):
            raise SpecificationError(
                f"the autoencoder {self.name!r} normalises each input, so that what a latent writes is different at each "
                "position: leave out the scalars latent_write_magnitude and latent_direct_effect"
            )
        return self._decoder

    @cached_property
    def _decoder(self) -> Tensor:
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

        raw = self._decoder.detach().float().cpu().contiguous().numpy().tobytes()
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
        None; what `pattern_lens.features.loading.load_autoencoder` gives, one or several; or a mapping from hook
        (``blocks.3.mlp.hook_post``, ``blocks.3.hook_resid_post``) to an object with ``encode`` and ``decode``, or to a pair
        of a name and such an object. At ``z`` the heads' values stand side by side.

    Raises
    ------
    SpecificationError
        An unknown hook, a hook where none can stand, an autoencoder of another width, or something that is none.
    """
    if autoencoders is None:
        return {}
    found: dict[str, Spliced] = {}
    for hook, name, own in _each(autoencoders):
        one = _spliced(model, hook, name, own)
        if one.name in found or any(one.name == site for site in ACTIVATIONS):
            raise SpecificationError(
                f"the name {one.name!r} of an autoencoder is taken: give another"
            )
        found[one.name] = one
    return found


def _each(autoencoders: Any) -> Iterator[tuple[str, str | None, Any]]:
    """Hook, name and object of each."""
    if isinstance(autoencoders, Mapping):
        for hook, given in autoencoders.items():
            yield str(hook), *(given if isinstance(given, tuple) else (None, given))
        return
    several = autoencoders if isinstance(autoencoders, list | tuple) else [autoencoders]
    for one in several:
        hook = getattr(one, "hook", None)
        if not isinstance(hook, str):
            raise SpecificationError(
                f"sae= is of type {type(one).__name__}, which does not say at which hook it stands: expected what load_autoencoder "
                "gives, or a mapping from hook to autoencoder, such as {'blocks.3.mlp.hook_post': sae}"
            )
        yield hook, getattr(one, "name", None), one


def _spliced(model: CaptureModel, hook: str, name: str | None, autoencoder: Any) -> Spliced:
    legacy = legacy_names(model)
    if hook not in legacy:
        raise SpecificationError(
            f"no hook {hook!r} in model {model.name!r} for an autoencoder: expected such as 'blocks.0.mlp.hook_post'"
        )
    site, layer = _place(hook, legacy[hook])
    if not isinstance(autoencoder, Autoencoder):
        raise SpecificationError(
            f"the autoencoder at {hook!r} is a {type(autoencoder).__name__} without encode and decode"
        )
    own: Any = autoencoder
    if isinstance(getattr(own, "hook", None), str):  # what load_autoencoder gives
        own = own.to(model.device, dtype=model.dtype)
    width = _width(model.model.cfg, site)
    return Spliced(
        name or _default_name(legacy[hook]),
        site,
        layer,
        own,
        _tried(model, hook, own, width),
    )


def _place(asked: str, hook: str) -> tuple[str, int]:
    """Site and layer of a hook."""
    template, layer = split_hook(hook)
    site = short_name(template)
    if site == _BEFORE and layer:
        return "resid_post", layer - 1
    if site not in SITES or layer is None:
        raise SpecificationError(
            f"an autoencoder cannot be spliced in at {asked!r}: expected a hook of {', '.join(SITES)}, or of {_BEFORE} "
            "after layer 0"
        )
    return site, layer


def _default_name(hook: str) -> str:
    template, layer = split_hook(hook)
    return f"{layer}.{short_name(template)}"


def _width(cfg: Any, site: str) -> int:
    dims = ACTIVATIONS[site].dims
    if HEAD in dims:
        return int(cfg.n_heads * cfg.d_head)
    return int(cfg.d_mlp if dims[-1] == NEURON else cfg.d_model)


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
