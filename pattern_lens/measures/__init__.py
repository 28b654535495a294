"""Numbers computed from attention patterns: pure functions from labelled array to labelled array.

Each takes one pattern, dims (..., query, key), and works on all leading dims at once, in memory or on dask.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pattern_lens.measures.distances import attention_by_distance, mean_attention_distance
from pattern_lens.measures.places import (
    current_token_score,
    first_token_score,
    previous_token_score,
)
from pattern_lens.measures.repeats import duplicate_token_score, induction_score
from pattern_lens.measures.rows import entropy, mean_entropy, sparsity
from pattern_lens.measures.similarity import cosine_similarity, jensen_shannon_divergence
from pattern_lens.measures.spectrum import singular_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import xarray as xr

__all__ = [
    "HEAD_SCORES",
    "attention_by_distance",
    "cosine_similarity",
    "current_token_score",
    "duplicate_token_score",
    "entropy",
    "first_token_score",
    "induction_score",
    "jensen_shannon_divergence",
    "mean_attention_distance",
    "mean_entropy",
    "previous_token_score",
    "singular_values",
    "sparsity",
]

HEAD_SCORES: Final[Mapping[str, Callable[[xr.DataArray], xr.DataArray]]] = MappingProxyType(
    {
        measure.__name__: measure
        for measure in (
            previous_token_score,
            current_token_score,
            first_token_score,
            duplicate_token_score,
            induction_score,
            mean_entropy,
            mean_attention_distance,
            sparsity,
        )
    }
)
"""The measures that give one number a head, by name."""
