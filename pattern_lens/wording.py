"""Counts and sizes as people read them."""

from __future__ import annotations


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
