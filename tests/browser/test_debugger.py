"""The debugger: what the page finds is what the library says; ablations, traces and the whole view are in the address."""

import json

import pytest

import pattern_lens as pl
from pattern_lens.testing import write_random_traces
from pattern_lens.tracing.objectives import logit_minus_mean
from pattern_lens.tracing.run import trace
from pattern_lens.tracing.stored import open_traces
from tests.browser.conftest import serving

pytestmark = pytest.mark.slow

REPETITION = 3
INDUCTION, PREVIOUS = "L1H0@26,7", "L0H7@7,6"
MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="module")
def text():
    from pattern_lens.demo import prompts_path

    return json.loads(prompts_path().read_text().splitlines()[REPETITION])["text"]


@pytest.fixture(scope="module")
def prompt(text):
    return pl.prompt_hash(text)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    from pattern_lens.demo import model_path, prompts_path

    folder = tmp_path_factory.mktemp("debugger")
    lines = prompts_path().read_text().splitlines(keepends=True)
    (folder / "some.jsonl").write_text(lines[REPETITION] + lines[0])
    pl.capture(model_path(), folder / "some.jsonl", folder / "demo.h5", progress=False)
    return folder / "demo.h5"


@pytest.fixture(scope="module")
def live(file):
    """The application with the model."""
    from pattern_lens.demo import model_path

    with serving(file, "--model", model_path()) as found:
        yield found


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "traced.h5"
    write_random_traces(path)
    return path


@pytest.fixture(scope="module")
def without_model(stored):
    with serving(stored) as found:
        yield found


@pytest.fixture(scope="module")
def traces(stored):
    with open_traces(stored) as found:
        yield found


def is_ready(page):
    page.until("document.documentElement.dataset.ready === 'debugger'")


def opened(page, address, query=""):
    page.goto(f"{address}debugger.html{query}")
    is_ready(page)
    return page


def first_row(page):
    return page.locator("#nodes .tabulator-row").first.get_attribute("data-node")


def rows(page):
    return page.locator("#nodes .tabulator-row").evaluate_all(
        "all => all.map(one => one.dataset.node)"
    )


def chosen(page):
    return page.locator("#node").get_attribute("data-node")


def objective(page):
    """The objective before and after the ablations."""
    found = page.locator("#objective").evaluate("one => ({...one.dataset})")
    return float(found["before"]), float(found["after"])


def only(page, kind):
    """Leaves one kind of node in the table."""
    for chip in page.locator(".node-kinds .chip").all():
        is_on = chip.get_attribute("aria-pressed") == "true"
        if is_on != (chip.get_attribute("data-kind") == kind):
            chip.click()


def test_the_induction_head_what_feeds_its_keys_and_what_is_lost_without_both(
    browse, live, file, prompt, text
):
    from pattern_lens.demo import model_path

    with browse(live) as page:
        opened(page, live, f"?prompt={prompt}")
        page.locator(".debugger-tokens .token").nth(26).click()
        page.until("location.search.includes('position=26')")
        is_ready(page)
        box = page.locator("#token-target")
        box.fill("w")
        box.press("Enter")
        page.until("location.search.includes('target=w')")
        is_ready(page)
        only(page, "pair")
        assert first_row(page) == chosen(page) == INDUCTION
        page.until("document.querySelector('#head-readout').dataset.query === '26'")
        readout = page.locator("#head-readout").evaluate("one => ({...one.dataset})")
        with pl.open_patterns(file) as found:
            attention = float(found[prompt].sel(layer=1, head=0, query=26, key=7))
        assert readout["key"] == "7"
        assert float(readout["value"]) == pytest.approx(attention, rel=1e-6)

        page.locator("#node [data-ablate=L1H0]").click()
        page.until("location.search.includes('ablate=L1H0')")
        is_ready(page)
        assert chosen(page) == INDUCTION
        page.locator("#node [data-path=K]").click()
        page.until("location.search.includes('node=L1H0@26,7:K')")
        is_ready(page)
        assert first_row(page) == chosen(page) == PREVIOUS
        page.locator("#node [data-ablate=L0H7]").click()
        page.until("location.search.includes('ablate=L1H0~L0H7')")
        is_ready(page)
        page.locator("#changes [data-traced] button").click()
        page.until("!location.search.includes('node=')")
        is_ready(page)

        before, after = objective(page)
        with_both = logit_minus_mean("w", position=26)
        options = {"scalars": ("embed",), "progress": False}
        want = [
            float(
                trace(model_path(), [text], objective=with_both, ablate=ablate, **options)[
                    "objective"
                ][0]
            )
            for ablate in ((), ("L1H0", "L0H7"))
        ]
        assert [before, after] == pytest.approx(want, rel=1e-5)
        assert after < before - 5
        target = page.locator("#next-tokens tr[data-role=target]")
        logits = target.evaluate("one => [Number(one.dataset.before), Number(one.dataset.after)]")
        assert logits[1] < logits[0] - 5
        assert f"{logits[1] - logits[0]:.3f}".replace("-", MINUS) in target.inner_text()

        state, table = page.url, rows(page)
        page.reload()
        is_ready(page)
        assert (page.url, rows(page), objective(page)) == (state, table, (before, after))
        page.locator("#changes [data-ablated=L1H0] button").click()
        page.until("!location.search.includes('L1H0~')")
        is_ready(page)
        assert objective(page)[1] > after
        page.go_back()
        page.until("location.search.includes('ablate=L1H0~L0H7')")
        is_ready(page)
        assert objective(page) == (before, after)


