"""Index rows: fixed-size records whose seal makes them valid; a row is the commit record.

A row that is torn, zeroed or never written has a seal that does not fit, and names nothing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

Rows = np.ndarray[tuple[int], np.dtype[np.void]]

PROMPT_ROW: Final = np.dtype(
    [
        ("key", "<u8"),
        ("hash_start", "<u8"),
        ("text_start", "<u8"),
        ("token_start", "<u8"),
        ("hash_size", "<u4"),
        ("text_size", "<u4"),
        ("meta_size", "<u4"),
        ("n_ctx", "<u4"),
        ("flags", "<u4"),
        ("checksum", "<u4"),
        ("seal", "<u8"),
    ]
)

ARRAY_ROW: Final = np.dtype(
    [
        ("prompt", "<u8"),
        ("start", "<u8"),
        ("size0", "<u4"),
        ("size1", "<u4"),
        ("checksum", "<u8"),
        ("seal", "<u8"),
    ]
)

TRUNCATED: Final = 1
BOS_PREPENDED: Final = 2

_SEAL_START: Final = np.uint64(0x9E3779B97F4A7C15)
_SEAL_FACTOR: Final = np.uint64(0xD6E8FEB86659FD93)
_BLOCK: Final = 8192


def seals(rows: Rows) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The seal that each row should carry, from its other bytes (docs/format.md, "Seals")."""
    words = np.ascontiguousarray(rows).view("<u8").reshape(len(rows), rows.dtype.itemsize // 8)
    out = np.full(len(rows), _SEAL_START)
    for first in range(0, len(rows), _BLOCK):  # blocks that fit the processor's cache
        h = out[first : first + _BLOCK]
        for column in range(words.shape[1] - 1):
            h ^= words[first : first + _BLOCK, column]
            h *= _SEAL_FACTOR
            h ^= h >> np.uint64(32)
    return out


def seal(rows: Rows) -> Rows:
    """The same rows, sealed."""
    sealed = rows.copy()
    sealed["seal"] = seals(rows)
    return sealed


def is_valid(rows: Rows) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows name something."""
    return np.asarray(rows["seal"] == seals(rows))


def is_blank(rows: Rows) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows are all zero: never written, or deleted."""
    words = np.ascontiguousarray(rows).view("<u8").reshape(len(rows), rows.dtype.itemsize // 8)
    return np.asarray(~words.any(axis=1))


def newest(prompt: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Positions of the last row of each prompt, in the order in which the prompts first came.

    Parameters
    ----------
    prompt
        The `prompt` column of the valid rows of one index.

    Returns
    -------
    Positions into `prompt`; all of them when no prompt comes twice, which costs one comparison.
    """
    if len(prompt) < 2 or bool((prompt[1:] > prompt[:-1]).all()):
        return np.arange(len(prompt))
    _, first, inverse = np.unique(prompt, return_index=True, return_inverse=True)
    last = np.zeros(len(first), np.intp)
    np.maximum.at(last, inverse, np.arange(len(prompt)))
    return np.asarray(last[np.argsort(first)])
