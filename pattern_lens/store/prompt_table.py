"""The prompts of a file: rows found by hash, texts, metadata and tokens read when asked for."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from pattern_lens.errors import DamagedFileError, UnknownPromptError
from pattern_lens.store.rows import (
    BOS_PREPENDED,
    PROMPT_ROW,
    TRUNCATED,
    Rows,
    is_valid,
    read_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import h5py

    from pattern_lens.store.handles import ReadHandle

Positions = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True)
class PromptRecord:
    """One prompt as it is stored.

    Parameters
    ----------
    token_ids
        Token ids as the model saw them, 1-D int32, the BOS token included.
    truncated
        Whether the text was longer than the model's context.
    bos
        Whether the first token is a BOS that is not in the text.
    """

    hash: str
    text: str
    token_ids: np.ndarray[Any, np.dtype[np.int32]]
    meta: Mapping[str, Any] = field(default_factory=dict)
    truncated: bool = False
    bos: bool = False

    def encoded(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Hash, text, metadata and token ids as the bytes that are stored."""
        meta = json.dumps(dict(self.meta), ensure_ascii=False).encode() if self.meta else b""
        return self.hash.encode(), self.text.encode(), meta, self.token_ids.astype("<i4").tobytes()


def hash_key(prompt_hash: str) -> int:
    """The `key` of a prompt's row."""
    return int(xxhash.xxh3_64_intdigest(prompt_hash.encode()))