def test_the_last_of_quick_clicks_is_what_is_shown(browse, live, prompt):
    with browse(live) as page:
        opened(page, live, f"?prompt={prompt}&position=26&target=w&chosen={INDUCTION}")
        page.evaluate(
            """() => {
              for (const label of ["L1H0@26,7", "L1H0", "L1H0@26,7"])
                document.querySelector(`#node [data-ablate="${label}"]`).click();
            }"""
        )
        page.until("document.querySelector('#changes [data-ablated]')")
        is_ready(page)
        found = page.locator("#changes [data-ablated]").evaluate_all(
            "all => all.map(one => one.dataset.ablated)"
        )
        assert found == ["L1H0"]
        assert page.url.endswith("ablate=L1H0&chosen=L1H0@26,7")
        asked = [one for one in page.watched.requests if "/trace.json" in one]
        assert len(asked) <= 3, "what came between was never asked"


def test_values_of_a_head_and_its_cells(browse, live, prompt, text):
    from pattern_lens.demo import model_path

    with browse(live) as page:
        opened(page, live, f"?prompt={prompt}&position=26&target=w&chosen={INDUCTION}")
        objective = logit_minus_mean("w", position=26)
        names = {"total": "pair_estimated_total_effect", "scores": "attn_scores"}
        found = trace(
            model_path(), [text], objective=objective, scalars=(*names.values(),), progress=False
        ).sel(layer=1, head=0)
        for values, name in names.items():
            page.locator(f"[data-values={values}].segment").click()
            page.until(
                "values => document.querySelector('#head').dataset.values === values", values
            )
            value = page.locator("#head-readout").evaluate("one => Number(one.dataset.value)")
            assert value == pytest.approx(float(found[name][0, 26, 7]), rel=1e-4)
        page.locator(".head-stage").focus()
        for key in ("ArrowLeft", "ArrowUp", "Enter"):
            page.keyboard.press(key)
        page.until("location.search.includes('chosen=L1H0@25,6')")
        assert chosen(page) == "L1H0@25,6"
        assert "values=scores" in page.url


def test_stored_traces_without_a_model(browse, without_model, traces):
    result = traces["effects"]
    prompt = result["prompt"].values[2]
    with browse(without_model) as page:
        opened(page, without_model, f"?prompt={prompt}")
        assert "trace=effects" in page.url
        want = result.nodes(k=5, prompt=prompt)
        table = page.locator("#nodes .tabulator-row")
        shown = [
            float(table.nth(i).locator(".node-number").first.inner_text().replace(MINUS, "-"))
            for i in range(5)
        ]
        assert shown == pytest.approx(want["estimated_total_effect"].tolist(), abs=6e-4)
        assert "--model random" in page.locator("#why-not").inner_text()
        assert page.locator("#node [data-ablate]:not(:disabled)").count() == 0
        assert page.locator("#token-target").is_hidden()
        # 4,300 nodes, and rows for those in sight
        assert table.count() < 100

        page.locator("[data-measure=direct].node-sort").click()
        page.locator("[data-measure=direct].node-sort").click()
        page.until("location.search.includes('sort=direct.high')")
        only(page, "head")
        page.until("location.search.includes('kind=head')")
        highest = result.nodes(
            by="direct_effect", k=2, prompt=prompt, kinds=["head"], absolute=False
        )
        names = [
            f"{label}@{query}"
            for label, query in zip(highest["label"], highest["query"], strict=True)
        ]
        assert rows(page)[:2] == names
        page.locator("#nodes .tabulator-row").first.focus()
        page.keyboard.press("ArrowDown")
        page.until("name => document.querySelector('#node').dataset.node === name", names[1])
        page.until("name => document.activeElement.dataset.node === name", names[1])
        state = page.url
        page.reload()
        is_ready(page)
        assert (page.url, chosen(page), rows(page)[:2]) == (state, names[1], names)


