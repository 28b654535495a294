"""`map_figures` and `Patterns.map` on worker processes and clusters: the same content, and what is left when they die."""

import shutil
import subprocess
import sys
import time
import warnings
from threading import Thread

import numpy as np
import psutil
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from matplotlib.figure import Figure

import pattern_lens as pl
from pattern_lens.errors import ClusterLostError, MapWarning
from pattern_lens.figures import (
    Image,
    matplotlib_figure_saver,
    matplotlib_multifigure_saver,
    register_attn_figure_func,
    save_matrix_wrapper,
)
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.rows import NONE
from pattern_lens.store.verify import verify
from pattern_lens.testing import write_random_file

QUIET = {"progress": False}


@matplotlib_figure_saver
def spectra(attn_matrix, ax):
    ax.plot(np.linalg.svd(attn_matrix)[1], label="$\\sigma_i$")
    ax.set_title("a title")
    ax.legend()


@matplotlib_multifigure_saver(names=["first", "second"])
def pair(attn_matrix, axes):
    axes["first"].imshow(attn_matrix)
    axes["second"].hist(attn_matrix.ravel())


@save_matrix_wrapper(fmt="png", normalize=True)
def gram(attn_matrix):
    return attn_matrix @ attn_matrix.T


def files(attn_matrix, path):
    (path / "files.txt").write_text(f"{attn_matrix.sum():.3f}")
    np.save(path / "values.npy", attn_matrix)


def number(pattern):
    return float(pattern.max())


def rows(pattern):
    return pattern.max("key")


def image(pattern):
    return np.asarray(pattern) / float(pattern.max())


def drawn(pattern):
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot(np.asarray(pattern).sum(0))
    return figure


def text(pattern):
    return Image(f"{pattern.attrs['hash']} {int(pattern['layer'])}".encode(), "txt")


def moody(pattern):
    if int(pattern["head"]) == 2:
        raise ZeroDivisionError("not this head")
    return float(pattern.min())


def moody_picture(pattern):
    if int(pattern["head"]) == 2:
        raise ZeroDivisionError("not this head")
    return text(pattern)


def mean(pattern):
    return {"whole": image(pattern), "curve": drawn(pattern)}


FUNCTIONS = [spectra, pair, gram, files, number, rows, image, drawn, text, moody, moody_picture]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "random.h5"
    write_random_file(path, n_tokens=[5, 3, 7], names=("pattern",), layers=(0, 2), n_heads=3)
    return path


def run_all(path, **where):
    """Everything that can be stored, by one run of each kind."""
    average = register_attn_figure_func(average=True)(mean)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)
        report = pl.map_figures(path, [*FUNCTIONS, average], **QUIET, **where)
        assert report.n_failed == 2 * 3 * 2
        with pl.open_patterns(path) as patterns:
            patterns.map(own, name="own", **QUIET, **where)
    return contents(path)


def own(pattern):
    if pattern.sizes["query"] == 7:
        raise ValueError("too long")
    return pattern.sum("key").rename(query="place")


def contents(path):
    reader = StoreReader(path)
    table = reader.figures
    records = [table.record(row) for row in table.rows]
    reader.close()
    figures = {
        (one.prompt, one.layer, one.head, one.name): (one.format, one.failed, one.data, one.about)
        for one in records
    }
    with pl.open_results(path) as results:
        return figures, results.load()


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory):
    """What a run in this process stores."""
    path = shutil.copy(source, tmp_path_factory.mktemp("here") / "here.h5")
    figures, results = run_all(path, n_workers=0)
    names = {name for *_, name in figures}
    assert names == {
        *("spectra", "pair.first", "pair.second", "gram", "files", "files.values", "image"),
        *("drawn", "text", "moody", "moody_picture", "mean.whole", "mean.curve", "own"),
    }
    assert set(results) == {"number", "rows", "moody", "own"}
    assert len(figures) == 18 * 11 + 12 + 1 - 12
    return figures, results


def assert_same(found, expected):
    figures, results = found
    assert figures.keys() == expected[0].keys()
    for key, one in figures.items():
        assert one == expected[0][key], key
    xr.testing.assert_identical(results.drop_attrs(deep=False), expected[1].drop_attrs(deep=False))


@pytest.fixture
def path(source, tmp_path):
    return shutil.copy(source, tmp_path / "random.h5")


def test_worker_processes_store_the_same(path, expected):
    assert_same(run_all(path, n_workers=2), expected)


def test_processes_as_they_are_needed_store_the_same(path, expected):
    assert_same(run_all(path), expected)


