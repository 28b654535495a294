"""A page with everything inside: modules as ``data:`` addresses, styles and answers as they are.

The rule: its own policy forbids the page to load anything.
"""

from __future__ import annotations

import base64
import json
import re
from html import escape
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.server.pages import (
    DATA_MARK,
    IMPORT_MAP_MARK,
    STYLES_MARK,
    VIEWS,
    Application,
    StaticFile,
    import_map,
    imported,
    inline_hashes,
    script_hash,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DATA_ID: Final = "pattern-lens-data"
_ROOT: Final = "pattern-lens/main.js"
_OTHERS: Final = "vendor/"


def whole_page(pages: Application, data: Mapping[str, Any], *, view: str | None = None) -> bytes:
    """The shell with everything in it.

    Parameters
    ----------
    data
        What the page holds: ``answers`` by address, and the addresses that are compressed, ``gzip``.
    view
        The one view that the page shows, such as ``features``; what the others need is left out. By default it shows all.
    """
    modules, styles = (pages.modules(), pages.styles()) if view is None else _of_view(pages, view)
    scripts = import_map({name: _data_url(file.data) for name, file in modules.items()})
    style = "\n".join(file.data.decode() for file in styles).replace("</style", "<\\/style")
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    shown = "" if view is None else f' data-view="{escape(view)}"'
    parts = {
        IMPORT_MAP_MARK: f'<script type="importmap">{scripts}</script>',
        STYLES_MARK: f"<style>{style}</style>",
        DATA_MARK: f'<script type="application/json" id="{_DATA_ID}"{shown}>{text}</script>',
    }
    page = re.sub("|".join(map(re.escape, parts)), lambda found: parts[found[0]], pages.shell())
    page += _licences(pages) if view is None else ""
    policy = _policy(inline_hashes(page), script_hash(style))
    meta = f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
    return page.replace("<head>", f"<head>\n{meta}", 1).encode("utf-8", "replace")


def _of_view(pages: Application, view: str) -> tuple[dict[str, StaticFile], list[StaticFile]]:
    """What one view needs: the modules that it imports at once, and our own styles."""
    modules = pages.modules()
    names = imported(modules, _ROOT, VIEWS[f"{view}.html"])
    styles = [file for file in pages.styles() if not file.name.startswith(_OTHERS)]
    return {name: modules[name] for name in names}, styles


def _licences(pages: Application) -> str:
    """Licences of what others wrote, which stand wherever it goes."""
    texts = [file.data.decode() for name, file in pages.files().items() if "LICENSE" in name]
    return "".join(f"<!--\n{text.replace('--', '- -')}\n-->\n" for text in texts)


def _policy(scripts: Iterable[str], style: str) -> str:
    allowed = " ".join(f"'{one}'" for one in scripts)
    return (
        f"default-src 'none'; script-src data: {allowed}; style-src '{style}'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data_url(data: bytes) -> str:
    return f"data:text/javascript;base64,{base64.b64encode(data).decode()}"
