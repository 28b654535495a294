"""Prompts that run together: their tokens, what each is asked, and where each of its places is.

Rule: a batch is padded on the right; no index, mask or value ever reaches behind a prompt's own end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.names import KEY, POS, QUERY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from pattern_lens.activations.batches import TokenizedPrompt
    from pattern_lens.tracing.specification import Asked

POSITIONS = (QUERY, KEY, POS)


@dataclass(frozen=True)
class Batch:
    """Prompts of one forward pass.

    Attributes
    ----------
    prompts
        Tokenized, longest first.
    asked
        What each is asked.
    numbers
        The place of each among all prompts of the run.
    """

    prompts: Sequence[TokenizedPrompt]
    asked: Sequence[Asked]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def lengths(self) -> list[int]:
        """Positions of each prompt."""
        return [len(one.ids) for one in self.prompts]

    def place(self, row: int, index: int) -> int:
        """A position of one prompt, counted from its start."""
        return index + self.lengths[row] if index < 0 else index

    def half(self, part: slice) -> Batch:
        """Some of the prompts."""
        return Batch(self.prompts[part], self.asked[part], self.numbers[part])

    def chosen(self, row: int, dim: str, size: int, index: Any) -> Tensor:
        """Which entries of a dim an ablation means: dims (size), bool."""
        import torch

        n = self.lengths[row] if dim in POSITIONS else size
        found = torch.zeros(size, dtype=torch.bool)
        if index is None:
            found[:n] = True
            return found
        places = np.atleast_1d(np.asarray(index))
        found[[self.place(row, int(i)) if dim in POSITIONS else int(i) for i in places]] = True
        return found
