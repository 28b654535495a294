"""A pattern as a matrix: how many directions it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pattern_lens.measures.apply import check_dims, measured, without_nan
from pattern_lens.names import KEY, QUERY, SINGULAR_VALUE

if TYPE_CHECKING:
    import xarray as xr

    from pattern_lens.measures.apply import Array


def singular_values(pattern: xr.DataArray) -> xr.DataArray:
    """Singular values of each head's pattern, from the largest on.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., query, key), any float dtype.

    Returns
    -------
    Dims (..., singular_value), float32 or wider, the smaller of n_query and n_key of them, range
    [0, sqrt(n_query)] without unit. They are all 1 where each query looks at itself; where all look at one
    key, the first is sqrt(n_query) and the others are 0. A causal mask raises the rank: attention spread
    evenly over the keys that a query can see has one value above 0 without the mask, and with it none
    is 0. NaN for a head that is nothing but NaN. Lazy if `pattern` is on dask.

    Raises
    ------
    DimensionError
        `pattern` has no dim query or key.

    Notes
    -----
    The squares sum to the sum of the squared pattern. NaN counts as 0. Golub & Van Loan, Matrix
    Computations. By far the slowest measure of a single head: cubic in `n_ctx`.

    Examples
    --------
    >>> import xarray as xr
    >>> pattern = xr.DataArray([[0.0, 1.0, 0.0], [0.6, 0.0, 0.0]], dims=("query", "key"))
    >>> singular_values(pattern).values.round(3).tolist()
    [1.0, 0.6]
    """
    check_dims(pattern, QUERY, KEY)
    n_values = min(pattern.sizes[QUERY], pattern.sizes[KEY])
    return measured(
        pattern,
        _singular_values,
        name="singular_values",
        long_name="singular values of the pattern",
        units="1",
        gives={SINGULAR_VALUE: np.arange(n_values)},
    )


def _singular_values(values: Array) -> Array:
    found = np.linalg.svd(without_nan(values), compute_uv=False)
    is_absent = np.isnan(values).all((-2, -1))
    return np.where(np.asarray(is_absent)[..., np.newaxis], np.nan, found)
