"""Live objects that encode and decode, under the same surface as every other autoencoder.

Rule: the object is used as it is, on its own device and in its own type, and is never changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pattern_lens.errors import AutoencoderError
from pattern_lens.features.autoencoder import SparseAutoencoder, torch_dtype
from pattern_lens.features.configuration import Said
from pattern_lens.features.identity import weights_hash
from pattern_lens.features.variants import B_DEC, W_DEC

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

_KIND = "object"


class LiveAutoencoder(SparseAutoencoder):
    """An object with ``encode`` and ``decode``; made by `load_autoencoder`.

    Its decoder is taken for affine: `W_dec` is what it says, or what each latent alone is decoded to.
    """

    def __init__(self, own: Any, hook: str, weights: Mapping[str, Tensor], **options: Any) -> None:
        super().__init__(_KIND, hook, weights, **options)
        self._own = own

    @classmethod
    def of(
        cls, own: Any, hook: str | None, name: str | None, config: Mapping[str, Any]
    ) -> LiveAutoencoder:
        """An object, tried out.

        Raises
        ------
        AutoencoderError
            It does not encode and decode, or does not say where it stands.
        """
        where = f"the {type(own).__name__}"
        if not (callable(getattr(own, "encode", None)) and callable(getattr(own, "decode", None))):
            raise AutoencoderError(
                f"{where} is no autoencoder: expected a folder, a .safetensors file, a mapping of weights, or an object "
                "with encode and decode"
            )
        if getattr(own, "hook_z_reshaping_mode", False) is True:
            raise AutoencoderError(
                f"{where} takes heads apart, and is given them side by side: call "
                "turn_off_forward_pass_hook_z_reshaping() on it first"
            )
        said = Said({**_config(own), **config}, where)
        hook = hook or said.hook
        if hook is None:
            raise AutoencoderError(
                f"{where} does not say at which hook it stands: give hook=, such as 'blocks.0.mlp.hook_post'"
            )
        weights = _decoder(own, said)
        return cls(own, hook, weights, name=name, hash=weights_hash(_state(own) or weights))

    @property
    def is_signed(self) -> bool:
        """True: nothing is known of its latents."""
        return True

    @property
    def scales_with_input(self) -> bool:
        """Whether it says that it normalises each input."""
        how = Said(_config(self._own), "").get("normalize_activations")
        return how in ("layer_norm", "constant_norm_rescale")

    def _with(self, weights: Mapping[str, Tensor], **changes: Any) -> LiveAutoencoder:
        return LiveAutoencoder(self._own, weights=weights, **self._options(changes))

    def preactivation(self, x: Tensor) -> Tensor:
        """Refused: an object says nothing of it.

        Raises
        ------
        AutoencoderError
            Always.
        """
        raise AutoencoderError(
            f"autoencoder {self.name!r} is a live object, of which only latents are known, got {tuple(x.shape)}"
        )

    def encode(self, x: Tensor) -> Tensor:
        """Latents: dims (..., d_in) -> (..., feature)."""
        self._check_width(x)
        found: Tensor = self._own.encode(_as(x, self._own))
        return found.to(device=self.device, dtype=self.dtype)

    def decode(self, latents: Tensor, *, like: Tensor | None = None) -> Tensor:
        """Reconstruction: dims (..., feature) -> (..., d_in)."""
        if like is not None:  # what the object remembers of its last input
            self._own.encode(_as(like, self._own))
        found: Tensor = self._own.decode(_as(latents, self._own))
        return found.to(device=self.device, dtype=self.dtype)


def _config(own: Any) -> dict[str, Any]:
    """What an object says of itself."""
    cfg = getattr(own, "cfg", None)
    found = dict(cfg) if isinstance(cfg, dict) else dict(getattr(cfg, "__dict__", {}))
    for key in ("metadata", "meta"):
        if key in found and not isinstance(found[key], dict):
            found[key] = dict(getattr(found[key], "__dict__", {}))
    for key in ("hook_name", "d_in"):
        if isinstance(getattr(own, key, None), str | int):
            found.setdefault(key, getattr(own, key))
    return found


def _state(own: Any) -> dict[str, Tensor]:
    state = own.state_dict() if callable(getattr(own, "state_dict", None)) else {}
    return {key: state[key] for key in sorted(state) if state[key].is_floating_point()}


def _parameters(own: Any) -> Iterator[Tensor]:
    import torch

    yield from _state(own).values()
    for value in vars(own).values() if hasattr(own, "__dict__") else ():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            yield value


def _as(x: Tensor, own: Any) -> Tensor:
    """A tensor where the object's are, and of their type."""
    first = next(_parameters(own), None)
    return x if first is None else x.to(device=first.device, dtype=first.dtype)


def _decoder(own: Any, said: Said) -> dict[str, Tensor]:
    """W_dec and b_dec of an object, found by trying."""
    import torch

    with torch.no_grad():
        n_features, width = _widths(own, said)
        given = getattr(own, W_DEC, None)
        nothing = _as(torch.zeros(1, n_features), own)
        if not isinstance(given, torch.Tensor) or tuple(given.shape) != (n_features, width):
            eye = _as(torch.eye(n_features), own)
            given = own.decode(eye) - own.decode(nothing)
        bias = getattr(own, B_DEC, None)
        if not isinstance(bias, torch.Tensor) or tuple(bias.shape) != (width,):
            bias = own.decode(nothing)[0]
        dtype = torch_dtype("float32")
        return {
            W_DEC: given.detach().to(dtype=dtype).clone(),
            B_DEC: bias.detach().to(dtype=dtype).clone(),
        }


def _widths(own: Any, said: Said) -> tuple[int, int]:
    """Numbers of latents and of inputs, of the first width that is taken."""
    import torch

    sizes = [size for value in _parameters(own) for size in value.shape]
    said_size = said.size("d_in")
    tried = [said_size] if said_size else list(dict.fromkeys(sizes))
    problem = "nothing tells how wide its input is; give config={'d_in': …}"
    for width in tried:
        x = _as(torch.zeros(2, width), own)
        try:
            latents = own.encode(x)
            if latents.ndim == 2 and own.decode(latents).shape == x.shape:
                return int(latents.shape[-1]), width
            problem = f"{width} numbers come back as {tuple(own.decode(latents).shape)[1:]}"
        except (RuntimeError, ValueError, TypeError) as err:
            problem = f"{width} numbers are not taken: {str(err).splitlines()[0]}"
    raise AutoencoderError(f"{said.where} does not encode and decode: {problem}")
