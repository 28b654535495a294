from __future__ import annotations

import gzip
import json
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pattern_lens.errors import PromptError
from pattern_lens.prompts import Prompt, PromptSet, prompt_hash, read_prompts, split_text

if TYPE_CHECKING:
    from pathlib import Path

WHOLE_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return path


def texts(prompts: PromptSet) -> list[str]:
    return [prompt.text for prompt in prompts]


def test_import_is_light() -> None:
    code = (
        "import sys; import pattern_lens.prompts, pattern_lens.heads; "
        "print(sorted({'numpy', 'h5py', 'torch', 'xarray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestHash:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("test prompt", "C7p4x9-iwFxWSKCb8kbLfQ"),
            ("hello world", "XrY7u-Ae7tCTyyK7j1rNww"),
            ("", "1B2M2Y8AsgTpgAmY7PhCfg"),
        ],
    )
    def test_vectors(self, text: str, expected: str) -> None:
        assert prompt_hash(text) == expected

    @given(WHOLE_TEXT)
    def test_is_22_url_safe_characters(self, text: str) -> None:
        name = prompt_hash(text)
        assert len(name) == 22
        assert name.replace("-", "a").replace("_", "a").isalnum()


class TestPrompt:
    def test_meta_is_a_copy_as_json_gives_it_back(self) -> None:
        given_meta = {"size": (2, 3), "inner": {"a": [1]}}
        prompt = Prompt("abc", hash="h", meta=given_meta)
        given_meta["inner"]["a"].append(2)  # type: ignore[index]
        assert prompt.meta == {"size": [2, 3], "inner": {"a": [1]}}

    def test_is_frozen_hashable_and_survives_pickle(self) -> None:
        prompt = Prompt("abc", hash="h", meta={"a": 1})
        assert pickle.loads(pickle.dumps(prompt)) == prompt  # noqa: S301 -- our own bytes
        assert len({prompt, Prompt("abc", hash="h", meta={"a": 1})}) == 1
        with pytest.raises(FrozenInstanceError):
            prompt.text = "d"  # type: ignore[misc]

    def test_meta_is_empty_by_default(self) -> None:
        assert Prompt("abc", hash="h").meta == {}

    @pytest.mark.parametrize(
        ("text", "name", "meta", "message"),
        [
            (3, "h", {}, "text is of type int, expected a string"),
            ("", "h", {}, "empty text"),
            ("a\ud800", "h", {}, r"text has the lone surrogate U\+D800 at character 1"),
            ("a", "", {}, "empty hash"),
            ("a", None, {}, "hash is of type NoneType, expected a string"),
            ("a", "\udfff", {}, r"hash has the lone surrogate U\+DFFF at character 0"),
            ("a", "h", [1], r"meta is \[1\], expected an object with string keys"),
            ("a", "h", {1: 2}, r"meta is \{1: 2\}, expected an object with string keys"),
            ("a", "h", {"x": {3}}, "meta cannot be written as JSON: Object of type set"),
            ("a", "h", {"x": float("nan")}, "meta cannot be written as JSON: Out of range float"),
            ("a", "h", {"x": "\ud800"}, "meta cannot be written as JSON: .*surrogates not allowed"),
        ],
    )
    def test_refuses(self, text: Any, name: Any, meta: Any, message: str) -> None:
        with pytest.raises(PromptError, match=message):
            Prompt(text, hash=name, meta=meta)


