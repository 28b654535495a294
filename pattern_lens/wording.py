"""Counts, sizes and tokens as people read them."""

from __future__ import annotations

import unicodedata
from typing import Final

_SEEN: Final = str.maketrans({" ": "␣", "\n": "⏎", "\r": "⏎", "\t": "⇥", "\xa0": "␣"})
_HIDDEN: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
_JOINERS: Final = "\u200c\u200d"  # scripts and emoji need them


def counted(n: int, word: str) -> str:
    """How many of something.

    Examples
    --------
    >>> counted(1, "prompt"), counted(2134, "prompt")
    ('1 prompt', '2,134 prompts')
    """
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def human_size(n_bytes: float) -> str:
    """Bytes in the largest unit that leaves a number of at least 1.

    Examples
    --------
    >>> human_size(812), human_size(9_766_988)
    ('812 B', '9.8 MB')
    """
    unit = "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 1000 or unit == "TB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"


def visible(token: str) -> str:
    r"""A token on one line, with its spaces and line ends, and what has no glyph as its code.

    Examples
    --------
    >>> visible(" the\n"), visible("\x00"), visible("\udc80")
    ('␣the⏎', '\\x00', '\\udc80')
    """
    return "".join(map(_glyph, str(token).translate(_SEEN)))


def _glyph(char: str) -> str:
    if unicodedata.category(char) in _HIDDEN and char not in _JOINERS:
        return (
            char.encode("ascii", "backslashreplace").decode() if char > "\x7f" else repr(char)[1:-1]
        )
    return char
