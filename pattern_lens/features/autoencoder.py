"""Sparse autoencoders: weights, what is computed with them, and what identifies them.

Rule: an autoencoder never changes; `to` gives another one. Its identity is of the weights as they were loaded, whatever
type and device they are held in.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pattern_lens.errors import AutoencoderError
from pattern_lens.features.identity import check_name, default_name, weights_hash
from pattern_lens.features.variants import (
    B_DEC,
    B_ENC,
    NONLINEARITIES,
    W_DEC,
    W_ENC,
    decoded,
    normalised,
    preactivation,
)
from pattern_lens.names import short_name, split_hook

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Settings:
    """What an autoencoder does besides its weights.

    Parameters
    ----------
    apply_b_dec_to_input
        Whether the decoder's bias is subtracted from what is encoded.
    normalize_activations
        What is done to each input, and undone to its reconstruction: ``none``, ``layer_norm`` or
        ``constant_norm_rescale``. A factor that is the same for all inputs is part of the weights.
    k
        How many latents of an input can be active; None for as many as there are.
    """

    apply_b_dec_to_input: bool = True
    normalize_activations: str = "none"
    k: int | None = None


class SparseAutoencoder:
    """An autoencoder at one hook, made by `load_autoencoder`.

    Parameters
    ----------
    kind
        ``standard``, ``gated``, ``jumprelu``, ``topk``; others are of subclasses.
    hook
        Legacy hook name, such as ``blocks.0.mlp.hook_post``.
    weights
        Those that `pattern_lens.features.variants.KEYS` names for the kind, checked.
    name
        What it is called; by default after its hook, ``mlp.0``.

    Attributes
    ----------
    site, layer
        Short name of the hook, ``post``, and its layer, or None.
    hash
        Of the weights as they were given.
    """

    def __init__(
        self,
        kind: str,
        hook: str,
        weights: Mapping[str, Tensor],
        *,
        settings: Settings | None = None,
        name: str | None = None,
        hash: str | None = None,  # noqa: A002 - what it is
    ) -> None:
        template, self.layer = split_hook(hook)
        self.site = short_name(template)
        self.kind, self.hook = kind, hook
        self.name = check_name(default_name(hook) if name is None else name)
        self.settings = settings or Settings()
        self.weights = dict(weights)
        self.hash = hash or weights_hash(self.weights)
        self._undo: tuple[Tensor, Tensor] | None = None

    # --- weights ------------------------------------------------------------------------------

    @property
    def W_enc(self) -> Tensor:  # noqa: N802
        """Encoder, dims (d_in, feature)."""
        return self.weights[W_ENC]

    @property
    def W_dec(self) -> Tensor:  # noqa: N802
        """Decoder, dims (feature, d_in)."""
        return self.weights[W_DEC]

    @property
    def b_enc(self) -> Tensor | None:
        """Bias of the encoder, dims (feature); None for a gated one, which has two."""
        return self.weights.get(B_ENC)

    @property
    def b_dec(self) -> Tensor:
        """Bias of the decoder, dims (d_in)."""
        return self.weights[B_DEC]

    @property
    def n_features(self) -> int:
        """Number of latents."""
        return int(self.W_dec.shape[0])

    @property
    def d_in(self) -> int:
        """Width of what is encoded."""
        return int(self.W_dec.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """Type that is computed in."""
        return self.W_dec.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.W_dec.device

    @property
    def is_signed(self) -> bool:
        """Whether an active latent can be negative."""
        return False

    @property
    def scales_with_input(self) -> bool:
        """Whether what a latent writes depends on the input, which was normalised."""
        return self.settings.normalize_activations != "none"

    def to(
        self, device: Any = None, *, dtype: str | torch.dtype | None = None
    ) -> SparseAutoencoder:
        """The same autoencoder on another device, or in another type."""
        own = {
            key: value.to(device=device or value.device, dtype=torch_dtype(dtype) or value.dtype)
            for key, value in self.weights.items()
        }
        return self._with(own)

    def renamed(self, *, hook: str | None = None, name: str | None = None) -> SparseAutoencoder:
        """The same weights at another hook, or under another name."""
        if hook is None and name is None:
            return self
        return self._with(self.weights, hook=hook or self.hook, name=name or self.name)

    def _with(self, weights: Mapping[str, Tensor], **changes: Any) -> SparseAutoencoder:
        return SparseAutoencoder(self.kind, weights=weights, **self._options(changes))

    def _options(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        own = {key: getattr(self, key) for key in ("hook", "settings", "name", "hash")}
        return own | dict(changes)

    # --- what is computed ---------------------------------------------------------------------

    def preactivation(self, x: Tensor) -> Tensor:
        """What the nonlinearity is given: dims (..., d_in) -> (..., feature); of a gated one, its magnitude."""
        return preactivation(self._centred(x)[0], self.weights)

    def encode(self, x: Tensor) -> Tensor:
        """Latents: dims (..., d_in) -> (..., feature).

        Raises
        ------
        AutoencoderError
            `x` has another width.
        """
        centred, self._undo = self._centred(x)
        return self._latents(centred)

    def _latents(self, centred: Tensor) -> Tensor:
        pre = preactivation(centred, self.weights)
        return NONLINEARITIES[self.kind](centred, pre, self.weights, self.settings.k)

    def decode(self, latents: Tensor, *, like: Tensor | None = None) -> Tensor:
        """Reconstruction: dims (..., feature) -> (..., d_in).

        Parameters
        ----------
        like
            What was encoded. Used by autoencoders that normalise each input; without it they take what `encode` was
            given last.

        Raises
        ------
        AutoencoderError
            Inputs are normalised, and the last one has other dims than `latents`.
        """
        own = decoded(latents.to(self.dtype), self.weights)
        if not self.scales_with_input:
            return own
        undo = self._undo if like is None else self._centred(like)[1]
        if undo is None or undo[0].shape[:-1] != latents.shape[:-1]:
            raise AutoencoderError(
                f"autoencoder {self.name!r} normalises each input ({self.settings.normalize_activations}), so decoding "
                f"needs what was encoded: latents of shape {tuple(latents.shape)} are not of the last input; give like="
            )
        return own * undo[0] + undo[1]

    def _centred(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Input as the encoder's weights are given it, and what undoes its normalisation."""
        self._check_width(x)
        own, undo = normalised(x.to(self.dtype), self.settings.normalize_activations)
        return (own - self.b_dec if self.settings.apply_b_dec_to_input else own), undo

    def _check_width(self, x: Tensor) -> None:
        if x.shape[-1] != self.d_in:
            raise AutoencoderError(
                f"autoencoder {self.name!r} at {self.hook!r} encodes {self.d_in} numbers, got {x.shape[-1]}"
            )

    # --- what it is ---------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """What a file says of it: a JSON object that is equal for equal autoencoders, and only for those."""
        return {
            "name": self.name,
            "hook": self.hook,
            "site": self.site,
            "layer": self.layer,
            "kind": self.kind,
            "n_features": self.n_features,
            "d_in": self.d_in,
            "hash": self.hash,
            "config": asdict(self.settings),
        }

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r}: {self.n_features} features of {self.d_in} at {self.hook}, "
            f"{self.kind}, {self.dtype}>".replace("torch.", "")
        )


def torch_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """A type by its name.

    Raises
    ------
    AutoencoderError
        It is none that weights are held in.
    """
    import torch

    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, str(dtype).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise AutoencoderError(
            f"unknown dtype {dtype!r} of an autoencoder, expected float32, float16 or bfloat16"
        )
    return found
