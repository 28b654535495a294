"""Results, figures and failures of a whole file."""

import json

import numpy as np
import pytest
import xarray as xr

import pattern_lens as pl
from pattern_lens.store.block import Block
from pattern_lens.store.figures import FigureRecord
from pattern_lens.store.layout import RESULTS, ArrayLayout
from pattern_lens.store.writer import StoreWriter
from pattern_lens.testing import write_random_file

SCORE = ArrayLayout(
    "score",
    ("layer", "head"),
    {"layer": 3, "head": 4},
    "single",
    "float32",
    layers=(0, 1, 2),
    section=RESULTS,
)


def failed(prompt, layer, head, name):
    said = {"error": "ValueError", "message": f"no {name}", "traceback": "Traceback …"}
    return FigureRecord(prompt, layer, head, name, "", json.dumps(said).encode(), failed=True)


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "run.h5"
    write_random_file(found, names=("pattern",))
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    with StoreWriter(found, None, [SCORE], figures=True) as writer:
        drawn = FigureRecord(1, 2, 3, "dots", "png", b"png")
        writer.commit_computed(
            [4, 1],
            {SCORE.key: Block([(1, 1), (1, 1)], values)},
            [drawn, failed(1, 2, 0, "dots"), failed(3, None, None, "score")],
        )
    return found


def test_results_are_those_of_open_results(path):
    with pl.open_run(path) as run, pl.open_results(path) as results:
        xr.testing.assert_identical(run.results, results)
        assert run.results["score"].sel(layer=1, head=2).values.tolist() == [18.0, 6.0]


def test_figures_are_on_the_run_s_file(path):
    with pl.open_run(path) as run:
        figures = run.figures
        assert list(figures) == ["dots", "raw"]
        one = figures["dots"].sel(prompt=list(run.patterns)[1], layer=2, head=3)
        assert one.data == b"png"
    with pytest.raises(ValueError, match="it was closed"):
        _ = one.data


def test_failures_of_figures_and_results(path):
    with pl.open_run(path) as run:
        hashes, table = list(run.patterns), run.failures
    assert table.columns.tolist() == [
        "name",
        "prompt",
        "layer",
        "head",
        "error",
        "message",
        "traceback",
    ]
    assert table.name.tolist() == ["dots", "score"]
    assert table.prompt.tolist() == [hashes[1], hashes[3]]
    assert table.layer.tolist() == [2, None] or table.layer.isna().tolist() == [False, True]
    assert table["message"].tolist() == ["no dots", "no score"]


def test_a_run_without_any(tmp_path):
    write_random_file(tmp_path / "bare.h5", names=("z",))
    with pl.open_run(tmp_path / "bare.h5") as run:
        assert len(run.results) == len(run.figures) == len(run.failures) == 0


def test_prompts_and_figures_are_of_one_moment(path):
    with pl.open_run(path) as run:
        n_prompts = len(run.prompts)
        write_random_file(path, names=("pattern",), n_tokens=(4,), seed=9)
        with StoreWriter(path, None, figures=True) as writer:
            late = [
                FigureRecord(n_prompts, 0, 0, "dots", "png", b"x"),
                failed(n_prompts, 0, 0, "dots"),
            ]
            writer.commit_computed([], {}, late)
        assert len(run.figures["dots"].prompts) == 1
        assert len(run.failures) == 2
        assert len(run.refresh().figures["dots"].prompts) == 2
        assert len(run.failures) == 3


def test_refresh_sees_what_was_stored_since(path):
    with pl.open_run(path) as run:
        figures, dots = run.figures, run.figures["dots"]
        assert (len(run.results), len(run.failures), len(dots)) == (1, 2, 2)
        with StoreWriter(path, None, figures=True) as writer:
            more = [
                FigureRecord(0, 0, 0, "fresh", "png", b"x"),
                FigureRecord(1, 2, 0, "dots", "png", b"y"),
            ]
            writer.commit_computed([], {}, more)
        assert "fresh" not in figures
        assert "fresh" in run.refresh().figures
        assert run.figures is figures
        assert run.failures.name.tolist() == ["score"]
        assert figures["dots"].n_failures == 0
