"""Exceptions -> failures that can be kept.

The rule: a traceback begins at the user's function; the frames of this folder that called it say nothing.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pattern_lens.figures.products import Failure

if TYPE_CHECKING:
    from types import TracebackType

_OURS: Final = Path(__file__).parent
_LONGEST: Final = 50_000


def failure(name: str, error: BaseException) -> Failure:
    """What is kept of an exception.

    Parameters
    ----------
    name
        Figure that was to be drawn.
    """
    kind = type(error)
    prefix = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    shown = traceback.TracebackException(kind, error, _users_part(error.__traceback__))
    return Failure(
        name=name,
        error=f"{prefix}{kind.__qualname__}",
        message=_cut(_message(error)),
        traceback=_cut("".join(shown.format())),
    )


def _users_part(found: TracebackType | None) -> TracebackType | None:
    while found is not None and Path(found.tb_frame.f_code.co_filename).parent == _OURS:
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
