"""The file that an imported cache goes to: what it says of the model, and what a row of tokens is there.

Rule: a row's prompt is named by its ids, so that the same row of another cache is the same prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xxhash

from pattern_lens.errors import FeatureCacheError, ModelMismatchError
from pattern_lens.store.header import Header, check_same_model
from pattern_lens.store.prompt_table import PromptRecord
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.vocabulary import extend_vocab
from pattern_lens.tokens import ready_tokenizer, tokenizer_hash, vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Vocab = Mapping[str, list[str]]

ORIGIN: Final = "delphi cache"


@dataclass(frozen=True, eq=False)
class Target:
    """A file, and how rows of tokens become its prompts.

    Parameters
    ----------
    header
        Of a file that is made, or that has to be of this model; None for one that is taken as it is.
    text
        Text of token ids.
    bos_id
        The id that marks the beginning of a text, if it is known.
    """

    path: Path
    header: Header | None
    text: Callable[[NDArray[np.int32]], str]
    bos_id: int | None = None

    def record(self, ids: NDArray[np.int32]) -> PromptRecord:
        """A row of tokens as it is stored."""
        return PromptRecord(
            hash=hash_of_ids(ids),
            text=self.text(ids) or _numbers(ids),
            token_ids=ids,
            bos=self.bos_id is not None and int(ids[0]) == self.bos_id,
        )


def hash_of_ids(ids: NDArray[np.int32]) -> str:
    """Hash that names a prompt of which only token ids are known.

    Examples
    --------
    >>> hash_of_ids(np.array([5, 6], np.int32))[:8]
    'ids-e8a1'
    """
    return "ids-" + xxhash.xxh3_128_hexdigest(np.ascontiguousarray(ids, "<i4").tobytes())


def target_of(
    path: Path, *, said_model: str | None, n_ctx: int, n_ids: int, model: Any, tokenizer: Any
) -> Target:
    """The file of an import.

    Parameters
    ----------
    said_model
        Name of the model, as the cache says it.
    n_ctx, n_ids
        Most positions of a row, and one more than the largest token id.
    model, tokenizer
        As in `import_delphi`.

    Raises
    ------
    ModelMismatchError
        The file is of another model, or of fewer tokens.
    FeatureCacheError
        Token ids that the tokenizer does not have.
    """
    if model is not None:
        return _of_model(path, model, n_ids)
    if path.exists():
        return _of_file(path, said_model, n_ids)
    name = said_model or path.stem
    own = None if tokenizer is None else ready_tokenizer(tokenizer)
    vocab = numbered(n_ids) if own is None else vocabulary(own)
    _check_ids(n_ids, vocab, "the tokenizer")
    header = Header(_provenance(name, n_ctx, own), vocab)
    if own is None:
        return Target(path, header, _numbers)
    return Target(path, header, _decoding(own), own.bos_token_id)


def _of_model(path: Path, model: Any, n_ids: int) -> Target:
    from pattern_lens.models import load_model

    loaded = load_model(model)
    vocab = loaded.vocab()
    _check_ids(n_ids, vocab, f"model {loaded.name!r}")
    header = Header(loaded.provenance(), **({} if path.exists() else {"vocab": vocab}))
    if path.exists():
        reader = StoreReader(path)
        try:
            check_same_model(path, reader.model, header.model)
        finally:
            reader.close()
    return Target(path, header, _decoding(loaded.model.tokenizer), loaded.bos_id)


def _of_file(path: Path, said_model: str | None, n_ids: int) -> Target:
    """A file that is there, with its own vocabulary."""
    reader = StoreReader(path)
    try:
        own, vocab = dict(reader.model), dict(reader.vocab)
    finally:
        reader.close()
    stored = str(own.get("name") or "")
    if said_model is not None and stored.rpartition("/")[2] != said_model.rpartition("/")[2]:
        raise ModelMismatchError(
            f"cannot import a cache of model {said_model!r} into {path}: it is of model {stored!r}; import into another file"
        )
    is_numbered = own.get("imported_from") == ORIGIN and own.get("tokenizer") is None
    if is_numbered:
        if n_ids > len(vocab["token"]):
            extend_vocab(path, numbered(n_ids))
        return Target(path, None, _numbers)
    if n_ids > len(vocab["token"]):
        raise ModelMismatchError(
            f"cannot import into {path}: the cache has token id {n_ids - 1}, the file's vocabulary {len(vocab['token']):,} "
            "tokens, so it is of another tokenizer; import into another file"
        )
    texts = vocab["text"]
    return Target(path, None, lambda ids: "".join(texts[i] for i in ids))


def numbered(n_ids: int) -> dict[str, list[str]]:
    """A vocabulary of which only the numbers are known."""
    names = [f"<{i}>" for i in range(n_ids)]
    return {"token": names, "text": names}


def _numbers(ids: NDArray[np.int32]) -> str:
    return " ".join(map(str, ids.tolist()))


def _decoding(tokenizer: Any) -> Callable[[NDArray[np.int32]], str]:
    return lambda ids: str(tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False))


def _check_ids(n_ids: int, vocab: Vocab, whose: str) -> None:
    if n_ids > len(vocab["token"]):
        raise FeatureCacheError(
            f"the cache has token id {n_ids - 1}, and {whose} has {len(vocab['token']):,} tokens: it was made with another"
        )


def _provenance(name: str, n_ctx: int, tokenizer: Any) -> dict[str, Any]:
    """What the file says of its model; what the cache does not say is not known."""
    unknown = (
        "d_model",
        "dtype",
        "architecture",
        "weights_hash",
        "revision",
        "source",
        "attention",
    )
    said = None if tokenizer is None else {"class": type(tokenizer).__name__, "name": None}
    return {
        **dict.fromkeys((*unknown, "prepend_bos", "padding")),
        "name": name,
        "n_layers": 0,
        "n_heads": 0,
        "n_ctx": n_ctx,
        "causal": True,
        "weights": {"mode": "unknown"},
        "tokenizer": said,
        "tokenizer_hash": None if tokenizer is None else tokenizer_hash(tokenizer),
        "versions": {},
        "imported_from": ORIGIN,
    }
