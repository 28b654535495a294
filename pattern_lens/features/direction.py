"""Any direction in activation space as an autoencoder of one feature.

Rule: the feature's activation is the scalar product with the direction, and decoding gives the part along it, so that
what is left is orthogonal to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pattern_lens.errors import AutoencoderError
from pattern_lens.features.autoencoder import Settings, SparseAutoencoder
from pattern_lens.features.variants import B_DEC, B_ENC, W_DEC, W_ENC, preactivation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_SIGNED: Final = "direction"
_POSITIVE: Final = "standard"


class FeatureDirection(SparseAutoencoder):
    """A direction that stands in for a feature.

    Parameters
    ----------
    hook
        Where it is read, such as ``blocks.3.hook_resid_post``.
    vector
        Dims (d_in): a tensor, an array or a sequence of numbers, not all of them 0.
    name
        What it is called.
    relu
        Whether the feature is active only where the scalar product is positive.

    Raises
    ------
    AutoencoderError
        The vector is none, is 0, or holds NaN.

    Examples
    --------
    >>> import torch
    >>> direction = FeatureDirection("blocks.0.hook_resid_post", [0.0, 2.0], "up")
    >>> direction.encode(torch.tensor([[3.0, -1.0]]))
    tensor([[-2.]])
    """

    def __init__(
        self, hook: str, vector: Any, name: str, *, relu: bool = False, **options: Any
    ) -> None:
        weights = options.pop("weights", None) or _weights(vector, name)
        super().__init__(
            _POSITIVE if relu else _SIGNED,
            hook,
            weights,
            name=name,
            **{"settings": Settings(apply_b_dec_to_input=False), **options},
        )

    @property
    def is_signed(self) -> bool:
        """Whether its activation can be negative."""
        return self.kind == _SIGNED

    def _latents(self, centred: Tensor) -> Tensor:
        pre = preactivation(centred, self.weights)
        return pre if self.is_signed else pre.relu()

    def _with(self, weights: Mapping[str, Tensor], **changes: Any) -> FeatureDirection:
        return FeatureDirection(
            vector=None, relu=not self.is_signed, weights=weights, **self._options(changes)
        )


def _weights(vector: Any, name: str) -> dict[str, Tensor]:
    import torch

    try:
        own = torch.as_tensor(vector, dtype=torch.float32).detach()
    except (TypeError, ValueError, RuntimeError) as err:
        raise AutoencoderError(
            f"the direction {name!r} is a {type(vector).__name__}, expected a vector"
        ) from err
    if own.ndim != 1:
        raise AutoencoderError(f"the direction {name!r} has {own.ndim} dims, expected 1, (d_in)")
    if not bool(own.isfinite().all()) or not bool(own.any()):
        raise AutoencoderError(
            f"the direction {name!r} is zero or holds NaN: expected finite numbers, not all 0"
        )
    return {
        W_ENC: own[:, None].clone(),
        B_ENC: own.new_zeros(1),
        W_DEC: (own / own.square().sum())[None],
        B_DEC: torch.zeros_like(own),
    }
