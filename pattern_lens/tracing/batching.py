"""How many prompts run at once: as many as were asked for, if their graphs fit into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pattern_lens.tracing.forward_pass import Surroundings

_SHARE_OF_FREE: Final = 0.25
_MOST_BYTES: Final = 4 << 30
_STREAMS: Final = 20  # values of the stream's width that a block's graph keeps for each position
_SQUARES: Final = 5  # patterns, scores and their gradients
_FLOAT: Final = 4


class Batches:
    """Prompts, longest first, cut into batches; `halve` makes those to come smaller.

    Parameters
    ----------
    numbers
        Of the prompts, in the order in which they run.
    lengths
        Positions of all prompts, by number.
    batch_size
        Most prompts in a batch.
    """

    def __init__(
        self,
        numbers: Sequence[int],
        lengths: Sequence[int],
        around: Surroundings,
        batch_size: int,
    ) -> None:
        self._numbers, self._lengths = numbers, lengths
        self._around = around
        self._batch_size = batch_size
        self._budget = self._free_bytes()

    def __iter__(self) -> Iterator[list[int]]:
        at = 0
        while at < len(self._numbers):
            each = self._bytes(self._lengths[self._numbers[at]])
            n = max(1, min(self._batch_size, self._budget // each))
            yield list(self._numbers[at : at + n])
            at += n

    def halve(self) -> None:
        """Make the batches to come half as large."""
        self._batch_size = max(1, self._batch_size // 2)

    def give_memory_back(self) -> None:
        """Free what a failed batch left."""
        import gc

        gc.collect()
        if self._around.model.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()

    def _bytes(self, n: int) -> int:
        """Bytes of one prompt's graph, about."""
        cfg = self._around.model.model.cfg
        d_mlp = int(getattr(cfg, "d_mlp", None) or 0)
        stream = n * (_STREAMS * int(cfg.d_model) + 4 * d_mlp)
        squares = _SQUARES * int(cfg.n_heads) * n * n
        logits = 6 * self._around.sites.n_vocab
        return _FLOAT * (int(cfg.n_layers) * (stream + squares) + logits)

    def _free_bytes(self) -> int:
        import psutil

        free = int(psutil.virtual_memory().available)
        if self._around.model.device.type == "cuda":
            import torch

            return int(_SHARE_OF_FREE * 3 * torch.cuda.mem_get_info(self._around.model.device)[0])
        return min(int(_SHARE_OF_FREE * free), _MOST_BYTES)
