"""PNG and SVG of a Bokeh model, drawn by a browser on this machine.

The rule: the browser gets a page without a network, and hands the picture back as text.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from pattern_lens.errors import BrowserMissingError
from pattern_lens.plots.drawing import script
from pattern_lens.plots.pages import page

BROWSERS: Final = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
)
TIMEOUT_SECONDS: Final = 120
_OPTIONS: Final = (
    "--headless",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--virtual-time-budget=20000",
    "--window-size=1600,1200",
    "--dump-dom",
)
_FOUND: Final = re.compile(r'<pre id="pattern-lens-picture"[^>]*>(.*?)</pre>', re.DOTALL)


def picture(model: Any, fmt: str) -> bytes:
    """A picture of a model; `fmt` is ``png`` or ``svg``.

    Raises
    ------
    BrowserMissingError
        There is no browser, or it draws nothing.
    """
    if fmt == "svg":
        _draw_as_svg(model)
    html = page(model, "picture", script=script("picture").replace("FORMAT", fmt))
    with TemporaryDirectory(prefix="pattern-lens-") as folder:
        path = Path(folder) / "page.html"
        path.write_text(html, "utf-8")
        shown = _dump(path, Path(folder) / "profile")
    found = _FOUND.search(shown)
    if found is None or not found[1]:
        raise BrowserMissingError(
            "the browser drew no picture: .save('page.html') writes a page, whose save tool does"
        )
    text = unescape(found[1])
    return base64.b64decode(text.partition(",")[2]) if fmt == "png" else text.encode()


def browser() -> str:
    """Path of a browser that draws pictures.

    Raises
    ------
    BrowserMissingError
        None is found.
    """
    for name in BROWSERS:
        found = shutil.which(name)
        if found:
            return found
    raise BrowserMissingError(
        "pictures of plots are drawn by Chromium or Chrome, and neither is on the PATH: install one "
        "(Debian: apt-get install chromium), or save the plot as a page: .save('page.html')"
    )


def _dump(path: Path, profile: Path) -> str:
    as_root = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    command = [browser(), *_OPTIONS, *as_root, f"--user-data-dir={profile}", path.as_uri()]
    try:
        done = subprocess.run(  # noqa: S603 - a browser, and a page of ours
            command, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise BrowserMissingError(f"{command[0]} drew no picture: {err}") from err
    return done.stdout.decode("utf-8", "replace")


def _draw_as_svg(model: Any) -> None:
    from bokeh.models import Plot as BokehPlot

    for figure in model.select({"type": BokehPlot}):
        figure.output_backend = "svg"
