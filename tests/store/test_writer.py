"""What is committed is stored, once, and nothing else is."""

from types import SimpleNamespace

import kill_writer
import numpy as np
import pytest
from kill_writer import HEADER, PATTERN, RESID, block, name_of, record

from pattern_lens.errors import (
    DimensionError,
    DiskFullError,
    ModelMismatchError,
    PromptError,
    StoreError,
    UnknownActivationError,
    WriterActiveError,
)
from pattern_lens.store.block import Block, dense_bytes
from pattern_lens.store.header import Header
from pattern_lens.store.layout import ArrayLayout
from pattern_lens.store.prompt_table import PromptRecord
from pattern_lens.store.reader import StoreReader, hashes_of
from pattern_lens.store.superblock import read_superblock
from pattern_lens.store.writer import StoreWriter


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.h5"


def store(path, prompts, layout=PATTERN):
    with StoreWriter(path, HEADER, [layout]) as writer:
        writer.commit([record(i) for i in prompts], {layout.name: block(layout, prompts)})


def stored(path, name="pattern"):
    reader = StoreReader(path)
    array = reader.array(name)
    assert all(array.is_intact(row) for row in range(len(array)))
    return hashes_of(reader, array)


def test_append_over_sessions(path):
    store(path, [3, 1])
    store(path, [2])
    assert stored(path) == [name_of(i) for i in (3, 1, 2)]
    assert kill_writer.faults(path) == []


def test_a_reader_sees_a_commit_when_it_returns(path):
    with StoreWriter(path, HEADER, [PATTERN]) as writer:
        for i in (4, 2):
            writer.commit([record(i)], {"pattern": block(PATTERN, [i])})
            assert stored(path)[-1] == name_of(i)


def test_another_activation_for_prompts_that_are_there_and_new_ones(path):
    store(path, [0, 1, 2])
    store(path, [2, 5, 0], RESID)
    assert stored(path, "resid_post") == [name_of(i) for i in (0, 2, 5)]  # by prompt
    reader = StoreReader(path)
    assert len(reader.prompts) == 4
    assert reader.names() == ["pattern", "resid_post"]
    assert reader.array("pattern").row_of(reader.prompts.position(name_of(5))) is None
    assert kill_writer.faults(path) == []


def test_the_newer_row_of_a_prompt_wins(path):
    store(path, [0, 1])
    newer = block(PATTERN, [0])
    with StoreWriter(path, HEADER, [PATTERN]) as writer:
        writer.commit([record(0)], {"pattern": Block(newer.sizes, newer.data + 1)})
    assert stored(path) == [name_of(0), name_of(1)]
    array = StoreReader(path).array("pattern")
    row = array.row_of(0)
    assert row is not None
    rows, columns = np.tril_indices(kill_writer.n_ctx(0))
    assert np.array_equal(array.read(row)[..., rows, columns], newer.data + 1)


def test_delete(path):
    store(path, [0, 1, 2])
    store(path, [0, 1], RESID)
    with StoreWriter(path, None, [PATTERN]) as writer:
        writer.delete([1])
        assert writer.position(name_of(1)) is None
        writer.commit([record(1)], {"pattern": block(PATTERN, [1])})
    assert stored(path) == [name_of(i) for i in (0, 2, 1)]
    assert stored(path, "resid_post") == [name_of(0)]
    reader = StoreReader(path)
    assert reader.prompts.position(name_of(1)) == 3  # no position is used again
    assert kill_writer.faults(path) == []


def test_prompts_without_values(path):
    with StoreWriter(path, HEADER) as writer:
        writer.commit([record(2)], {})
        writer.commit([], {})
    assert StoreReader(path).prompts.find(name_of(2)) == 0


def test_a_prompt_twice_in_one_commit(path):
    with (
        StoreWriter(path, HEADER, [PATTERN]) as writer,
        pytest.raises(
            PromptError, match=r"cannot store 'prompt-0001' in .* it comes 2 times in one commit"
        ),
    ):
        writer.commit([record(i) for i in (1, 0, 1)], {"pattern": block(PATTERN, [1, 0, 1])})
    assert stored(path) == []


RIGHT = block(PATTERN, [0, 1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Block(RIGHT.sizes[:1], RIGHT.data), "expected sizes of 2 prompts, got 1"),
        (
            Block([*RIGHT.sizes[:1], (46, 47)], RIGHT.data),
            r"sizes \(46, 47\) do not fit a triangle",
        ),
        (
            Block(RIGHT.sizes, RIGHT.data[..., :-1]),
            r"expected float32 \(2, 3, 1126\), got float32 \(2, 3, 1125\)",
        ),
        (Block(RIGHT.sizes, RIGHT.data.astype("f8")), "expected float32 .* got float64"),
        (Block(RIGHT.sizes, RIGHT.data[:1]), r"got float32 \(1, 3, 1126\)"),
    ],
)
def test_values_that_do_not_fit(path, wrong, message):
    with StoreWriter(path, HEADER, [PATTERN]) as writer:
        with pytest.raises(DimensionError, match=f"cannot store 'pattern': .*{message}"):
            writer.commit([record(0), record(1)], {"pattern": wrong})
        writer.commit([record(0), record(1)], {"pattern": RIGHT})  # the writer goes on
    assert stored(path) == [name_of(0), name_of(1)]
    assert len(StoreReader(path).prompts.rows) == 2


