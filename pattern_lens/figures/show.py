"""How figures look in a notebook.

The rules: all text is escaped; an image of a file is shown as an image, so that no script in it runs, and a page
in a frame of its own; nothing is unpacked beyond a limit.
"""

from __future__ import annotations

import base64
import zlib
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pattern_lens.patterns.failures import FailureFacts

SHOWN_BYTES: Final = 16 << 20
"""Larger figures are not shown; they can be saved."""

_GZIP: Final = 16 + zlib.MAX_WBITS
_OWN_WAY: Final = ("png", "jpg", "jpeg", "svg", "svgz")
_IMAGES: Final = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "svg": "image/svg+xml",
    "svgz": "image/svg+xml",
}
_TEXTS: Final = ("txt", "json", "csv")
_PRE: Final = "overflow-x:auto;white-space:pre-wrap"


def unpacked(data: bytes, *, limit_bytes: int | None = SHOWN_BYTES) -> bytes:
    """The SVG text of an svgz file; bytes that are not packed as they are.

    Raises
    ------
    ValueError
        It is longer than the limit, or ends too early.
    zlib.error
        It is damaged.
    """
    if not data.startswith(b"\x1f\x8b"):
        return data
    unpacker = zlib.decompressobj(_GZIP)
    found = unpacker.decompress(data, 0 if limit_bytes is None else limit_bytes)
    if not unpacker.eof:
        if limit_bytes is not None and len(found) >= limit_bytes:
            raise ValueError(f"it unpacks to more than {limit_bytes:,} bytes")
        raise ValueError("its packed text ends too early")
    return found


def svg_text(data: bytes, fmt: str) -> str:
    """The text of an svg or svgz file; errors as in `unpacked`."""
    found = unpacked(data) if fmt == "svgz" else data
    if len(found) > SHOWN_BYTES:
        raise ValueError(f"it has more than {SHOWN_BYTES:,} bytes")
    return found.decode("utf-8", "replace")


def image(data: bytes, fmt: str, *, alt: str, style: str = "max-width:100%") -> str | None:
    """An image element; None for what is no image, or too large.

    Raises
    ------
    ValueError, zlib.error
        It cannot be unpacked.
    """
    if fmt not in _IMAGES or len(data) > SHOWN_BYTES:
        return None
    if fmt == "svgz":
        data = unpacked(data)
    code = base64.b64encode(data).decode("ascii")
    return f'<img alt="{escape(alt)}" style="{style}" src="data:{_IMAGES[fmt]};base64,{code}">'


def page(title: str, data: bytes, fmt: str) -> str | None:
    """A figure in HTML; None where it is shown in a better way of its own."""
    try:
        if fmt in _OWN_WAY:
            if fmt.startswith("svg"):
                svg_text(data, fmt)
            return None
        shown = image(data, fmt, alt=title)
    except (ValueError, zlib.error) as err:
        return note(f"{title} is not shown: {err}; .save(path) writes it to a file")
    if shown is not None:
        return shown
    if fmt in ("html", *_TEXTS) and len(data) <= SHOWN_BYTES:
        text = escape(data.decode("utf-8", "replace"))
        if fmt == "html":
            style = "width:100%;height:480px;border:0"
            return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{text}"></iframe>'
        return f'<pre style="{_PRE}">{text}</pre>'
    return note(f"{title}: {fmt}, {len(data):,} bytes; .save(path) writes it to a file")


def failure(title: str, facts: FailureFacts) -> str:
    """A failure in a figure's place, with its traceback."""
    what = escape(f"{facts.error}: {facts.message}")
    return (
        f'<div style="border-left:3px solid #d55e00;padding-left:8px"><b>{escape(title)} failed</b>'
        f'<div>{what}</div><pre style="{_PRE}">{escape(facts.traceback)}</pre></div>'
    )


def note(text: str) -> str:
    """A line of text."""
    return f"<div>{escape(text)}</div>"


def one_line(text: str, width: int = 70) -> str:
    """A text on one line, cut to its beginning."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
