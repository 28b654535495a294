"""The weights of a file as labelled arrays: whatever is chosen is what numpy would give."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pattern_lens as pl
from pattern_lens.patterns.weights import weights_of
from pattern_lens.store.reader import StoredArray, StoreReader
from pattern_lens.store.weights import weight_layout, write_weight
from pattern_lens.store.writer import StoreWriter
from pattern_lens.testing import write_random_file

SHAPES = {"W_O": (3, 2, 5, 7), "W_out": (3, 40, 7), "W_U": (7, 9000), "b_U": (9000,)}
VALUES = {
    name: np.random.default_rng(len(shape)).random(shape, np.float32)
    for name, shape in SHAPES.items()
}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("weights") / "file.h5"
    write_random_file(target, names=("z",))
    layouts = {name: weight_layout(name, shape, "float32") for name, shape in SHAPES.items()}
    facts = {"normalization": "LN", "eps": 1e-5, "attn_only": False}
    with StoreWriter(target, None, [*layouts.values()], facts=facts) as writer:
        for name, layout in layouts.items():
            write_weight(writer, layout, VALUES[name])
    return target


@pytest.fixture
def weights(path):
    with pl.open_run(path) as run:
        yield run.weights


def test_dims_labels_and_facts(weights):
    assert {name: w.dims for name, w in weights.items()} == {
        "W_O": ("layer", "head", "d_head", "d_model"),
        "W_out": ("layer", "neuron", "d_model"),
        "W_U": ("d_model", "token"),
        "b_U": ("token",),
    }
    assert weights["layer"].values.tolist() == [0, 1, 2]
    assert weights.attrs == {
        "model": "random",
        "normalization": "LN",
        "eps": 1e-5,
        "attn_only": False,
    }
    assert weights["W_U"].attrs["long_name"] == "from the normalised stream to logits"


CHOICES = [
    ("W_O", {}),
    ("W_O", {"layer": 1, "head": 0}),
    ("W_O", {"layer": [2, 0], "d_model": slice(1, 6, 2)}),
    ("W_O", {"head": -1, "d_head": slice(None, None, -1), "d_model": [-1, 0, 0]}),
    ("W_O", {"layer": slice(0, 0)}),
    ("W_out", {"neuron": 17}),
    ("W_out", {"layer": -1, "neuron": [39, 3, 20]}),
    ("W_U", {"token": [8999, 0, 4096, 4095, 0]}),
    ("W_U", {"token": slice(8000, 10, -777), "d_model": 3}),
    ("W_U", {"token": []}),
    ("b_U", {"token": 5000}),
    ("b_U", {"token": slice(None, None, 4000)}),
]


@pytest.mark.parametrize(("name", "choice"), CHOICES, ids=map(str, CHOICES))
def test_what_is_chosen_is_what_numpy_gives(weights, name, choice):
    expected = xr.DataArray(VALUES[name], dims=weights[name].dims).isel(choice)
    found = weights[name].isel(choice)
    assert found.dims == expected.dims
    assert np.array_equal(found.values, expected.values)


def test_points_of_two_dims(weights):
    along = {
        dim: xr.DataArray(places, dims="point")
        for dim, places in {"d_model": [1, 6], "token": [8000, 3]}.items()
    }
    assert np.array_equal(weights["W_U"].isel(along), VALUES["W_U"][[1, 6], [8000, 3]])


def test_tokens_that_lie_far_apart_are_read_apart(weights, monkeypatch):
    read = []
    whole = StoredArray.read
    monkeypatch.setattr(StoredArray, "read", lambda *args: read.append(args[-2:]) or whole(*args))
    _ = weights["b_U"].isel(token=[8998, 2, 8999]).values
    assert read == [(8998, 8999), (2, 3), (8999, 9000)]


def test_they_pickle_and_go_through_dask(weights):
    again = pickle.loads(pickle.dumps(weights["W_U"]))  # noqa: S301 - our own
    assert np.array_equal(again, VALUES["W_U"])
    lazy = weights["W_out"].chunk({"neuron": 16})
    np.testing.assert_allclose(lazy.sum("neuron"), VALUES["W_out"].sum(axis=1), rtol=1e-5)


def test_refresh_sees_weights_that_were_added(tmp_path):
    late = tmp_path / "late.h5"
    write_random_file(late, names=("z",))
    with pl.open_run(late) as run:
        with pytest.raises(pl.errors.UnknownActivationError, match="it holds none; capture with"):
            _ = run.weights
        add(late, "b_U", None)
        assert np.array_equal(run.refresh().weights["b_U"], VALUES["b_U"])
        assert "eps" not in run.weights.attrs
        add(late, "W_U", {"eps": 0.5})
        assert list(run.weights) == ["b_U"]
        assert list(run.refresh().weights) == ["W_U", "b_U"]
        assert run.weights.attrs["eps"] == 0.5


def add(path: Path, name: str, facts: dict[str, float] | None) -> None:
    layout = weight_layout(name, SHAPES[name], "float32")
    with StoreWriter(path, None, [layout], facts=facts) as writer:
        write_weight(writer, layout, VALUES[name])


def test_without_the_run(path):
    reader = StoreReader(path)
    assert list(weights_of(reader)) == sorted(SHAPES)
    reader.close()
