"""Answers on figures: which there are, and their bytes.

The rule: bytes of figures come from whoever registered a function, or sent the file; they are never believed. Those of
``raw`` are not served: the application draws them from pictures.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import numpy as np

from pattern_lens.errors import DamagedFileError, UnknownAddressError
from pattern_lens.figures.content import source_of
from pattern_lens.figures.places import Choice, StoredPlaces, heads_of, layers_of
from pattern_lens.figures.saving import file_name
from pattern_lens.patterns.failures import parse_failure
from pattern_lens.server.answers import BYTES, Answer, json_answer, late_json, rows_tag, tag_of
from pattern_lens.store.rows import FAILED, NO_PROMPT, NONE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pattern_lens.figures.content import Content
    from pattern_lens.figures.places import Place, Places
    from pattern_lens.server.view import View

RAW: Final = "raw"
ALL: Final = "all"
UNKNOWN_FORMAT: Final = "figure"

MEDIA_TYPES: Final = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "html": "text/html; charset=utf-8",
    "htm": "text/html; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
}
_GZIP_START: Final = b"\x1f\x8b"
_LONGEST_SVG: Final = 64 << 20
_LOOKED_AT: Final = 5


def functions(view: View) -> Answer:
    """``functions.json``."""
    with view.lock:
        shown = [(name, _shown_places(view, name)) for name in view.held.names()]
        found = [_function(view, *one) for one in shown if _is_shown(view, one[0]) and len(one[1])]
        return json_answer({"functions": found})


def _is_shown(view: View, name: str) -> bool:
    return view.figure_names is None or name in view.figure_names or name == RAW


def _is_exported(view: View, name: str, places: Places) -> bool:
    """Whether bytes of a name are served: the application draws ``raw`` itself."""
    return _is_shown(view, name) and (name != RAW or places.is_stored)


def _shown_places(view: View, name: str) -> Places:
    """Figures of a name that are of prompts and heads that are shown, or of no one."""
    places = view.held.places(name)
    prompts = cells = None
    if not view.is_whole:
        prompts = np.sort(np.append(view.positions.astype(np.uint64), np.uint64(NO_PROMPT)))
    if view.head_labels is not None:
        is_shown = [
            NONE in (layer, head) or view.is_shown((layer, head))
            for layer, head in zip(
                layers_of(places.cells).tolist(), heads_of(places.cells).tolist(), strict=True
            )
        ]
        cells = places.cells[is_shown]
    return places.narrowed(Choice(prompts=prompts, cells=cells))


def _function(view: View, name: str, places: Places) -> dict[str, Any]:
    about = view.held.about(name, places)
    doc = about.get("doc")
    n_failed = 0
    if isinstance(places, StoredPlaces):
        n_failed = int(((places.rows["flags"] & FAILED) != 0).sum())
    return {
        "name": name,
        "is_stored": places.is_stored,
        "doc": doc if isinstance(doc, str) else None,
        "source": source_of(about),
        "formats": sorted({_shown_format(f) for f in view.held.formats(name, places)}),
        "of": _of(places),
        "n_figures": len(places),
        "n_failed": n_failed,
    }


def _of(places: Places) -> str:
    """What each figure of a name is of, as far down as any goes."""
    none = np.uint64(NONE)
    if (heads_of(places.cells) != none).any():
        return "head"
    if (layers_of(places.cells) != none).any():
        return "layer"
    return "prompt" if len(places.prompts) else "file"


def _shown_format(fmt: str) -> str:
    return "svg" if fmt == "svgz" else fmt


# --- lists -----------------------------------------------------------------------------------------


def figures(view: View, model_id: str, key: str | None) -> Answer:
    """``figures.json`` of one prompt, or of none."""
    position = None if key is None else view.position(key)
    with view.lock:
        parts = [*_chosen(view, position)]
        rows = [rows_tag(p.rows) if isinstance(p, StoredPlaces) else "drawn" for _, p in parts]
        names = [name for name, _ in parts]

    def make() -> dict[str, Any]:
        with view.lock:
            listed = [_listed(view, model_id, key, *one) for one in _contents(view, parts)]
        return {"figures": listed}

    return late_json(make, tag_of(view.file_id, "figures", key, model_id, names, rows))


def _chosen(
    view: View, position: int | None, file: str | None = None
) -> Iterator[tuple[str, Places]]:
    """Names that have figures of a prompt, and which; `file`: only that of this name in addresses."""
    number = NO_PROMPT if position is None else position
    choice = Choice(prompts=np.array([number], np.uint64))
    for name in view.held.names():
        if file is not None and file_name(name) != file:
            continue
        places = view.held.places(name)
        if not _is_exported(view, name, places):
            continue
        narrowed = places.narrowed(choice)
        if len(narrowed):
            yield name, narrowed


def _contents(
    view: View, parts: list[tuple[str, Places]]
) -> Iterator[tuple[str, Place, Content, Places]]:
    for name, places in parts:
        for i in range(len(places)):
            place = places.place(i)
            if is_place_shown(view, place):
                yield name, place, view.held.content(name, places, i), places


def is_place_shown(view: View, place: Place) -> bool:
    """Whether a figure's head is shown; those of no one head always are."""
    if place.layer is None or place.head is None:
        return True
    return view.is_shown((place.layer, place.head))