def test_other_stored_traces_and_prompts(browse, without_model, traces):
    prompts = traces["effects"]["prompt"].values
    with browse(without_model) as page:
        opened(page, without_model, f"?prompt={prompts[0]}&trace=effects")
        page.locator("#traces [data-trace=ablated]").click()
        page.until("location.search.includes('trace=ablated')")
        is_ready(page)
        said = page.locator(".changes-panel").inner_text()
        assert "L2H3@-1,0:K" in said
        assert "L1H0=mean" in said
        assert "without the ablations" in page.locator("#head-note").inner_text()
        assert page.locator(".debugger-tokens .token b").count() == 0
        page.locator("#nodes").wait_for()
        page.keyboard.press("n")
        page.until("hash => location.search.includes(hash)", str(prompts[1]))
        is_ready(page)
        assert "trace=ablated" in page.url
        opened(page, without_model, f"?prompt={prompts[0]}&trace=none&target=~3")
        notices = page.locator("#notices").inner_text()
        assert "There is no trace “none” of this prompt" in notices
        assert "is not stored" in notices


def test_what_cannot_be_asked_is_said_and_can_be_corrected(browse, live, prompt):
    with browse(live) as page:
        opened(page, live, f"?prompt={prompt}&target=velvet+anchor")
        assert "expected a single token" in page.locator("#error").inner_text()
        assert page.locator("#token-target").get_attribute("aria-invalid") == "true"
        assert page.locator("#nodes").is_hidden()
        page.watched.forgive_network()
        box = page.locator("#token-target")
        box.click()
        page.keyboard.type("x")
        page.until("document.querySelectorAll('#tokens-target [role=option]').length > 1")
        box.press("ArrowDown")
        box.press("Enter")
        page.until("location.search.includes('target=~')")
        is_ready(page)
        assert page.locator("#error").is_hidden()
        assert page.locator("#nodes").is_visible()


def test_from_the_other_pages_and_back(browse, live, prompt):
    with browse(live) as page:
        page.goto(f"{live}single.html?prompt={prompt}&head=demo-gpt2.L3.H1")
        page.until("document.documentElement.dataset.ready === 'single'")
        page.locator("#to-debugger").click()
        is_ready(page)
        assert prompt in page.url
        assert "target=~" in page.url, "the most probable token, by its id"
        only(page, "head")
        head = first_row(page).partition("@")[0]
        page.until("head => document.querySelector('#head').dataset.head === head", head)
        page.locator("#head a").click()
        page.until("document.documentElement.dataset.ready === 'single'")
        assert head.replace("H", ".H") in page.url


def test_without_traces_and_model_there_is_no_link(browse, file):
    with serving(file) as address, browse(address) as page:
        opened(page, address)
        assert page.locator("#to-debugger").count() == 0
        said = page.locator(".message[role=alert]").first.inner_text()
        assert "holds no traces of this prompt" in said
        assert "pattern-lens serve demo.h5 --model demo-gpt2" in said


def test_an_exported_page_shows_stored_traces(browse, stored, traces, tmp_path):
    prompt = str(traces["effects"]["prompt"].values[2])
    pl.export_html(stored, tmp_path / "page.html", prompts=[prompt], progress=False)
    with browse("file:", offline=True) as page:
        page.goto(f"file://{tmp_path}/page.html#view=debugger&prompt={prompt}&model=random")
        is_ready(page)
        want = traces["effects"].nodes(k=1, prompt=prompt, kinds=["pair"]).iloc[0]
        only(page, "pair")
        assert first_row(page) == f"{want['label']}@{want['query']},{want['key']}"
        page.until("document.querySelector('#head-readout').dataset.value")
        assert "pattern-lens serve FILE --model NAME" in page.locator("#why-not").inner_text()
        assert page.locator("[data-values=total].segment").is_disabled()


def test_dark_and_narrow(browse, live, prompt):
    options = {"viewport": {"width": 700, "height": 900}, "color_scheme": "dark"}
    with browse(live, **options) as page:
        opened(page, live, f"?prompt={prompt}&position=26&target=w")
        assert page.evaluate("document.documentElement.scrollWidth") <= 700
        page.locator("#nodes .tabulator-row").first.wait_for()