class TestSplit:
    @pytest.mark.parametrize(
        ("text", "limits", "expected"),
        [
            ("abcdef", {}, (("abcdef",), "")),
            ("abcdef", {"max_chars": 6}, (("abcdef",), "")),
            ("abcdef", {"max_chars": 3}, (("abc", "def"), "")),
            ("abcdefg", {"max_chars": 3}, (("abc", "def", "g"), "")),
            ("abcdefg", {"max_chars": 3, "min_chars": 2}, (("abc", "def"), "g")),
            ("abcdefgh", {"max_chars": 3, "min_chars": 2}, (("abc", "def", "gh"), "")),
            ("abcdef", {"max_chars": 3, "min_chars": 3}, (("abc", "def"), "")),
            ("ab", {"min_chars": 2}, (("ab",), "")),
            ("ab", {"min_chars": 3}, ((), "ab")),
            ("ab", {"min_chars": 3, "max_chars": 5}, ((), "ab")),
            ("äö😀b", {"max_chars": 3}, (("äö😀", "b"), "")),
        ],
    )
    def test_examples(
        self, text: str, limits: dict[str, int], expected: tuple[tuple[str, ...], str]
    ) -> None:
        assert split_text(text, **limits) == expected

    @given(st.text(max_size=60), st.integers(0, 9), st.integers(0, 9))
    def test_pieces_and_rest_are_the_text(self, text: str, low: int, more: int) -> None:
        high = max(low + more, 1)
        pieces, rest = split_text(text, min_chars=low, max_chars=high)
        assert "".join(pieces) + rest == text
        assert all(low <= len(piece) <= high for piece in pieces)
        assert all(len(piece) == high for piece in pieces[:-1])
        assert len(rest) < max(low, 1)

    def test_pieces_have_hashes_of_their_own_and_the_meta(self) -> None:
        row = {"text": "abcde", "hash": "mine", "meta": {"set": "pile"}, "tokens": ["a"], "id": 4}
        whole = read_prompts([row], max_chars=5)
        assert whole[0] == Prompt(
            "abcde", hash="mine", meta={"set": "pile", "tokens": ["a"], "id": 4}
        )
        pieces = read_prompts([row], max_chars=3)
        assert [(p.text, p.hash) for p in pieces] == [(t, prompt_hash(t)) for t in ("abc", "de")]
        assert [p.meta for p in pieces] == [{"set": "pile", "id": 4}] * 2

    def test_counts_what_is_left_out(self) -> None:
        found = read_prompts(["a", "bcdefg", "hijk", "lm", "n"], min_chars=2, max_chars=5)
        assert texts(found) == ["bcdef", "hijk", "lm"]
        assert (found.n_rows, found.n_too_short, found.n_short_remainders) == (5, 2, 1)

    def test_pieces_alike_are_duplicates(self) -> None:
        found = read_prompts(["ababab"], max_chars=2)
        assert (texts(found), found.n_duplicates) == (["ab"], 2)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_chars": 0}, "max_chars is 0, expected None or an integer from 1"),
            ({"max_chars": -3}, "max_chars is -3, expected None or an integer from 1"),
            ({"min_chars": -1}, "min_chars is -1, expected None or an integer from 0"),
            ({"min_chars": 2.0}, "min_chars is 2.0, expected None or an integer from 0"),
            ({"min_chars": 9, "max_chars": 4}, "min_chars 9 is more than max_chars 4"),
            ({"n_samples": -1}, "n_samples is -1, expected None or an integer from 1"),
            ({"n_samples": "3"}, "n_samples is '3', expected None or an integer from 1"),
            ({"n_samples": True}, "n_samples is True, expected None or an integer from 1"),
            ({"seed": None}, "seed is None, expected an integer"),
            ({"on_error": "ignore"}, "on_error is 'ignore', expected 'raise' or 'skip'"),
        ],
    )
    def test_refuses_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(PromptError, match=message):
            read_prompts(["abc"], **options)


