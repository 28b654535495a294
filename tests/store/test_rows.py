"""Index rows: what is sealed is valid, and nothing else."""

import kill_writer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pattern_lens.store.rows import (
    ARRAY_ROW,
    PROMPT_ROW,
    is_blank,
    is_valid,
    newest,
    read_rows,
    seal,
    seals,
)
from pattern_lens.store.writer import StoreWriter


def oracle(words: list[int]) -> int:
    """docs/format.md, "Seals", word for word."""
    h = 0x9E3779B97F4A7C15
    for word in words:
        h = ((h ^ word) * 0xD6E8FEB86659FD93) % 2**64
        h ^= h >> 32
    return h


def rows_of(dtype: np.dtype, n: int) -> np.ndarray:
    raw = np.random.default_rng(3).integers(0, 256, n * dtype.itemsize, np.uint8)
    return np.frombuffer(raw.tobytes(), dtype)


@pytest.mark.parametrize("dtype", [PROMPT_ROW, ARRAY_ROW], ids=["prompt", "array"])
def test_seal_is_what_the_format_says(dtype):
    rows = rows_of(dtype, 5)
    words = rows.view("<u8").reshape(5, -1)[:, :-1].tolist()
    assert seals(rows).tolist() == [oracle(w) for w in words]


def test_sizes_are_what_the_format_says():
    assert (PROMPT_ROW.itemsize, ARRAY_ROW.itemsize) == (64, 40)


def test_seal_of_known_row():
    assert int(seals(np.zeros(1, ARRAY_ROW))[0]) == oracle([0, 0, 0, 0]) != 0


def test_blocks_of_many_rows_are_sealed_alike():
    rows = rows_of(ARRAY_ROW, 8192 + 3)
    assert seals(rows)[8190:].tolist() == seals(rows[8190:]).tolist()


def test_blank_and_torn_rows_are_not_valid():
    rows = seal(rows_of(PROMPT_ROW, 3))
    torn = rows.copy()
    torn.view("u1").reshape(3, -1)[1, 40:] = 0
    torn[2] = np.zeros((), PROMPT_ROW)
    assert is_valid(rows).tolist() == [True, True, True]
    assert is_valid(torn).tolist() == [True, False, False]
    assert is_blank(torn).tolist() == [False, False, True]


@pytest.mark.parametrize("dtype", [PROMPT_ROW, ARRAY_ROW], ids=["prompt", "array"])
def test_every_flipped_bit_breaks_the_seal(dtype):
    row = seal(rows_of(dtype, 1))
    flipped = np.repeat(row, dtype.itemsize * 8)
    raw = flipped.view("u1").reshape(len(flipped), -1)
    for bit in range(len(flipped)):
        raw[bit, bit // 8] ^= 1 << bit % 8
    assert not is_valid(flipped).any()


def test_no_rows():
    none = np.zeros(0, ARRAY_ROW)
    assert len(seals(none)) == len(is_valid(none)) == len(is_blank(none)) == 0


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=30))
def test_newest_is_the_last_valid_row_of_each_prompt_by_prompt(given_rows):
    rows = np.zeros(len(given_rows), ARRAY_ROW)
    rows["prompt"] = [prompt for prompt, _ in given_rows]
    rows["start"] = range(len(rows))
    rows = seal(rows)
    rows["seal"] ^= np.array([not whole for _, whole in given_rows], np.uint64)
    last = {prompt: at for at, (prompt, whole) in enumerate(given_rows) if whole}
    found = newest(rows)
    assert dict(zip(found["prompt"].tolist(), found["start"].tolist(), strict=True)) == last
    assert found["prompt"].tolist() == sorted(last)


def test_a_row_that_names_an_absurd_prompt_costs_no_memory():
    rows = np.zeros(3, ARRAY_ROW)
    rows["prompt"], rows["start"] = [2**63, 1, 1], [7, 8, 9]
    assert newest(seal(rows))[["prompt", "start"]].tolist() == [(1, 9), (2**63, 7)]


def test_rows_that_come_while_others_are_read(written, monkeypatch):
    """HDF5 reads what there is at that moment, into an array made for what there was before."""
    with StoreWriter(written, None) as writer:
        file = writer.reader.handle
        before = file.read(lambda file: read_rows(file, "prompts/index", PROMPT_ROW))
        beyond = np.zeros(len(before) + 5, PROMPT_ROW)

        def empty_meanwhile(shape, dtype):
            monkeypatch.undo()
            assert (shape, dtype) == ((len(before),), PROMPT_ROW)
            writer.commit([kill_writer.record(i) for i in (50, 51)], {})
            return beyond[: shape[0]]

        monkeypatch.setattr("pattern_lens.store.rows.np.empty", empty_meanwhile)
        found = file.read(lambda file: read_rows(file, "prompts/index", PROMPT_ROW))
    np.testing.assert_array_equal(found, before)
    assert not beyond[len(before) :].view("u1").any()