def test_a_line_has_one_size(path):
    wrong = Block([(9, 2)], block(RESID, [0]).data)
    with (
        StoreWriter(path, HEADER, [RESID]) as writer,
        pytest.raises(DimensionError, match="do not fit a line"),
    ):
        writer.commit([record(0)], {"resid_post": wrong})


def test_an_activation_that_was_not_announced(path):
    with (
        StoreWriter(path, HEADER, [PATTERN]) as writer,
        pytest.raises(
            UnknownActivationError,
            match=r"cannot store 'resid_post' in .*: this writer was opened for pattern",
        ),
    ):
        writer.commit([record(0)], {"resid_post": block(RESID, [0])})


def test_metadata_that_json_cannot_hold_stores_nothing(path):
    with StoreWriter(path, HEADER, [PATTERN]) as writer:
        bad = PromptRecord("bad", "text", np.arange(3, dtype=np.int32), {"x": {1, 2}})
        with pytest.raises(TypeError, match="not JSON serializable"):
            writer.commit([bad], {})
        writer.commit([record(0)], {"pattern": block(PATTERN, [0])})
    assert stored(path) == [name_of(0)]


def test_another_model(path):
    store(path, [0])
    with pytest.raises(
        ModelMismatchError,
        match=r"captured from model 'killed', and this is 'other' .weights_hash None in the file, 'w' now",
    ):
        StoreWriter(path, Header({"name": "other", "weights_hash": "w"}), [PATTERN])
    store(path, [1])  # the lock is free


def test_another_layout(path):
    store(path, [0])
    with pytest.raises(
        ModelMismatchError,
        match=r"cannot add 'pattern' to .*stored with dtype 'float32', and this gives 'float16'",
    ):
        StoreWriter(
            path,
            HEADER,
            [ArrayLayout(PATTERN.name, PATTERN.dims, PATTERN.sizes, "triangle", "float16")],
        )


def test_no_file_and_no_header(path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        StoreWriter(path, None)
    assert not path.exists()


def test_second_writer(path):
    with StoreWriter(path, HEADER, [PATTERN]) as writer:
        with pytest.raises(WriterActiveError, match="is writing to it"):
            StoreWriter(path, HEADER, [PATTERN])
        writer.commit([record(0)], {"pattern": block(PATTERN, [0])})
    assert stored(path) == [name_of(0)]


def test_a_closed_writer_says_so(path):
    writer = StoreWriter(path, HEADER, [PATTERN])
    writer.close()
    writer.close()
    with pytest.raises(StoreError, match="it was closed; open it again"):
        writer.commit([record(0)], {"pattern": block(PATTERN, [0])})
    with pytest.raises(StoreError, match="it was closed"):
        writer.delete([0])


def test_an_error_within_a_commit_ends_the_writer_as_a_crash_would(path, monkeypatch):
    store(path, [0])
    with monkeypatch.context() as patch, StoreWriter(path, HEADER, [PATTERN]) as writer:
        patch.setattr("pattern_lens.store.writer.array_rows", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            writer.commit([record(1)], {"pattern": block(PATTERN, [1])})
        assert stored(path) == [name_of(0)]
        with pytest.raises(StoreError, match="an earlier error ended this writer; open it again"):
            writer.commit([record(2)], {"pattern": block(PATTERN, [2])})
        with pytest.raises(WriterActiveError, match="is writing to it"):
            StoreWriter(path, HEADER)  # until it is closed
    block_ = read_superblock(path)
    assert block_ is not None
    assert block_.is_clean
    store(path, [1, 2])
    assert stored(path) == [name_of(i) for i in (0, 1, 2)]
    assert kill_writer.faults(path) == []


def test_too_little_space_is_said_before_anything_is_written(path, monkeypatch):
    with StoreWriter(path, HEADER, [PATTERN]) as writer:
        size = path.stat().st_size
        with monkeypatch.context() as patch:
            patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_234_567))
            with pytest.raises(
                DiskFullError,
                match=r"bytes more in .*file.h5: 1,234,567 are free on its disk; everything stored before is safe",
            ):
                writer.commit([record(0)], {"pattern": block(PATTERN, [0])})
        assert path.stat().st_size == size
        writer.commit([record(0)], {"pattern": block(PATTERN, [0])})
    assert stored(path) == [name_of(0)]


def test_a_journal_of_a_removed_file_is_not_applied_to_its_successor(path):
    store(path, [0])
    (path.parent / ".file.h5.journal").write_bytes(b"PLJRNL01 of the old file")
    path.unlink()
    store(path, [1])
    assert stored(path) == [name_of(1)]
    assert sorted(p.name for p in path.parent.iterdir()) == [".file.h5.lock", "file.h5"]


def test_what_a_killed_creation_left_is_written_over(path):
    (path.parent / ".file.h5.new").write_bytes(b"half a file")
    store(path, [1])
    assert not (path.parent / ".file.h5.new").exists()


def test_dense_bytes():
    assert dense_bytes(PATTERN, [(3, 3), (5, 5)]) == 2 * 3 * (9 + 25) * 4
    assert dense_bytes(RESID, [(3, 1)]) == 2 * 3 * 7 * 2
