"""One pattern: exact values under the cross-hair, by mouse and keyboard, and what the address keeps of it."""

import csv
import io

import numpy as np
import pytest

import pattern_lens as pl

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prompt(demo):
    with pl.open_patterns(demo) as patterns:
        return next(iter(patterns))


@pytest.fixture(scope="module")
def pattern(demo, prompt):
    with pl.open_patterns(demo) as patterns:
        return patterns[prompt].load()


def opened(page, address, prompt, head="L1.H5", more=""):
    page.goto(f"{address}single.html?prompt={prompt}&head=demo-gpt2.{head}{more}")
    is_ready(page)
    return page


def is_ready(page):
    page.until("document.documentElement.dataset.ready === 'single'")


def cell(page):
    """Query, key and value that the page reads out."""
    found = page.locator("#readout").evaluate("one => ({...one.dataset})")
    return int(found["query"]), int(found["key"]), np.float32(found["value"])


def hover(page, query, key, n):
    box = page.locator("#heatmap").bounding_box()
    page.mouse.move(
        box["x"] + (key + 0.5) * box["width"] / n, box["y"] + (query + 0.5) * box["height"] / n
    )
    page.until(
        "([query, key]) => { const at = document.querySelector('#readout').dataset;"
        " return Number(at.query) === query && Number(at.key) === key; }",
        arg=[query, key],
    )


def test_hovering_reads_the_value_that_the_file_holds(page, address, prompt, pattern):
    opened(page, address, prompt)
    head = pattern.sel(layer=1, head=5)
    n = head.sizes["query"]
    for query, key in [(20, 6), (30, 0), (n - 1, n - 1), (3, 30)]:
        hover(page, query, key, n)
        assert cell(page) == (query, key, head.values[query, key])
    hover(page, 20, 6, n)
    said = page.locator("#readout").inner_text()
    assert str(head["query_token"].values[20]).strip() in said
    assert str(head["key_token"].values[6]).strip() in said


def test_a_locked_cell_stays_and_moves_by_keyboard(page, address, prompt, pattern):
    opened(page, address, prompt)
    head = pattern.sel(layer=1, head=5)
    n = head.sizes["query"]
    hover(page, 20, 6, n)
    page.mouse.down()
    page.mouse.up()
    page.until("location.search.includes('cell=20.6')")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert cell(page) == (21, 7, head.values[21, 7])
    page.keyboard.press("Control+ArrowUp")
    assert cell(page)[:2] == (11, 7)
    page.until("location.search.includes('cell=11.7')")
    page.reload()
    is_ready(page)
    assert cell(page) == (11, 7, head.values[11, 7])
    page.keyboard.press("Escape")
    page.until("!location.search.includes('cell=')")


def test_heads_layers_and_prompts_by_keyboard(page, address, prompt):
    opened(page, address, prompt)
    page.keyboard.press("]")
    page.until("location.search.includes('L1.H6')")
    page.keyboard.press("}")
    page.until("location.search.includes('L2.H6')")
    page.until("document.body.innerText.includes('1 of 35')")
    page.keyboard.press("n")
    page.until("hash => !location.search.includes(hash)", arg=prompt)
    is_ready(page)


def test_means_over_heads(page, address, prompt, pattern):
    opened(page, address, prompt, "L1.Hx")
    mean = pattern.sel(layer=1).mean("head")
    hover(page, 20, 6, mean.sizes["query"])
    assert cell(page)[2] == pytest.approx(float(mean[20, 6]), rel=1e-5)


def test_without_bos_rows_are_renormalised(page, address, prompt, pattern):
    opened(page, address, prompt, more="&bos=0")
    head = pattern.sel(layer=1, head=5)
    hover(page, 20, 6, head.sizes["query"])
    rest = head[20, 1:].values.astype(np.float64)
    assert cell(page)[2] == pytest.approx(head.values[20, 6] / rest.sum(), rel=1e-5)


def test_tokens_set_key_and_query(page, address, prompt):
    opened(page, address, prompt)
    tokens = page.locator(".tokens-panel [data-index], .tokens [data-index]")
    tokens.nth(4).click()
    tokens.nth(9).click(button="right")
    assert cell(page)[:2] == (9, 4)


def test_the_table_that_is_downloaded_holds_the_values(page, address, prompt, pattern):
    opened(page, address, prompt)
    page.locator("#download").click()
    with page.expect_download() as download:
        page.locator("#download-csv").click()
    head = pattern.sel(layer=1, head=5).values
    with download.value.path().open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert download.value.suggested_filename.endswith(".csv")
    for row in rows[:: max(1, len(rows) // 50)]:
        value = np.float32(
            row[next(key for key in row if key not in {"query", "key"} and "token" not in key)]
        )
        assert value == head[int(row["query"]), int(row["key"])]


@pytest.mark.parametrize(("kind", "begins"), [("svg", b"<"), ("png", b"\x89PNG")])
def test_pictures_that_are_downloaded(page, address, prompt, kind, begins):
    opened(page, address, prompt)
    page.locator("#download").click()
    with page.expect_download() as download:
        page.locator(f"#download-{kind}").click()
    data = download.value.path().read_bytes()
    assert data.startswith(begins)
    assert len(data) > 3000


def test_netcdf_that_is_downloaded(page, address, prompt, pattern):
    import xarray as xr

    opened(page, address, prompt)
    page.locator("#download").click()
    with page.expect_download() as download:
        page.locator("#download-nc").click()
    data = download.value.path().read_bytes()
    with xr.open_dataset(io.BytesIO(data), engine="scipy") as found:
        (name,) = found.data_vars
        assert np.array_equal(found[name].values, pattern.sel(layer=1, head=5).values)


def test_what_an_address_names_in_vain_is_said(page, address, prompt):
    page.goto(f"{address}single.html?prompt=nosuchprompt&head=demo-gpt2.L99.H0")
    is_ready(page)
    said = page.locator("body").inner_text()
    assert "nosuchprompt" in said
    assert "L99" in said
    # the browser itself writes of the one answer that there is none
    assert [text for text in page.watched.wrong if "404" not in text] == []
    page.watched.wrong.clear()
