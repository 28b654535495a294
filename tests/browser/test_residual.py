"""The residual stream: what the page reads out is what the library says, and the address keeps what was chosen."""

import json

import numpy as np
import pytest

import pattern_lens as pl
from tests.browser.conftest import serving

pytestmark = pytest.mark.slow

MODEL = "demo-gpt2"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    from pattern_lens.demo import model_path, prompts_path

    folder = tmp_path_factory.mktemp("residual")
    some = folder / "some.jsonl"
    some.write_text("".join(prompts_path().read_text().splitlines(keepends=True)[:3]))
    names = ["pattern", "residual"]
    pl.capture(model_path(), some, folder / "res.h5", names=names, weights="compatibility")
    return folder / "res.h5"


@pytest.fixture(scope="module")
def run(file):
    with pl.open_run(file) as found:
        yield found


@pytest.fixture(scope="module")
def prompt(run):
    return run.prompts.index[0]


@pytest.fixture(scope="module")
def address(file):
    with serving(file) as found:
        yield found


def is_ready(page):
    page.until("document.documentElement.dataset.ready === 'residual'")


def opened(page, address, prompt, more=""):
    page.goto(f"{address}residual.html?prompt={prompt}&model={MODEL}{more}")
    is_ready(page)
    return page


def cell(page, stream, position):
    return page.locator(f'.lens-cell[data-stream="{stream}"][data-position="{position}"]')


def parts(page):
    found = page.locator("#parts li").evaluate_all(
        "all => all.map(one => [one.dataset.part, one.dataset.value])"
    )
    return {name: float(value) for name, value in found}


def test_a_cell_of_the_lens_and_its_tokens(page, address, run, prompt):
    opened(page, address, prompt)
    lens = run.logit_lens(prompt=prompt)
    one = lens.sel(component="2_pre", pos=36)
    found = cell(page, "2_pre", 36)
    assert found.inner_text() == one["top_token"].values[0].replace(" ", "␣")
    probability = float(found.get_attribute("data-probability"))
    assert probability == pytest.approx(float(one["top_probability"][0]), rel=1e-5)
    found.hover()
    page.until("document.querySelector('#lens-cell').dataset.stream === '2_pre'")
    ids = page.locator("#lens-cell li").evaluate_all(
        "all => all.map(one => Number(one.dataset.id))"
    )
    assert ids == one["top_id"].values.tolist()


def test_attribution_to_a_token_against_another(page, address, run, prompt):
    opened(page, address, prompt, "&answer=~311&distractor=~12")
    want = run.direct_logit_attribution(prompt, 311, 12, unit="head")
    found = parts(page)
    order = np.argsort(-np.abs(want.scores.values), kind="stable")[: len(found)]
    assert list(found) == want.scores["component"].values[order].tolist()
    assert list(found.values()) == pytest.approx(want.scores.values[order].tolist(), rel=1e-6)
    shown = page.locator("#head-attribution [data-head=L3H1]").get_attribute("data-value")
    assert float(shown) == pytest.approx(float(want.scores.sel(component="L3H1")), rel=1e-6)
    said = page.locator("#closure").inner_text()
    assert f"{float(want.logit):.3f}".replace("-", "\N{MINUS SIGN}") in said
    assert "logit difference is" in said
    streams = run.direct_logit_attribution(prompt, 311, 12, unit="layer")
    curve = json.loads(page.locator("#curve").get_attribute("data-values"))
    want_curve = streams.scores.values + float(streams.unembed_bias)
    assert curve == pytest.approx(want_curve.tolist(), rel=1e-5, abs=1e-6)


def test_what_is_chosen_is_in_the_address_and_stays(page, address, run, prompt):
    opened(page, address, prompt)
    cell(page, "3_pre", 36).click()
    page.until(
        "location.search.includes('position=36') && location.search.includes('stream=3_pre')"
    )
    page.locator("#lens-cell li .set-token").first.click()
    page.until("location.search.includes('answer=')")
    page.locator("[data-unit=component]").click()
    page.until(
        "location.search.includes('unit=component') && document.querySelector('[data-part=embed]')"
    )
    before = parts(page)
    token = int(run.logit_lens(prompt=prompt, pos=36)["top_id"].sel(component="3_pre")[0])
    want = run.direct_logit_attribution(prompt, token, unit="component", pos=36)
    assert before["embed"] == pytest.approx(float(want.scores.sel(component="embed")), rel=1e-5)
    assert "last position only" in page.locator("#closure").inner_text()
    page.reload()
    is_ready(page)
    assert parts(page) == before
    assert cell(page, "3_pre", 36).get_attribute("aria-selected") == "true"


def test_tokens_are_found_and_chosen_by_keyboard(page, address, prompt):
    opened(page, address, prompt)
    box = page.locator("#token-distractor")
    box.click()
    page.keyboard.type("an")
    page.until("document.querySelectorAll('#tokens-distractor [role=option]').length > 1")
    box.press("ArrowDown")
    box.press("Enter")
    page.until("location.search.includes('distractor=')")
    page.until("document.querySelector('#closure').textContent.includes('difference')")
    assert box.input_value() == "an"
    box.fill("velvet anchor")
    box.press("Enter")
    page.until("document.querySelector('#closure').textContent.includes('tokens')")
    assert box.get_attribute("aria-invalid") == "true"
    assert page.locator("#token-answer").get_attribute("aria-invalid") is None
    page.watched.wrong.clear()  # Chromium notes the answer 404, whose sentence the page shows


def test_the_table_by_keyboard(page, address, prompt):
    opened(page, address, prompt)
    cell(page, "final_post", 44).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    page.until("document.activeElement.dataset.position === '43'")
    page.keyboard.press("Enter")
    page.until(
        "location.search.includes('position=43') && location.search.includes('stream=3_pre')"
    )


def test_a_head_leads_to_its_pattern_and_the_bar_back(page, address, prompt):
    opened(page, address, prompt, "&position=36")
    page.locator("#head-attribution [data-head=L3H1]").click()
    page.until("document.documentElement.dataset.ready === 'single'")
    assert "L3.H1" in page.url
    assert prompt in page.url
    page.locator("#to-residual").click()
    is_ready(page)
    assert "residual.html" in page.url
    assert prompt in page.url


def test_a_file_without_streams_says_so(browse, demo):
    with serving(demo) as address, browse(address) as page:
        page.goto(f"{address}residual.html")
        is_ready(page)
        assert "Nothing to show here" in page.locator(".message").inner_text()
        assert len(page.locator(".message").inner_text()) > 60
        assert page.locator("#to-residual").count() == 0


def test_an_exported_page_shows_the_lens(browse, file, prompt, run, tmp_path):
    from pattern_lens.server.one_page import export_html

    choice = {"prompts": [prompt], "heads": "L0H0", "lens": True}
    export_html(file, tmp_path / "page.html", **choice, progress=False)
    with browse() as page:
        page.goto(f"file://{tmp_path}/page.html#prompt={prompt}&model={MODEL}&position=36")
        is_ready(page)
        want = (
            run.logit_lens(prompt=prompt, pos=36)["top_token"].sel(component="final_post").values[0]
        )
        assert cell(page, "final_post", 36).inner_text() == want.replace(" ", "␣")
        assert "pattern-lens serve" in page.locator("#closure").inner_text()
