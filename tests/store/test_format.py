"""docs/format.md is enough to read a file: plain h5py, and nothing of this package, reads it back here."""

import base64
import hashlib
import json

import h5py
import hdf5plugin  # noqa: F401 - the Blosc filter
import numpy as np
import pytest
import xxhash

from pattern_lens.store.header import Header
from pattern_lens.store.layout import ArrayLayout
from pattern_lens.store.prompt_table import PromptRecord
from pattern_lens.store.writer import Block, StoreWriter

LAYOUTS = {
    "pattern": (("layer", "head", "query", "key"), {"layer": 2, "head": 3}, "triangle", "float16"),
    "cross": (("layer", "head", "query", "key"), {"layer": 2, "head": 4}, "rectangle", "float32"),
    "resid_post": (("layer", "pos", "d_model"), {"layer": 2, "d_model": 5}, "line", "bfloat16"),
    "z": (
        ("layer", "pos", "head", "d_head"),
        {"layer": 2, "head": 3, "d_head": 2},
        "line",
        "float64",
    ),
    "embed": (("pos", "d_model"), {"d_model": 5}, "line", "float32"),
    "scale": (("layer", "pos"), {"layer": 2}, "line", "float32"),
}
TEXTS = ["one", "zwei: drei", "", "four four four four", "fünf"]
N_CTX = [3, 70, 1, 95, 8]
COMMITS = [[0, 1], [2], [3, 4]]


def dense(name: str, i: int) -> np.ndarray:
    """Values of one prompt; of `cross`, three keys more than queries; bfloat16 as float32."""
    dims, sizes, packing, dtype = LAYOUTS[name]
    ragged = {"query": N_CTX[i], "key": N_CTX[i] + 3 * (packing == "rectangle"), "pos": N_CTX[i]}
    shape = tuple(sizes.get(dim) or ragged[dim] for dim in dims)
    values = np.random.default_rng([i, len(name)]).random(shape)
    if packing == "triangle":
        values = np.tril(values)
    if dtype == "bfloat16":
        bits = values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
        return bits.view(np.float32)
    return values.astype(dtype)


def block(layout: ArrayLayout, prompts: list[int]) -> Block:
    sizes, parts = [], []
    for i in prompts:
        values = dense(layout.name, i)
        if layout.dtype == "bfloat16":
            values = (values.view(np.uint32) >> 16).astype(np.uint16)
        n, m = (
            values.shape[layout.axis],
            values.shape[layout.axis + 1] if values.ndim > layout.axis + 1 else 1,
        )
        if layout.packing == "triangle":
            rows, columns = np.tril_indices(n)
            values = values[..., rows, columns]
        elif layout.packing == "rectangle":
            values = values.reshape(*values.shape[: layout.axis], n * m)
        sizes.append((n, 1 if layout.packing == "line" else m))
        parts.append(values)
    return Block(sizes, np.concatenate(parts, axis=layout.axis))


