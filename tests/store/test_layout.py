"""How an activation lies in the file."""

import json
import math

import numpy as np
import pytest

from pattern_lens.store.layout import ArrayLayout

PATTERN = ArrayLayout(
    "pattern",
    ("layer", "head", "query", "key"),
    {"layer": 2, "head": 3},
    "triangle",
    "float16",
    (1, 5),
    ("a", "b"),
    fill_value=float("-inf"),
    units="probability",
    origin={"from": "test"},
)
CROSS = ArrayLayout(
    "cross",
    ("layer", "head", "query", "key"),
    {"layer": 4, "head": 2},
    "rectangle",
    "float32",
    (0, 1, 2, 3),
)
Z = ArrayLayout(
    "z",
    ("layer", "pos", "head", "d_head"),
    {"layer": 2, "head": 3, "d_head": 5},
    "line",
    "bfloat16",
    (0, 1),
)
EMBED = ArrayLayout("embed", ("pos", "d_model"), {"d_model": 6}, "line", "float32")


@pytest.mark.parametrize("layout", [PATTERN, CROSS, Z, EMBED], ids=lambda layout: layout.name)
def test_json_gives_the_layout_back(layout):
    assert ArrayLayout.from_json(layout.to_json()) == layout
    json.loads(layout.to_json(), parse_constant=pytest.fail)  # no Infinity: not JSON


@pytest.mark.parametrize(
    ("layout", "stored", "shape", "length", "axis"),
    [
        (PATTERN, (2, 3, 10), (2, 3, 4, 4), 10, 2),
        (CROSS, (4, 2, 28), (4, 2, 4, 7), 28, 2),
        (Z, (2, 4, 3, 5), (2, 4, 3, 5), 4, 1),
        (EMBED, (4, 6), (4, 6), 4, 0),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_shapes(layout, stored, shape, length, axis):
    size1 = {"triangle": 4, "rectangle": 7, "line": 1}[layout.packing]
    assert layout.length(4, size1) == length
    assert layout.shape(4, size1) == shape
    assert layout.stored_shape(length) == stored
    assert layout.axis == axis


@pytest.mark.parametrize(
    ("layout", "n"),
    [(PATTERN, 2), (CROSS, 4), (Z, 2), (EMBED, 1)],
    ids=["pattern", "cross", "z", "embed"],
)
def test_a_chunk_is_one_layer_and_a_power_of_two_long(layout, n):
    assert layout.n_layers == n
    chunks = layout.chunks
    assert chunks[layout.axis] == layout.chunk_length
    assert math.log2(layout.chunk_length).is_integer()
    assert math.prod(chunks) * layout.stored_dtype.itemsize <= 256 * 1024
    if layout.has_layers:
        assert chunks[0] == 1


def test_a_chunk_is_never_shorter_than_sixteen():
    wide = ArrayLayout("wide", ("pos", "neuron"), {"neuron": 300_000}, "line", "float32")
    assert wide.chunk_length == 16


def test_bfloat16_is_stored_as_16_bits_and_read_as_float32():
    assert (Z.stored_dtype, Z.value_dtype) == (np.dtype("<u2"), np.dtype("<f4"))
    assert (PATTERN.stored_dtype, PATTERN.value_dtype) == (np.dtype("f2"), np.dtype("f2"))
