"""Exceptions -> failures that can be kept."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pattern_lens.figures.products import Failure
from pattern_lens.tracebacks import told

_OURS: Final = Path(__file__).parent


def failure(name: str, error: BaseException) -> Failure:
    """What is kept of an exception.

    Parameters
    ----------
    name
        Figure that was to be drawn.
    """
    return Failure(name, *told(error, ours=_OURS))
