"""What one commit of a trace takes: layouts by the names of dims, and values as they are."""

import json

import numpy as np
import pytest
import xarray as xr

from pattern_lens.errors import DimensionError, ResultMismatchError
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.writer import StoreWriter
from pattern_lens.testing import write_random_file
from pattern_lens.tracing.writing import (
    SPEC,
    block_of,
    fitted,
    pending,
    spec_values,
    trace_layouts,
)

RNG = np.random.default_rng(3)
SHAPES = {"layer": 2, "head": 3, "query": 3, "key": 3, "pos": 3, "neuron": 5}


def example(*dims, dtype=np.float32, **labels):
    shape = [SHAPES[dim] for dim in dims]
    return xr.DataArray(RNG.standard_normal(shape).astype(dtype), dims=dims, coords=labels)


def layout_of(array, **options):
    (found,) = trace_layouts("t", {"v": array}, {"of": "a test"}, **options)
    return found


@pytest.fixture
def path(tmp_path):
    write_random_file(tmp_path / "file.h5", names=("pattern",), n_tokens=(3, 5, 2))
    return tmp_path / "file.h5"


@pytest.mark.parametrize(
    ("dims", "packing", "ragged"),
    [
        ((), "single", ()),
        (("layer", "head"), "single", ()),
        (("layer", "head", "query"), "line", ("query",)),
        (("layer", "pos", "neuron"), "line", ("pos",)),
        (("layer", "head", "query", "key"), "rectangle", ("query", "key")),
    ],
)
def test_dims_are_ragged_by_name(dims, packing, ragged):
    layout = layout_of(example(*dims))
    assert (layout.packing, layout.ragged) == (packing, ragged)
    assert layout.key == "traces/t/v"
    assert layout.dtype == "float32"
    assert layout.origin == {"of": "a test"}


def test_labels_stay_and_a_prompt_s_name_does_not():
    array = example("layer", "pos", "neuron", layer=[4, 9], neuron=[2, 3, 5, 7, 11])
    layout = layout_of(array.assign_coords(prompt="a hash", pos=[0, 1, 2]))
    assert layout.layers == (4, 9)
    assert layout.labels == {"neuron": [2, 3, 5, 7, 11]}


@pytest.mark.parametrize("triangles", [(), ("v",)])
def test_values_come_back(path, triangles):
    sizes = (3, 5, 2)
    values = [np.tril(RNG.standard_normal((2, 3, n, n)).astype(np.float32)) for n in sizes]
    array = xr.DataArray(values[0], dims=("layer", "head", "query", "key"))
    layout = layout_of(array, triangles=triangles)
    assert layout.packing == ("triangle" if triangles else "rectangle")
    blocks = {layout.key: block_of(layout, [fitted(layout, one) for one in values])}
    with StoreWriter(path, None, [layout], traces={"t": {}}) as writer:
        writer.commit_computed([0, 1, 2], blocks)
    reader = StoreReader(path)
    stored = reader.trace_array("t", "v")
    for row, expected in enumerate(values):
        np.testing.assert_array_equal(stored.read(row), expected)
    reader.close()


def test_labelled_arrays_come_in_any_order_of_dims():
    array = example("layer", "pos", "neuron")
    layout = layout_of(array)
    other = fitted(layout, array.transpose("neuron", "pos", "layer"))
    assert other.sizes == (3, 1)
    np.testing.assert_array_equal(other.data, array.values)


def test_nothing_is_copied_that_lies_right():
    array = example("layer", "head", "query", "key").values
    layout = layout_of(example("layer", "head", "query", "key"))
    assert np.shares_memory(fitted(layout, array).data, array)


def test_other_numbers(path):
    array = example("layer", "head", "query")
    layout = layout_of(array)
    assert fitted(layout, array.astype(np.float64)).data.dtype == np.float32
    wrong = block_of(layout, [fitted(layout, array.values.astype(np.complex64))])
    with (
        StoreWriter(path, None, [layout]) as writer,
        pytest.raises(DimensionError, match=r"expected float32 .*, got complex64"),
    ):
        writer.commit_computed([0], {layout.key: wrong})


def test_names_that_cannot_be():
    with pytest.raises(ResultMismatchError, match="under the name 'a/b'"):
        trace_layouts("a/b", {"v": example("pos")}, {})
    with pytest.raises(ResultMismatchError, match="under the name ''"):
        trace_layouts("t", {"": example("pos")}, {})


def test_what_is_particular_to_a_prompt_is_json():
    values = spec_values({"trace": None, "objective": {"target": [" é"]}})
    assert (values.dims, values.dtype) == (("byte",), np.uint8)
    assert json.loads(values.values.tobytes())["objective"] == {"target": [" é"]}
    layout = layout_of(values)
    assert (layout.packing, layout.ragged) == ("line", ("byte",))


def test_what_is_pending(path):
    examples = {"v": example("layer", "head", "query"), SPEC: spec_values({})}
    layouts = trace_layouts("t", examples, {})
    reader = StoreReader(path)
    assert pending(reader, "t", [*examples], [2, 0]) == [2, 0]
    reader.close()
    with StoreWriter(path, None, layouts, traces={"t": {}}) as writer:
        each = zip(layouts, examples.values(), strict=True)
        done = {one.key: block_of(one, [fitted(one, value)]) for one, value in each}
        writer.commit_computed([2], done)
        writer.commit_computed([0], {layouts[0].key: done[layouts[0].key]})
        writer.reader.refresh()
        assert pending(writer.reader, "t", [*examples], [2, 0, 1]) == [0, 1]
        assert pending(writer.reader, "t", ["v"], [2, 0, 1]) == [1]
        assert pending(writer.reader, "t", ["v", "later"], [2]) == [2]
