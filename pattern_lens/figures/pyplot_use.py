"""pyplot and its one current figure, for functions that cannot do without.

The rule: whoever touches pyplot does so alone in the process, and leaves no figure open. Functions that
draw on the axes they are given never come here.
"""

from __future__ import annotations

import inspect
import sys
import threading
from contextlib import contextmanager, suppress
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PYPLOT: Final = "matplotlib.pyplot"
_ALONE: Final = threading.RLock()


def uses_pyplot(function: Callable[..., Any]) -> bool:
    """Whether the code of a function, or of one of its module that it calls, names pyplot.

    Annotations do not count, so ``ax: plt.Axes`` alone is no use of it. What other modules do is not
    looked at.
    """
    bare: Any = inspect.unwrap(function)
    return isinstance(bare, FunctionType) and _cached(bare)


@lru_cache(maxsize=256)
def _cached(function: FunctionType) -> bool:
    return _uses_pyplot(function, set())


def _uses_pyplot(function: FunctionType, seen: set[int]) -> bool:
    seen.add(id(function))
    names = _names_in(function.__code__)
    if "pyplot" in names or _PYPLOT in names:
        return True
    known = {**function.__globals__, **_closure(function)}
    return any(_is_pyplot(known.get(name), function, seen) for name in names)


def _is_pyplot(value: Any, user: FunctionType, seen: set[int]) -> bool:
    """Whether a value is pyplot, or a function of the same module as its user that uses it."""
    if isinstance(value, ModuleType):
        return value.__name__ == _PYPLOT
    is_neighbour = isinstance(value, FunctionType) and value.__module__ == user.__module__
    return is_neighbour and id(value) not in seen and _uses_pyplot(value, seen)


def _closure(function: FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # an empty cell
            found[name] = cell.cell_contents
    return found


def _names_in(code: CodeType) -> set[str]:
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return {*code.co_names, *code.co_freevars}.union(*map(_names_in, inner))


@contextmanager
def alone_with_pyplot() -> Iterator[None]:
    """Keep others from pyplot for a while, then close the figures that were opened in it."""
    with _ALONE:
        before = _open_figures()
        try:
            yield
        finally:
            for number in _open_figures() - before:
                sys.modules[_PYPLOT].close(number)


def close(figure: Any) -> None:
    """Let pyplot forget a figure, if it knows it."""
    if _PYPLOT in sys.modules:
        sys.modules[_PYPLOT].close(figure)


def _open_figures() -> set[int]:
    pyplot = sys.modules.get(_PYPLOT)
    return set(pyplot.get_fignums()) if pyplot is not None else set()
