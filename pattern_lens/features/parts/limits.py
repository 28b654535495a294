"""How much of a model's work is in memory at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pattern_lens.features.parts.histograms import Array
    from pattern_lens.models import CaptureModel

_BYTES: Final = {"cpu": 192 << 20}
_BYTES_ELSEWHERE: Final = 2 << 30
_FLOAT: Final = 4


@dataclass(frozen=True)
class Limits:
    """What fits.

    Attributes
    ----------
    n_bytes
        Of logits, and of activations, at once.
    n_vocab, width, n_heads
        Numbers at each place, at each token, and squares of each prompt.
    """

    n_bytes: int
    n_vocab: int
    width: int
    n_heads: int

    @classmethod
    def of(cls, model: CaptureModel) -> Limits:
        """Those of a model, on the device where it is."""
        cfg: Any = model.model.cfg
        return cls(
            _BYTES.get(model.device.type, _BYTES_ELSEWHERE),
            int(model.model.unembed.W_U.shape[1]),
            8 * int(cfg.d_model) + 3 * int(getattr(cfg, "d_mlp", None) or 0),
            3 * int(cfg.n_heads),
        )

    @property
    def n_places(self) -> int:
        """Places whose logits are in memory at once."""
        return max(1, self.n_bytes // (_FLOAT * self.n_vocab))

    def n_tokens(self, n_ctx: int) -> int:
        """Tokens that run through the model at once, in prompts of some length."""
        return self.n_bytes // (_FLOAT * (self.width + self.n_heads * n_ctx))

    def grouped(self, lengths: Array, n_places: Array) -> Iterator[Array]:
        """Runs of prompts that fit together, shortest first, so that little is padded.

        Parameters
        ----------
        lengths, n_places
            Tokens that each is run on, and places whose logits are wanted of it: dims (run).

        Returns
        -------
        Numbers of runs; one that is too large is alone.
        """
        order = np.argsort(lengths, kind="stable")
        first = n_held = 0
        for i, one in enumerate(order.tolist()):
            n = int(lengths[one])
            too_long = (i + 1 - first) * n > self.n_tokens(n)
            if i > first and (too_long or n_held + n_places[one] > self.n_places):
                yield order[first:i]
                first, n_held = i, 0
            n_held += int(n_places[one])
        if first < len(order):
            yield order[first:]
