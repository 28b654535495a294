"""Token ids of prompts, read once each as far as they fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from pattern_lens.features.parts.histograms import Array
    from pattern_lens.features.stored_latents import StoredLatents

_KEPT: Final = 1 << 26


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Token ids of the prompts that have latents."""

    latents: StoredLatents
    _held: dict[int, Array] = field(default_factory=dict)

    def ids(self, prompt: int) -> Array:
        """Ids of a prompt, by its position in the prompt table."""
        if prompt not in self._held:
            self.read(np.array([prompt]))
        return self._held[prompt]

    def read(self, prompts: Array) -> None:
        """Read many prompts at once; what was read before is let go where there is much."""
        missing = [one for one in np.unique(prompts).tolist() if one not in self._held]
        if not missing:
            return
        ids, offsets = self.latents.token_ids(np.array(missing))
        if sum(map(len, self._held.values())) + len(ids) > _KEPT:
            self._held.clear()
        for i, prompt in enumerate(missing):
            self._held[prompt] = ids[offsets[i] : offsets[i + 1]]

    def at(self, prompt: Array, positions: Array) -> Array:
        """Ids at positions of prompts, dims (window), (window, place) -> (window, place); -1 where a position is."""
        found = np.full(positions.shape, -1, np.int32)
        self.read(prompt[prompt >= 0])
        for i in np.flatnonzero(prompt >= 0).tolist():
            inside = positions[i] >= 0
            found[i, inside] = self.ids(int(prompt[i]))[positions[i, inside]]
        return found
