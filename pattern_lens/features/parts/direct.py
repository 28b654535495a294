"""Ablations of what only the final norm and the unembedding read: no block is computed again.

Rule: the stream after all blocks is computed once for each prompt, and kept for the next features as far as it fits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.features.parts.changes import changes_of, following_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from pattern_lens.features.parts.end import End
    from pattern_lens.features.parts.firings import Firings
    from pattern_lens.features.parts.histograms import Array
    from pattern_lens.features.parts.limits import Limits
    from pattern_lens.features.parts.places import Asked, Changes, TokenIds
    from pattern_lens.features.parts.rest import Rest

_KEPT_BYTES: Final = 1 << 30


@dataclass(frozen=True, eq=False)
class Directly:
    """Ablates features at the end of a model.

    Parameters
    ----------
    end
        What follows.
    into_stream
        What the units of the hook write into the stream, dims (unit, d_model); None where the hook is in the stream.
    """

    rest: Rest
    limits: Limits
    end: End
    into_stream: Tensor | None = None
    _streams: dict[int, Tensor] = field(default_factory=dict)
    _kept: list[int] = field(default_factory=list)

    def changes(
        self, directions: Tensor, firings: Firings, asked: Asked, token_ids: TokenIds
    ) -> Iterator[tuple[Array, Changes]]:
        """Numbers of some of the places that are asked for, and what changes there."""
        import torch

        writes = self.written(directions)
        for first in range(0, len(asked), self.limits.n_places):
            some = slice(first, first + self.limits.n_places)
            pair, position = asked.pair[some], asked.position[some]
            keys = firings.prompt[pair].astype(np.int64) << 32 | position
            held, numbers = np.unique(keys, return_inverse=True)
            prompts, positions = held >> 32, held & 0xFFFFFFFF
            stream = self._streams_at(prompts, positions, token_ids)
            device = stream.device
            values = torch.as_tensor(firings.values_at(pair, position), device=device)
            chosen, which = np.unique(firings.feature[pair], return_inverse=True)
            own = writes[torch.as_tensor(chosen.astype(np.int64), device=device)]
            at = torch.as_tensor(numbers, device=device)
            of_each = torch.as_tensor(which, device=device)
            clean, ablated = self.ablated(stream, at, values[:, None], own, of_each)
            following = following_of(prompts, positions, token_ids)[numbers]
            yield np.arange(first, first + len(pair)), changes_of(clean, ablated, following)

    def ablated(
        self, stream: Tensor, at: Tensor, values: Tensor, writes: Tensor, which: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits without and with ablations: dims (place, token).

        Parameters
        ----------
        stream
            Dims (row, d_model); `at` is the row of each place.
        values
            By how much is taken off, dims (place, 1), of which of `writes`, dims (vector, d_model).
        """
        end = self.end
        before = end.divisor(stream)[at]
        after = end.divisor(stream[at] - values * writes[which])
        core = end.core(stream)[at]
        moved = end.written(writes)[which].mul_(values / after)
        ablated = end.logits((core * (before / after)).sub_(moved))
        return end.logits(core), ablated

    def written(self, directions: Tensor) -> Tensor:
        """What directions at the hook write into the stream: dims (feature, d_in) -> (feature, d_model)."""
        return directions if self.into_stream is None else directions @ self.into_stream

    def keep(self, prompt: int, stream: Tensor) -> None:
        """Keep a prompt's stream after all blocks, dims (pos, d_model), if there is room: it is computed again otherwise.

        What is kept stays: features come in the same order of prompts, and what was used longest ago is needed next.
        """
        size = stream.numel() * stream.element_size()
        if prompt not in self._streams and sum(self._kept) + size <= _KEPT_BYTES:
            self._streams[prompt] = stream.clone()
            self._kept[:] = [sum(self._kept) + size]

    # --- the stream after all blocks ----------------------------------------------------------

    def _streams_at(self, prompts: Array, positions: Array, token_ids: TokenIds) -> Tensor:
        """Dims (place, d_model), float32."""
        import torch

        wanted, number = np.unique(prompts, return_inverse=True)
        streams = self._final_streams(wanted.tolist(), token_ids)
        starts = np.cumsum([0, *(len(one) for one in streams)])
        joined = torch.cat(streams)
        return joined[torch.as_tensor(starts[number] + positions, device=joined.device)].float()

    def _final_streams(self, prompts: list[int], token_ids: TokenIds) -> list[Tensor]:
        missing = [one for one in prompts if one not in self._streams]
        found = {one: self._streams[one] for one in prompts if one in self._streams}
        ids = [token_ids(one) for one in missing]
        lengths = np.array([len(one) for one in ids], np.int64)
        for some in self.limits.grouped(lengths, np.ones(len(ids))):
            whole = self._final([ids[i] for i in some])
            for i, stream in zip(some.tolist(), whole, strict=True):
                found[missing[i]] = stream[: lengths[i]]
                self.keep(missing[i], found[missing[i]])
        return [found[one] for one in prompts]

    def _final(self, ids: list[Array]) -> Tensor:
        import torch

        from pattern_lens.activations.forward import pad_right

        seen: list[Any] = []
        nowhere = torch.zeros(1, dtype=torch.long, device=self.rest.model.device)
        with self.rest.watching(self.rest.n_layers, seen.append):
            self.rest.logits(pad_right(ids, masked=False)[0], (nowhere, nowhere))
        found: Tensor = seen[0]
        return found
