"""One batch on its way from the hooks to a commit: latents of several autoencoders, and other activations."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.errors import AutoencoderError
from pattern_lens.features.sparse import Entries, encoded, rows_of
from pattern_lens.features.steps import PACK, SPARSE, Steps
from pattern_lens.features.writing import latents_block

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import torch

    from pattern_lens.activations.batch_run import Buffer
    from pattern_lens.activations.batches import TokenizedPrompt
    from pattern_lens.features.encoders import Encoder
    from pattern_lens.store.block import Block
    from pattern_lens.store.chunks import Array
    from pattern_lens.store.layout import ArrayLayout


@dataclass(frozen=True)
class Sparsely:
    """How latents are stored, and what counts them.

    Parameters
    ----------
    threshold
        Largest size of a latent that counts as none.
    skips
        Whether a prompt with values that are not numbers is left out; else it is an error.
    """

    threshold: float
    skips: bool
    steps: Steps
    n_entries: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))


class FeatureBuffer:
    """The values of one batch.

    Parameters
    ----------
    activations
        Takes what is captured besides.
    encoders
        Autoencoders whose latents are wanted of this batch.
    layouts
        Of their latents, by name of the autoencoder.
    batch
        The prompts.
    """

    def __init__(
        self,
        activations: Buffer,
        encoders: Sequence[Encoder],
        layouts: Mapping[str, Sequence[ArrayLayout]],
        batch: Sequence[TokenizedPrompt],
        options: Sparsely,
    ) -> None:
        self._activations = activations
        self._layouts = layouts
        self._batch = batch
        self._lengths = [len(one.ids) for one in batch]
        self._options = options
        self._encoders: dict[str, list[Encoder]] = {}
        for encoder in encoders:
            self._encoders.setdefault(encoder.hook, []).append(encoder)
        self._entries: dict[str, Entries] = {}
        self.refused: dict[int, str] = {}

    @property
    def n_entries(self) -> dict[str, int]:
        """Active latents, by autoencoder."""
        return {name: len(entries) for name, entries in self._entries.items()}

    @property
    def hooks(self) -> Collection[str]:
        """Names of the hooks that it takes."""
        return dict.fromkeys([*self._activations.hooks, *self._encoders])

    def sink(self, hook: str, value: torch.Tensor) -> None:
        """Take the live tensor of one hook, dims (batch, pos, …); copies what it keeps."""
        steps = self._options.steps
        if hook in self._activations.hooks:
            with steps.timed(PACK, value.device):
                self._activations.sink(hook, value)
        if hook in self._encoders:
            with steps.timed(SPARSE, value.device):
                rows = rows_of(value, self._lengths)
                self._check(rows.isfinite().all(dim=1).cpu().numpy(), f"values at {hook!r}")
            for encoder in self._encoders[hook]:
                self._encode(encoder, rows)

    def _encode(self, encoder: Encoder, rows: torch.Tensor) -> None:
        found = encoded(
            encoder.autoencoder.encode,
            rows,
            encoder.n_features,
            threshold=self._options.threshold,
            steps=self._options.steps,
        )
        with self._options.steps.timed(SPARSE):
            is_finite = np.ones(len(rows), np.bool_)
            is_finite[found.row[~np.isfinite(found.value)]] = False
            self._check(is_finite, f"latents of autoencoder {encoder.name!r}")
            self._entries[encoder.name] = found

    def _check(self, is_finite: np.ndarray[Any, np.dtype[np.bool_]], what: str) -> None:
        """Raise, or refuse prompts, where rows are not all numbers."""
        if is_finite.all():
            return
        bounds = np.cumsum(self._lengths)
        for number in np.unique(np.searchsorted(bounds, np.flatnonzero(~is_finite), side="right")):
            text = self._batch[number].prompt.text[:40]
            why = f"{what} are NaN or infinite for prompt {text!r}"
            if not self._options.skips:
                raise AutoencoderError(
                    f"{why}: nothing of this batch is stored; look at the model's and the autoencoder's weights, or leave "
                    'the prompt out (on_error="skip")'
                )
            self.refused.setdefault(int(number), why)

    def blocks(self) -> dict[str, Block]:
        """The blocks of the commit."""
        found = self._activations.blocks()
        for name, entries in self._entries.items():
            found |= latents_block(self._layouts[name], by_prompt(entries, self._lengths))
            self._options.n_entries[name] += len(entries)
        return found


def by_prompt(entries: Entries, lengths: Sequence[int]) -> list[tuple[Array, Array, Array]]:
    """Position, feature and value of each prompt's entries.

    Parameters
    ----------
    entries
        Rows are the positions of all prompts, one prompt after another.
    lengths
        Positions of each prompt.

    Examples
    --------
    >>> entries = Entries(np.array([0, 3]), np.array([7, 2]), np.array([0.5, 1.5], np.float32))
    >>> [[column.tolist() for column in prompt] for prompt in by_prompt(entries, [1, 2, 1])]
    [[[0], [7], [0.5]], [[], [], []], [[0], [2], [1.5]]]
    """
    starts = np.cumsum([0, *lengths])
    cuts = np.searchsorted(entries.row, starts)
    return [
        (entries.row[a:b] - start, entries.feature[a:b], entries.value[a:b])
        for a, b, start in zip(cuts[:-1], cuts[1:], starts[:-1], strict=True)
    ]
