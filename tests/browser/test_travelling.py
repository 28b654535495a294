"""Pages that travel: one file opened from disk, offline, and a folder on a plain web host."""

import subprocess
import sys

import numpy as np
import pytest

import pattern_lens as pl

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prompts(demo):
    with pl.open_patterns(demo) as patterns:
        return list(patterns)[:2]


@pytest.fixture(scope="module")
def exported(demo, prompts, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    pl.export_html(demo, path, prompts=prompts, heads="L1")
    return path


def check_hover(page, demo, prompt):
    """The gallery, one of its heads, and the value under the mouse."""
    page.until("document.documentElement.dataset.ready === '8'")
    page.locator(".tile", has_text="L1H5").click()
    page.until("document.documentElement.dataset.ready === 'single'")
    with pl.open_patterns(demo) as patterns:
        values = patterns[prompt].sel(layer=1, head=5).values
    box = page.locator("#heatmap").bounding_box()
    side = box["width"] / len(values)
    page.mouse.move(box["x"] + 6.5 * side, box["y"] + 20.5 * side)
    page.until("document.querySelector('#readout').dataset.query === '20'")
    said = page.locator("#readout").evaluate("one => one.dataset.value")
    assert np.float32(said) == values[20, 6]
    page.keyboard.press("]")
    page.until("document.querySelector('#head-box').value === 'L1H6'")


def test_a_page_opened_from_disk_without_a_network(browse, exported, demo, prompts):
    with browse("file:", offline=True) as page:
        page.goto(exported.as_uri())
        check_hover(page, demo, prompts[0])
        assert all(url.startswith(("file:", "data:", "blob:")) for url in page.watched.requests)


def test_the_address_of_a_page_opens_a_head_of_it(browse, exported, prompts):
    with browse("file:", offline=True) as page:
        page.goto(f"{exported.as_uri()}#prompt={prompts[1]}&head=demo-gpt2.L1.H3&cell=9.2")
        page.until("document.documentElement.dataset.ready === 'single'")
        found = page.locator("#readout").evaluate("one => ({...one.dataset})")
        assert (found["query"], found["key"]) == ("9", "2")


def test_a_folder_on_a_plain_web_host(browse, demo, prompts, tmp_path):
    pl.export_site(demo, tmp_path / "site", prompts=prompts, heads="L1", progress=False)
    code = (
        "import functools, http.server as s;"
        f"h = functools.partial(s.SimpleHTTPRequestHandler, directory={str(tmp_path / 'site')!r});"
        "d = s.ThreadingHTTPServer(('127.0.0.1', 0), h); print(d.server_port, flush=True); d.serve_forever()"
    )
    command = [sys.executable, "-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as host:
        address = f"http://127.0.0.1:{host.stdout.readline().strip()}/"
        with browse(address) as page:
            page.goto(f"{address}index.html")
            check_hover(page, demo, prompts[0])
        host.terminate()