class TestFiles:
    def test_jsonl(self, tmp_path: Path) -> None:
        rows = [
            {"text": "one", "meta": {"k": 1, "set": "meta wins"}, "set": "row", "id": 7},
            {"text": "two ", "hash": "-any string"},
        ]
        path = write_rows(tmp_path / "p.jsonl", rows)
        expected = (
            Prompt("one", hash=prompt_hash("one"), meta={"set": "meta wins", "id": 7, "k": 1}),
            Prompt("two ", hash="-any string"),
        )
        assert read_prompts(path).prompts == expected
        assert read_prompts(str(path)).prompts == expected

    def test_gz_bom_crlf_blank_lines_and_line_separators(self, tmp_path: Path) -> None:
        lines = [json.dumps({"text": t}, ensure_ascii=False) for t in ("ä\u2028b", "c")]
        data = ("\ufeff" + "\r\n \r\n".join(lines)).encode()
        path = tmp_path / "P.JSONL.gz"
        path.write_bytes(gzip.compress(data))
        found = read_prompts(path)
        assert (texts(found), found.n_rows) == (["ä\u2028b", "c"], 2)

    def test_text_file_has_a_prompt_a_line(self, tmp_path: Path) -> None:
        path = tmp_path / "p.txt"
        path.write_bytes('\ufeff  {"text": 1}\r\n\r\n\t\nzwei ü'.encode())
        assert texts(read_prompts(path)) == ['  {"text": 1}', "zwei ü"]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b"{'text': 1}", "not JSON: Expecting property name"),
            (b"[" * 100_000, "not JSON: maximum recursion depth"),
            (b'{"text": ' + b"1" * 5000 + b"}", "not JSON: Exceeds the limit"),
            (b'["text"]', "expected a JSON object with a 'text', got list"),
            (b'{"prompt": "a", "id": 2}', r"no text: .* got the keys \['prompt', 'id'\]"),
            (b'{"text": null}', "text is of type NoneType, expected a string"),
            (b'{"text": ""}', "empty text"),
            (b'{"text": "\\ud800"}', r"text has the lone surrogate U\+D800 at character 0"),
            (b'{"text": "a", "meta": [1]}', "meta is of type list, expected an object"),
            (b'{"text": "a", "meta": {"x": NaN}}', "meta cannot be written as JSON"),
            (b'{"text": "a", "other": "\\ud800"}', "meta cannot be written as JSON"),
            (b'{"text": "a", "hash": ""}', "empty hash"),
            (b'{"text": "a", "hash": 3}', "hash is of type int, expected a string"),
            (b'{"text": "\xe4"}', "expected UTF-8, got 0xe4 at byte 10"),
            (b'{"text": "other text", "hash": "taken"}', "hash 'taken' names two texts"),
        ],
    )
    def test_bad_row_is_raised_or_recorded(self, tmp_path: Path, line: bytes, message: str) -> None:
        path = tmp_path / "p.jsonl"
        path.write_bytes(b'{"text": "good", "hash": "taken"}\n\n' + line + b'\n{"text": "too"}\n')
        with pytest.raises(PromptError, match=message) as raised:
            read_prompts(path)
        assert str(raised.value).startswith(f"{path}:3: ")
        found = read_prompts(path, on_error="skip")
        assert texts(found) == ["good", "too"]
        assert found.errors == (str(raised.value),)
        assert (found.n_rows, found.n_duplicates) == (3, 0)

    def test_undecodable_text_file_names_the_line(self, tmp_path: Path) -> None:
        path = tmp_path / "p.txt"
        path.write_bytes(b"fine\nz\xfc\n")
        with pytest.raises(PromptError, match=r"p\.txt:2: expected UTF-8, got 0xfc at byte 1"):
            read_prompts(path)

    @pytest.mark.parametrize("source", ["Once upon a time", "x" * 5000, "a\0b", "nul\ud800"])
    def test_text_is_not_a_path(self, source: str) -> None:
        with pytest.raises(PromptError, match=r"no file of prompts at '.*pass a list: \['"):
            read_prompts(source)

    def test_missing_path_has_no_hint(self, tmp_path: Path) -> None:
        with pytest.raises(PromptError, match=r"no file of prompts at '.*p\.jsonl'$"):
            read_prompts(tmp_path / "p.jsonl")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(PromptError, match=r"cannot read prompts from .*; expected a \.jsonl"):
            read_prompts(tmp_path)

    def test_other_kind_of_file(self, tmp_path: Path) -> None:
        path = tmp_path / "p.csv"
        path.write_text("text\nabc\n")
        with pytest.raises(PromptError, match=r"cannot tell what kind of file '.*p\.csv' is"):
            read_prompts(path)

    @pytest.mark.parametrize("keep", [3, 15])
    def test_damaged_gzip(self, tmp_path: Path, keep: int) -> None:
        path = tmp_path / "p.jsonl.gz"
        path.write_bytes(gzip.compress(b'{"text": "abc"}\n')[:keep])
        with pytest.raises(PromptError, match=r"p\.jsonl\.gz' is not a whole gzip file"):
            read_prompts(path)


