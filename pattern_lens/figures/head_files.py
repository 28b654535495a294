"""Figures of one head as files in a folder, as pattern-lens 0.6 kept them.

The rules: ``{figure}.{format}``, written whole, or ``{figure}.error.txt``; a function is done if its figures are there
and no error is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pattern_lens.errors import FigureKindError
from pattern_lens.figures.failures import failure
from pattern_lens.figures.products import Failure, Picture, Values
from pattern_lens.figures.saving import file_name, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pattern_lens.figures.products import Product
    from pattern_lens.figures.registry import FigureFunction

_ERROR: Final = ".error.txt"


def has_files(entry: FigureFunction, folder: Path) -> bool:
    """Whether every figure of a function has a file, and none an error."""
    if _error_files(entry, folder):
        return False
    ending = f".{entry.format}" if entry.kind == "files" and entry.format else ""
    there = [name for name in _names(folder) if name.endswith(ending)]
    if entry.is_multiple or entry.only is not None:
        stems = {name.rpartition(".")[0] for name in there}
        return stems.issuperset(map(file_name, entry.wanted_names))
    return any(name.startswith(f"{entry.name}.") for name in there)


def write_files(entry: FigureFunction, made: Iterable[Product], folder: Path) -> Failure | None:
    """Write what a function made; its first failure.

    Errors of earlier calls are removed.
    """
    failed: dict[str, Failure] = {}
    for product in made:
        if isinstance(product, Picture):
            write_whole(folder / _picture_file(entry, product), product.data)
            continue
        found = _without_file(entry, product) if isinstance(product, Values) else product
        words = f"{found.error}: {found.message}\n\n{found.traceback}"
        name = file_name(product.name) + _ERROR
        write_whole(folder / name, words.encode("utf-8", "replace"))
        failed[name] = found
    for stale in _error_files(entry, folder).difference(failed):
        (folder / stale).unlink(missing_ok=True)
    return next(iter(failed.values()), None)


def _error_files(entry: FigureFunction, folder: Path) -> set[str]:
    stems = {name.removesuffix(_ERROR) for name in _names(folder) if name.endswith(_ERROR)}
    if entry.only is None:
        own = {stem for stem in stems if f"{stem}.".startswith(f"{entry.name}.")}
    else:
        own = stems & {entry.name, *map(file_name, entry.only)}
    return {f"{stem}{_ERROR}" for stem in own}


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _picture_file(entry: FigureFunction, picture: Picture) -> str:
    ending = f".{file_name(picture.format)}"
    # A function that wrote f.png and f.svg has the figures f and f.svg.
    name = picture.name if entry.is_multiple else picture.name.removesuffix(ending)
    return file_name(name) + ending


def _without_file(entry: FigureFunction, product: Values) -> Failure:
    error = FigureKindError(
        f"figure function {entry.name!r} returned numbers, which make no file; map_figures stores them"
    )
    return failure(product.name, error)
