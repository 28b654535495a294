"""What is kept of an exception of somebody's function: text that can be sent and stored anywhere.

The rule: a traceback begins at the function; the frames of this package that called it say nothing.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from types import TracebackType

_LONGEST: Final = 50_000


class Told(NamedTuple):
    """An exception in words: its type (``numpy.linalg.LinAlgError``), what it says, its traceback."""

    error: str
    message: str
    traceback: str


def told(error: BaseException, *, ours: Path) -> Told:
    """What an exception says.

    Parameters
    ----------
    ours
        Folder whose frames are left out where the traceback begins.
    """
    kind = type(error)
    prefix = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    shown = traceback.TracebackException(kind, error, _users_part(error.__traceback__, ours))
    return Told(
        f"{prefix}{kind.__qualname__}", _cut(_message(error)), _cut("".join(shown.format()))
    )


def _users_part(found: TracebackType | None, ours: Path) -> TracebackType | None:
    while found is not None and Path(found.tb_frame.f_code.co_filename).parent == ours:
        found = found.tb_next
    return found


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - exceptions of users
        return f"<no message: its str() raised {type(broken).__name__}>"


def _cut(text: str) -> str:
    """A text's beginning and end, where it is very long; always valid UTF-8."""
    text = text.encode("utf-8", "replace").decode()
    if len(text) <= _LONGEST:
        return text
    left_out = len(text) - _LONGEST
    return (
        f"{text[: _LONGEST // 2]}\n[… {left_out:,} characters left out …]\n{text[-_LONGEST // 2 :]}"
    )
