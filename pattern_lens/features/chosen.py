"""Entries of chosen features, out of the stored latents of an autoencoder.

Rule: what is no number is left out, and so is zero: neither is an activation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pattern_lens.features.parts.histograms import Array
    from pattern_lens.features.stored_latents import StoredLatents

_BLOCK_BYTES: Final = 16 << 20


class Entries(NamedTuple):
    """Entries of a block of prompts: dims (entry) each.

    Attributes
    ----------
    row
        Place of the feature among the chosen.
    prompt, position, value
        Where it fires and how strongly.
    """

    row: Array
    prompt: Array
    position: Array
    value: Array


@dataclass(frozen=True, eq=False)
class Chosen:
    """Features that are looked at.

    Attributes
    ----------
    numbers
        Their numbers, ascending, each once.
    lengths
        Tokens of each prompt of the prompt table, dims (prompt).
    """

    latents: StoredLatents
    numbers: Array
    lengths: Array

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def rows(self) -> Array:
        """The place of each feature of the autoencoder among the chosen; -1 for the others."""
        found = np.full(self.latents.n_features, -1, np.int32)
        found[self.numbers] = np.arange(len(self.numbers))
        return found

    def stream(self, positions: Array | None = None) -> Iterator[Entries]:
        """Entries of the features, a block of prompts at a time; of all prompts by default."""
        for block in self.latents.blocks(_BLOCK_BYTES, positions):
            row = self.rows[block.feature]
            kept = np.flatnonzero((row >= 0) & is_active(block.value))
            prompt = block.prompt
            yield Entries(row[kept], prompt[kept], block.position[kept], block.value[kept])


def is_active(values: Array) -> Array:
    """Whether entries are activations, dims (entry)."""
    found: Array = np.isfinite(values) & (values != 0)
    return found
