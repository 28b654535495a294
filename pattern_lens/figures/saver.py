"""What the decorators of this package have in common: a function that draws, made one that saves.

The rule: called by a user with (matrix, folder), the decorated function writes its files there; called
by the runner, which knows its `Saver`, the same bytes never touch a disk.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    Draw: TypeAlias = Callable[[NDArray[Any]], list[tuple[str, bytes]]]
    FilesFunction: TypeAlias = Callable[[NDArray[Any], Path], None]

_ATTRIBUTE = "_saver"


@dataclass(frozen=True, eq=False)
class Saver:
    """The way around the disk.

    Parameters
    ----------
    wrapped
        The decorated function that this belongs to.
    draw
        Matrix -> names and bytes of its files.
    fmt
        Ending of its files.
    options
        What the decorator was told.
    """

    wrapped: FilesFunction
    draw: Draw
    fmt: str
    options: Mapping[str, Any]


def as_saver(
    function: Callable[..., Any], draw: Draw, fmt: str, options: Mapping[str, Any]
) -> FilesFunction:
    """`function`, made one that takes a matrix and a folder and saves what `draw` draws."""

    @functools.wraps(function)
    def wrapped(attn_matrix: NDArray[np.generic], save_dir: Path) -> None:
        for name, data in draw(attn_matrix):
            (Path(save_dir) / name).write_bytes(data)

    wrapped.__dict__["figure_save_fmt"] = fmt
    saving = cast("FilesFunction", wrapped)
    wrapped.__dict__[_ATTRIBUTE] = Saver(saving, draw, fmt, options)
    return saving


def saver_of(function: Callable[..., Any]) -> Saver | None:
    """The saver of a function that is one itself, and does not only wrap one."""
    # A decorator of the user's own that used functools.wraps carries the attribute too.
    saver = getattr(function, _ATTRIBUTE, None)
    return saver if isinstance(saver, Saver) and saver.wrapped is function else None
