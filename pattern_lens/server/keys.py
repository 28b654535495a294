"""Names in addresses: prompts by key, models by id, heads by label; each is safe as a file's name.

The rule: nothing here changes a name that is safe already, so addresses say what they are of.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pattern_lens.consts import sanitize_name_str
from pattern_lens.store.prompt_table import hash_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SAFE_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_LABEL: Final = re.compile(r"L([0-9]{1,6})H([0-9]{1,6})", re.ASCII)
_LONGEST_ID: Final = 80


def prompt_key(prompt_hash: str) -> str:
    """What a prompt is called in addresses: its hash, or ``~`` and a digest of it.

    Examples
    --------
    >>> prompt_key("C7p4x9-iwFxWSKCb8kbLfQ"), prompt_key("../x")
    ('C7p4x9-iwFxWSKCb8kbLfQ', '~ade92630f33b0870')
    """
    if _SAFE_KEY.fullmatch(prompt_hash) and not _RESERVED.fullmatch(prompt_hash):
        return prompt_hash
    return f"~{hash_key(prompt_hash):016x}"


def model_id(name: str) -> str:
    """A model's name as a part of an address.

    Examples
    --------
    >>> model_id("google/gemma 2b"), model_id(".."), model_id("NUL")
    ('google-gemma_2b', 'model', 'NUL_')
    """
    found = sanitize_name_str(name).lstrip(".")[:_LONGEST_ID].rstrip(".") or "model"
    return f"{found}_" if _RESERVED.fullmatch(found) else found


def ids_of(names: Sequence[tuple[str, Path]]) -> list[str]:
    """An id for each file, from its model's name; with the file's name where one before it is of that model."""
    plain = [model_id(name) for name, _ in names]
    found: list[str] = []
    taken: set[str] = set()  # in small letters: a file system may not tell capitals apart
    for one, (_, path) in zip(plain, names, strict=True):
        own = one if one.lower() not in taken else f"{one}@{model_id(path.stem)}"
        number = 2
        unique = own
        while unique.lower() in taken:
            unique, number = f"{own}-{number}", number + 1
        taken.add(unique.lower())
        found.append(unique)
    return found


def parse_label(label: str) -> tuple[int, int] | None:
    """Layer and head of a label such as ``L3H5``; None where it is none."""
    match = _LABEL.fullmatch(label)
    return (int(match[1]), int(match[2])) if match else None
