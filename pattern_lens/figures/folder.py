"""A private folder for a function that writes files, and the pictures that those files are.

The rules: the folder is in memory where there is room, and is gone when the function has ended, however it
ended. The size of what was written is looked at before any of it is read.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.errors import FigureKindError
from pattern_lens.figures.products import Picture

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the folder in it is private
_ROOM_BYTES: Final = 1 << 30
_NO_FORMAT: Final = "bin"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder that nobody else can read; removed with all that is in it."""
    folder = tempfile.mkdtemp(prefix="pattern-lens-", dir=_parent())
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _parent() -> Path | None:
    """Memory, if there is much of it; None for the system's folder of temporary files."""
    try:
        with tempfile.TemporaryDirectory(dir=_SHARED_MEMORY):
            has_room = shutil.disk_usage(_SHARED_MEMORY).free >= _ROOM_BYTES
    except OSError:
        return None
    return _SHARED_MEMORY if has_room else None


def written(folder: Path) -> list[tuple[PurePath, Path, int]]:
    """Files in a folder and those below it, in order: relative name, path, bytes.

    Raises
    ------
    FigureKindError
        Something that is no file, such as a pipe or a broken link.
    """
    found: list[tuple[PurePath, Path, int]] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        is_link = path.is_symlink()
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        if is_link or not stat.S_ISREG(mode):
            raise FigureKindError(
                f"wrote {name.as_posix()!r}, which is {'a link' if is_link else 'a pipe or device'}: expected files"
            )
        if name.as_posix().encode("utf-8", "replace").decode() != name.as_posix():
            raise FigureKindError(
                f"wrote {name.as_posix()!r}, a name that is no text: expected UTF-8"
            )
        found.append((name, path, path.lstat().st_size))
    return found


def pictures(func_name: str, files: Iterable[tuple[Any, bytes]]) -> list[Picture]:
    """Pictures that files are, named after the function.

    A file ``{func}.{fmt}`` is the figure ``func``, ``{func}.{sub}.{fmt}`` is ``func.sub``, and any other
    ``{stem}.{fmt}`` is ``func.{stem}``. A figure that was written in several formats has its name for the first of
    them in alphabetical order, and ``{name}.{fmt}`` for each other.

    Raises
    ------
    FigureKindError
        An empty file, or two files for one figure and format.

    Examples
    --------
    >>> [p.name for p in pictures("f", [("f.png", b"1"), ("f.a.svg", b"2"), ("other.png", b"3")])]
    ['f', 'f.a', 'f.other']
    """
    made: dict[tuple[str, str], Picture] = {}
    for file_name, data in files:
        name, fmt = _figure_name(func_name, PurePath(file_name))
        if not data:
            raise FigureKindError(f"wrote {str(file_name)!r} without anything in it")
        if (name, fmt) in made:
            raise FigureKindError(f"wrote two files for figure {name!r} in format {fmt!r}")
        made[name, fmt] = Picture(name, fmt, data)
    first = {name: min(f for n, f in made if n == name) for name, _ in made}
    return [
        picture if fmt == first[name] else Picture(f"{name}.{fmt}", fmt, picture.data)
        for (name, fmt), picture in made.items()
    ]


def _figure_name(func_name: str, path: PurePath) -> tuple[str, str]:
    fmt = path.suffix.lower().removeprefix(".")
    stem = ".".join(path.with_suffix("").parts)
    is_own = stem == func_name or stem.startswith(f"{func_name}.")
    return (stem if is_own else f"{func_name}.{stem}"), fmt or _NO_FORMAT
