"""Where effects of ablations are asked for, each place once however many windows it is in.

Rule: a place where nothing was taken off, neither there nor (through the model) before it, is not asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from pattern_lens.features.parts.firings import Firings
    from pattern_lens.features.parts.histograms import Array

    TokenIds = Callable[[int], Array]

N_CHANGED: Final = 5
"""Tokens that are named at each place."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Runs of tokens of prompts, each shown for one feature.

    Attributes
    ----------
    feature
        Place among the chosen features, dims (window).
    prompt, start, length
        Dims (window); a prompt of -1 and a length of 0 where there is none.
    n_places
        The most tokens that a window has.
    """

    feature: Array
    prompt: Array
    start: Array
    length: Array
    n_places: int

    @property
    def positions(self) -> Array:
        """Position in its prompt of each place, dims (window, place); -1 outside."""
        places = np.arange(self.n_places)
        inside = places < np.asarray(self.length)[:, None]
        return np.where(inside, np.asarray(self.start)[:, None] + places, -1)


@dataclass(frozen=True, eq=False)
class Asked:
    """Places that are asked for.

    Attributes
    ----------
    pair, position
        Dims (asked), sorted by pair, then position.
    at
        The number of each place of each window among them, -1 for none: dims (window, place).
    """

    pair: Array
    position: Array
    at: Array

    def __len__(self) -> int:
        return len(self.pair)


def asked_of(windows: Windows, firings: Firings, *, directly: bool) -> Asked:
    """The places of windows at which an ablation can change something.

    Parameters
    ----------
    directly
        Whether what is taken off at a position changes nothing at later ones.
    """
    positions = windows.positions
    pair = np.broadcast_to(firings.pairs(windows.feature, windows.prompt)[:, None], positions.shape)
    is_asked = (positions >= 0) & (pair >= 0)
    if directly:
        is_asked &= firings.values_at(pair, positions) != 0
    else:
        fires = np.diff(firings.starts) > 0
        first = np.full(len(firings) + 1, np.iinfo(np.int64).max)
        first[:-1][fires] = firings.position[firings.starts[:-1][fires]]
        is_asked &= positions >= first[pair]
    keys = pair[is_asked].astype(np.int64) << 32 | positions[is_asked]
    held, inverse = np.unique(keys, return_inverse=True)
    at = np.full(positions.shape, -1, np.int64)
    at[is_asked] = inverse
    return Asked((held >> 32).astype(np.intp), (held & 0xFFFFFFFF).astype(np.intp), at)


@dataclass(frozen=True, eq=False)
class Changes:
    """What ablations change.

    Attributes
    ----------
    loss
        Loss of the next token with the feature ablated minus without, in nats, dims (asked); NaN at the end of a prompt.
    raised_token, raised, lowered_token, lowered
        Tokens whose log-probability the feature raises or lowers most, and by how much: without ablation minus with it,
        dims (asked, rank).
    """

    loss: Array
    raised_token: Array
    raised: Array
    lowered_token: Array
    lowered: Array

    @classmethod
    def empty(cls, n: int) -> Changes:
        """Room for what is found of `n` places."""
        ids = (np.full((n, N_CHANGED), -1, np.int32) for _ in range(2))
        sizes = (np.full((n, N_CHANGED), np.nan, np.float32) for _ in range(2))
        loss = np.full(n, np.nan, np.float32)
        return cls(loss, next(ids), next(sizes), next(ids), next(sizes))

    def put(self, places: Array, found: Changes) -> None:
        """Write what was found of some places."""
        for name in ("loss", "raised_token", "raised", "lowered_token", "lowered"):
            getattr(self, name)[places] = getattr(found, name)

    def of_windows(self, windows: Windows, asked: Asked, lengths: Array) -> dict[str, Array]:
        """Values at each place of each window.

        Parameters
        ----------
        lengths
            Tokens of each window's prompt, dims (window).

        Returns
        -------
        ``loss_effect``, dims (window, place), and ``raised_token``, ``raised_logit``, ``lowered_token``,
        ``lowered_logit``, dims (window, place, rank).
        """
        positions = windows.positions
        has_next = (positions >= 0) & (positions + 1 < np.asarray(lengths)[:, None])
        loss = np.where(has_next, np.float32(0), np.float32(np.nan))
        is_asked = asked.at >= 0
        loss[is_asked] = self.loss[asked.at[is_asked]]
        found = {"loss_effect": loss}
        names = {
            "raised_token": self.raised_token,
            "raised_logit": self.raised,
            "lowered_token": self.lowered_token,
            "lowered_logit": self.lowered,
        }
        for name, values in names.items():
            blank = -1 if values.dtype.kind == "i" else np.nan
            out = np.full((*positions.shape, N_CHANGED), blank, values.dtype)
            out[is_asked] = values[asked.at[is_asked]]
            found[name] = out
        return found
