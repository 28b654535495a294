"""Registered figure functions, chosen by name.

The rule: every name or glob has to match something; what is not there is an error, never nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from pattern_lens.errors import FigureFunctionError, UnknownFigureError
from pattern_lens.figures.registry import FigureFunction, figure_function, figure_functions

Chosen: TypeAlias = str | Callable[..., Any] | FigureFunction
Select: TypeAlias = Chosen | Iterable[Chosen] | None


def select_figure_functions(select: Select = None) -> tuple[FigureFunction, ...]:
    """Figure functions that are asked for, each once.

    Parameters
    ----------
    select
        None for all registered ones; a name or a glob, of functions (``svd*``) or of single figures
        (``fft.log``); a function, registered or not; or any of these in a list or set.

    Returns
    -------
    In the order of registration, then those that are not registered. Where only figures were named,
    the entry says which in `only`.

    Raises
    ------
    UnknownFigureError
        A name or glob that matches nothing.
    FigureFunctionError
        Neither names nor functions.
    """
    known = figure_functions()
    if select is None:
        return tuple(known.values())
    chosen: dict[str, FigureFunction] = {}
    for item in _items(select):
        found = _matching(item, known) if isinstance(item, str) else [figure_function(item)]
        for entry in found:
            chosen[entry.name] = _joined(chosen.get(entry.name), entry)
    order = [*known, *chosen]
    return tuple(sorted(chosen.values(), key=lambda entry: order.index(entry.name)))


def _items(select: Any) -> Iterable[Any]:
    if isinstance(select, str | FigureFunction) or callable(select):
        return [select]
    if not isinstance(select, Iterable):
        raise FigureFunctionError(
            f"cannot choose figure functions by {select!r}: expected names, globs or functions"
        )
    # In the order of their text, so that a set gives the same every time.
    return sorted(select, key=str) if isinstance(select, set | frozenset) else select


def _matching(pattern: str, known: dict[str, FigureFunction]) -> list[FigureFunction]:
    found = []
    for entry in known.values():
        if fnmatchcase(entry.name, pattern):
            found.append(entry)
            continue
        only = frozenset(n for n in entry.figure_names if fnmatchcase(n, pattern))
        if only:
            found.append(replace(entry, only=only))
    if not found:
        raise UnknownFigureError(_unknown(pattern, known))
    return found


def _joined(first: FigureFunction | None, second: FigureFunction) -> FigureFunction:
    if first is None or first.function is not second.function:
        return second
    if first.only is None or second.only is None:
        return replace(first, only=None)
    return replace(first, only=first.only | second.only)


def _unknown(pattern: str, known: dict[str, FigureFunction]) -> str:
    names = list(dict.fromkeys([*known, *(n for e in known.values() for n in e.figure_names)]))
    bare = pattern.strip("*?")
    starts = {name[: len(bare)]: name for name in reversed(names)}
    near = get_close_matches(bare, names, n=3)
    near = near or [starts[start] for start in get_close_matches(bare, starts, n=3)]
    hint = f"nearest: {', '.join(map(repr, near))}; " if near else ""
    return (
        f"no figure function or figure matches {pattern!r}; {hint}registered: {', '.join(known) or 'none'}; "
        "import the module that registers it first"
    )
