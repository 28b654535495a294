"""Small labelled arrays, and a browser that opens a plot's page, points at things and says what it sees."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("holoviews", reason="pip install 'pattern-lens[plots]'")

from bokeh.models import GlyphRenderer, Image, Plot

from pattern_lens.plots.pages import page
from pattern_lens.plots.pictures import BROWSERS

TOKENS = ["<BOS>", " the", "\n", "<script>alert(1)</script>", " the"]
N_LAYERS, N_HEADS = 2, 3


def causal(n_tokens=5, n_layers=N_LAYERS, n_heads=N_HEADS, *, seed=0):
    """Rows that sum to 1, nothing above the diagonal, dims (layer, head, query, key)."""
    rng = np.random.default_rng(seed)
    weights = np.tril(rng.uniform(0.1, 1, (n_layers, n_heads, n_tokens, n_tokens)))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def labelled(values, tokens, **attrs):
    coords = {dim: np.arange(n) for dim, n in zip(("layer", "head"), values.shape, strict=False)}
    n_query, n_key = values.shape[-2:]
    coords |= {"query": np.arange(n_query), "key": np.arange(n_key)}
    coords |= {"query_token": ("query", tokens[:n_query]), "key_token": ("key", tokens[:n_key])}
    about = {"model": "tiny", "units": "probability", "text": "<b>the</b> text", **attrs}
    return xr.DataArray(values, coords, ("layer", "head", "query", "key"), "pattern", about)


@pytest.fixture
def patterns():
    """Every head of one prompt: 2 layers, 3 heads, 5 tokens."""
    return labelled(causal(), TOKENS)


@pytest.fixture
def pattern(patterns):
    """One head, L1H2."""
    return patterns.isel(layer=1, head=2)


@pytest.fixture
def scores():
    """Dims (prompt, layer, head); one prompt lacks the result."""
    values = np.random.default_rng(1).uniform(0, 1, (20, N_LAYERS, N_HEADS))
    values[3] = np.nan
    coords = {"prompt": [f"p{i}" for i in range(20)], "layer": [0, 1], "head": [0, 1, 2]}
    return xr.DataArray(values, coords, ("prompt", "layer", "head"), "induction_score")


BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

SEES = """
const figures = view => view.frame != null ? [view] : view.child_views.flatMap(figures)
const sleep = ms => new Promise(done => setTimeout(done, ms))
const all = (root, name) => [...root.querySelectorAll("*")].flatMap(
  e => [...(e.classList.contains(name) ? [e] : []), ...(e.shadowRoot ? all(e.shadowRoot, name) : [])])
const at = (view, x, y) => {
  const {left, top} = view.canvas.events_el.getBoundingClientRect()
  return {clientX: left + view.frame.x_scale.compute(x), clientY: top + view.frame.y_scale.compute(y)}
}
const fire = (view, kind, x, y) => view.canvas.events_el.dispatchEvent(new PointerEvent(kind, {
  ...at(view, x, y), bubbles: true, composed: true, pointerId: 1, isPrimary: true, pointerType: "mouse",
  button: 0, buttons: kind === "pointerdown" ? 1 : 0}))
const hover = async (view, x, y) => {
  fire(view, "pointermove", x, y); await sleep(60)
  return all(document, "bk-tooltip-content").map(e => e.textContent.trim()).join("")
}
const tap = async (view, x, y) => {
  fire(view, "pointermove", x, y); fire(view, "pointerdown", x, y); fire(view, "pointerup", x, y); await sleep(500)
}
const press = async label => {
  const found = all(document, "bk-btn").find(e => e.textContent.trim().startsWith(label))
  found.click(); await sleep(60)
}
const glyph = (view, kind) => view.model.renderers.find(r => r.glyph?.type === kind)
const image = view => glyph(view, "Image").data_source.data.image[0]
const complaints = []
window.addEventListener("error", e => complaints.push(String(e.message)))
window.addEventListener("unhandledrejection", e => complaints.push(String(e.reason?.stack ?? e.reason)))
const console_error = console.error
console.error = (...args) => { complaints.push(args.map(String).join(" ")); console_error(...args) }
;(async () => {
  let view
  for (let i = 0; i < 200 && !(view = (Bokeh.index.roots ?? Object.values(Bokeh.index))[0])?.has_finished(); i++) await sleep(50)
  await sleep(100)
  const views = figures(view), [first, second, third] = views
  let seen
  try { seen = await (async () => { %s })() } catch (e) { complaints.push(String(e.stack)) }
  const pre = document.createElement("pre")
  pre.id = "seen"
  pre.textContent = JSON.stringify({seen, complaints})
  document.body.replaceChildren(pre)
})()
"""


@pytest.fixture
def needs_browser():
    if BROWSER is None:
        pytest.skip("no Chromium on the PATH: apt-get install chromium")


@pytest.fixture
def look(tmp_path, needs_browser):
    """Runs a script in a plot's page and gives back what it returns; fails on any complaint of the page."""

    def run(plot, script):
        path = tmp_path / "page.html"
        path.write_text(page(plot.build(), plot.title, script=SEES % script), "utf-8")
        command = [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--window-size=1600,1200", "--virtual-time-budget=30000"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"),
        ]
        done = subprocess.run(
            [*command, path.as_uri()], capture_output=True, timeout=120, check=False
        )
        found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout.decode(), re.DOTALL)
        assert found, done.stderr.decode()[-2000:]
        answer = json.loads(unescape(found[1]))
        assert answer["complaints"] == []
        return answer["seen"]

    return run


class Seen:
    """What is in a plot, without its pixels."""

    @staticmethod
    def figures(plot):
        """The Bokeh figures of a plot."""
        return Seen.figures_of(plot.build())

    @staticmethod
    def figures_of(model):
        if isinstance(model, Plot):
            return [model]
        return [
            figure for child in getattr(model, "children", ()) for figure in Seen.figures_of(child)
        ]

    @staticmethod
    def image(figure):
        """The matrix that a figure shows, first row at the top."""
        for renderer in figure.select({"type": GlyphRenderer}):
            if isinstance(renderer.glyph, Image):
                return renderer.data_source.data["image"][0]
        raise AssertionError("no image in the figure")

    @staticmethod
    def mapper(figure):
        """The colour mapper of a figure's image."""
        found = [
            r.glyph for r in figure.select({"type": GlyphRenderer}) if isinstance(r.glyph, Image)
        ]
        return found[0].color_mapper

    @staticmethod
    def ticks(figure):
        """Labels along the rows and the columns."""
        rows, columns = figure.yaxis[0].formatter.args, figure.xaxis[0].formatter.args
        return rows["labels"], columns["labels"]


@pytest.fixture
def seen():
    return Seen
