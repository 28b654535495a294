"""What a feature says of tokens when it fires: its decoder direction through the final norm's gain and the unembedding.

Rule: the divisor of the norm is left out, because it depends on everything else in the stream; logits are of one unit of
the feature, and only their order and proportions mean something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pattern_lens.features.parts.histograms import N_BINS
from pattern_lens.features.parts.ranks import first_ranks

if TYPE_CHECKING:
    from pattern_lens.features.parts.histograms import Array

N_RANKS: Final = 10
"""Rows of a table."""


@dataclass(frozen=True, eq=False)
class Readout:
    """The end of a model.

    Parameters
    ----------
    unembedding
        Dims (d_model, token).
    gain
        What the final norm multiplies by, dims (d_model); None where that is folded into the unembedding.
    centres
        Whether the final norm takes the mean off.
    writing
        What the units of the hook write into the stream, dims (unit, d_model); None where the hook is in the stream.
    """

    unembedding: Array
    gain: Array | None = None
    centres: bool = True
    writing: Array | None = None

    def into_stream(self, directions: Array) -> Array:
        """What directions at the hook write into the stream: dims (feature, d_in) -> (feature, d_model)."""
        return directions if self.writing is None else directions @ self.writing

    def logits(self, directions: Array) -> Array:
        """Logits of directions at the hook: dims (feature, d_in) -> (feature, token)."""
        stream = self.into_stream(directions)
        if self.centres:
            stream = stream - stream.mean(axis=1, keepdims=True)
        if self.gain is not None:
            stream = stream * self.gain
        return np.asarray(stream @ self.unembedding)


def logit_tables(logits: Array, k: int = N_RANKS) -> dict[str, Array]:
    """The tokens that features raise and lower most.

    Parameters
    ----------
    logits
        Dims (feature, token).
    k
        Rows of a table.

    Returns
    -------
    ``top_logit_token``, ``top_logit`` (highest first), ``bottom_logit_token``, ``bottom_logit`` (lowest first): dims
    (feature, rank). Of equal logits the lower token id is first; -1 and NaN where there are fewer tokens than ranks.
    """
    top, high = first_ranks(logits, k, largest=True)
    bottom, low = first_ranks(logits, k, largest=False)
    return {
        "top_logit_token": top,
        "top_logit": high,
        "bottom_logit_token": bottom,
        "bottom_logit": low,
    }


def logit_histograms(logits: Array, n_bins: int = N_BINS) -> dict[str, Array]:
    """How the logits of features are spread over equal bins from the lowest to the highest.

    Returns
    -------
    ``logits_histogram``, dims (feature, bin), and ``logits_edges``, dims (feature, edge). Zeros and NaN for a feature
    with logits that are no numbers.
    """
    counts = np.zeros((len(logits), n_bins), np.int32)
    edges = np.full((len(logits), n_bins + 1), np.nan)
    for i in np.flatnonzero(np.isfinite(logits).all(axis=1)):
        counts[i], edges[i] = np.histogram(np.asarray(logits[i], np.float64), bins=n_bins)
    return {"logits_histogram": counts, "logits_edges": edges}
