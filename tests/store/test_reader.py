"""Parts of what is stored, chosen before they are read."""

import kill_writer
import numpy as np
import pytest
from kill_writer import PATTERN, n_ctx

from pattern_lens.errors import DamagedFileError, UnknownActivationError
from pattern_lens.store.chunks import Selection
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.writer import StoreWriter


@pytest.fixture
def reader(written):
    return StoreReader(written)


def dense(i: int) -> np.ndarray:
    n = n_ctx(i)
    out = np.zeros((2, 3, n, n), np.float32)
    rows, columns = np.tril_indices(n)
    out[..., rows, columns] = kill_writer.stored(PATTERN, i)
    return out


def row_of(reader, i: int) -> int:
    row = reader.array("pattern").row_of(reader.prompts.position(kill_writer.name_of(i)))
    assert row is not None
    return row


@pytest.mark.parametrize("layers", [[0], [1], [1, 0], [0, 1, 1]])
@pytest.mark.parametrize("heads", [slice(None), slice(1, 2), np.array([2, 0])], ids=str)
def test_layers_heads_and_queries(reader, layers, heads):
    array, row = reader.array("pattern"), row_of(reader, 8)
    got = array.read(row, Selection(layers, (heads,)), 2, 11)
    assert np.array_equal(got, dense(8)[layers][:, heads, 2:11])


def test_no_queries(reader):
    assert reader.array("pattern").read(row_of(reader, 3), first=4, last=4).shape == (
        2,
        3,
        0,
        n_ctx(3),
    )


def test_shapes(reader):
    array, row = reader.array("pattern"), row_of(reader, 7)
    n = n_ctx(7)
    assert array.shape(row) == (2, 3, n, n)
    assert array.sizes(row) == (n, n)
    start, stop = array.span(row)
    assert stop - start == n * (n + 1) // 2
    assert array.stored_bytes() > 10_000


def test_a_prompt_without_this_activation(reader):
    assert reader.array("pattern").row_of(99) is None


def test_unknown_activation(reader):
    with pytest.raises(
        UnknownActivationError,
        match=r"no activation 'z' in .*: it holds pattern, resid_post; capture it with names=\('z',\)",
    ):
        reader.array("z")
    with pytest.raises(KeyError, match="no activation 'z'"):
        reader.array("z")


def test_tokens(reader):
    position = reader.prompts.position(kill_writer.name_of(0))
    assert reader.tokens(position)[:3] == ["a", " b", "<2>"]
    assert reader.tokens(position, "token")[:2] == ["a", "b"]


def test_root_and_model(reader):
    assert reader.root["format"] == "pattern_lens"
    assert reader.root["file_id"] == reader.handle.file_id
    assert reader.model == {"name": "killed"}


def test_prompts_stored_since_the_table_was_read_are_not_shown(written, reader):
    assert len(reader.prompts) == 11
    with kill_writer.StoreWriter(written, None, [PATTERN]) as writer:
        writer.commit([kill_writer.record(40)], {"pattern": kill_writer.block(PATTERN, [40])})
    assert len(reader.array("pattern")) == 11
    assert len(StoreReader(written).array("pattern")) == 12


def test_a_table_read_while_a_row_is_added_gives_no_values_without_a_prompt(written, monkeypatch):
    """A writer of this process lengthens an index before it fills it: the table may be read in between."""
    seen = []

    def append(dataset, values):
        first = len(dataset)
        dataset.resize(first + len(values), axis=0)
        if dataset.name == "/prompts/index":
            seen.append(StoreReader(written))
            assert len(seen[0].prompts) == 11
        dataset[first:] = values

    monkeypatch.setattr("pattern_lens.store.writer.append", append)
    with StoreWriter(written, kill_writer.HEADER, [PATTERN]) as writer:
        writer.commit([kill_writer.record(20)], {"pattern": kill_writer.block(PATTERN, [20])})
    assert len(seen[0].array("pattern")) == 11
    assert len(StoreReader(written).array("pattern")) == 12


def test_refresh_shows_what_came_since(written, reader):
    assert len(reader.prompts) == 11
    with kill_writer.StoreWriter(written, None, [PATTERN]) as writer:
        writer.commit([kill_writer.record(40)], {"pattern": kill_writer.block(PATTERN, [40])})
    assert len(reader.prompts) == 11
    reader.refresh()
    assert len(reader.prompts) == 12
    assert np.array_equal(reader.array("pattern").read(row_of(reader, 40)), dense(40))


def test_a_damaged_chunk_names_file_and_dataset(written, reader):
    array, row = reader.array("pattern"), row_of(reader, 3)
    with reader.handle.open() as file:
        data = file["activations/pattern/data"]
        at = array.span(row)[0] // data.chunks[2] * data.chunks[2]
        _, packed = data.id.read_direct_chunk((1, 0, at))
    raw = bytearray(written.read_bytes())
    raw[raw.find(packed) + 4] ^= 1  # found by its bytes: HDF5 2.0 gives a wrong place for it
    written.write_bytes(raw)
    reader.refresh()
    array = reader.array("pattern")
    with pytest.raises(
        DamagedFileError,
        match=r"cannot read 'pattern' of prompt row 3: the chunk at \(1, 0, \d+\) is damaged",
    ) as caught:
        array.read(row)
    assert f"file {written}, dataset /activations/pattern/data" in caught.value.__notes__
    assert not array.is_intact(row)
    assert np.array_equal(array.read(row, Selection([0], (slice(None),))), dense(3)[:1])
