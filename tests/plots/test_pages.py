"""What a plot becomes: a page, a picture, a cell of a notebook."""

import re
from html import unescape

import numpy as np
import pytest
from PIL import Image

import pattern_lens as pl
from pattern_lens.errors import BrowserMissingError, PlotFormatError


def every_plot(patterns, scores):
    one = patterns[1, 2]
    return {
        "pattern": pl.plot_pattern(one),
        "heads": pl.plot_heads(patterns),
        "scores": pl.plot_scores(scores),
        "compare": pl.compare(one, patterns[0, 1]),
        "tokens": pl.plot_tokens(one),
    }


KINDS = ["pattern", "heads", "scores", "compare", "tokens"]


@pytest.fixture(params=KINDS)
def plot(request, patterns, scores):
    return every_plot(patterns, scores)[request.param]


def test_a_page_loads_nothing(plot, tmp_path, caplog):
    html = plot.save(tmp_path / "page.html").read_text("utf-8")
    tags = re.findall(
        r"<[a-z]+\b[^>]*>", re.sub(r"(<script[^>]*>).*?</script>", r"\1", html, flags=re.DOTALL)
    )
    assert caplog.text == ""  # Bokeh logs what would not work
    assert len(tags) > 5
    assert not [tag for tag in tags if re.search(r"\b(src|href)\s*=|url\(", tag)]


def test_text_of_tokens_is_no_markup(plot):
    html = plot.html()
    assert "<script>alert(1)" not in html
    assert "<b>the</b>" not in html


@pytest.mark.parametrize("token", ["</script><b>x", "<!--", "$$x$$", "@image", "\udc80", "\u2028"])
def test_hostile_tokens(patterns, token, tmp_path):
    tokens = ["<BOS>", token, token, "c", token]
    for side in ("query", "key"):
        patterns = patterns.assign_coords({f"{side}_token": (side, tokens)})
    patterns.attrs["text"] = token * 3
    for plot in every_plot(patterns, patterns.mean(["query", "key"])).values():
        html = plot.save(tmp_path / "page.html").read_text("utf-8")
        assert "</script><b>" not in html


@pytest.mark.slow
def test_hostile_tokens_on_hover(patterns, look):
    tokens = ["<BOS>", "<img src=x onerror=alert(1)>", "@image", "$$x$$", "$x{safe}"]
    for side in ("query", "key"):
        patterns = patterns.assign_coords({f"{side}_token": (side, tokens)})
    one = patterns[1, 2].rename("<i>a</i> @image")
    one.attrs.pop("units")
    script = "return [await hover(first, 1, 2), await hover(first, 3, 4), all(document, 'bk-tooltip-content')[0].querySelectorAll('img, i').length]"
    said = look(pl.plot_pattern(one), script)
    assert said[0].startswith("query: 2: @image key: 1: <img␣src=x␣oner…")
    assert said[1].startswith("query: 4: $x{safe} key: 3: $$x$$")
    assert said[2] == 0


def test_a_page_says_what_it_is(pattern):
    title = re.search(r"<title>(.*?)</title>", pl.plot_pattern(pattern).html())[1]
    assert unescape(title) == "L1H2 · tiny · <b>the</b> text"


def test_a_notebook_shows_a_frame_of_its_own(plot):
    html = plot._repr_html_()
    assert html.startswith("<iframe ")
    assert 'sandbox="allow-scripts allow-downloads"' in html
    inside = unescape(re.search(r'srcdoc="([^"]*)"', html)[1])
    assert "</html>" in inside


def test_each_drawing_is_new(pattern):
    plot = pl.plot_pattern(pattern)
    assert plot.build() is not plot.build()
    assert plot.html()
    assert plot.html()


@pytest.mark.parametrize("name", ["plot.pdf", "plot", "plot.html.gz"])
def test_another_ending(pattern, tmp_path, name):
    with pytest.raises(PlotFormatError, match=f"cannot save a plot as '{name}': expected a name"):
        pl.plot_pattern(pattern).save(tmp_path / name)


def test_no_browser(pattern, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        BrowserMissingError, match=r"drawn by Chromium or Chrome.*save\('page.html'\)"
    ):
        pl.plot_pattern(pattern).save(tmp_path / "x.png")


def test_a_browser_that_draws_nothing(pattern, tmp_path, monkeypatch):
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\nexit 1\n")
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(BrowserMissingError, match="the browser drew no picture"):
        pl.plot_pattern(pattern).save(tmp_path / "x.png")


@pytest.mark.slow
@pytest.mark.usefixtures("needs_browser")
def test_each_plot_as_a_picture(plot, tmp_path):
    with Image.open(plot.save(tmp_path / "x.png")) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] > 100
    assert pixels.shape[1] > 300
    colours = np.unique(pixels.reshape(-1, 3), axis=0)
    assert len(colours) > 20
    assert 0.02 < (pixels != 255).any(axis=2).mean() < 0.98


@pytest.mark.slow
@pytest.mark.usefixtures("needs_browser")
def test_a_cell_has_the_colour_of_its_number(pattern, tmp_path):
    plot = pl.plot_pattern(pattern, clim=(0, 1))
    with Image.open(plot.save(tmp_path / "x.png")) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    palette = np.array([tuple(bytes.fromhex(c[1:])) for c in viridis()])
    yellow = (pixels == palette[-1]).all(axis=2)
    rows, columns = np.nonzero(yellow[:, : pixels.shape[1] * 3 // 4])  # not the colour bar
    top, left, side = rows.min(), columns.min(), columns.max() - columns.min() + 1
    assert abs(side - 560 / 5) <= 2
    for query, key in [(4, 3), (2, 1), (3, 0), (0, 4)]:
        shown = pixels[int(top + (query + 0.5) * side), int(left + (key + 0.5) * side)]
        expected = palette[min(255, int(pattern.values[query, key] * 256))]
        np.testing.assert_allclose(shown, expected, atol=2)


@pytest.mark.slow
@pytest.mark.usefixtures("needs_browser")
def test_svg_is_text_and_scales(pattern, tmp_path):
    svg = pl.plot_pattern(pattern).save(tmp_path / "x.svg").read_text("utf-8")
    assert svg.startswith("<svg")
    assert "1: ␣the" in svg


def viridis():
    from pattern_lens.plots.colours import choose

    return choose(np.array([0.0, 1.0])).colours
