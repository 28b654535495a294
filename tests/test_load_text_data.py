"""Rows of prompts by the import path of pattern-lens 0.6."""

import gzip
import json

import pytest

from pattern_lens.errors import PromptError
from pattern_lens.prompts import load_text_data


@pytest.fixture
def write(tmp_path):
    def write(*rows):
        path = tmp_path / "p.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_rows_keep_their_keys(write):
    path = write({"text": "one", "meta": {"a": 1}, "id": 7, "hash": "h"})
    row = {"text": "one", "meta": {"a": 1}, "id": 7, "hash": "h", "source_fname": path.as_posix()}
    assert load_text_data(path) == load_text_data(str(path)) == [row]


def test_limits(write):
    path = write({"text": "abcdefg"}, {"text": "ab"}, {"text": "abc"}, {"text": "abc"})
    texts = [row["text"] for row in load_text_data(path, min_chars=3, max_chars=3)]
    assert texts == ["abc", "def", "abc", "abc"]


def test_pieces_have_no_hash_of_the_whole(write):
    path = write(
        {"text": "abcdef", "hash": "h", "tokens": ["x"], "n_tokens": 1, "meta": 0} | {"meta": {}}
    )
    assert [set(row) for row in load_text_data(path, max_chars=3)] == [
        {"text", "meta", "source_fname"}
    ] * 2


def test_shuffled_the_same_every_time(write):
    path = write(*({"text": str(i)} for i in range(20)))
    first = load_text_data(path, shuffle=True)
    assert first == load_text_data(path, shuffle=True) != load_text_data(path)
    assert sorted(row["text"] for row in first) == sorted(map(str, range(20)))


def test_other_files(tmp_path):
    (tmp_path / "p.txt").write_text("one\n\ntwo\n")
    assert [row["text"] for row in load_text_data(tmp_path / "p.txt")] == ["one", "two"]
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(b'{"text": "\xc3\xa9"}\n\n'))
    assert [row["text"] for row in load_text_data(tmp_path / "p.jsonl.gz")] == ["é"]


def test_bad_rows_and_options(write, tmp_path):
    path = write({"text": "a"}, {"no": "text"})
    with pytest.raises(PromptError, match=r"p\.jsonl:2: no text"):
        load_text_data(path)
    with pytest.raises(PromptError, match="max_chars is 0"):
        load_text_data(path, max_chars=0)
    with pytest.raises(PromptError, match="no file of prompts at"):
        load_text_data(tmp_path / "gone.jsonl")
