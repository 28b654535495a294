"""Prompts: found by hash, given back as they were stored."""

import kill_writer
import numpy as np
import pytest

from pattern_lens.errors import DamagedFileError, UnknownPromptError
from pattern_lens.store.prompt_table import PromptRecord, hash_key, record_checksum
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.rows import seal
from pattern_lens.store.writer import StoreWriter

RECORDS = [
    PromptRecord(
        "C7p4x9-iwFxWSKCb8kbLfQ", "plain", np.array([5, 1, 9], np.int32), {"n": 1}, truncated=True
    ),
    PromptRecord("ünï", "Köln: 東京 🙂", np.array([2], np.int32), bos=True),
    PromptRecord("empty", "", np.zeros(0, np.int32), {"deep": {"x": [1, None]}}),
    PromptRecord("C7p4x9-iwFxWSKCb8kbLfR", "like the first", np.arange(40, dtype=np.int32)),
]


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "prompts.h5"
    with StoreWriter(target, kill_writer.HEADER) as writer:
        writer.commit(RECORDS[:1], {})
        writer.commit(RECORDS[1:], {})
    return target


@pytest.fixture
def table(path):
    return StoreReader(path).prompts


def test_everything_comes_back(table):
    order = [2, 0, 3, 1]
    chosen = [RECORDS[i] for i in order]
    assert table.hashes(order) == [r.hash for r in chosen]
    assert table.texts(order) == [r.text for r in chosen]
    assert table.metas(order) == [dict(r.meta) for r in chosen]
    assert table.n_ctx(order).tolist() == [0, 3, 40, 1]
    assert table.truncated(order).tolist() == [False, True, False, False]
    assert table.bos(order).tolist() == [False, False, False, True]
    for i, record in zip(order, chosen, strict=True):
        assert table.token_ids(i).tolist() == record.token_ids.tolist()


def test_found_by_hash(table):
    assert [table.find(r.hash) for r in RECORDS] == [0, 1, 2, 3]
    assert table.find("nothing") is None
    assert table.position("empty") == 2


def test_hashes_with_one_key_are_told_apart(path, table):
    rows = table.rows.copy()
    rows["key"] = hash_key("empty")
    table.rows = seal(rows)
    assert [table.find(r.hash) for r in RECORDS] == [None, None, 2, None]


def test_unknown_hash_names_the_nearest(table):
    with pytest.raises(
        UnknownPromptError,
        match=r"no prompt 'C7p4x9-iwFxWSKCb8kbLfX' in .*\(4 prompts\); nearest: C7p4x9-iwFx.*`.prompts` lists them",
    ):
        table.position("C7p4x9-iwFxWSKCb8kbLfX")
    with pytest.raises(KeyError, match="no prompt 17 in"):
        table.position(17)


def test_nothing_of_no_prompts(table):
    assert table.hashes([]) == table.texts([]) == table.metas([]) == []


def test_checksums_are_those_of_the_rows(table):
    assert table.checksums(table.positions) == table.rows["checksum"].tolist()
    assert table.checksums([1]) == [record_checksum(RECORDS[1].encoded())]


@pytest.mark.parametrize(
    ("field", "read", "message"),
    [
        (
            "hash_size",
            lambda t: t.hashes([0]),
            "/prompts/hash has 54 elements, a row names 1000000",
        ),
        ("text_size", lambda t: t.texts([0]), "/prompts/text has .* elements, a row names 1000000"),
        ("meta_size", lambda t: t.metas([0]), "/prompts/text has .* elements, a row names 1000005"),
        (
            "n_ctx",
            lambda t: t.token_ids(0),
            "/prompts/token_id has 44 elements, a row names 1000000",
        ),
    ],
)
def test_rows_that_name_more_than_there_is(table, field, read, message):
    table.rows[field][0] = 1_000_000
    with pytest.raises(DamagedFileError, match=message):
        read(table)


def test_text_that_is_not_utf8(table):
    table.rows["hash_start"][1] += 1
    with pytest.raises(DamagedFileError, match="/prompts/hash is not UTF-8"):
        table.hashes([1])


def test_metadata_that_is_not_json(table):
    table.rows["meta_size"][0] -= 1
    with pytest.raises(DamagedFileError, match="metadata in /prompts/text is not JSON"):
        table.metas([0])
