"""What became of a batch.

The rule: whatever an item's function raised is kept as text, so that it can be sent and stored anywhere.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_OURS: Final = Path(__file__).parent
_LONGEST: Final = 50_000


@dataclass(frozen=True)
class ItemFailure:
    """Why an item has no result.

    Parameters
    ----------
    error
        Type of the exception: ``ValueError``, ``numpy.linalg.LinAlgError``, … ``TimeoutError`` for an item
        that took too long, ``ChildProcessError`` for one whose process ended.
    message
        What the exception says.
    traceback
        Text of the traceback from the function on, as Python prints it; empty where there is none.
    """

    error: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class BatchOutcome:
    """A batch that is done with.

    Parameters
    ----------
    index
        Place of the batch among the batches, from 0.
    items
        The batch as it was given.
    results
        For each item, in order, what the function made of it, or an `ItemFailure`.
    """

    index: int
    items: Sequence[Any]
    results: tuple[Any, ...]


def item_failure(error: BaseException) -> ItemFailure:
    """What is kept of an exception."""
    kind = type(error)
    prefix = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    shown = traceback.TracebackException(kind, error, _users_part(error.__traceback__))
    return ItemFailure(
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
