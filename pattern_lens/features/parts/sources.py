"""Direct feature attribution: from which earlier tokens attention brought what a feature fires on.

Rule: attention is linear in what it moves, so that the product of the encoder with what it writes is a sum over source
positions; patterns are taken as they are, and biases belong to no position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pattern_lens.features.parts.histograms import Array


def encoder_of_heads(encoder: Array, n_heads: int, output: Array | None) -> Array:
    """What the encoder reads of each head's mixed values.

    Parameters
    ----------
    encoder
        Dims (feature, d_in).
    n_heads
        Heads of the layer.
    output
        From a head's values to what attention writes, dims (head, d_head, d_model), where the autoencoder reads that; None
        where it reads the heads' values side by side.

    Returns
    -------
    Dims (feature, head, d_head).
    """
    if output is None:
        return encoder.reshape(len(encoder), n_heads, -1)
    found: Array = np.einsum("fm,hdm->fhd", encoder, output, optimize=True)
    return found


def attributions(pattern: Array, values: Array, encoder: Array, queries: Array) -> Array:
    """By source position, what attention adds to the encoder's product at some positions of one prompt.

    Parameters
    ----------
    pattern
        Dims (head, query, key).
    values
        Value vectors, dims (key, kv_head, d_head); a head reads those of its group.
    encoder
        What is read of each head, dims (window, head, d_head).
    queries
        The position that each window is about, dims (window).

    Returns
    -------
    Dims (window, key), float32; their sum is the product of the encoder with attention's output, without biases.
    """
    n_heads = encoder.shape[1]
    group = np.repeat(values, n_heads // values.shape[1], axis=1)
    read = np.einsum("khd,whd->whk", group, encoder, optimize=True)
    weights = pattern[:, queries].transpose(1, 0, 2)
    found: Array = (weights * read).sum(axis=1, dtype=np.float32)
    return found


def in_windows(found: Array, start: Array, length: Array, n_places: int) -> tuple[Array, Array]:
    """Attributions at the tokens of windows, and the sum of those of all other tokens.

    Parameters
    ----------
    found
        Dims (window, key).
    start, length
        Of each window, dims (window).

    Returns
    -------
    Dims (window, place), NaN outside; (window).
    """
    places = start[:, None].astype(np.intp) + np.arange(n_places)
    inside = np.arange(n_places) < length[:, None]
    there = np.take_along_axis(found, np.minimum(places, found.shape[1] - 1), axis=1)
    shown = np.where(inside, there, np.nan).astype(np.float32)
    return shown, (found.sum(axis=1) - np.where(inside, there, 0).sum(axis=1)).astype(np.float32)
