"""Token strings -> the ids and the vocabulary of a file that was made without a tokenizer.

The rule: an id is the place of a token in the file's own vocabulary, in order of first appearance. A token that is
not known is one for each position, so that no two of them are taken for the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pattern_lens.importing.prompt_file import OldPrompt

BOS: Final = "<BOS>"
_WORD_START: Final = "\u2581"
_BYTE: Final = re.compile(r"<0x([0-7][0-9A-F])>")


@dataclass(frozen=True)
class Places:
    """The tokens of one prompt, one for each position of its patterns.

    Parameters
    ----------
    tokens
        Strings of the tokenizer, or stand-ins.
    truncated, bos
        As of a stored prompt.
    is_known
        Whether they are those that the folder lists.
    """

    tokens: tuple[str, ...]
    truncated: bool
    bos: bool
    is_known: bool


def places(old: OldPrompt, n_ctx: int, model_ctx: int | None, *, prepends_bos: bool) -> Places:
    """What stands at each position, as far as the number of tokens and positions tells.

    Parameters
    ----------
    n_ctx
        Positions of the prompt's patterns.
    model_ctx
        Positions that the model has; longer texts were cut there.
    prepends_bos
        Whether the model begins a prompt with a BOS, where the numbers do not tell.
    """
    listed = old.tokens
    if listed is not None and n_ctx - len(listed) in (0, 1):
        bos = n_ctx > len(listed)
        return Places(((BOS,) if bos else ()) + listed, truncated=False, bos=bos, is_known=True)
    if listed is not None and n_ctx == model_ctx and len(listed) > n_ctx:
        cut = ((BOS,) if prepends_bos else ()) + listed
        return Places(cut[:n_ctx], truncated=True, bos=prepends_bos, is_known=True)
    unknown = tuple(f"<?{position}>" for position in range(n_ctx))
    return Places(unknown, truncated=False, bos=False, is_known=False)


class Vocabulary:
    """Tokens of a file, by id; it only grows.

    Parameters
    ----------
    known
        Tokens that the file has already.
    """

    def __init__(self, known: Sequence[str] = (BOS,)) -> None:
        self._ids = {token: i for i, token in enumerate(known)}
        self.n_stored = len(known)

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, tokens: Iterable[str]) -> None:
        """Give each token that has none an id."""
        for token in tokens:
            self._ids.setdefault(token, len(self._ids))

    def ids(self, tokens: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Ids of tokens.

        Raises
        ------
        PromptError
            One of them was not there when the vocabulary was made.
        """
        try:
            return np.array([self._ids[token] for token in tokens], np.int32)
        except KeyError as err:
            raise PromptError("it was changed while it was imported") from err

    def columns(self) -> dict[str, list[str]]:
        """The token strings, and the texts that they stand for."""
        tokens = list(self._ids)
        return {"token": tokens, "text": texts(tokens)}


def texts(tokens: Sequence[str]) -> list[str]:
    r"""Texts that the strings of a tokenizer stand for, as far as the strings tell.

    Examples
    --------
    >>> texts(["The", "Ġcat", "Ċ", "ÃŁ"])
    ['The', ' cat', '\n', 'ß']
    >>> texts(["▁The", "<0x0A>", "ß"])
    [' The', '\n', 'ß']
    """
    if any(_WORD_START in token for token in tokens):
        return [_from_pieces(token) for token in tokens]
    return [_from_bytes(token) for token in tokens]


def _from_pieces(token: str) -> str:
    """Text of a token of SentencePiece."""
    byte = _BYTE.fullmatch(token)
    return chr(int(byte.group(1), 16)) if byte else token.replace(_WORD_START, " ")


def _from_bytes(token: str) -> str:
    """Text of a token of byte-level BPE, whose characters stand for bytes; itself where it is none."""
    try:
        return bytes(_BYTE_OF[character] for character in token).decode()
    except (KeyError, UnicodeDecodeError):
        return token


def _byte_of() -> dict[str, int]:
    """Byte of each character of byte-level BPE: printable ones are themselves, others stand behind them all."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    shifted = {chr(256 + i): byte for i, byte in enumerate(rest)}
    return {chr(byte): byte for byte in printable} | shifted


_BYTE_OF: Final = _byte_of()
