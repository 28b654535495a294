"""How collections of figures look in a terminal and in a notebook: counts, and a few of them small."""

from __future__ import annotations

import zlib
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Final

from pattern_lens.errors import PatternLensError
from pattern_lens.figures import show
from pattern_lens.patterns.display import table
from pattern_lens.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pattern_lens.figures.collection import FigureCollection
    from pattern_lens.figures.figure import StoredFigure

_MOST_STORED: Final = 12
_MOST_DRAWN: Final = 3
_SMALL_BYTES: Final = 1 << 20
_HEAD: Final = ("figure", "figures", "failed", "prompts", "layers", "heads", "format")
_CELL: Final = "display:inline-block;vertical-align:top;width:150px;margin:4px;font-size:11px"


def counts(collection: FigureCollection) -> tuple[str, ...]:
    """What there is of a collection, for the columns of `listing`."""
    where = "" if collection.is_stored else "drawn when looked at"
    return (
        collection.name,
        f"{len(collection) - collection.n_failures:,}",
        f"{collection.n_failures:,}" if collection.is_stored else "",
        f"{collection.n_prompts:,}" if collection.n_prompts else "",
        str(len(collection.layers) or ""),
        str(len(collection.heads) or ""),
        ", ".join(collection.formats) or where,
    )


def headline(collection: FigureCollection) -> str:
    """One line: name, figures, prompts, formats."""
    n_failed = collection.n_failures
    of = counted(collection.n_prompts, "prompt") if collection.n_prompts else "all prompts"
    parts = [collection.name, f"{counted(len(collection), 'figure')} of {of}", *collection.formats]
    parts += [f"{n_failed:,} failed"] if n_failed else []
    parts += [] if collection.is_stored else ["drawn when looked at"]
    return " · ".join(parts)


def listing(collections: Iterable[FigureCollection]) -> str:
    """A table of collections in HTML."""
    return table(_HEAD, [counts(one) for one in collections])


def html(collection: FigureCollection, *, is_closed: bool) -> str:
    """For a notebook: a table with counts, and the first few figures."""
    if is_closed:
        return show.note(repr(collection))
    most = _MOST_STORED if collection.is_stored else _MOST_DRAWN
    shown = "".join(map(_thumbnail, islice(collection, most)))
    left = len(collection) - most
    more = show.note(f"… {left:,} more") if left > 0 else ""
    return f"<div>{listing([collection])}<div>{shown}</div>{more}</div>"


def _thumbnail(figure: StoredFigure) -> str:
    words = figure.text or "all prompts"
    caption = " ".join(filter(None, (figure.label, show.one_line(words, 40))))
    return f'<div style="{_CELL}" title="{escape(figure.title)}">{_small(figure)}<div>{escape(caption)}</div></div>'


def _small(figure: StoredFigure) -> str:
    """A small image of a figure, or a word for why there is none."""
    try:
        if figure.is_failure:
            return f'<b style="color:#d55e00">failed: {escape(show.one_line(figure.error))}</b>'
        data = figure.data
        too_large = len(data) > _SMALL_BYTES
        shown = None if too_large else show.image(data, figure.format, alt=figure.title)
    except (PatternLensError, ValueError, zlib.error) as err:
        return f"<i>{escape(show.one_line(str(err), 300))}</i>"
    return shown or f"<i>{escape(figure.format)}, {len(data):,} bytes</i>"