def hash_of(i: int) -> str:
    digest = hashlib.md5(TEXTS[i].encode(), usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def ids(i: int) -> np.ndarray:
    return (np.arange(N_CTX[i]) * 3 + i).astype(np.int32)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    target = tmp_path_factory.mktemp("format") / "file.h5"
    layouts = [
        ArrayLayout(name, dims, sizes, packing, dtype, (3, 1) if "layer" in sizes else ())
        for name, (dims, sizes, packing, dtype) in LAYOUTS.items()
    ]
    header = Header({"name": "tiny", "n_layers": 4}, {"token": ["Ġa"], "text": [" a"]})
    with StoreWriter(target, header, layouts) as writer:
        for prompts in COMMITS:
            records = [
                PromptRecord(hash_of(i), TEXTS[i], ids(i), {"i": i} if i % 2 else {})
                for i in prompts
            ]
            writer.commit(records, {layout.name: block(layout, prompts) for layout in layouts})
    return target


@pytest.fixture
def file(path):
    with h5py.File(path, "r", swmr=True, locking=False) as opened:
        yield opened


# --- what a reader of the page would write ------------------------------------------------------


def text(value) -> str:
    return value.decode() if isinstance(value, bytes) else value


def seal_of(row: np.void) -> int:
    words = np.frombuffer(row.tobytes(), "<u8")[:-1].tolist()
    h = 0x9E3779B97F4A7C15
    for word in words:
        h = ((h ^ word) * 0xD6E8FEB86659FD93) % 2**64
        h ^= h >> 32
    return h


def read_prompt(file: h5py.File, row: np.void) -> tuple[str, str, dict, np.ndarray]:
    prompts = file["prompts"]
    raw_hash = prompts["hash"][int(row["hash_start"]) :][: row["hash_size"]].tobytes()
    start, size = int(row["text_start"]), int(row["text_size"])
    raw_text = prompts["text"][start : start + size].tobytes()
    raw_meta = prompts["text"][start + size :][: row["meta_size"]].tobytes()
    start = int(row["token_start"])
    tokens = prompts["token_id"][start : start + int(row["n_ctx"])]
    assert int(row["key"]) == xxhash.xxh3_64_intdigest(raw_hash)
    assert int(row["checksum"]) == xxhash.xxh32_intdigest(
        raw_hash + raw_text + raw_meta + tokens.tobytes()
    )
    return raw_hash.decode(), raw_text.decode(), json.loads(raw_meta or "{}"), tokens


def read_array(group: h5py.Group, row: np.void) -> np.ndarray:
    spec = json.loads(text(group.attrs["spec"]))
    ragged = [dim for dim in spec["dims"] if dim not in spec["sizes"]]
    axis = spec["dims"].index(ragged[0])
    size0, size1, start = int(row["size0"]), int(row["size1"]), int(row["start"])
    length = size0 * (size0 + 1) // 2 if spec["layout"] == "triangle" else size0 * size1
    flat = group["data"][(*[slice(None)] * axis, slice(start, start + length))]
    slabs = flat if spec["dims"][0] == "layer" else [flat]
    sums = [xxhash.xxh3_64_intdigest(np.ascontiguousarray(slab)) for slab in slabs]
    assert int(row["checksum"]) == xxhash.xxh3_64_intdigest(np.array(sums, "<u8").tobytes())
    if spec["dtype"] == "bfloat16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    if spec["layout"] == "line":
        return flat
    if spec["layout"] == "rectangle":
        return flat.reshape(*flat.shape[:axis], size0, size1)
    out = np.full((*flat.shape[:axis], size0, size0), float(spec["fill_value"]), flat.dtype)
    for q in range(size0):
        for k in range(q + 1):
            out[..., q, k] = flat[..., q * (q + 1) // 2 + k]
    return out


# --- and what it gives ---------------------------------------------------------------------------


def test_root_attributes_and_model(file):
    assert text(file.attrs["format"]) == "pattern_lens"
    assert text(file.attrs["format_version"]) == "1.0"
    assert {"file_id", "created_utc", "created_by"} <= set(file.attrs)
    assert json.loads(text(file["model"].attrs["json"])) == {"name": "tiny", "n_layers": 4}
    assert json.loads(file["tokenizer/vocab"][:].tobytes()) == {"token": ["Ġa"], "text": [" a"]}


def test_prompts(file):
    rows = file["prompts/index"][:]
    assert rows.dtype.itemsize == 64
    assert [int(row["seal"]) for row in rows] == [seal_of(row) for row in rows]
    for i, row in enumerate(rows):
        prompt_hash, prompt, meta, tokens = read_prompt(file, row)
        assert (prompt_hash, prompt, meta) == (hash_of(i), TEXTS[i], {"i": i} if i % 2 else {})
        assert tokens.dtype == np.dtype("<i4")
        assert tokens.tolist() == ids(i).tolist()


@pytest.mark.parametrize("name", LAYOUTS)
def test_values_seals_and_checksums(file, name):
    group = file["activations"][name]
    assert (text(group.attrs["kind"]), int(group.attrs["version"])) == ("activation", 1)
    rows = group["index"][:]
    assert rows.dtype.itemsize == 40
    assert rows["prompt"].tolist() == [0, 1, 2, 3, 4]
    assert [int(row["seal"]) for row in rows] == [seal_of(row) for row in rows]
    for i, row in enumerate(rows):
        got = read_array(group, row)
        assert got.shape == dense(name, i).shape
        assert np.array_equal(got, dense(name, i))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_commit_starts_on_a_chunk_boundary(file, name):
    group = file["activations"][name]
    spec = json.loads(text(group.attrs["spec"]))
    axis = next(i for i, dim in enumerate(spec["dims"]) if dim not in spec["sizes"])
    starts = group["index"][:]["start"]
    assert all(int(starts[prompts[0]]) % group["data"].chunks[axis] == 0 for prompts in COMMITS)
    assert "32001" in group["data"]._filters


def test_superblock_is_version_3(path):
    assert path.read_bytes()[8] == 3
