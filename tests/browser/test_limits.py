"""Many prompts, long prompts, narrow and dark windows, no mouse."""

from urllib.parse import quote

import numpy as np
import pytest

import pattern_lens as pl
from pattern_lens.store.block import Block
from pattern_lens.store.header import Header
from pattern_lens.store.writer import StoreWriter
from tests.browser.conftest import serving
from tests.server.conftest import HASHES, TOKENS, layout, record, values, write

pytestmark = pytest.mark.slow

N_MANY = 10_000
N_LONG = 1024


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Ten thousand prompts of three tokens."""
    path = tmp_path_factory.mktemp("many") / "many.h5"
    kind = layout(layers=(0,), n_heads=2)
    model = {"name": "many", "n_layers": 1, "n_heads": 2}
    with StoreWriter(path, Header(model, {"token": TOKENS, "text": TOKENS}), [kind]) as writer:
        data = np.tile(values(kind, 3, 0), N_MANY)
        prompts = [record(f"prompt-{i}", 3, i) for i in range(N_MANY)]
        writer.commit(prompts, {"pattern": Block([(3, 3)] * N_MANY, data)})
    return path


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """One prompt as long as GPT-2 takes, and short ones."""
    kind = layout(layers=(0, 1), n_heads=2)
    path = tmp_path_factory.mktemp("long") / "long.h5"
    return write(path, name="long", kind=kind, hashes=HASHES[:3], lengths=(N_LONG, 5, 12))


@pytest.fixture(scope="module")
def site(many, long):
    with serving(many, long) as address:
        yield address


def is_ready(page, n):
    page.until("n => document.documentElement.dataset.ready === n", arg=str(n))


def opened(page, site, query=""):
    page.goto(f"{site}index.html{query}")
    page.until("document.documentElement.dataset.ready > 0")
    page.locator(".tabulator-row").first.wait_for()


# --- many prompts ----------------------------------------------------------------------------------


def test_ten_thousand_prompts_are_listed_found_and_scrolled_through(browse, site):
    with browse(site) as page:
        opened(page, site)
        page.until("document.body.innerText.includes('1 of 10,000 chosen')")
        page.get_by_role("button", name="choose all").click()
        page.until("document.querySelector('#count').textContent.includes('20,000')")
        assert "prompts=*" in page.url
        most = 0
        for part in (0.2, 0.5, 0.77, 1):
            page.evaluate(
                "part => { const one = document.querySelector('#grid');"
                " one.scrollTop = part * one.scrollHeight; }",
                part,
            )
            page.until("document.documentElement.dataset.ready > 0")
            most = max(most, page.locator(".tile").count())
        assert 20 < most < 400
        last = page.locator(f'.tile[data-number="{2 * N_MANY - 1}"]')
        last.wait_for()
        assert last.locator("canvas").count() == 1
        page.locator("#find").fill("number 9999")
        page.until("document.querySelectorAll('.tabulator-row').length === 1")
        assert "1 found" in page.locator("#prompt-count").inner_text()
        page.locator(".tabulator-row .prompt-text").click()
        is_ready(page, 2)
        assert "prompts=prompt-9999" in page.url


def test_a_prompt_of_the_last_thousand_opens_from_its_address(browse, site):
    with browse(site) as page:
        opened(page, site, "?prompts=prompt-9998~prompt-3")
        is_ready(page, 4)
        page.goto(f"{site}single.html?prompt=prompt-9998&head=many.L0.H1")
        page.until("document.body.innerText.includes('9,999 of 10,000')")


def test_the_range_of_lengths_is_in_the_address(browse, site):
    with browse(site) as page:
        opened(page, site, "?models=long")
        rows = "n => document.querySelectorAll('.tabulator-row').length === n"
        page.until(rows, arg=3)
        page.locator("#min-tokens").fill("6")
        page.until(rows, arg=2)
        page.locator("#max-tokens").fill("100")
        page.until(rows, arg=1)
        assert "min-tokens=6&max-tokens=100" in page.url
        page.reload()
        page.until(rows, arg=1)
        assert page.locator("#min-tokens").input_value() == "6"
        assert page.locator("#max-tokens").input_value() == "100"
        page.locator("#min-tokens").fill("")
        page.until(rows, arg=2)
        assert "min-tokens" not in page.url
        opened(page, site, "?models=long&max-tokens=few")
        assert "expected a number of tokens" in page.locator("#notices").inner_text()


# --- a long prompt ---------------------------------------------------------------------------------


def test_a_thousand_tokens_are_read_exactly(browse, site, long):
    with pl.open_patterns(long) as patterns:
        pattern = patterns[HASHES[0]].sel(layer=1, head=0).values
    with browse(site) as page:
        page.goto(f"{site}single.html?prompt={HASHES[0]}&head=long.L1.H0")
        page.until("document.documentElement.dataset.ready === 'single'")
        box = page.locator("#heatmap").bounding_box()
        for x, y in [(0.01, 0.02), (0.3, 0.9), (0.5, 0.77), (0.123, 0.456), (0.99, 0.995)]:
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            at = page.locator("#readout").evaluate("one => ({...one.dataset})")
            query, key = int(at["query"]), int(at["key"])
            assert abs(query - y * N_LONG) < 3
            assert abs(key - x * N_LONG) < 3
            assert np.float32(at["value"]) == pattern[query, key]
        page.keyboard.press("Control+End")
        page.keyboard.press("End")
        page.keyboard.press("Control+ArrowUp")
        page.until("location.search.includes('cell=1013.')")
        at = page.locator("#readout").evaluate("one => ({...one.dataset})")
        assert np.float32(at["value"]) == pattern[int(at["query"]), int(at["key"])]


# --- windows ---------------------------------------------------------------------------------------


VIEWS = ("index.html?models=long~many", f"single.html?prompt={HASHES[0]}&head=long.L1.H0")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", [400, 700])
def test_a_narrow_window_does_not_scroll_sideways(browse, site, view, width):
    with browse(site, viewport={"width": width, "height": 760}) as page:
        page.goto(f"{site}{view}")
        page.until("document.documentElement.dataset.ready !== undefined")
        page.until("document.querySelector('.tabulator-row, .tokens [data-index]') !== null")
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) == 0
        wide = page.evaluate(
            """width => [...document.querySelectorAll("#header *, #view button, #view input, #view select")]
                 .filter(one => one.getClientRects().length && one.getBoundingClientRect().right > width + 1
                   && !one.closest(".prompts-table, .map, [popover]")).map(one => one.outerHTML.slice(0, 90))""",
            width,
        )
        assert wide == []
        page.locator("#help-button").click()
        assert page.evaluate(overflow) == 0


@pytest.mark.parametrize("view", VIEWS)
def test_dark_where_the_browser_says_so(browse, site, view):
    shade = """[document.body, document.querySelector("input"), document.querySelector("h2")].map(one => {
        const of = name => getComputedStyle(one)[name].match(/[0-9.]+/g).slice(0, 3).map(Number);
        const mean = numbers => (numbers[0] + numbers[1] + numbers[2]) / 3;
        return [mean(of("backgroundColor")), mean(of("color"))]; })"""
    found = {}
    for scheme in ("light", "dark"):
        with browse(site, color_scheme=scheme) as page:
            page.goto(f"{site}{view}")
            page.until("document.documentElement.dataset.ready !== undefined")
            found[scheme] = page.evaluate(shade)
    assert found["light"][0][0] > 200
    assert found["dark"][0][0] < 60
    assert all(light[1] < 130 for light in found["light"])
    assert all(dark[1] > 130 for dark in found["dark"])
    with browse(site, color_scheme="dark") as page:  # the address goes before
        page.goto(f"{site}{view}&theme=light")
        page.until("document.documentElement.dataset.ready !== undefined")
        assert page.evaluate(shade)[0][0] > 200


# --- no mouse --------------------------------------------------------------------------------------


def tab_to(page, selector, most=60):
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is not reached by {most} tabs")


def test_without_a_mouse(browse, site):
    with browse(site) as page:
        opened(page, site, "?models=long")
        tab_to(page, ".map-cell")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        is_ready(page, 1)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Space")
        is_ready(page, 2)
        assert page.locator(".heads-text").input_value() == "L1"
        tab_to(page, ".tabulator-row:nth-child(2) input")
        page.keyboard.press("Space")
        is_ready(page, 4)
        tab_to(page, ".tile")
        outline = "getComputedStyle(document.activeElement.querySelector('.picture')).outlineStyle"
        assert page.evaluate(outline) == "solid"
        page.keyboard.press("End")
        page.keyboard.press("Enter")
        page.until("document.documentElement.dataset.ready === 'single'")
        assert f"prompt={quote(HASHES[1], safe='')}" in page.url
        assert "L1.H1" in page.url
        page.keyboard.press("Control+Home")
        page.keyboard.press("ArrowDown")
        page.until("location.search.includes('cell=1.')")
        tab_to(page, ".tokens [data-index]", 120)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.until("document.querySelector('#readout').dataset.key === '1'")
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        assert "search the prompts" in page.locator("#help").inner_text()
        page.keyboard.press("Escape")
        assert not page.locator("#help").is_visible()
