"""What tells one function from another, and what the file says of it.

The rule: functions with the same name, source and options are one function; functions of this package are
told apart by their names alone, so that a newer version of it goes on where an older one stopped.
"""

from __future__ import annotations

import inspect
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

import xxhash

from pattern_lens.errors import ResultMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_LONGEST_SOURCE: Final = 8_000
_PLAIN = (str, int, float, bool, type(None))


def function_name(function: Callable[..., Any]) -> str:
    """The name of a function, as people say it."""
    inner = _inner(function)
    return str(getattr(inner, "__name__", None) or type(inner).__name__)


def describe_function(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a function beside its results.

    Returns
    -------
    ``function`` (qualified name), ``doc`` (its first line), ``source`` where it is to be had and not of this package,
    ``options`` as text, and ``code``, which is equal for equal functions.
    """
    inner = _inner(function)
    module = getattr(inner, "__module__", None) or ""
    name = f"{module}.{getattr(inner, '__qualname__', type(inner).__qualname__)}"
    given = {**_partial_options(function), **{key: repr(value) for key, value in options.items()}}
    is_ours = module.partition(".")[0] == "pattern_lens"
    source = "" if is_ours else _source(inner)
    own = "" if is_ours else source or _bytecode(getattr(inner, "__code__", None))
    digest = "\n".join([name, own, repr(sorted(given.items()))])
    known = {
        "function": name,
        "doc": (inspect.getdoc(inner) or "").partition("\n")[0],
        "options": given,
        "source": source[:_LONGEST_SOURCE],
        "code": xxhash.xxh3_64_hexdigest(digest.encode("utf-8", "replace")),
    }
    return {key: value for key, value in known.items() if value}


def _inner(function: Callable[..., Any]) -> Any:
    while isinstance(function, partial):
        function = function.func
    return inspect.unwrap(function)


def _partial_options(function: Callable[..., Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    while isinstance(function, partial):
        named = {key: repr(value) for key, value in function.keywords.items()}
        placed = {f"argument {i}": repr(value) for i, value in enumerate(function.args)}
        found = {**placed, **named, **found}
        function = function.func
    closure = inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
    return found | {key: repr(v) for key, v in closure.items() if isinstance(v, _PLAIN)}


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""


def _bytecode(code: Any) -> str:
    """What a function without a source does, said the same way in every process."""
    if not isinstance(code, CodeType):
        return ""
    return f"{code.co_code!r}{[*map(_constant, code.co_consts)]!r}{code.co_names!r}"


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):  # a function inside, whose repr has its address
        return _bytecode(value)
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


def differing(stored: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """What stored results were computed from, if it is something else than what is given."""
    if any(stored.get(key) != given.get(key) for key in ("activation", "of", "per_head")):
        chosen = f"{stored.get('activation')}{stored.get('of', '')}"
        return f"another choice of values, {chosen} (this is {given['activation']}{given['of']})"
    if stored.get("code") != given.get("code"):
        return f"another function, or another version of it ({stored.get('function')})"
    return None


def mismatch(path: Path, name: str, why: str) -> ResultMismatchError:
    """The error that says so."""
    return ResultMismatchError(
        f"{path} holds results {name!r} of {why}; use another name, or force=True to replace them"
    )
