"""Functions over prompts: what comes back, what is stored, what fails."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pattern_lens as pl
from pattern_lens import measures
from pattern_lens.errors import (
    MapFailedError,
    MapWarning,
    ResultMismatchError,
    WriterActiveError,
)
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.verify import verify
from pattern_lens.store.writer import StoreWriter
from pattern_lens.testing import write_random_file

QUIET = {"progress": False, "n_workers": 0}


@pytest.fixture
def patterns(tmp_path):
    path = tmp_path / "random.h5"
    write_random_file(path, layers=(0, 2, 3))
    with pl.open_patterns(path) as found:
        yield found


def test_scalars_of_every_head(patterns):
    found = patterns.map(measures.mean_attention_distance, **QUIET)
    assert found.dims == ("prompt", "layer", "head")
    assert found.name == "mean_attention_distance"
    assert found.layer.values.tolist() == [0, 2, 3]
    for prompt, array in patterns.items():
        expected = measures.mean_attention_distance(array)
        xr.testing.assert_allclose(found.sel(prompt=prompt, drop=True), expected.drop_attrs())


@pytest.mark.parametrize(
    "function",
    [
        measures.entropy,
        lambda p: p.mean("head"),
        lambda p: p.max(["query", "key"]).astype("float64"),
        lambda p: p.sel(layer=2).sum("key").transpose("query", "head"),
        lambda p: p.argmax("key"),
        lambda p: p.max("key").rename(query="place"),
        lambda p: p > 0.5,
        lambda p: float(p.max()),
    ],
)
def test_stored_is_what_was_computed(patterns, function):
    computed = patterns.map(function, **QUIET)
    stored = patterns.map(function, name="it", **QUIET)
    xr.testing.assert_identical(stored.load(), computed.rename("it"))
    with pl.open_results(patterns.path) as results:
        xr.testing.assert_identical(results["it"].load(), computed.rename("it"))
    for prompt, array in patterns.items():
        one = stored.sel(prompt=prompt).squeeze(drop=True)
        expected = np.asarray(function(array.load()))
        where = tuple(slice(n) for n in expected.shape)
        np.testing.assert_array_equal(one.values[where] if where else one.values, expected)
    assert verify(patterns.path, progress=False).ok


def test_a_dim_that_grows_with_the_prompt(patterns):
    found = patterns.map(measures.attention_by_distance, name="by distance", **QUIET)
    assert found.dims == ("prompt", "layer", "head", "distance")
    longest = max(array.sizes["query"] for array in patterns.values())
    assert found.distance.values.tolist() == list(range(longest))
    for prompt, array in patterns.items():
        expected = measures.attention_by_distance(array)
        assert expected.distance.values.tolist() == list(range(array.sizes["query"]))
        one = found.sel(prompt=prompt).dropna("distance")
        np.testing.assert_allclose(one.values, expected.values)


def test_labels_of_heads_come_back(patterns):
    chosen = patterns.sel(head="L0H1, L3")
    found = chosen.map(measures.mean_attention_distance, name="some", **QUIET)
    assert found.component.values.tolist() == ["L0H1", "L3H0", "L3H1", "L3H2", "L3H3"]
    assert found["layer"].values.tolist() == [0, 3, 3, 3, 3]
    assert found["layer"].dims == ("component",)
    single = patterns.sel(layer=2).map(measures.mean_attention_distance, name="one layer", **QUIET)
    assert int(single["layer"]) == 2


def test_one_head_at_a_time(patterns):
    def largest(pattern):
        assert pattern.dims == ("query", "key")
        return float(pattern.max())

    found = patterns.map(largest, per_head=True, **QUIET)
    expected = patterns.max(["query", "key"])
    np.testing.assert_allclose(found.values, expected.values)
    rows = patterns.map(lambda p: p.max("key"), per_head=True, **QUIET)
    assert rows.dims == ("prompt", "layer", "head", "query")
    assert rows.layer.values.tolist() == [0, 2, 3]


def test_what_is_stored_is_not_computed_again(patterns):
    calls = []

    def count(pattern):
        calls.append(pattern.attrs["hash"])
        return pattern.max()

    hashes = list(patterns)
    patterns.isel(prompt=slice(2)).map(count, name="top", **QUIET)
    calls.clear()
    found = patterns.map(count, name="top", **QUIET)
    assert set(calls[2:]) == set(hashes[2:])  # two are tried first
    assert not np.isnan(found.values).any()
    calls.clear()
    again = patterns.map(count, name="top", **QUIET)
    assert calls == []
    xr.testing.assert_identical(again, found)
    patterns.map(count, name="top", force=True, **QUIET)
    assert set(calls) == set(hashes)


def test_another_function_under_the_same_name(patterns):
    patterns.map(lambda p: p.max(["query", "key"]), name="it", **QUIET)
    before = pl.open_results(patterns.path)["it"].load()
    with pytest.raises(ResultMismatchError, match="of another function, or another version of it"):
        patterns.map(lambda p: p.min(["query", "key"]), name="it", **QUIET)
    with pytest.raises(ResultMismatchError, match="another choice of values"):
        patterns.sel(layer=[0]).map(lambda p: p.max(["query", "key"]), name="it", **QUIET)
    xr.testing.assert_identical(pl.open_results(patterns.path)["it"].load(), before)
    found = patterns.map(lambda p: p.min("key"), name="it", force=True, **QUIET)
    assert found.dims == ("prompt", "layer", "head", "query")
    assert verify(patterns.path, progress=False).ok


def test_a_prompt_that_fails_costs_that_prompt(patterns, tmp_path):
    flag = tmp_path / "broken"
    flag.touch()
    bad = list(patterns)[1]

    def moody(pattern):
        if pattern.attrs["hash"] == bad and flag.exists():
            raise ZeroDivisionError("not today")
        return pattern.max(["query", "key"])

    with pytest.warns(MapWarning, match="1 prompt failed, the first is .* ZeroDivisionError: not"):
        found = patterns.map(moody, name="moody", **QUIET)
    assert np.isnan(found.sel(prompt=bad)).all()
    assert int(np.isnan(found).any(["layer", "head"]).sum()) == 1
    with pl.open_run(patterns.path) as run:
        failure = run.failures.iloc[0]
        assert (failure["name"], failure["prompt"]) == ("moody", bad)
        assert failure["error"] == "ZeroDivisionError"
        assert "in moody" in failure["traceback"]
    flag.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = patterns.map(moody, name="moody", **QUIET)
    assert not np.isnan(found).any()
    with pl.open_run(patterns.path) as run:
        assert len(run.failures) == 0


@pytest.mark.parametrize(
    ("function", "error", "match"),
    [
        (
            lambda p: 1 / 0,
            MapFailedError,
            "fails on every prompt that was tried: ZeroDivisionError",
        ),
        (lambda p: p.values, ResultMismatchError, r"returned ndarray of shape \(3, 4, .*dims="),
        (lambda p: "high", ResultMismatchError, "returned str, expected a number"),
        (lambda p: p.astype(str), ResultMismatchError, "dtype <U.*expected real numbers"),
        (lambda p: p.astype(complex), ResultMismatchError, "dtype complex128"),
        (lambda p: p.expand_dims("prompt"), ResultMismatchError, "'prompt' may not be"),
        (lambda p: p.isel(query=slice(None, None, -1)), ResultMismatchError, "count from 0"),
        (lambda p: p.isel(layer=slice(p.sizes["query"])), ResultMismatchError, "not 'layer'"),
    ],
)
def test_what_cannot_be_a_result(patterns, function, error, match):
    before = Path(patterns.path).read_bytes()
    with pytest.raises(error, match=match):
        patterns.map(function, name="it", **QUIET)
    assert Path(patterns.path).read_bytes() == before
    assert StoreReader(patterns.path).result_names() == []


@pytest.mark.parametrize("name", ["", "a/b", ".", "..", "\n", "x" * 300, 3])
def test_names_that_cannot_be(patterns, name):
    with pytest.raises(ResultMismatchError, match="expected a short text without '/'"):
        patterns.map(measures.entropy, name=name, **QUIET)


def test_results_that_differ_from_prompt_to_prompt(patterns):
    sizes = sorted({array.sizes["query"] for array in patterns.values()})

    def odd(pattern):
        dims = ("layer", "head") if pattern.sizes["query"] != sizes[-1] else ("layer",)
        return pattern.max([dim for dim in pattern.dims if dim not in dims])

    with pytest.warns(
        MapWarning, match=r"returned dims \('layer',\), expected \('layer', 'head'\)"
    ):
        found = patterns.map(odd, **QUIET)
    assert found.dims == ("prompt", "layer", "head")


def test_prompts_of_one_size_still_have_ragged_dims(patterns):
    same = patterns.isel(prompt=[0])
    first = same.map(measures.entropy, name="entropy", **QUIET)
    assert first.sizes["query"] == next(iter(same.values())).sizes["query"]
    everything = patterns.map(measures.entropy, name="entropy", **QUIET)
    assert everything.sizes["prompt"] == len(patterns)


def test_nothing_to_map(patterns):
    nothing = patterns.isel(prompt=[])
    with pytest.raises(MapFailedError, match="over no prompts"):
        nothing.map(measures.entropy, **QUIET)


def test_a_file_that_is_written_to(patterns):
    with (
        StoreWriter(patterns.path, None),
        pytest.raises(WriterActiveError, match="is writing"),
    ):
        patterns.map(measures.entropy, name="entropy", **QUIET)
    assert patterns.map(measures.entropy, **QUIET).sizes["prompt"] == len(patterns)


def test_worker_processes_give_the_same(patterns):
    here = patterns.map(measures.entropy, **QUIET)
    there = patterns.map(measures.entropy, n_workers=2, progress=False)
    np.testing.assert_array_equal(here.values, there.values)


SCRIPT = """
import sys
import pattern_lens as pl

def own(pattern):
    return pattern.max("key").mean("query")

patterns = pl.open_patterns(sys.argv[1])
print(patterns.map(own, name="own", n_workers=1, progress=False).sizes["prompt"])
"""


def test_a_script_without_main_guard(patterns, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, patterns.path],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{len(patterns)}\n"
    assert done.stderr == ""


def test_a_file_of_another_process_that_moved(patterns, tmp_path):
    patterns.map(measures.entropy, name="entropy", **QUIET)
    moved = shutil.copy(patterns.path, tmp_path / "moved.h5")
    with pl.open_patterns(moved) as other:
        found = other.map(measures.entropy, name="entropy", **QUIET)
    assert found.sizes["prompt"] == len(patterns)
