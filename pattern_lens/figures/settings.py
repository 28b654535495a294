"""What figure functions share in a process: its working folder, and matplotlib's settings.

The rule: every call begins with those of the process that started the run, whatever calls before it did, so that
a figure looks the same wherever it is drawn.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_KEPT: Final = ("backend", "backend_fallback")
"""Chosen once in a process, when it is needed."""


def own_settings() -> dict[str, Any]:
    """Matplotlib's settings that were changed in this process."""
    known = _known("rcParams")
    original = _known("rcParamsOrig")
    return {
        key: dict.__getitem__(known, key)
        for key in known
        if key not in _KEPT and dict.__getitem__(known, key) != dict.get(original, key)
    }


@contextmanager
def undisturbed(settings: Mapping[str, Any]) -> Iterator[None]:
    """Run something with these settings, and put back what it changes."""
    if settings:
        import_module("matplotlib")
        dict.update(_known("rcParams"), settings)
    before = dict(dict.items(_known("rcParams")))  # matplotlib's own way takes 40 times as long
    folder = None
    with suppress(OSError):  # it was deleted
        folder = os.getcwd()  # noqa: PTH109 - for each head of each prompt
    try:
        yield
    finally:
        if folder is not None:
            os.chdir(folder)
        after = _known("rcParams")
        before = before or dict(_known("rcParamsOrig"))
        before |= {key: dict.__getitem__(after, key) for key in _KEPT if key in after}
        if after and dict.__ne__(after, before):
            dict.update(after, before)


def _known(name: str) -> Any:
    """Settings of matplotlib, where it is imported."""
    return getattr(sys.modules.get("matplotlib"), name, {})