class PromptTable:
    """Rows of ``/prompts/index`` at the moment of reading; positions identify prompts."""

    def __init__(self, handle: ReadHandle) -> None:
        self._handle = handle
        self.rows: Rows = handle.read(lambda file: read_rows(file, "prompts/index", PROMPT_ROW))

    @cached_property
    def positions(self) -> Positions:
        """Positions of the prompts that exist, ascending."""
        return np.flatnonzero(is_valid(self.rows))

    @cached_property
    def _sorted_keys(self) -> tuple[np.ndarray[Any, np.dtype[np.uint64]], Positions]:
        keys = self.rows["key"][self.positions]
        order = np.argsort(keys, kind="stable")
        return keys[order], self.positions[order]

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def _exist(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """For each row whether it names a prompt; behind them the answer for what is beyond."""
        found = np.zeros(len(self.rows) + 1, np.bool_)
        found[self.positions] = True
        return found

    def has(self, positions: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of these positions, as rows name them, are prompts; a row that a writer is about to fill is none yet."""
        places = np.minimum(positions, np.uint64(len(self.rows))).astype(np.intp)
        return np.asarray(self._exist[places])

    def find(self, prompt_hash: str) -> int | None:
        """Position of a prompt, or None where the file does not hold it."""
        keys, positions = self._sorted_keys
        key = np.uint64(hash_key(prompt_hash))
        for at in range(int(np.searchsorted(keys, key)), len(keys)):
            if keys[at] != key:
                return None
            position = int(positions[at])
            if self.hashes([position])[0] == prompt_hash:
                return position
        return None

    def position(self, prompt_hash: str) -> int:
        """Position of a prompt.

        Raises
        ------
        UnknownPromptError
            The file does not hold it; the message names the nearest hashes.
        """
        found = self.find(prompt_hash) if isinstance(prompt_hash, str) else None
        if found is None:
            raise UnknownPromptError(self._unknown(prompt_hash))
        return found

    def _unknown(self, prompt_hash: object) -> str:
        near: list[str] = []
        if isinstance(prompt_hash, str) and len(self) <= 20_000:
            near = difflib.get_close_matches(
                prompt_hash, self.hashes(self.positions), n=3, cutoff=0.5
            )
        hint = f"; nearest: {', '.join(near)}" if near else ""
        return (
            f"no prompt {prompt_hash!r} in {self._handle.path} ({len(self)} prompts){hint}; "
            "`.prompts` lists them by hash"
        )

    def hashes(self, positions: Sequence[int] | Positions) -> list[str]:
        """Prompt hashes, in the order of `positions`."""
        raws = self._slices("hash", "hash_start", "hash_size", positions)
        return [self._decode("hash", raw) for raw in raws]

    def texts(self, positions: Sequence[int] | Positions) -> list[str]:
        """Prompt texts, in the order of `positions`."""
        raws = self._slices("text", "text_start", "text_size", positions)
        return [self._decode("text", raw) for raw in raws]

    def metas(self, positions: Sequence[int] | Positions) -> list[dict[str, Any]]:
        """Metadata of each prompt; an empty mapping where there is none."""
        rows = self.rows[np.asarray(positions, np.intp)]
        starts = rows["text_start"] + rows["text_size"]
        raws = self._read("text", starts, rows["meta_size"])
        return [self._load_meta(raw) if raw else {} for raw in raws]

    def _decode(self, name: str, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as err:
            raise DamagedFileError(
                f"cannot read prompts of {self._handle.path}: /prompts/{name} is not UTF-8 ({err})"
            ) from err

    def _load_meta(self, raw: bytes) -> dict[str, Any]:
        try:
            meta: dict[str, Any] = json.loads(raw)
        except ValueError as err:
            raise DamagedFileError(
                f"cannot read prompts of {self._handle.path}: metadata in /prompts/text is not JSON ({err})"
            ) from err
        return meta

    def token_ids(self, position: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Token ids of one prompt, as the model saw them."""
        row = self.rows[position]
        start = int(row["token_start"])
        stop = start + int(row["n_ctx"])

        def read(file: h5py.File) -> np.ndarray[Any, np.dtype[np.int32]]:
            return np.asarray(self._stream(file, "token_id", stop)[start:stop])

        return self._handle.read(read)

    def all_token_ids(
        self, positions: Sequence[int] | Positions
    ) -> tuple[np.ndarray[Any, np.dtype[np.int32]], np.ndarray[Any, np.dtype[np.int64]]]:
        """Token ids of prompts one after another, and where each begins and the last one ends."""
        rows = self.rows[np.asarray(positions, np.intp)]
        raws = self._read("token_id", rows["token_start"], rows["n_ctx"])
        offsets = np.concatenate([[0], np.cumsum(rows["n_ctx"], dtype=np.int64)])
        return np.frombuffer(b"".join(raws), "<i4"), offsets

    def _stream(self, file: h5py.File, name: str, stop: int) -> h5py.Dataset:
        stream = file[f"prompts/{name}"]
        if stop > len(stream):
            raise DamagedFileError(
                f"cannot read prompts of {self._handle.path}: /prompts/{name} has {len(stream)} elements, a row names {stop}"
            )
        return stream

    def n_ctx(self, positions: Sequence[int] | Positions) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number of token ids of each prompt, the BOS token included."""
        return np.asarray(self.rows["n_ctx"][np.asarray(positions, np.intp)].astype(np.int64))

    def truncated(
        self, positions: Sequence[int] | Positions
    ) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether each prompt was cut to the model's context."""
        return np.asarray((self.rows["flags"][np.asarray(positions, np.intp)] & TRUNCATED) != 0)

    def bos(self, positions: Sequence[int] | Positions) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether each prompt begins with a BOS token that is not in its text."""
        return np.asarray((self.rows["flags"][np.asarray(positions, np.intp)] & BOS_PREPENDED) != 0)

    def _slices(
        self, name: str, start: str, size: str, positions: Sequence[int] | Positions
    ) -> list[bytes]:
        rows = self.rows[np.asarray(positions, np.intp)]
        return self._read(name, rows[start], rows[size])

    def _read(self, name: str, starts: Iterable[Any], sizes: Iterable[Any]) -> list[bytes]:
        """Byte strings of a stream; near ones are fetched in one read."""
        first = np.asarray(starts, np.int64)
        last = first + np.asarray(sizes, np.int64)
        if not len(first):
            return []
        low, high = int(first.min()), int(last.max())

        def read(file: h5py.File) -> list[bytes]:
            stream = self._stream(file, name, high)
            if high - low <= max(1 << 20, 4 * int((last - first).sum())):
                block = stream[low:high]
                return [
                    block[a - low : b - low].tobytes()
                    for a, b in zip(first.tolist(), last.tolist(), strict=True)
                ]
            return [
                stream[a:b].tobytes() for a, b in zip(first.tolist(), last.tolist(), strict=True)
            ]

        return self._handle.read(read)

    def checksums(self, positions: Sequence[int] | Positions) -> list[int]:
        """The checksum that each prompt's row should carry, from what is stored now."""
        hashes = self._slices("hash", "hash_start", "hash_size", positions)
        texts = self._slices("text", "text_start", "text_size", positions)
        rows = self.rows[np.asarray(positions, np.intp)]
        metas = self._read("text", rows["text_start"] + rows["text_size"], rows["meta_size"])
        return [
            record_checksum((h, t, m, self.token_ids(int(p)).tobytes()))
            for h, t, m, p in zip(hashes, texts, metas, positions, strict=True)
        ]


def record_checksum(parts: Iterable[bytes]) -> int:
    """xxh32 of hash, text, metadata and token ids."""
    digest = xxhash.xxh32()
    for part in parts:
        digest.update(part)
    return int(digest.intdigest())
