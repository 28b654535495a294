"""Tokens as users write them -> token ids, by the vocabulary that the file holds.

The rule: a string names a token exactly, with its leading space; nothing is tokenised, because the file has the
vocabulary and not the tokenizer. A string of several tokens is an error that shows them.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import AnswerTokenError
from pattern_lens.names import TOKEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from pattern_lens.residual.inputs import Array

_SHOWN: Final = 6
_SPACES: Final = {"Ġ": " ", "▁": " ", "Ċ": "\n"}


class Vocabulary:
    """Token ids by text.

    Parameters
    ----------
    columns
        ``text``, what each token stands for, and ``token``, the tokenizer's own string; by token id.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]]) -> None:
        self.columns = columns
        self.texts = list(columns.get("text", ()))
        self._ids: dict[str, list[int]] = defaultdict(list)
        for column in ("text", "token"):
            for number, text in enumerate(columns.get(column, ())):
                if text and number not in self._ids[text]:
                    self._ids[text].append(number)
        self._by_text = {text for text in self.texts if text}

    def text(self, number: int) -> str:
        """Text of a token."""
        return self.texts[number] if number < len(self.texts) else f"<{number}>"

    def id(self, token: str) -> int:
        """The id of the token that is exactly this text, or the tokenizer's own string.

        Raises
        ------
        AnswerTokenError
            It is several tokens, which the message shows, none, or the text of more than one.
        """
        found = self._ids.get(token, [])
        if len(found) == 1:
            return found[0]
        if found:
            raise AnswerTokenError(
                f"{token!r} is the text of {len(found)} tokens, with ids {_few(found)}; give the id"
            )
        if not self._by_text:
            raise AnswerTokenError(
                f"cannot find the token {token!r}: the file holds no vocabulary; give its id"
            )
        raise AnswerTokenError(self._why_not(token))

    def _why_not(self, token: str) -> str:
        if not token:
            return "the empty string is no token; expected one, such as ' Mary'"
        hints = [text for text in (f" {token}", token.strip()) if text in self._ids]
        hint = f"; did you mean {hints[0]!r}? A leading space is part of a token" if hints else ""
        pieces = self.pieces(token)
        if pieces is None:
            return f"no token {token!r} in the model's vocabulary of {len(self.texts):,}{hint}"
        return (
            f"{token!r} is {len(pieces)} tokens, {', '.join(map(repr, pieces))} (the longest of the vocabulary from the "
            f"left; the file holds no tokenizer, and it may cut otherwise): expected a single token{hint}"
        )

    def pieces(self, text: str) -> list[str] | None:
        """A text as tokens of the vocabulary, the longest first; None where it cannot be cut so."""
        found: list[str] = []
        at = 0
        while at < len(text):
            ends = range(len(text), at, -1)
            end = next((end for end in ends if text[at:end] in self._by_text), None)
            if end is None:
                return None
            found.append(text[at:end])
            at = end
        return found


def token_ids(tokens: Any, weights: xr.Dataset, vocabulary: Vocabulary | None = None) -> Array:
    """Ids of a token, or of several, as an array of the same shape.

    Raises
    ------
    AnswerTokenError
        Something is no token of the model.
    """
    if np.ndim(tokens) == 0:
        one = tokens.item() if hasattr(tokens, "item") else tokens
        return np.asarray(token_id(one, weights, vocabulary))
    return np.array([token_id(token, weights, vocabulary) for token in tokens], np.intp)


def in_order(tokens: Any, hashes: list[str]) -> Any:
    """One token for all prompts, or one for each in their order.

    Raises
    ------
    AnswerTokenError
        There are tokens for other prompts.
    """
    if isinstance(tokens, Mapping):
        missing = [prompt_hash for prompt_hash in hashes if prompt_hash not in tokens]
        if missing:
            raise AnswerTokenError(f"no answer token for prompt {missing[0]!r}")
        return [tokens[prompt_hash] for prompt_hash in hashes]
    if tokens is None or np.ndim(tokens) == 0:
        return tokens
    if len(tokens) != len(hashes):
        raise AnswerTokenError(
            f"there are {len(tokens)} answer tokens for {len(hashes)} prompts: expected one for each, one for all, or a "
            "mapping from hash to token"
        )
    return tokens


def token_id(token: Any, weights: xr.Dataset, vocabulary: Vocabulary | None = None) -> int:
    """The id of one token.

    Raises
    ------
    AnswerTokenError
        It is no token of the model.
    """
    n_tokens = int(weights.sizes.get(TOKEN, 0))
    if isinstance(token, str):
        if vocabulary is None:
            raise AnswerTokenError(
                f"cannot find the token {token!r} without a vocabulary; give its id"
            )
        return vocabulary.id(token)
    try:
        number = operator.index(token)
    except TypeError:
        raise AnswerTokenError(
            f"{token!r} is no token: expected its text or its id, a whole number"
        ) from None
    if isinstance(token, bool) or not 0 <= number < n_tokens:
        raise AnswerTokenError(f"no token {token!r}: expected an id from 0 to {n_tokens - 1}")
    return number


def _few(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    return shown + (", …" if len(numbers) > _SHOWN else "")
