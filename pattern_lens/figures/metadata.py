"""What is said about figures beside them: one record for each figure name, plain JSON."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pattern_lens.figures.registry import FigureFunction


def figure_records(entry: FigureFunction) -> list[dict[str, Any]]:
    """Records of the figures of one function.

    Returns
    -------
    One dict a figure, with the keys of the predecessor's ``figures.jsonl`` (``name``, ``func_name``, ``doc``,
    ``figure_save_fmt``, ``source``, ``code``) and ``kind``, ``stored``, ``parameters``. `source` is the function's own
    module as a relative path, without the folders of the machine it is on; `code` is None where it is
    not to be had.
    """
    function = inspect.unwrap(entry.function)
    shared = {
        "func_name": entry.name,
        "doc": function.__doc__,
        "figure_save_fmt": entry.format,
        "source": _source(function),
        "code": _code(function),
        "kind": entry.kind,
        "stored": entry.is_stored,
        "parameters": {**_defaults(function), **entry.options},
    }
    return [{"name": name, **shared} for name in entry.figure_names]


def _source(function: Callable[..., Any]) -> str | None:
    try:
        path = inspect.getsourcefile(function)
    except TypeError:
        return None
    if path is None:
        return None
    package = (function.__module__ or "").split(".")
    end = package[-1:] if Path(path).stem == package[-1] else []
    is_module = Path(path).stem in (package[-1], "__init__")
    n_folders = len(package) - len(end) if is_module else 0
    return "/".join(Path(path).parts[-n_folders - 1 :])


def _code(function: Callable[..., Any]) -> str | None:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return None


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    given = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {name: _plain(value) for name, value in given.items()}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
