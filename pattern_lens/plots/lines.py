"""Tokens -> places on lines of text.

The rule: one token is never broken; a token that ends a line of the prompt ends one here.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.plots.labels import isolated, short
from pattern_lens.wording import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_GAP: Final = 0.25


@dataclass(frozen=True, eq=False)
class Placed:
    """Where each token is: its text, its ends in letters from the left, and its line from 0."""

    texts: list[str]
    left: NDArray[np.float64]
    right: NDArray[np.float64]
    line: NDArray[np.int64]

    @property
    def n_lines(self) -> int:
        """Number of lines."""
        return int(self.line.max()) + 1


def place(tokens: Sequence[str], n_letters: int) -> Placed:
    r"""Tokens on lines of at most `n_letters` letters.

    Examples
    --------
    >>> placed = place(["the", " cat", "\n", " sat"], 12)
    >>> placed.texts, placed.line.tolist()
    (['the', ' cat', '⏎', ' sat'], [0, 0, 0, 1])
    """
    texts = [short(_readable(token), n_letters) for token in tokens]
    left, right, lines = np.zeros((3, len(texts)))
    x, line = 0.0, 0
    for i, (token, text) in enumerate(zip(tokens, texts, strict=True)):
        width = n_columns(text) + _GAP
        if x > 0 and x + width > n_letters:
            x, line = 0.0, line + 1
        left[i], right[i], lines[i] = x, x + width, line
        x += width + _GAP
        if "\n" in token:
            x, line = 0.0, line + 1
    return Placed([isolated(text) for text in texts], left, right, lines.astype(np.int64))


def _readable(token: str) -> str:
    """Text in which the spaces beside words are spaces: what stands behind them shows them."""
    shown = visible(token)
    return shown.replace("␣", " ") if shown.strip("␣") else shown


def n_columns(text: str) -> int:
    """Columns that a text takes in a font of one width.

    Examples
    --------
    >>> n_columns("ab"), n_columns("漢字")
    (2, 4)
    """
    return sum(map(_width, text)) or 1


def _width(char: str) -> Any:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