def test_calls_that_are_timed_store_the_same(path, expected):
    functions = [text, moody, rows]
    with pytest.warns(MapWarning):
        pl.map_figures(path, functions, n_workers=2, timeout_seconds=60, **QUIET)
    figures, results = contents(path)
    assert figures == {key: one for key, one in expected[0].items() if key[3] in ("text", "moody")}
    xr.testing.assert_identical(results["rows"], expected[1]["rows"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_local_cluster_stores_the_same(path, expected):
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(processes=True, **options) as local, Client(local) as client:
        assert_same(run_all(path, client=client), expected)


def test_workers_in_folders_of_their_own_store_the_same(path, expected, cluster):
    assert_same(run_all(path, client=cluster.address), expected)
    assert verify(path, progress=False).ok


# --- deaths ------------------------------------------------------------------------------------

SCRIPT = """
import sys, time
import pattern_lens as pl
from pattern_lens.figures import Image

def pictured(pattern):
    time.sleep(0.06)
    return {{"a": Image(b"a", "png"), "b": Image(b"b", "png")}}

def counted(pattern):
    time.sleep(0.01)
    return pattern.max("key")

report = pl.map_figures({path!r}, [pictured, counted], progress=False, client={address!r})
print(report.n_drawn, report.n_present)
"""


@pytest.fixture
def longer(tmp_path):
    path = tmp_path / "longer.h5"
    write_random_file(path, n_tokens=[5, 3, 8, 6, 4, 7], names=("pattern",))
    return path


def n_rows(path):
    reader = StoreReader(path)
    found = len(reader.figures.all_rows)
    reader.close()
    return found


def test_kill_a_dask_worker_then_the_caller(longer, own_cluster, eventually, tmp_path, all_end):
    cluster = own_cluster(2)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(path=str(longer), address=cluster.address))
    command = [sys.executable, str(script)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert eventually(lambda: n_rows(longer) > 20 or process.poll() is not None)
    victim = psutil.Process(cluster.processes[1].pid)
    below = victim.children(recursive=True)
    victim.kill()
    before = n_rows(longer)
    assert eventually(lambda: n_rows(longer) > before)
    assert process.poll() is None
    process.kill()
    process.communicate()
    assert all_end(below)
    first = n_rows(longer)
    assert first < 2 * 72
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    n_drawn, n_present = map(int, done.stdout.split())
    assert n_drawn < 2 * 72
    assert n_present > 0
    assert_whole(longer)


def assert_whole(path):
    figures, results = contents(path)
    places = {(p, layer, head) for p in range(6) for layer in range(3) for head in range(4)}
    assert set(figures) == {(*place, f"pictured.{n}") for place in places for n in "ab"}
    reader = StoreReader(path)
    rows = reader.figures.all_rows
    reader.close()
    keys = rows[rows["kind"] != NONE][["prompt", "layer", "head", "kind"]]
    assert len(np.unique(keys)) == len(keys)
    with pl.open_patterns(path) as patterns:
        for prompt, array in patterns.items():
            found = results["counted"].sel(prompt=prompt).values[..., : array.sizes["query"]]
            np.testing.assert_array_equal(found, array.max("key").values)
    assert verify(path, progress=False).ok


def test_a_cluster_that_is_lost_leaves_what_is_stored(longer, own_cluster, eventually):
    cluster = own_cluster(1)

    def slow(pattern):
        time.sleep(0.05)
        return text(pattern)

    def lose():
        eventually(lambda: n_rows(longer) > 1)
        cluster.scheduler.kill()

    thread = Thread(target=lose)
    thread.start()
    with pytest.raises(ClusterLostError, match="was lost") as caught:
        pl.map_figures(longer, slow, client=cluster.address, **QUIET)
    thread.join()
    there = len(contents(longer)[0])
    assert caught.value.__notes__ == [
        f"{there} of 72 calls are stored in longer.h5; run the same again to go on"
    ]
    assert 0 < there < 72
    report = pl.map_figures(longer, slow, n_workers=0, **QUIET)
    assert (report.n_present, report.n_drawn) == (there, 72 - there)


def test_kill_a_map_and_its_worker(longer, tmp_path, eventually, all_end):
    script = tmp_path / "map.py"
    script.write_text(MAP.format(path=str(longer), folder=str(tmp_path)))
    command = [sys.executable, str(script)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    calls = tmp_path / "calls"
    assert eventually(lambda: calls.exists() and len(calls.read_text().split()) > 4)
    children = psutil.Process(process.pid).children(recursive=True)
    children[0].kill()
    assert eventually(lambda: n_held(longer) > 1)
    process.kill()
    process.communicate()
    assert all_end(children)
    held = n_held(longer)
    calls.unlink()
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "6\n"
    assert len(calls.read_text().split()) == 6 - held + 2  # two are tried first
    with pl.open_patterns(longer) as patterns, pl.open_results(longer) as results:
        np.testing.assert_allclose(results["own"], patterns.max(["query", "key"]), rtol=1e-6)
    assert verify(longer, progress=False).ok


def n_held(path):
    with pl.open_results(path) as results:
        return results.sizes.get("prompt", 0)


MAP = """
import time
import pattern_lens as pl

def own(pattern):
    time.sleep(0.6)
    with open({folder!r} + "/calls", "a") as file:
        print(pattern.attrs["hash"], file=file)
    return pattern.max(["query", "key"])

with pl.open_patterns({path!r}) as patterns:
    print(patterns.map(own, name="own", n_workers=2, progress=False).sizes["prompt"])
"""
