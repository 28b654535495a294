"""How collections and runs look in a terminal and in a notebook. All text from a file is escaped."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pattern_lens.patterns.collection import Activations

_SHOWN: Final = 5
_WIDTH: Final = 70


def headline(collection: Activations) -> str:
    """One line: model, activation, prompts, sizes, dtype, file."""
    sizes = ", ".join(f"{dim} {_size(n)}" for dim, n in collection.sizes.items())
    n = len(collection)
    return (
        f"{type(collection).__name__} {collection.base.source.model_name!r} {collection.name} · "
        f"{n:,} prompt{'' if n == 1 else 's'} × ({sizes}) {collection.dtype} · {Path(collection.path).name}"  # noqa: RUF001 - times
    )


def _size(n: Any) -> str:
    if n is None:
        return "?"
    if isinstance(n, tuple):
        return str(n[0]) if n[0] == n[1] else f"{n[0]}–{n[1]}"  # noqa: RUF001 - a range
    return str(n)


def visible(text: str) -> str:
    """A text on one line, cut to its beginning."""
    line = text.replace("\n", "⏎").replace("\t", "→")
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


def _first(collection: Activations) -> list[tuple[str, str]]:
    positions = collection.base.positions()[:_SHOWN]
    prompts = [collection.base.source.prompt(int(p)) for p in positions]
    return [(prompt.hash, prompt.text) for prompt in prompts]


def _is_closed(collection: Activations) -> bool:
    return collection.base.source.reader.handle.closed


def text(collection: Activations) -> str:
    """For a terminal."""
    if _is_closed(collection):
        return f"<{type(collection).__name__} {collection.name} · closed · {collection.path}>"
    lines = [f"<{headline(collection)}>"]
    lines += [f"  {prompt_hash}  {visible(words)}" for prompt_hash, words in _first(collection)]
    left = len(collection) - _SHOWN
    return "\n".join([*lines, *([f"  … {left:,} more"] if left > 0 else [])])


def html(collection: Activations) -> str:
    """For a notebook."""
    if _is_closed(collection):
        return f"<div>{escape(text(collection))}</div>"
    left = len(collection) - _SHOWN
    rows = [(h, visible(words)) for h, words in _first(collection)]
    more = f"<div>… {left:,} more</div>" if left > 0 else ""
    return f"<div><b>{escape(headline(collection))}</b>{table(('hash', 'text'), rows)}{more}</div>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A small table; every cell is escaped."""
    top = "".join(f"<th style='text-align:left'>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>"
        + "".join(f"<td style='text-align:left'>{escape(str(cell))}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
