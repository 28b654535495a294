"""Files written whole: beside their place first, then renamed; and names that are safe for files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import xxhash

from pattern_lens.errors import FigureFormatError
from pattern_lens.store.create import explain_writing

if TYPE_CHECKING:
    from pathlib import Path

_SAFE: Final = re.compile(r"[\w-][\w.-]*")
_UNSAFE: Final = re.compile(r"[^\w.-]")
_LONGEST_BYTES: Final = 120
_SAME: Final = {"jpeg": "jpg", "tif": "tiff", "htm": "html"}


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole, or not at all.

    Raises
    ------
    DiskFullError, FileNotWritableError
        What stood in its place still does.
    """
    part = path.with_name(f".{path.name}.part")  # one name: what a crash leaves is written over
    try:
        with explain_writing(path):
            part.unlink(missing_ok=True)
            with part.open("xb") as file:
                file.write(data)
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def file_name(text: str) -> str:
    """A name as one that a file can have: itself, if it is safe; if not, with a digest, so that two stay two.

    Examples
    --------
    >>> file_name("C7p4x9-iwFxWSKCb8kbLfQ"), file_name("multi.first")
    ('C7p4x9-iwFxWSKCb8kbLfQ', 'multi.first')
    >>> file_name("../x")
    '_x-ade92630f33b0870'
    """
    if _SAFE.fullmatch(text) and len(text.encode()) <= _LONGEST_BYTES:
        return text
    kept = _UNSAFE.sub("_", text).lstrip(".").encode()[: _LONGEST_BYTES // 2]
    return f"{kept.decode(errors='ignore')}-{xxhash.xxh3_64_hexdigest(text.encode())}"


def check_ending(path: Path, fmt: str, *others: str) -> None:
    """Raise unless a path ends as files of a format do, or as those of the other formats.

    Raises
    ------
    FigureFormatError
        It has another ending.
    """
    ending = path.suffix.removeprefix(".").lower()
    allowed = {_SAME.get(one, one) for one in (fmt, *others)}
    if _SAME.get(ending, ending) not in allowed:
        raise FigureFormatError(
            f"cannot save a figure of format {fmt!r} as {path.name!r}: expected the ending .{fmt}; leave the ending "
            "out, and it is added"
        )
