"""Text -> token ids, token ids -> text, as a model's own tokenizer does it.

Rule: each text is tokenised alone, with `prepend_bos` said every time, and nothing is assumed
about what that puts before it. Functions that tokenise take the live model: TransformerLens
decides on BOS, not the tokenizer.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xxhash

from pattern_lens.errors import TokenizerError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNDECODABLE: Final = "\ufffd"
_WORD_START: Final = "\u2581"  # SentencePiece's mark, which decoding one token alone drops
_N_TRIED: Final = 50


@dataclass(frozen=True, eq=False)
class Tokens:
    """One prompt as the model sees it.

    Parameters
    ----------
    ids
        Token ids, dims (pos).
    truncated
        Whether the text had more tokens than the model's context, and lost them.
    bos
        Whether the first id is a BOS that the library put there.
    """

    ids: NDArray[np.int32]
    truncated: bool
    bos: bool


def token_ids(
    model: Any, text: str, *, prepend_bos: bool, truncate: bool = False
) -> NDArray[np.int32]:
    """Token ids of one text, dims (pos); uncut unless `truncate`."""
    row = model.to_tokens(text, prepend_bos=prepend_bos, move_to_device=False, truncate=truncate)[0]
    ids: NDArray[np.int32] = row.cpu().numpy().astype(np.int32)
    return ids


def library_bos(model: Any) -> int | None:
    """Id that `prepend_bos` puts before a text; None if, with some tokenizers, it puts nothing."""
    with_bos = token_ids(model, "a", prepend_bos=True)
    n_bare = len(token_ids(model, "a", prepend_bos=False))
    return int(with_bos[0]) if len(with_bos) == n_bare + 1 else None


def check_tokenizer(model: Any) -> None:
    """Raise TokenizerError unless some text comes back from the tokenizer as it went in."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise TokenizerError("the model has no tokenizer; set its tokenizer, or pass tokenizer=")
    ids = list(tokenizer.get_vocab().values())
    some = ids[:: len(ids) // _N_TRIED + 1]
    pieces = (tokenizer.decode([i], skip_special_tokens=True).strip() for i in some)
    for text in ("hello world", *pieces):
        if text and _round_trip(model, text) == text:
            return
    raise TokenizerError(
        f"tokenizer of {len(ids)} tokens gives 'hello world' back as "
        f"{_round_trip(model, 'hello world')!r}, and none of its own tokens as it is; "
        "the model's folder probably lacks its tokenizer files"
    )


def _round_trip(model: Any, text: str) -> str:
    ids = token_ids(model, text, prepend_bos=False)
    decoded: str = model.tokenizer.decode(ids.tolist(), skip_special_tokens=True)
    return decoded.strip()


def ready_tokenizer(tokenizer: Any) -> Any:
    """Tokenizer object that TransformerLens can take without asking a hub for it.

    Parameters
    ----------
    tokenizer
        None, a tokenizer, or the name or folder of one.

    Raises
    ------
    TokenizerError
        No tokenizer of this name or in this folder.
    """
    if tokenizer is None:
        return None
    from transformers import AutoTokenizer

    if isinstance(tokenizer, str | os.PathLike):
        try:
            return AutoTokenizer.from_pretrained(os.fspath(Path(tokenizer).expanduser()))
        except (OSError, ValueError) as error:
            raise TokenizerError(f"no tokenizer at {os.fspath(tokenizer)!r}: {error}") from error
    if "name_or_path" in tokenizer.init_kwargs:
        return tokenizer
    # TransformerLens opens a tokenizer again by its name to switch BOS on, so it must have one.
    options = {} if tokenizer.bos_token is None else {"add_bos_token": True}
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        ready = AutoTokenizer.from_pretrained(folder, **options)
    ready.name_or_path = ""
    return ready


def vocabulary(tokenizer: Any) -> dict[str, list[str]]:
    """Each token id's own string (``token``) and the text it stands for (``text``).

    Where a token is not whole UTF-8 by itself, its text repeats its string; an id without a token
    has two empty strings.
    """
    n_ids = max(tokenizer.get_vocab().values()) + 1
    token = [raw or "" for raw in tokenizer.convert_ids_to_tokens(list(range(n_ids)))]
    decoded = _decode_each(tokenizer, n_ids)
    text = [_shown(raw, plain) for raw, plain in zip(token, decoded, strict=True)]
    return {"token": token, "text": text}


def _decode_each(tokenizer: Any, n_ids: int) -> list[str]:
    each = [[i] for i in range(n_ids)]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # many times faster, and never "cleans up" spaces
        texts: list[str] = backend.decode_batch(each, skip_special_tokens=False)
        return texts
    return [str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)) for ids in each]


def _shown(token: str, text: str) -> str:
    if _UNDECODABLE in text:
        return token
    return f" {text}" if token.startswith(_WORD_START) and not text.startswith(" ") else text


def tokenizer_hash(tokenizer: Any) -> str:
    """xxh3_128 of what the tokenizer does, in hexadecimal.

    A fast tokenizer is hashed as its ``tokenizer.json`` with sorted keys, without the padding and
    truncation that the last call left in it; any other one as its sorted vocabulary.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content: Any = sorted(tokenizer.get_vocab().items())
    else:
        content = {**json.loads(backend.to_str()), "padding": None, "truncation": None}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))
