"""The vocabulary of a file, lengthened: for what comes without a tokenizer, one prompt after another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np

from pattern_lens.errors import StoreError
from pattern_lens.store.create import explain_writing
from pattern_lens.store.handles import recover, shut_out_readers, suspend_readers
from pattern_lens.store.header import read_vocab
from pattern_lens.store.journal import transaction
from pattern_lens.store.lock import WriterLock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_VOCAB: Final = "tokenizer/vocab"
_CHUNK_BYTES: Final = 1 << 20


def extend_vocab(path: Path, vocab: Mapping[str, list[str]]) -> None:
    """Replace the vocabulary of a file by one that begins with it.

    Raises
    ------
    StoreError
        It does not begin with it: ids that are stored would name other tokens.
    WriterActiveError
        Another process writes to the file.
    """
    raw = json.dumps(dict(vocab), ensure_ascii=False).encode()
    lock = WriterLock(path)
    try:
        with shut_out_readers(path), explain_writing(path):
            suspend_readers(path)
            recover(path)
            with transaction(path) as file:
                known = read_vocab(file)["token"]
                if vocab["token"][: len(known)] != known:
                    raise StoreError(
                        f"cannot lengthen the vocabulary of {path}: expected one that begins with the {len(known):,} tokens "
                        "that it has"
                    )
                del file[_VOCAB]
                file.create_dataset(
                    _VOCAB,
                    data=np.frombuffer(raw, np.uint8),
                    chunks=(min(len(raw), _CHUNK_BYTES),),
                    fletcher32=True,
                )
    finally:
        lock.release()