def _listed(
    view: View,
    model_id: str,
    key: str | None,
    name: str,
    place: Place,
    content: Content,
    of: Places,
) -> dict[str, Any]:
    is_failure = content.is_at_hand and content.is_failure
    fmt = _format(view, name, content, of)
    return {
        "name": name,
        "layer": place.layer,
        "head": place.head,
        "format": None if is_failure else fmt,
        "href": None if is_failure else _href(model_id, key, name, place, fmt),
        "error": _why(content) if is_failure else None,
        "size_bytes": content.size_bytes if content.is_at_hand else None,
    }


def _format(view: View, name: str, content: Content, places: Places) -> str:
    if content.is_at_hand:
        return _shown_format(content.format)
    known = view.held.formats(name, places)
    return _shown_format(known[0]) if known else UNKNOWN_FORMAT


def _why(content: Content) -> str:
    facts = parse_failure(content.read())
    return f"{facts.error}: {facts.message}"


def _href(model_id: str, key: str | None, name: str, place: Place, fmt: str) -> str:
    of = "" if key is None else f"prompt/{key}/"
    return (
        f"api/{model_id}/{of}figures/{quote(file_name(name), safe='')}/{place.label or ALL}.{fmt}"
    )


# --- bytes -----------------------------------------------------------------------------------------


def figure(view: View, key: str | None, name: str, label: str, fmt: str) -> Answer:
    """``figures/{name}/L3H5.{format}``: the bytes."""
    position = None if key is None else view.position(key)
    with view.lock:
        for known, place, content, places in _contents(view, [*_chosen(view, position, name)]):
            if (place.label or ALL) == label:
                return _bytes(view, (known, key, label), fmt, content, places)
    raise UnknownAddressError(
        f"no figure {name!r} of {label} here: figures.json lists what there is"
    )


def _bytes(
    view: View, what: tuple[str, str | None, str], fmt: str, content: Content, places: Places
) -> Answer:
    is_failure = content.is_at_hand and content.is_failure
    if is_failure or _format(view, what[0], content, places) != _shown_format(fmt):
        has = "its function failed" if is_failure else f"it has not the format {fmt!r}"
        raise UnknownAddressError(f"no figure {what[0]!r} of {what[2]} in this form: {has}")
    tag = tag_of(view.file_id, "figure", *what, fmt)
    if isinstance(places, StoredPlaces):
        tag = tag_of(tag, rows_tag(places.rows))
    is_svgz = content.is_at_hand and content.format == "svgz"

    def make() -> bytes:
        with view.lock:
            data = content.read()
            if not content.is_at_hand or content.is_failure:
                raise UnknownAddressError(f"no figure {what[0]!r} of {what[2]}: {_why(content)}")
        return data

    if not is_svgz:
        return Answer(make, MEDIA_TYPES.get(_shown_format(fmt), BYTES), tag, is_foreign=True)
    return Answer(make, MEDIA_TYPES["svg"], tag, encoding="gzip", is_foreign=True)


def estimated_sizes(view: View) -> tuple[int, float]:
    """How many figures there are to export, and roughly their bytes: a few of each name are looked at."""
    n_figures, size = 0, 0.0
    with view.lock:
        for name in view.held.names():
            places = _shown_places(view, name)
            n = len(places)
            if not n or not _is_exported(view, name, places):
                continue
            looked_at = np.unique(np.linspace(0, n - 1, _LOOKED_AT).astype(int)).tolist()
            found = [view.held.content(name, places, i).read() for i in looked_at]
            n_figures += n
            size += n * sum(len(unpacked(data)) for data in found) / len(found)
    return n_figures, size


def is_zipped(data: bytes) -> bool:
    """Whether bytes begin as a gzip file does."""
    return data.startswith(_GZIP_START)


def unpacked(data: bytes) -> bytes:
    """The bytes in a gzip file; other bytes as they are.

    Raises
    ------
    DamagedFileError
        It is damaged, or holds more than 64 MiB.
    """
    if not is_zipped(data):
        return data
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        found = inflate.decompress(data, _LONGEST_SVG)
    except zlib.error as err:
        raise DamagedFileError(f"cannot unpack a figure: its gzip data is damaged ({err})") from err
    if not inflate.eof:
        raise DamagedFileError("cannot unpack a figure: it is cut off, or larger than 64 MiB")
    return found
