"""The gallery on the demo file: choosing heads, prompts and figures, and what the address keeps of it."""

import re

import pytest

import pattern_lens as pl

pytestmark = pytest.mark.slow

N_HEADS = 32


def is_ready(page, n):
    page.until("n => document.documentElement.dataset.ready === n", arg=str(n))


def opened(page, address, query=""):
    page.goto(f"{address}index.html{query}")
    page.until("document.documentElement.dataset.ready > 0")
    return page


def labels(page):
    return [one.split()[0] for one in page.locator(".tile .caption-head").all_inner_texts()]


def ink(page, number):
    """How many colours the picture of a tile has."""
    return page.locator(f'.tile[data-number="{number}"] canvas').evaluate(
        """canvas => new Set(new Uint32Array(canvas.getContext("2d")
             .getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size"""
    )


def test_shows_every_head_of_the_first_prompt_at_once(page, address):
    opened(page, address)
    is_ready(page, N_HEADS)
    assert labels(page) == [f"L{layer}H{head}" for layer in range(4) for head in range(8)]
    assert min(ink(page, n) for n in range(N_HEADS)) >= 5
    assert page.locator("#count").inner_text() == "32 pictures"


def test_heads_by_map(page, address):
    opened(page, address)
    page.locator('[data-cell="L1H5"]').click()
    is_ready(page, 1)
    assert labels(page) == ["L1H5"]
    page.locator('[data-cell="L0H2"]').drag_to(page.locator('[data-cell="L1H3"]'))
    is_ready(page, 4)
    assert labels(page) == ["L0H2", "L0H3", "L1H2", "L1H3"]
    page.locator('[data-cell="L3H7"]').click(modifiers=["Shift"])
    is_ready(page, 5)
    page.get_by_role("button", name="All heads of layer 2").click()
    is_ready(page, 8)
    assert page.locator(".heads-text").input_value() == "L2"


def test_heads_by_grammar(page, address):
    opened(page, address)
    page.locator(".heads-text").fill("L0-1H2, l3, LxH0")
    is_ready(page, 13)
    assert {"L0H2", "L1H2", "L3H5", "L2H0"} <= set(labels(page))
    page.locator(".heads-text").fill("L1H5, L9H0")
    is_ready(page, 1)
    assert labels(page) == ["L1H5"]
    assert "L9H0" in page.locator(".error:visible").inner_text()


def test_the_heads_with_the_highest_score_are_induction_heads(page, address, demo):
    opened(page, address)
    page.locator(".score-row select").select_option("induction_score")
    page.locator(".score-row input").fill("3")
    page.locator(".show-highest").click()
    is_ready(page, 3)
    with pl.open_results(demo) as results:
        mean = results["induction_score"].mean("prompt").stack(at=("layer", "head"))
        best = mean.sortby(mean, ascending=False)["at"].values[:3]
    assert set(labels(page)) == {f"L{layer}H{head}" for layer, head in best}


def test_filtered_prompts(page, address, demo):
    opened(page, address)
    page.locator(".tabulator-row").first.wait_for()
    with pl.open_patterns(demo) as patterns:
        texts = patterns.prompts["text"]
    page.locator("#find").fill("café")
    page.until("document.querySelectorAll('.tabulator-row').length < 5")
    found = page.locator(".tabulator-row").all_inner_texts()
    assert len(found) == sum("café" in text.lower() for text in texts)
    page.locator(".tabulator-row .prompt-text").first.click()
    chosen = re.search(r"[?&]prompts=([^&]+)", page.url)
    page.until("location.search.includes('prompts=')")
    chosen = re.search(r"[?&]prompts=([^&]+)", page.url)
    assert chosen is not None
    assert "café" in texts[chosen[1]]


def test_next_prompt(page, address, demo):
    opened(page, address)
    page.locator(".tabulator-row").first.wait_for()
    with pl.open_patterns(demo) as patterns:
        second = list(patterns)[1]
    page.locator("#next-prompt").click()
    page.until("hash => location.search.includes(hash)", arg=second)
    is_ready(page, N_HEADS)


