"""Which of the two kinds a figure function is, told from its signature.

- ``files``: takes a matrix and a folder, ``f(attn_matrix, path)``, and writes any files into it, as
  functions for pattern-lens 0.6 do. Every function with two positional parameters without defaults is
  one; so is one whose second parameter has a default but is called like a folder or annotated as a
  path, and one that takes ``*args``.
- ``labelled``: takes the labelled array alone, ``f(pattern)``, and returns what it made. Further
  parameters have defaults.

A decorator that only hands ``*args`` on is looked through if it used `functools.wraps`.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from pattern_lens.errors import FigureFunctionError

if TYPE_CHECKING:
    from collections.abc import Callable

Kind: TypeAlias = Literal["files", "labelled"]

_FOLDER_NAMES: Final = frozenset(
    {"path", "save_dir", "save_path", "folder", "directory", "out_dir", "output_dir"}
)
_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
_EXPECTED: Final = "expected f(attn_matrix, path), or f(pattern)"


def kind_of(function: Callable[..., Any]) -> Kind:
    """Kind of a figure function.

    Raises
    ------
    FigureFunctionError
        It can be called with neither one nor two arguments.

    Examples
    --------
    >>> kind_of(lambda attn_matrix, path: None)
    'files'
    >>> kind_of(lambda pattern, base=2: None)
    'labelled'
    """
    parameters = list(_own_signature(function).parameters.values())
    name = getattr(function, "__name__", repr(function))
    named = [p for p in parameters if p.kind in _POSITIONAL]
    needed = [p for p in named if p.default is p.empty]
    keyword = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if keyword or len(needed) > 2:
        extra = keyword or [p.name for p in needed[2:]]
        raise FigureFunctionError(
            f"cannot call figure function {name!r}: {_EXPECTED}, but it also needs {', '.join(extra)}; give them defaults"
        )
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(needed) == 2 or (takes_any and len(named) < 2) or _is_folder(named[1:2]):
        return "files"
    if not named:
        raise FigureFunctionError(f"figure function {name!r} takes no argument: {_EXPECTED}")
    return "labelled"


def _own_signature(function: Callable[..., Any]) -> inspect.Signature:
    """Signature of the outermost function that names its parameters."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError) as error:
        raise FigureFunctionError(
            f"cannot tell what arguments {function!r} takes: {error}; wrap it in a function with def"
        ) from error
    inner = getattr(function, "__wrapped__", None)
    has_names = any(p.kind in _POSITIONAL for p in signature.parameters.values())
    return signature if has_names or inner is None else _own_signature(inner)


def _is_folder(second: list[inspect.Parameter]) -> bool:
    return any(p.name in _FOLDER_NAMES or "Path" in str(p.annotation) for p in second)


def name_of(function: Callable[..., Any]) -> str:
    """Name of a figure function, which begins the names of all its figures.

    Raises
    ------
    FigureFunctionError
        It is not callable, or has no name that a file could have.
    """
    name = getattr(function, "__name__", None)
    if not callable(function) or not isinstance(name, str) or not name.isidentifier():
        raise FigureFunctionError(
            f"cannot use {function!r} as a figure function: expected a function with a name; define it with def"
        )
    return name


def check_figure_names(names: Any) -> tuple[str, ...]:
    """Names of a function's figures, as a tuple.

    Raises
    ------
    FigureFunctionError
        No names, one string instead of a list, a name given twice, or one that no file could have.
    """
    if isinstance(names, str):
        raise FigureFunctionError(f"names must be a list of strings, got {names!r}: put it in []")
    given: tuple[Any, ...] = tuple(names)
    unfit = [n for n in given if not isinstance(n, str) or not n or {"/", "\\", "\0"} & set(n)]
    twice = sorted({n for n in given if given.count(n) > 1}) if not unfit else []
    if not given or unfit or twice:
        what = f"unfit {unfit!r}" if unfit else f"twice {twice!r}" if twice else "none"
        raise FigureFunctionError(
            f"names of figures must be distinct strings without slashes, at least one; got {what}"
        )
    return given
