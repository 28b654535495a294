"""Activations -> active latents: encoded a few rows at a time, and looked through where they were computed.

Rule: dense latents of one chunk are all that there is of them at any time, however large a batch. What leaves the device
is where a latent is active, and its value. A latent that is not a number counts as active, so that it is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import AutoencoderError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from pattern_lens.features.steps import Steps

_CHUNK_BYTES: Final = {"cpu": 24 << 20}  # above 32 MiB glibc maps, and zeroes, new pages each time
_CHUNK_BYTES_ELSEWHERE: Final = 512 << 20
_LOOKED_THROUGH: Final = 1 << 20  # elements whose mask stays in the cache


@dataclass(frozen=True, eq=False)
class Entries:
    """Active latents of some rows, sorted by row, then feature.

    Attributes
    ----------
    row, feature
        Where each is, int64.
    value
        What it is, float32.
    """

    row: NDArray[np.int64]
    feature: NDArray[np.int64]
    value: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.value)

    @classmethod
    def joined(cls, parts: Sequence[Entries]) -> Entries:
        """Entries of rows that follow each other."""
        return cls(
            np.concatenate([part.row for part in parts]),
            np.concatenate([part.feature for part in parts]),
            np.concatenate([part.value for part in parts]),
        )


def rows_of(value: Tensor, lengths: Sequence[int]) -> Tensor:
    """Values of a batch without its padding: dims (batch, pos, ...) -> (row, width), prompts one after another.

    Parameters
    ----------
    value
        Heads, or whatever else stands between the position and the last dim, become part of the width.
    lengths
        Positions of each prompt.
    """
    import torch

    flat = value.flatten(2)
    if all(n == flat.shape[1] for n in lengths):
        return flat.flatten(0, 1)
    return torch.cat([flat[i, :n] for i, n in enumerate(lengths)])


def encoded(
    encode: Callable[[Tensor], Tensor],
    rows: Tensor,
    n_features: int,
    *,
    threshold: float,
    steps: Steps,
) -> Entries:
    """Active latents of rows of activations.

    Parameters
    ----------
    encode
        Dims (row, width) -> (row, feature).
    rows
        Activations, dims (row, width).
    threshold
        Largest size of a latent that counts as none.
    steps
        Takes the time of ``encode`` and ``sparse``.
    """
    device = rows.device
    most = _CHUNK_BYTES.get(device.type, _CHUNK_BYTES_ELSEWHERE)
    n_rows = max(1, most // (4 * n_features))
    parts = []
    for first in range(0, len(rows), n_rows):
        with steps.timed("encode", device):
            latents = encode(rows[first : first + n_rows])
            _check_shape(latents, len(rows[first : first + n_rows]), n_features)
        with steps.timed("sparse", device):
            found = active(latents, threshold)
            parts.append(Entries(found.row + first, found.feature, found.value))
    return Entries.joined(parts)


def _check_shape(latents: Tensor, n_rows: int, n_features: int) -> None:
    if tuple(latents.shape) != (n_rows, n_features):
        raise AutoencoderError(
            f"an autoencoder gives latents of shape {tuple(latents.shape)} for {n_rows} positions, expected {n_features} "
            "for each"
        )


def active(latents: Tensor, threshold: float = 0.0) -> Entries:
    """Latents larger in size than `threshold`, and those that are not numbers: dims (row, feature).

    Examples
    --------
    >>> import torch
    >>> found = active(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, -0.5]]))
    >>> found.row.tolist(), found.feature.tolist(), found.value.tolist()
    ([0, 1, 1], [1, 0, 2], [2.0, 1.0, -0.5])
    """
    import torch

    flat = latents.detach().to(torch.float32).reshape(-1)
    if flat.device.type == "cpu":
        place, value = _active_on_host(flat.numpy(), threshold)
    else:
        mask = flat != 0 if threshold == 0 else ~(flat.abs() <= threshold)
        index = mask.nonzero()[:, 0]
        place, value = index.cpu().numpy(), flat[index].cpu().numpy()
    row, feature = np.divmod(place, latents.shape[-1])
    return Entries(row, feature, value)


def _active_on_host(
    flat: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places and values; numpy compares several times as fast as torch does on one core."""
    places: list[Any] = [np.empty(0, np.int64)]
    for first in range(0, len(flat), _LOOKED_THROUGH):
        piece = flat[first : first + _LOOKED_THROUGH]
        mask = piece != 0 if threshold == 0 else ~(np.abs(piece) <= threshold)
        places.append(np.flatnonzero(mask) + first)
    place = np.concatenate(places)
    return place, flat[place]
