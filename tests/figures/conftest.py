"""A labelled pattern of one head, and a registry that tests may write to."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

from pattern_lens.figures import ATTENTION_MATRIX_FIGURE_FUNCS
from pattern_lens.store.block import Block
from pattern_lens.store.figures import FigureRecord
from pattern_lens.store.prompt_table import PromptRecord
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.writer import StoreWriter
from pattern_lens.testing import write_random_file

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


HOSTILE = PromptRecord(
    "../../evil", "<script>alert(1)</script>", np.arange(3, dtype=np.int32), bos=True
)
ABOUT = {"function": "mine.spectra", "doc": "Spectra.", "source": "def spectra(p):\n    ...\n"}
SVGZ = gzip.compress(b"<svg>a &lt; b</svg>", mtime=0)


def failed(prompt: int, layer: int | None, head: int | None, name: str) -> FigureRecord:
    said = {"error": "ValueError", "message": "<b>no</b>", "traceback": "Traceback <i>…</i>"}
    return FigureRecord(prompt, layer, head, name, "", json.dumps(said).encode(), failed=True)


def figures() -> list[FigureRecord]:
    """Of layers 0, 2, 3 with 4 heads: two names, one of all prompts, one that no head has; two results failed."""
    cells = [(layer, head) for layer in (0, 2, 3) for head in range(4)]
    made = [
        FigureRecord(p, layer, head, "spectra", "svgz", SVGZ + bytes([p, layer, head]), about=ABOUT)
        for p in (6, 4, 1)
        for layer, head in cells
        if (p, layer) != (4, 3) and (p, layer, head) != (1, 2, 3)
    ]
    made += [failed(1, 2, 3, "spectra")]
    made += [FigureRecord(2, 0, h, "multi.first", "png", b"\x89PNG%d" % h) for h in (1, 3)]
    made += [FigureRecord(None, 2, h, "mean", "png", b"\x89PNG mean %d" % h) for h in range(4)]
    made += [FigureRecord(p, None, None, "grid", "html", b"<p>%d</p>" % p) for p in (0, 1)]
    return [*made, failed(2, None, None, "grid"), failed(2, None, None, "entropy")]


@pytest.fixture
def figure_file(tmp_path: Path) -> Path:
    """Seven prompts with patterns, the last of them hostile, and figures."""
    path = tmp_path / "figures.h5"
    write_random_file(path, names=("pattern",), layers=(0, 2, 3))
    reader = StoreReader(path)
    layout = reader.array("pattern").layout
    reader.close()
    values = np.random.default_rng(3).random((3, 4, 6)).astype(np.float32)
    with StoreWriter(path, None, [layout], figures=True) as writer:
        writer.commit([HOSTILE], {"pattern": Block([(3, 3)], values)})
        writer.commit_computed([], {}, figures())
    return path
