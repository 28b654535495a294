"""Random patterns with labels; asymmetric in every dim, the same for the same arguments."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

WORDS = ("<bos>", " the", " cat", "\n", " sat")


@pytest.fixture(scope="session")
def make_pattern() -> Callable[..., xr.DataArray]:
    """Makes (layer 3 and 5, head 0 to 2, query, key), float32, with tokens that repeat themselves."""

    def make(
        n_query: int = 7, n_key: int | None = None, *, causal: bool = True, seed: int = 0
    ) -> xr.DataArray:
        rng = np.random.default_rng(seed)
        n_key = n_query if n_key is None else n_key
        values = np.exp(2 * rng.standard_normal((2, 3, n_query, n_key)))
        if causal:
            values = np.tril(values)
        values /= values.sum(-1, keepdims=True)
        tokens = np.array(WORDS, object)[rng.integers(1, len(WORDS), max(n_query, n_key))]
        tokens[:1] = WORDS[0]
        return xr.DataArray(
            values.astype("f4"),
            dims=("layer", "head", "query", "key"),
            coords={
                "layer": [3, 5],
                "head": [0, 1, 2],
                "query": np.arange(n_query),
                "key": np.arange(n_key),
                "query_token": ("query", tokens[:n_query]),
                "key_token": ("key", tokens[:n_key]),
                "kind": ("layer", ["early", "late"]),
                "prompt": "a-hash",
            },
            name="pattern",
            attrs={"model": "random", "units": "probability", "hash": "a-hash"},
        )

    return make


@pytest.fixture(scope="session")
def cut_pattern(make_pattern) -> xr.DataArray:
    """Some queries and keys of a prompt of 12 tokens: places are not positions."""
    return make_pattern(12, seed=1).isel(query=[2, 3, 5, 8, 9, 11], key=[0, 1, 2, 4, 5, 7, 8])


@pytest.fixture(scope="session")
def whole_pattern(make_pattern) -> xr.DataArray:
    """All 12 tokens of that prompt."""
    return make_pattern(12, seed=1)


@pytest.fixture(scope="session", params=["whole", "cut", "rectangular"])
def pattern(request, make_pattern, whole_pattern, cut_pattern) -> xr.DataArray:
    """A causal pattern, part of it, and one without a mask that has more queries than keys."""
    wide = make_pattern(9, 6, causal=False, seed=2)
    return {"whole": whole_pattern, "cut": cut_pattern, "rectangular": wide}[request.param]
