"""From normalised streams to what they say of tokens, in blocks that fit memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pattern_lens.residual.inputs import weight_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from pattern_lens.residual.inputs import Array, ModelFacts

OF_ANSWER: Final = ("answer_rank", "answer_probability", "answer_logit")
ALWAYS: Final = ("kl_to_final", "closure_error")

_BLOCK_BYTES: Final = 64 << 20


def reading_names(k: int, *, answer: bool) -> list[str]:
    """What is read of each stream, in order."""
    top = [f"{kind} {rank}" for kind in ("top_id", "top_probability") for rank in range(k)]
    return [*top, *(OF_ANSWER if answer else ()), *ALWAYS]


class Unembedding:
    """The end of a model: W_U, b_U, what logits are multiplied by, and their cap."""

    def __init__(self, facts: ModelFacts, weights: xr.Dataset, who: str) -> None:
        self.facts = facts
        self.w_u = weight_of(weights, "W_U", who)
        self.b_u: Array | float = weight_of(weights, "b_U", who) if "b_U" in weights else 0.0

    def logits(self, streams: Array) -> Array:
        """Before a soft cap: (..., d_model) -> (..., token)."""
        flat = streams.reshape(-1, streams.shape[-1])  # one product, which reads W_U once
        return np.asarray(flat @ self.w_u + self.b_u).reshape(*streams.shape[:-1], -1)

    def log_probabilities(self, logits: Array) -> Array:
        """After it, in nats."""
        scaled = logits * self.facts.logit_scale
        if self.facts.softcap:
            scaled = np.tanh(scaled / self.facts.softcap) * self.facts.softcap
        scaled -= scaled.max(axis=-1, keepdims=True)
        scaled -= np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
        return np.asarray(scaled)

    def read(
        self, streams: Array, k: int, answers: Array | None, true: Mapping[int, Array]
    ) -> Array:
        """Readings of many positions: (component, pos, d_model) -> (component, pos, reading).

        Parameters
        ----------
        answers
            A token id for each position, or None.
        true
            The model's own logits at some positions; elsewhere the closure error is NaN.
        """
        n_components, n_pos = streams.shape[:2]
        row_bytes = n_components * self.w_u.shape[1] * streams.dtype.itemsize
        step = max(_BLOCK_BYTES // max(row_bytes, 1), 1)
        n_readings = len(reading_names(k, answer=answers is not None))
        out = np.empty((n_components, n_pos, n_readings), streams.dtype)
        for first in range(0, n_pos, step):
            some = slice(first, min(first + step, n_pos))
            logits = self.logits(streams[:, some])
            out[:, some] = self._read(logits, k, None if answers is None else answers[some])
            for place in range(some.start, some.stop):
                if place in true:
                    out[-1, place, -1] = np.abs(logits[-1, place - first] - true[place]).max()
        return out

    def _read(self, logits: Array, k: int, answers: Array | None) -> Array:
        """Readings of a few positions: (component, pos, token) -> (component, pos, reading)."""
        log_p = self.log_probabilities(logits)
        some = np.argpartition(log_p, -k, axis=-1)[..., -k:]
        order = np.argsort(-np.take_along_axis(log_p, some, -1), axis=-1, kind="stable")
        top = np.take_along_axis(some, order, -1)
        found = [top, np.exp(np.take_along_axis(log_p, top, -1))]
        if answers is not None:
            at = np.broadcast_to(answers[None, :, None], (*log_p.shape[:2], 1))
            own = np.take_along_axis(log_p, at, -1)
            rank = (log_p > own).sum(axis=-1, keepdims=True)
            found += [rank, np.exp(own), np.take_along_axis(logits, at, -1)]
        # the final stream's p log p by the same sum, so that it is exactly 0 bits from itself
        crossed = np.vecdot(log_p, np.exp(log_p[-1]))
        divergence = np.maximum(crossed[-1] - crossed, 0)[..., None] / np.log(2)
        return np.concatenate([*found, divergence, np.full_like(divergence, np.nan)], axis=-1)
