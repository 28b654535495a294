"""Directions in the residual stream that raise a token's logit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.names import TOKEN
from pattern_lens.residual.inputs import Array, ModelFacts, weight_of

if TYPE_CHECKING:
    import xarray as xr

_KEPT: Final = 64


class Direction:
    """One vector for all prompts, or one of several for each.

    Parameters
    ----------
    vectors
        Dims (direction, d_model); all different.
    which
        For each prompt of a block its direction; a number is the direction of one prompt, or of all.
    """

    def __init__(self, vectors: Array, which: Any = 0) -> None:
        self.vectors, self.which = vectors, np.asarray(which, np.intp)
        self._folded: dict[Any, Array] = {}

    def choose(self, which: Any) -> Direction:
        """The same vectors for other prompts; few directions share what was folded."""
        which = np.asarray(which, np.intp)
        if len(self.vectors) > _KEPT:  # many would fill memory: only what this block needs
            own, which = np.unique(which, return_inverse=True)
            return Direction(self.vectors[own], which)
        chosen = Direction(self.vectors, which)
        chosen._folded = self._folded
        return chosen

    def times(self, values: Any) -> Any:
        """Products of vectors with the direction: (lead..., pos, d_model) -> (lead..., pos)."""
        return np.matmul(values, self.vectors[self.which][..., None])[..., 0]

    def of_vector(self, vector: Array) -> Any:
        """Product of one vector, the same at every position, with each prompt's direction."""
        return (self.vectors @ vector)[self.which][..., None]

    def folded(self, part: Any, weights: Array) -> Array:
        """Output weights (..., d_model) times the direction: (lead..., ...); made once for each part."""
        if part not in self._folded:
            flat = weights.reshape(-1, weights.shape[-1])
            products = self.vectors @ flat.T
            self._folded[part] = products.reshape(len(self.vectors), *weights.shape[:-1])
        return self._folded[part][self.which]


def logit_directions(
    weights: xr.Dataset, tokens: Array, incorrect: Array | None, who: str
) -> tuple[Array, Array]:
    """Vectors whose product with the normalised stream is a logit, or a difference of two, and what is added.

    Parameters
    ----------
    tokens, incorrect
        Token ids, dims (direction).

    Returns
    -------
    Dims (direction, d_model), and (direction): the part of the logit that no component writes. A gain of the final
    norm that was not folded into the unembedding is multiplied in.
    """
    vectors, added = _columns(weights, tokens, who), _bias(weights, tokens)
    if incorrect is not None:
        vectors = vectors - _columns(weights, incorrect, who)
        added = added - _bias(weights, incorrect)
    if "ln_final_b" in weights:
        added = added + vectors @ weight_of(weights, "ln_final_b", who)
    if "ln_final_w" in weights:
        vectors = vectors * weight_of(weights, "ln_final_w", who)
    return np.ascontiguousarray(vectors), np.asarray(added)


def _columns(weights: xr.Dataset, tokens: Array, who: str) -> Array:
    """Rows of the transposed unembedding: dims (direction, d_model)."""
    own, which = np.unique(tokens, return_inverse=True)
    # the file is asked for these tokens alone
    return weight_of(weights, "W_U", who, {TOKEN: own}).T[which]


def _bias(weights: xr.Dataset, tokens: Array) -> Array:
    if "b_U" not in weights:
        return np.zeros(len(tokens), np.float32)
    return weight_of(weights, "b_U", "")[tokens]


def centred(vectors: Array, facts: ModelFacts) -> Array:
    """Directions for a stream that was not centred: LayerNorm takes the mean off, RMSNorm does not."""
    return vectors - vectors.mean(axis=-1, keepdims=True) if facts.centres else vectors
