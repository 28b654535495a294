"""What became of a batch.

The rule: whatever an item's function raised is kept as text, so that it can be sent and stored anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.tracebacks import told

if TYPE_CHECKING:
    from collections.abc import Sequence

_OURS: Final = Path(__file__).parent


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
    return ItemFailure(*told(error, ours=_OURS))
