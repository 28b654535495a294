"""Files that grow, vanish, come back and are replaced while a page shows them; a server that stops."""

from contextlib import ExitStack

import pytest

from pattern_lens.store.block import Block
from pattern_lens.store.writer import StoreWriter
from tests.browser.conftest import serving
from tests.server.conftest import HASHES, layout, record, values, write

pytestmark = pytest.mark.slow

OFTEN = """const later = window.setInterval;
window.setInterval = (call, ms, ...rest) => later(call, Math.min(ms, 200), ...rest);"""
"""Pages look for changes every five seconds; here more often, as far as a test is not of that."""


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "a.h5", hashes=HASHES[:2], lengths=(5, 3))


def is_ready(page, n):
    page.until("n => document.documentElement.dataset.ready === n", arg=str(n))


def said(page, text):
    page.until("text => document.querySelector('main, body').innerText.includes(text)", arg=text)


def add(path, number):
    with StoreWriter(path, None, [layout()]) as writer:
        block = Block([(4, 4)], values(layout(), 4, number))
        writer.commit([record(f"grown-{number}", 4, number)], {"pattern": block})


def test_new_prompts_appear_and_what_is_chosen_stays(browse, path):
    with serving(path) as address, browse(address) as page:
        page.goto(f"{address}index.html?prompts={HASHES[1]}&heads-toy-model=L2~L3H1")
        is_ready(page, 5)
        said(page, "1 of 2 chosen")
        page.locator(".heads-text").focus()
        before = page.url
        add(path, 7)
        page.until("document.querySelectorAll('.tabulator-row').length === 3", seconds=12)
        said(page, "1 of 3 chosen")
        is_ready(page, 5)
        assert page.url == before
        assert page.locator(".tabulator-row.is-chosen").get_attribute("data-prompt") == HASHES[1]
        assert page.evaluate("document.activeElement.className").startswith("heads-text")


def test_a_choice_of_every_prompt_takes_new_ones_in(browse, path):
    with serving(path) as address, browse(address) as page:
        page.add_init_script(OFTEN)
        page.goto(f"{address}index.html?prompts=*")
        is_ready(page, 24)
        add(path, 8)
        is_ready(page, 36)


def test_a_capture_that_runs_is_said(browse, path):
    with serving(path) as address, browse(address) as page:
        page.add_init_script(OFTEN)
        page.goto(f"{address}index.html")
        is_ready(page, 12)
        badge = page.locator(".badge", has_text="growing")
        assert not badge.is_visible()
        with StoreWriter(path, None, [layout()]):
            badge.wait_for()
        badge.wait_for(state="hidden")


def test_the_single_view_goes_on_to_a_new_prompt(browse, path):
    with serving(path) as address, browse(address) as page:
        page.add_init_script(OFTEN)
        page.goto(f"{address}single.html?prompt={HASHES[1]}&head=toy-model.L2.H1&cell=2.1")
        page.until("document.documentElement.dataset.ready === 'single'")
        add(path, 9)
        said(page, "2 of 3")
        assert "cell=2.1" in page.url
        page.locator("body").press("n")
        page.until("location.search.includes('grown-9')")


def test_a_file_that_was_replaced_is_drawn_anew(browse, path, tmp_path):
    picture = "document.querySelector('.tile canvas').toDataURL()"
    with serving(path) as address, browse(address) as page:
        page.add_init_script(OFTEN)
        page.goto(f"{address}index.html")
        is_ready(page, 12)
        before = page.evaluate(picture)
        write(tmp_path / "b.h5", hashes=HASHES[:2], lengths=(5, 3), seed=50).replace(path)
        page.until(f"before => {picture} !== before", arg=before)
        is_ready(page, 12)
        page.locator(".tile").first.click()
        page.until("document.documentElement.dataset.ready === 'single'")
        value = page.locator("#readout").get_attribute("data-value")
        write(tmp_path / "b.h5", hashes=HASHES[:2], lengths=(5, 3), seed=90).replace(path)
        page.until("value => document.querySelector('#readout').dataset.value !== value", arg=value)


def test_a_file_that_was_replaced_by_one_of_another_shape(browse, path, tmp_path):
    with serving(path) as address, browse(address) as page:
        page.add_init_script(OFTEN)
        page.goto(f"{address}index.html?prompts={HASHES[1]}&heads-toy-model=L3")
        is_ready(page, 4)
        kind = layout("rectangle", layers=(0, 1), n_heads=2)
        write(tmp_path / "b.h5", kind=kind, hashes=HASHES[2:4], lengths=(4, 3)).replace(path)
        page.until("document.querySelectorAll('.map-cell').length === 4")
        said(page, HASHES[1])  # is not there any more
        page.watched.forgive_network()


@pytest.mark.parametrize("view", ["index.html", "single.html?head=toy-model.L2.H1"])
def test_a_file_that_vanishes_and_comes_back(browse, path, tmp_path, view):
    with serving(path) as address, browse(address) as page:
        page.add_init_script(OFTEN)
        page.goto(f"{address}{view}")
        ready = "single" if "single" in view else 12
        is_ready(page, ready)
        path.rename(tmp_path / "away")
        said(page, "a.h5 is no longer there: put it back, or serve another file")
        (tmp_path / "away").rename(path)
        page.until("!document.body.innerText.includes('no longer there')")
        is_ready(page, ready)
        canvas = page.locator("#heatmap" if ready == "single" else ".tile canvas >> nth=0")
        canvas.wait_for()
        page.watched.forgive_network()


@pytest.mark.parametrize("view", ["index.html", "single.html?head=toy-model.L2.H1"])
def test_a_server_that_stops_is_said(browse, path, view):
    with ExitStack() as stack:
        address = stack.enter_context(serving(path))
        with browse(address) as page:
            page.add_init_script(OFTEN)
            page.goto(f"{address}{view}")
            page.until("document.documentElement.dataset.ready !== undefined")
            page.locator(".tabulator-row, .like").nth(1).wait_for()
            stack.close()
            page.until("document.querySelector('#notices').textContent.length > 20")
            assert "server" in page.locator("#notices").inner_text()
            if "index" in view:
                page.locator(".tabulator-row").nth(1).click()
                page.locator(".tile .failure").first.wait_for()
                assert "server does not answer" in page.locator(".tile .failure").first.inner_text()
            else:
                page.keyboard.press("]")
                said(page, "Nothing to show here")
            page.watched.forgive_network()
