"""A labelled pattern of one head, and a registry that tests may write to."""

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

from pattern_lens.figures import ATTENTION_MATRIX_FIGURE_FUNCS

mpl.use("Agg")

TOKENS = ["<|endoftext|>", "The", " $x_1$", "\n", " 你好"]


@pytest.fixture
def pattern() -> xr.DataArray:
    """Head L3H5 of a prompt of five tokens, causal, float32."""
    rows = np.tril(np.random.default_rng(7).random((5, 5)) ** 3)
    values = (rows / rows.sum(1, keepdims=True)).astype(np.float32)
    tokens = np.array(TOKENS, dtype=object)
    return xr.DataArray(
        values,
        dims=("query", "key"),
        coords={
            "query": range(5),
            "key": range(5),
            "query_token": ("query", tokens),
            "key_token": ("key", tokens),
            "layer": 3,
            "head": 5,
        },
        attrs={"hash": "C7p4x9-iwFxWSKCb8kbLfQ", "units": "probability"},
        name="pattern",
    )


@pytest.fixture(autouse=True)
def registry() -> Iterator[list]:
    """The live list, put back as it was afterwards."""
    before = list(ATTENTION_MATRIX_FIGURE_FUNCS)
    yield ATTENTION_MATRIX_FIGURE_FUNCS
    ATTENTION_MATRIX_FIGURE_FUNCS[:] = before


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    import matplotlib.pyplot as plt

    plt.close("all")
    yield
    assert not plt.get_fignums()
