"""The application in a browser: Debian's Chromium, driven by Playwright.

The rule: a page that writes an error to its console, or asks for anything that is not on this machine, fails its test.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="'pip install playwright' is missing")

LOCAL = ("data:", "blob:", "file:", "chrome-error:")


@dataclass
class Watched:
    """What a page said and asked for that it must not."""

    origin: str
    wrong: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def watch(self, page) -> None:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"raised: {error}"))
        page.on("request", self._asked)
        page.on("dialog", self._opened)

    def _said(self, message) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console {message.type}: {message.text}")

    def _opened(self, dialog) -> None:
        self.wrong.append(f"opened a dialog: {dialog.message}")
        dialog.dismiss()

    def forgive_network(self) -> None:
        """The browser itself writes of every answer that is an error, or that does not come."""
        self.wrong = [text for text in self.wrong if "Failed to load resource" not in text]

    def _asked(self, request) -> None:
        self.requests.append(request.url)
        if not request.url.startswith((*LOCAL, self.origin)):
            self.wrong.append(f"left the machine: {request.url}")


@pytest.fixture(scope="session")
def chromium():
    """Chromium, headless."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no chromium: 'apt-get install chromium' installs it, as .ci/run does")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """``demo.h5`` as ``pattern-lens demo`` leaves it: patterns, two scores, figures; not to be written to."""
    from pattern_lens.demo.run import run_demo

    path = tmp_path_factory.mktemp("looking") / "demo.h5"
    run_demo(path, progress=False)
    return path


@contextmanager
def serving(*arguments: str | Path) -> Iterator[str]:
    """The address of ``pattern-lens serve`` with these arguments."""
    command = [sys.executable, "-m", "pattern_lens", "serve", "--port", "0", "--json"]
    with subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["address"]
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@pytest.fixture(scope="session")
def address(demo) -> Iterator[str]:
    """The application on the demo file."""
    with serving(demo) as found:
        yield found


def until(page, condition: str, arg=None, *, seconds: float = 30) -> None:
    """Wait until a JavaScript expression, or function of `arg`, is true; Playwright's own way is shut out by the page's policy."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition, arg):
        assert time.monotonic() < end, f"never became true: {condition} ({arg!r})"
        time.sleep(0.02)


@contextmanager
def new_page(chromium, origin: str = "file:", **options):
    """A page of a fresh browser profile; what it does wrong fails the test at its end."""
    watched = Watched(f"{urlsplit(origin).scheme}://{urlsplit(origin).netloc}")
    options = {"viewport": {"width": 1400, "height": 900}, "color_scheme": "light", **options}
    context = chromium.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.watched = watched
    page.until = partial(until, page)
    watched.watch(page)
    try:
        yield page
    finally:
        context.close()
    assert watched.wrong == []


@pytest.fixture(scope="session")
def browse(chromium):
    """Opens a page that may ask one origin only."""
    return partial(new_page, chromium)


@pytest.fixture
def page(browse, address):
    """An empty page, for the application on the demo file."""
    with browse(address) as found:
        yield found
