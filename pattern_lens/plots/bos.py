"""A pattern without its first key, whose rows are brought back to the sum that is left to the other keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pattern_lens.errors import DimensionError
from pattern_lens.names import KEY

if TYPE_CHECKING:
    import xarray as xr


def has_bos(pattern: xr.DataArray) -> bool:
    """Whether the first token is among the keys, and not the only one."""
    return pattern.sizes[KEY] > 1 and int(pattern[KEY].values[0]) == 0


def without_bos(pattern: xr.DataArray) -> xr.DataArray:
    """Rows divided by what they give to the keys but the first; the first key is NaN.

    Parameters
    ----------
    pattern
        Dims (query, key), probabilities.

    Returns
    -------
    Dims (query, key); rows that give nothing to other keys are NaN.

    Raises
    ------
    DimensionError
        The first token is not among the keys, or is the only one.
    """
    if not has_bos(pattern):
        raise DimensionError(
            "bos=False leaves out key 0, which is not among the keys or is the only one: leave bos out"
        )
    rest = pattern.where(pattern[KEY] != 0)
    sums = rest.sum(KEY, skipna=True)
    return (rest / sums.where(sums > 0)).astype(np.float32)
