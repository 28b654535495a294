"""Which units of its hook a feature writes to most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pattern_lens.features.parts.ranks import first_ranks

if TYPE_CHECKING:
    from pattern_lens.features.parts.histograms import Array


def alignment(directions: Array, k: int) -> dict[str, Array]:
    """The units in which decoder directions are largest, and their share of the L1 norm.

    Parameters
    ----------
    directions
        Dims (feature, d_in): neurons where the autoencoder stands at neurons, else dimensions of the hook's vector.
    k
        How many are kept.

    Returns
    -------
    ``neuron``, ``neuron_alignment`` (with its sign; largest magnitude first) and ``neuron_l1_share`` (from 0 to 1): dims
    (feature, rank). -1 and NaN where there are fewer units; a share is NaN where a direction is zero.
    """
    units, sizes = first_ranks(np.abs(directions), k, largest=True)
    signed = np.take_along_axis(directions, np.maximum(units, 0).astype(np.intp), axis=1)
    norms = np.abs(directions).sum(axis=1, keepdims=True, dtype=np.float64)
    return {
        "neuron": units,
        "neuron_alignment": np.where(units < 0, np.nan, signed).astype(np.float32),
        "neuron_l1_share": (sizes / np.where(norms > 0, norms, np.nan)).astype(np.float32),
    }
