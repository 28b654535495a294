"""The application's own files: the shell page, its modules and styles, as the package ships them.

The rule: what can be asked for is what was found in the package's folder; a name from an address is looked up
among those, and never joined to a path.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterable

STATIC: Final = Path(__file__).parent / "static"
SHELL: Final = "index.html"
VIEWS: Final = {
    SHELL: "pattern-lens/gallery/view.js",
    "single.html": "pattern-lens/single/view.js",
    "residual.html": "pattern-lens/residual/view.js",
    "debugger.html": "pattern-lens/debugger/view.js",
    "features.html": "pattern-lens/features/view.js",
}
"""Pages by name, and the module that shows each; one shell serves all."""

IMPORT_MAP_MARK: Final = "<!-- import map -->"
STYLES_MARK: Final = "<!-- styles -->"
DATA_MARK: Final = "<!-- data -->"

_INLINE: Final = re.compile(r'<script type="(?:importmap|module)">(.*?)</script>', re.DOTALL)
_OWN_MODULES: Final = "js/"
_ROOT: Final = "pattern-lens/main.js"
_IMPORT: Final = re.compile(r"""^(?:import|export)\b[^"';()]*["']([^"']+)["']""", re.MULTILINE)
_FIRST_ANSWERS: Final = ("api/index.json", "api/colours.json")
_OTHER_MODULES: Final = {"tabulator": "vendor/tabulator/tabulator_esm.min.js"}
_PATIENCE_SECONDS: Final = 1.0
_FIRST_STYLES: Final = ("vendor/", "app.css")
_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".woff2": "font/woff2",
    "": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class StaticFile:
    """One file of the application, by its name below ``static/``."""

    name: str
    data: bytes
    tag: str

    @cached_property
    def zipped(self) -> bytes:
        """The same, compressed."""
        return gzip.compress(self.data, 6, mtime=0)

    @property
    def media_type(self) -> str:
        """What it is."""
        return _TYPES.get(Path(self.name).suffix, "application/octet-stream")


@dataclass(frozen=True)
class Page:
    """The shell, ready to be sent, and the sources of scripts that it holds itself."""

    data: bytes
    tag: str
    script_hashes: tuple[str, ...]


class Application:
    """The files as they are now; they are read again when they change."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._folder = folder
        self._looked_at = -_PATIENCE_SECONDS
        self._lock = threading.Lock()
        self._stamps: dict[str, tuple[int, int]] = {}
        self._files: dict[str, StaticFile] = {}
        self._pages: dict[tuple[str, bool], Page] = {}

    def files(self) -> dict[str, StaticFile]:
        """Every file by name."""
        with self._lock:
            if time.monotonic() - self._looked_at < _PATIENCE_SECONDS:
                return self._files
            self._looked_at = time.monotonic()
            stamps = {
                path.relative_to(self._folder).as_posix(): (
                    path.stat().st_mtime_ns,
                    path.stat().st_size,
                )
                for path in sorted(self._folder.rglob("*"))
                if path.is_file() and not path.name.startswith(".")
            }
            if stamps != self._stamps:
                self._files = {name: self._read(name) for name in stamps}
                self._stamps, self._pages = stamps, {}
            return self._files

    def _read(self, name: str) -> StaticFile:
        data = (self._folder / name).read_bytes()
        return StaticFile(name, data, xxhash.xxh3_64_hexdigest(data))

    def modules(self) -> dict[str, StaticFile]:
        """Modules by the name that they import each other by."""
        files = self.files()
        own = {
            f"pattern-lens/{name.removeprefix(_OWN_MODULES)}": file
            for name, file in files.items()
            if name.startswith(_OWN_MODULES) and name.endswith(".js")
        }
        others = {n: files[place] for n, place in _OTHER_MODULES.items() if place in files}
        return {**own, **others}

    def styles(self) -> list[StaticFile]:
        """Style sheets in the order in which they count."""
        found = [file for name, file in self.files().items() if name.endswith(".css")]

        def rank(file: StaticFile) -> tuple[int, str]:
            ranks = [i for i, start in enumerate(_FIRST_STYLES) if file.name.startswith(start)]
            return (ranks[0] if ranks else len(_FIRST_STYLES), file.name)

        return sorted(found, key=rank)

    def shell(self) -> str:
        """The page with its marks."""
        file = self.files().get(SHELL)
        return file.data.decode() if file else _PLAIN_SHELL

    def page(self, name: str = SHELL, *, is_exported: bool = False) -> Page:
        """A page of a live server, or of an exported site, which says its own policy."""
        self.files()
        kind = name, is_exported
        if kind not in self._pages:
            self._pages[kind] = self._made_page(name, is_exported=is_exported)
        return self._pages[kind]

    def _made_page(self, name: str, *, is_exported: bool) -> Page:
        modules = self.modules()
        addresses = {module: f"./{address_of(file)}" for module, file in modules.items()}
        needed = imported(modules, _ROOT, VIEWS[name])
        lines = [f'<script type="importmap">{import_map(addresses)}</script>']
        lines += [f'<link rel="modulepreload" href="{addresses[one]}">' for one in needed]
        lines += [
            f'<link rel="preload" as="fetch" href="{one}" crossorigin>' for one in _FIRST_ANSWERS
        ]
        styles = [f'<link rel="stylesheet" href="{address_of(file)}">' for file in self.styles()]
        text = self.shell().replace(IMPORT_MAP_MARK, "\n".join(lines), 1)
        text = text.replace(STYLES_MARK, "\n".join(styles), 1).replace(DATA_MARK, "", 1)
        hashes = inline_hashes(text)
        if is_exported:
            meta = f'<meta http-equiv="Content-Security-Policy" content="{policy(hashes)}">'
            text = text.replace("<head>", f"<head>\n{meta}", 1)
        data = text.encode()
        return Page(data, xxhash.xxh3_64_hexdigest(data), hashes)


def imported(modules: dict[str, StaticFile], *roots: str) -> list[str]:
    """Modules that the first picture needs: the roots and what they import at once, each before what imports it is run."""
    found: dict[str, None] = {}
    waiting = [root for root in reversed(roots) if root in modules]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = None
        names = _IMPORT.findall(modules[name].data.decode())
        waiting += [one for one in reversed(names) if one in modules]
    return list(found)


def policy(script_hashes: Iterable[str]) -> str:
    """Content security policy of a page with these inline scripts."""
    scripts = " ".join(["'self'", *(f"'{one}'" for one in script_hashes)])
    return (
        f"default-src 'self'; img-src 'self' blob: data:; script-src {scripts}; object-src 'none'; "
        "base-uri 'none'; form-action 'none'"
    )


def address_of(file: StaticFile) -> str:
    """Address of a file relative to the page; it changes with the file."""
    return f"static/{file.name}?v={file.tag[:8]}"


def import_map(addresses: dict[str, str]) -> str:
    """The import map as it stands in a page."""
    return json.dumps({"imports": addresses}, separators=(",", ":")).replace("<", "\\u003c")


def inline_hashes(page: str) -> tuple[str, ...]:
    """What a content security policy calls the scripts that a page holds itself; data is none."""
    return tuple(script_hash(text) for text in _INLINE.findall(page))


def script_hash(text: str) -> str:
    """What a content security policy calls an inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_PLAIN_SHELL: Final = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>pattern-lens</title>
{STYLES_MARK}
{IMPORT_MAP_MARK}
</head><body><p>The answers are at <a href="api/index.json">api/index.json</a>.</p>
{DATA_MARK}
</body></html>
"""
