"""What is hard to show: markup, control characters and right-to-left text, odd shapes, figures that failed."""

import numpy as np
import pytest

import pattern_lens as pl
from pattern_lens.errors import HeadSelectionError, OutOfRangeError
from pattern_lens.server.keys import prompt_key
from tests.browser.conftest import serving
from tests.server.conftest import HASHES, add_scores, layout, write

pytestmark = pytest.mark.slow

NAME = "<img src=x onerror=alert(1)>\u202egnol"
HOSTILE, SECOND, SMALL, EMPTY = range(4)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Four files: hostile in everything, another of the same model, a small rectangular one, one without prompts."""
    folder = tmp_path_factory.mktemp("hostile")
    hostile = write(folder / "a\u202e<b>.h5", name=NAME, figures=True)
    add_scores(hostile)
    second = write(folder / "second.h5", name=NAME, hashes=HASHES[:2], lengths=(4, 6), seed=20)
    kind = layout("rectangle", layers=(0, 1), n_heads=2)
    small = write(folder / "small.h5", name="small", kind=kind, hashes=HASHES[:1], lengths=(7,))
    empty = write(folder / "empty.h5", name="empty", hashes=[], lengths=())
    return hostile, second, small, empty


@pytest.fixture(scope="module")
def site(files):
    with serving(*files) as address:
        yield address


@pytest.fixture(scope="module")
def ids(site):
    import json
    import urllib.request

    with urllib.request.urlopen(f"{site}api/index.json") as reply:  # noqa: S310 - our own server
        return [model["id"] for model in json.load(reply)["models"]]


@pytest.fixture
def page(browse, site):
    with browse(site) as found:
        yield found
        assert found.locator("#view script, #view img[src='x'], #header img").count() == 0


@pytest.fixture(scope="module")
def texts(files):
    with pl.open_patterns(files[HOSTILE]) as patterns:
        return dict(zip(patterns, patterns.prompts["text"], strict=True))


def gallery(page, site, query=""):
    page.goto(f"{site}index.html{query}")
    page.until("document.documentElement.dataset.ready > 0")


def single(page, site, model, prompt, head="L2.H1", more=""):
    page.goto(f"{site}single.html?prompt={prompt}&head={model}.{head}{more}")
    page.until("document.documentElement.dataset.ready === 'single'")


def is_ready(page, n):
    page.until("n => document.documentElement.dataset.ready === n", arg=str(n))


def rows(page):
    page.locator(".tabulator-row").first.wait_for()
    return page.locator(".tabulator-row")


def notices(page):
    return page.locator("#notices").inner_text()


# --- texts -----------------------------------------------------------------------------------------


def test_prompts_stand_in_the_table_as_they_are(page, site, texts):
    gallery(page, site)
    found = rows(page)
    shown = found.locator(".prompt-text").evaluate_all("all => all.map(one => one.textContent)")
    assert shown == [text[:300] for text in texts.values()]
    assert "<script>alert(1)</script>" in shown[0]
    for i in range(found.count()):
        boxes = [found.nth(i).locator(one).bounding_box() for one in ("input", ".prompt-text")]
        end = found.nth(i).locator("[tabulator-field=n_tokens]").bounding_box()
        assert boxes[0]["x"] < boxes[1]["x"] < end["x"]


def test_captions_and_tooltips_hold_the_text(page, site, texts):
    gallery(page, site, "?prompts=*&size=200")
    tile = page.locator(".tile").first
    caption = tile.locator(".caption-more").inner_text()
    assert "<script>alert(1)</script>" in caption
    tile.hover()
    page.locator("#tooltip").wait_for()
    said = page.locator("#tooltip bdi").first.evaluate("one => one.textContent")
    assert said.startswith(texts[HASHES[0]][:100])
    assert page.locator("#tooltip script, #tooltip img").count() == 0


@pytest.mark.parametrize("at", range(len(HASHES)))
def test_every_hash_is_chosen_and_kept(page, site, ids, at):
    gallery(page, site)
    rows(page).nth(at).locator(".prompt-text").click()
    page.until("location.search.includes('prompts=')")
    is_ready(page, 12)
    page.reload()
    is_ready(page, 12)
    page.until("document.querySelectorAll('.tabulator-row.is-chosen').length === 1")
    assert page.locator(".tabulator-row.is-chosen").get_attribute("data-prompt") in (
        HASHES[at],
        prompt_key(HASHES[at]),
    )
    assert notices(page) == ""
    page.locator(".tile").nth(5).click()
    page.until("document.documentElement.dataset.ready === 'single'")
    assert notices(page) == ""
    page.until(
        "at => document.querySelector('.prompt-place').textContent === at", arg=f"{at + 1} of 6"
    )
    page.reload()
    page.until("document.documentElement.dataset.ready === 'single'")
    page.until(
        "at => document.querySelector('.prompt-place').textContent === at", arg=f"{at + 1} of 6"
    )
    assert notices(page) == ""


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (0, ["<BOS>", "<script>alert(1)</script>", "⏎", "\ufffd", "שלום"]),
        (2, ["<BOS>", "\ufffd", "שלום", "\\u202eevil", "␣the", "&amp;", "</script>", "\u200d"]),
    ],
)
def test_tokens_are_visible_and_in_order(page, site, ids, at, expected):
    single(page, site, ids[HOSTILE], prompt_key(HASHES[at]))
    tokens = page.locator(".tokens [data-index]")
    assert tokens.evaluate_all("all => all.map(one => one.textContent)") == expected
    places = tokens.evaluate_all(
        "all => all.map(one => one.getClientRects()[0]).map(box => [box.top, box.left])"
    )
    assert places == sorted(
        places
    )  # neither the right-to-left word nor the control turned the others


def test_the_readout_names_tokens_as_they_are(page, site, ids):
    single(page, site, ids[HOSTILE], prompt_key(HASHES[2]), more="&cell=3.2")
    assert page.locator("#readout td.here").all_inner_texts() == ["\\u202eevil", "שלום"]
    before, after = (page.locator("#readout tr.query td").nth(i).bounding_box() for i in (1, 3))
    assert before["x"] < after["x"]
    single(page, site, ids[HOSTILE], prompt_key(HASHES[0]), more="&cell=2.1")
    here = ["⏎", "<script>alert(1)</script>"]
    assert page.locator("#readout td.here").all_inner_texts() == here


def test_names_of_models_and_files_do_not_turn_what_is_around_them(page, site, ids):
    gallery(page, site)
    where = page.locator("#header .where")
    assert NAME in where.evaluate("one => one.textContent")
    name, file = (where.locator(one).first.bounding_box() for one in ("b", "b + bdi"))
    assert name["x"] + name["width"] <= file["x"] + 1
    page.goto(f"{site}index.html?models=%E2%80%AEgnol~{ids[HOSTILE]}")
    page.until("document.querySelector('#notices').textContent.length > 0")
    assert "There is no model “\\u202egnol” here" in notices(page)


def test_a_figure_that_is_a_page_is_not_run(page, site, ids):
    gallery(page, site, f"?functions=grid&prompts={prompt_key(HASHES[2]).removeprefix('~')}")
    assert page.locator(".tile .other").inner_text() == "html"
    single(page, site, ids[HOSTILE], prompt_key(HASHES[2]))
    page.locator("[data-figure=grid]").wait_for()
    assert page.locator("[data-figure=grid] a").get_attribute("href").endswith("all.html")


def test_a_figure_that_failed_says_why(page, site, ids):
    gallery(page, site, "?functions=spectra")
    page.locator(".tile .failure").wait_for()
    assert page.locator(".tile").count() == 10
    failed = page.locator(".tile", has=page.locator(".failure"))
    assert failed.get_attribute("aria-label").startswith("L2H3")
    assert "ValueError: <b>no</b>" in failed.inner_text().replace("\n", " ")
    failed.hover()
    assert page.locator("#tooltip .error").inner_text() == "ValueError: <b>no</b>"
    assert "1 failed" in page.locator("li", has_text="spectra").inner_text()
    single(page, site, ids[HOSTILE], HASHES[0], "L2.H3")
    page.locator("[data-figure=spectra]").wait_for()
    assert "ValueError: <b>no</b>" in page.locator("[data-figure=spectra]").inner_text()


# --- shapes ----------------------------------------------------------------------------------------


def test_models_of_different_shape_and_their_heads(page, site, ids):
    gallery(page, site)
    boxes = page.locator(".models-table input")
    boxes.nth(SMALL).check()
    is_ready(page, 12 + 4)
    page.locator(f'.model-card[data-model="{ids[SMALL]}"] [data-cell="L1H1"]').click()
    is_ready(page, 12 + 1)
    page.locator(f'.model-card[data-model="{ids[HOSTILE]}"] .heads-text').fill("L3H0-1")
    is_ready(page, 2 + 1)
    heads = page.locator(".tile .caption-head").all_inner_texts()
    assert heads == ["L3H0", "L3H1", "L1H1"]
    page.reload()
    is_ready(page, 3)
    boxes.nth(HOSTILE).uncheck()
    is_ready(page, 1)


def test_two_files_of_one_model_stay_apart(page, site, ids):
    assert ids[SECOND] == f"{ids[HOSTILE]}@second"
    gallery(page, site, f"?models={ids[HOSTILE]}&heads-{ids[HOSTILE]}=L0H1")
    is_ready(page, 1)  # an address of before the second was served means what it meant
    page.locator(".models-table input").nth(SECOND).check()
    is_ready(page, 1 + 12)
    page.locator(f'.model-card[data-model="{ids[SECOND]}"] .heads-text').fill("L3")
    is_ready(page, 1 + 4)
    page.reload()
    is_ready(page, 1 + 4)
    assert "second.h5" in page.locator(".models-table").inner_text()


def test_a_rectangular_pattern_is_read_above_its_diagonal(page, site, ids, files):
    single(page, site, ids[SMALL], HASHES[0], "L1.H0")
    with pl.open_patterns(files[SMALL]) as patterns:
        values = patterns[HASHES[0]].sel(layer=1, head=0).values
    box = page.locator("#heatmap").bounding_box()
    for query, key in [(0, 6), (2, 5), (6, 0)]:
        page.mouse.move(
            box["x"] + (key + 0.5) * box["width"] / 7, box["y"] + (query + 0.5) * box["height"] / 7
        )
        page.until(
            "at => { const one = document.querySelector('#readout').dataset;"
            " return `${one.query}.${one.key}` === at; }",
            arg=f"{query}.{key}",
        )
        said = page.locator("#readout").evaluate("one => one.dataset.value")
        assert np.float32(said) == values[query, key]


def test_a_file_without_prompts_says_so(page, site, ids):
    page.goto(f"{site}index.html?models={ids[EMPTY]}")
    page.get_by_text("No prompt yet").wait_for()
    assert "empty.h5 holds no prompt" in page.locator(".message").inner_text()
    page.goto(f"{site}single.html?head={ids[EMPTY]}.L0.H0")
    page.get_by_text("empty.h5 holds no prompts yet").wait_for()


# --- the grammar of heads --------------------------------------------------------------------------


def test_half_a_choice_of_heads(page, site):
    cases = [
        ("L0H0, L", 1, "“L”"),
        ("L0H0-1, L2H", 2, "“L2H”"),
        ("L0H0, L2-0", 1, "“L2-0”"),
        ("L0H0-1, L9", 2, "“L9”"),
        ("L0H0, L2H7", 1, "“L2H7”"),
        ("L0H0-1, 3", 2, "“3”"),
        ("L0H0, L0-", 1, "“L0-”"),
        ("L0H0-1,,  ,L0H0", 2, None),
        ("<b>, L0H0", 1, "“<b>”"),
    ]
    gallery(page, site)
    error = page.locator(".model-card .error")
    for text, n, said in cases:
        page.locator(".heads-text").fill(text)
        is_ready(page, n)
        assert (said in error.inner_text()) if said else error.is_hidden(), text


def test_the_grammar_is_that_of_python(page, site):
    rng = np.random.default_rng(1)
    numbers = [
        "0",
        "1",
        "3",
        "00",
        "0-1",
        "1-2",
        "2-1",
        "3-9",
        "9",
        "x",
        "X",
        "*",
        "0-",
        "-1",
        "a",
        "",
    ]
    odd = ["x", "*", "foo", "L", "H", "l2h1", "L1.H2", "\u017f1", "\uff11"]
    ends = [", ", "~", " ", ",", "\t", "\xa0", "\x1c", "\ufeff", "\u3000", ",,~ "]

    def term() -> str:
        if rng.random() < 0.1:
            return str(rng.choice(odd))
        layer, head = rng.choice(numbers, 2)
        return "".join(part for part in (f"L{layer}", f"h{head}") if rng.random() < 0.7)

    cases = [
        str(rng.choice(ends)).join(term() for _ in range(rng.integers(4))) for _ in range(1500)
    ]
    gallery(page, site)
    found = page.evaluate(
        """async cases => { const { parseHeads } = await import("pattern-lens/heads.js");
             return cases.map(text => { const { heads, error } = parseHeads(text, 4, 3);
               return error ? null : heads; }); }""",
        cases,
    )
    n_valid = 0
    for case, heads in zip(cases, found, strict=True):
        try:
            expected = [list(head) for head in pl.parse_heads(case, n_layers=4, n_heads=3)]
        except (HeadSelectionError, OutOfRangeError):
            expected = None
        if expected is None and heads == []:
            continue  # nothing written yet is no error while one writes
        assert heads == expected, repr(case)
        n_valid += heads is not None
    assert 100 < n_valid < 1400