def test_sorted_by_a_stored_score(page, address, demo):
    opened(page, address)
    page.locator("#sort").select_option("score.induction_score")
    page.until("document.querySelector('.caption-head').textContent.startsWith('L1')")
    with pl.open_results(demo) as results, pl.open_patterns(demo) as patterns:
        scores = results["induction_score"].sel(prompt=next(iter(patterns))).load()
    values = [float(scores.sel(layer=int(one[1]), head=int(one[3]))) for one in labels(page)]
    assert values == sorted(values, reverse=True)
    shown = page.locator(".tile .caption-score").first.inner_text()
    assert float(shown.split()[-1]) == pytest.approx(values[0], abs=0.001)


def test_stored_figures_are_shown(page, address, demo):
    with pl.open_figures(demo) as figures:
        one = next(iter(figures["log_scale"]))
        head, prompt = one.label, one.prompt
    opened(page, address, f"?functions=log_scale&heads-demo-gpt2={head}&prompts={prompt}")
    page.wait_for_selector(".tile img")
    page.until("document.querySelector('.tile img').naturalWidth > 20")


def test_the_address_keeps_everything(page, address):
    opened(page, address)
    page.locator(".heads-text").fill("L1")
    page.locator("#sort").select_option("score.induction_score")
    page.locator("#border").select_option("head")
    page.locator("#cmap").select_option("cividis")
    page.locator("#log").check()
    page.locator("#bos").uncheck()
    page.locator("#captions").uncheck()
    is_ready(page, 8)
    before = page.locator(".tile").evaluate_all("tiles => tiles.map(tile => tile.href)")
    seen = page.screenshot()
    page.reload()
    is_ready(page, 8)
    assert page.locator(".tile").evaluate_all("tiles => tiles.map(tile => tile.href)") == before
    assert page.locator("#sort").input_value() == "score.induction_score"
    assert page.locator("#border").input_value() == "head"
    assert page.locator("#cmap").input_value() == "cividis"
    assert page.locator("#log").is_checked()
    assert not page.locator("#bos").is_checked()
    assert not page.locator("#captions").is_checked()
    assert len(seen) > 10_000


def test_links_of_pattern_lens_0_6_lead_to_the_same_heads(page, address, demo):
    with pl.open_patterns(demo) as patterns:
        first, second = list(patterns)[:2]
    opened(
        page,
        address,
        f"?functions=raw&prompts={first}~{second}&models=demo-gpt2&heads-demo-gpt2=L2H3~L0Hx",
    )
    is_ready(page, 18)
    assert sorted(set(labels(page))) == [*(f"L0H{head}" for head in range(8)), "L2H3"]


def test_what_an_address_names_in_vain_is_said(page, address):
    page.goto(
        f"{address}index.html?models=demo-gpt2~nothere&prompts=nosuchprompt"
        "&functions=raw~nofigure&heads-demo-gpt2=L77~L1"
    )
    is_ready(page, 8)
    page.until("document.querySelector('#notices').textContent.length > 0")
    said = page.locator("body").inner_text()
    for name in ("nothere", "nosuchprompt", "nofigure", "L77"):
        assert name in said


def test_dark_mode_stays(page, address):
    opened(page, address)
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.locator("#theme").click()
    assert page.evaluate(background) != light
    page.reload()
    page.until("document.documentElement.dataset.ready > 0")
    assert page.evaluate(background) != light


def test_a_tile_opens_its_pattern_and_back(page, address):
    opened(page, address)
    page.locator(".tile", has_text="L1H5").click()
    page.until("document.documentElement.dataset.ready === 'single'")
    assert "single.html" in page.url
    assert "demo-gpt2.L1.H5" in page.url
    page.go_back()
    is_ready(page, N_HEADS)


def test_keyboard_reaches_a_picture(page, address):
    opened(page, address)
    page.locator(".tile").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    page.until("document.documentElement.dataset.ready === 'single'")
    assert re.match(r".*L\d+H\d+", focused)
