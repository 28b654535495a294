"""Two sets of logits -> what differs between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pattern_lens.features.parts.places import N_CHANGED, Changes

if TYPE_CHECKING:
    from torch import Tensor

    from pattern_lens.features.parts.histograms import Array
    from pattern_lens.features.parts.places import TokenIds


def changes_of(clean: Tensor, ablated: Tensor, following: Array) -> Changes:
    """What a feature changes at some places.

    Parameters
    ----------
    clean, ablated
        Logits without and with the ablation, dims (place, token).
    following
        Id of the token that comes next, dims (place); -1 at the end of a prompt.
    """
    import torch

    # of log-probabilities: what is added to all logits together says nothing
    shift = (clean.logsumexp(-1) - ablated.logsumexp(-1))[:, None]
    moved = clean - ablated
    n = min(N_CHANGED, moved.shape[1])
    found = Changes.empty(len(moved))
    for names, largest in (("raised", True), ("lowered", False)):
        values, ids = moved.topk(n, largest=largest)
        getattr(found, f"{names}_token")[:, :n] = ids.cpu().numpy()
        getattr(found, names)[:, :n] = (values - shift).cpu().numpy()
    there = torch.as_tensor(np.maximum(following, 0), device=moved.device)[:, None]
    effect = (moved.gather(1, there.long()) - shift)[:, 0].cpu().numpy()
    found.loss[:] = np.where(following < 0, np.nan, effect)
    return found


def following_of(prompt: Array, position: Array, token_ids: TokenIds) -> Array:
    """Id of the token after each position, dims (place); -1 at the end of a prompt."""
    found = np.full(len(prompt), -1, np.int64)
    for one in np.unique(prompt).tolist():
        ids = np.append(token_ids(one), -1)
        own = prompt == one
        found[own] = ids[position[own] + 1]
    return found