class TestIterables:
    def test_strings_mappings_prompts_and_sets_of_them(self) -> None:
        third = Prompt("three", hash="third", meta={"n": 3})
        found = read_prompts(row for row in ("one", {"text": "two", "n": 2}, third))
        assert found[1:] == (Prompt("two", hash=prompt_hash("two"), meta={"n": 2}), third)
        assert read_prompts(found).prompts == found.prompts

    @pytest.mark.parametrize("source", [b"abc", {"text": "a"}, Prompt("a", hash="h"), 3, None])
    def test_refuses_what_is_not_a_list(self, source: Any) -> None:
        with pytest.raises(
            PromptError, match=r"prompts are of type \w+, expected a path or a list; for"
        ):
            read_prompts(source)

    def test_names_the_bad_item(self) -> None:
        with pytest.raises(PromptError, match=r"^prompt 1: expected a string, a mapping .* float"):
            read_prompts(["a", 2.5])  # type: ignore[list-item]

    def test_first_of_duplicates_is_kept(self) -> None:
        found = read_prompts(
            [{"text": "a", "n": 1}, "b", {"text": "a", "n": 2}, {"text": "a", "hash": "second"}]
        )
        assert [(p.text, dict(p.meta)) for p in found] == [("a", {"n": 1}), ("b", {}), ("a", {})]
        assert found.n_duplicates == 1

    def test_the_same_object_twice_is_a_duplicate(self) -> None:
        prompt = Prompt("a", hash="h")
        assert read_prompts([prompt, prompt]).n_duplicates == 1

    def test_one_hash_for_two_texts_names_both(self) -> None:
        rows = [{"text": "long one " * 40, "hash": "x"}, {"text": "two", "hash": "x"}]
        message = r"'x' names two texts: 'long one .*\.\.\.' \(prompt 0\) and 'two' \(prompt 1\)"
        with pytest.raises(PromptError, match=message):
            read_prompts(rows)


class TestOrder:
    ROWS = tuple(f"prompt number {n}" for n in range(12))

    def test_shuffle_depends_on_the_seed_alone(self) -> None:
        first = read_prompts(self.ROWS, shuffle=True, seed=3)
        assert texts(first) == texts(read_prompts(self.ROWS, shuffle=True, seed=3))
        assert texts(first) != texts(read_prompts(self.ROWS, shuffle=True, seed=4))
        assert sorted(texts(first)) == sorted(self.ROWS) != texts(first)

    def test_n_samples_takes_the_first_after_the_shuffle(self) -> None:
        whole = texts(read_prompts(self.ROWS, shuffle=True, seed=3))
        assert texts(read_prompts(self.ROWS, shuffle=True, seed=3, n_samples=5)) == whole[:5]
        assert texts(read_prompts(self.ROWS, n_samples=99)) == list(self.ROWS)

    def test_duplicates_take_no_place_among_the_samples(self) -> None:
        assert texts(read_prompts(["a", "a", "b", "c"], n_samples=2)) == ["a", "b"]


class TestPromptSet:
    def test_is_a_sequence(self) -> None:
        found = read_prompts(["a", "b", "c"])
        assert len(found) == 3
        assert found[-1].text == "c"
        assert [p.text for p in found[:2]] == ["a", "b"]
        assert found.prompts[1] in found

    def test_summary_says_what_was_left_out(self, tmp_path: Path) -> None:
        rows = [{"text": "abcdefghi"}, {"text": "abcd"}, {"text": "x"}, {"text": "y"}, 1, 2, 3]
        found = read_prompts(
            write_rows(tmp_path / "p.jsonl", rows), min_chars=2, max_chars=4, on_error="skip"
        )
        assert found.summary() == (
            "2 prompts (1 duplicate, 2 rows shorter than 2 characters, "
            "1 remainder shorter than 2 characters left out, 3 bad rows skipped)"
        )

    def test_summary_of_nothing_left_out(self) -> None:
        assert read_prompts(["a"]).summary() == "1 prompt"

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([], "no prompts in the list given: it is empty"),
            (["abc", "d"], "no prompts in .*: 2 rows shorter than 5 characters left out"),
            ([7, ""], "no prompts in .*: 2 bad rows skipped; first: prompt 0: expected a string"),
        ],
    )
    def test_no_prompts_says_why(self, rows: list[Any], message: str) -> None:
        with pytest.raises(PromptError, match=message):
            read_prompts(rows, min_chars=5, on_error="skip")

    def test_empty_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(PromptError, match=r"no prompts in '.*p\.jsonl': it is empty"):
            read_prompts(write_rows(tmp_path / "p.jsonl", []))


@given(st.lists(WHOLE_TEXT, min_size=1, max_size=8), st.integers(1, 20))
def test_a_written_set_is_read_back(rows: list[str], max_chars: int) -> None:
    found = read_prompts(rows, max_chars=max_chars)
    again = read_prompts(
        {"text": p.text, "hash": p.hash, "meta": dict(p.meta)} for p in found.prompts
    )
    assert again.prompts == found.prompts
