"""Figures of the mean pattern: each head's attention, averaged over prompts, given to a function once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import xarray as xr
import xxhash

from pattern_lens.figures.drawing import as_record, called
from pattern_lens.figures.settings import own_settings
from pattern_lens.names import HEAD, KEY, LAYER, PROMPT, QUERY
from pattern_lens.patterns.blocks import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pattern_lens.figures.drawing import Chosen
    from pattern_lens.patterns.collection import Activations
    from pattern_lens.store.figures import FigureRecord

MOST_POSITIONS: Final = 256
"""Positions of the mean pattern; of longer prompts the beginning counts."""


def mean_pattern(patterns: Activations, *, most_positions: int = MOST_POSITIONS) -> xr.DataArray:
    """The mean over prompts of attention patterns of different sizes.

    Parameters
    ----------
    patterns
        A collection with dims (..., query, key), read block by block.
    most_positions
        Queries and keys beyond are left out.

    Returns
    -------
    Dims as the collection's, float64. At each query it is the mean over the prompts that reach it; the coordinate
    ``n_prompts`` (query) says how many these are.
    """
    total: Any = None
    counts = np.zeros(most_positions, np.int64)
    for members, block in blocks(patterns):
        values = block.isel({QUERY: slice(most_positions), KEY: slice(most_positions)})
        values = values.transpose(PROMPT, ..., QUERY, KEY)
        if total is None:
            shape = (*values.shape[1:-2], most_positions, most_positions)
            total = np.zeros(shape)
            first = values.isel({PROMPT: 0}, drop=True)
        n_query, n_key = values.shape[-2:]
        total[..., :n_query, :n_key] += values.values.sum(axis=0, dtype=np.float64)
        counts[:n_query] += len(members)
    n = int(np.count_nonzero(counts))
    mean = total[..., :n, :n] / counts[:n, None]
    labels = {dim: first.coords[dim] for dim in first.dims if dim not in (QUERY, KEY)}
    return xr.DataArray(
        mean,
        dims=first.dims,
        coords={**labels, QUERY: np.arange(n), KEY: np.arange(n), "n_prompts": (QUERY, counts[:n])},
        name=patterns.name,
        attrs=patterns.attributes(),
    )


@dataclass(frozen=True, eq=False)
class MeanPatterns:
    """Mean patterns of one layer after another, as workers compute them."""

    patterns: Activations

    def __call__(self, layers: Sequence[int]) -> Iterator[xr.DataArray]:
        """Dims (head, query, key) of each layer, in order."""
        for layer in layers:
            yield mean_pattern(self.patterns.sel(layer=[layer])).isel({LAYER: 0})


class MeanCall(NamedTuple):
    """A function, by its place among the chosen ones, and the mean pattern of one head."""

    function: int
    pattern: xr.DataArray

    @property
    def place(self) -> tuple[None, int, int]:
        """Where its figures stand."""
        return None, int(self.pattern[LAYER]), int(self.pattern[HEAD])


@dataclass(frozen=True, eq=False)
class AverageDrawing:
    """Figure functions on mean patterns, as workers call them."""

    chosen: Sequence[Chosen]
    size_limit_bytes: int
    settings: Mapping[str, Any] = field(default_factory=own_settings)

    def __call__(self, calls: Sequence[MeanCall]) -> Iterator[list[FigureRecord]]:
        """What each call makes, in order."""
        for one in calls:
            chosen = self.chosen[one.function]
            made = called(chosen, one.pattern, self.size_limit_bytes, self.settings)
            yield [as_record(chosen, product, one.place, len(made)) for product in made]


def digest_of(hashes: Sequence[str]) -> str:
    """What tells one set of prompts from another."""
    return xxhash.xxh3_64_hexdigest("\n".join(sorted(hashes)).encode())
