"""The page of features: what it shows is what the library says, all of the view is in the address, exports work offline."""

import json

import numpy as np
import pytest
import xarray as xr

import pattern_lens as pl
from pattern_lens.features.stored import open_features
from pattern_lens.features.writing import (
    feature_data_layouts,
    feature_rows_block,
    latent_layouts,
    latents_block,
)
from pattern_lens.server.feature_pages import export_features
from pattern_lens.store.writer import StoreWriter
from pattern_lens.testing import write_random_features, write_random_file
from tests.browser.conftest import serving

pytestmark = pytest.mark.slow

SAE, OTHER = "mlp.0", "z.1"
NEVER_FIRES, NOT_COMPUTED = 5, 11
MANY = 24_576
DASH = "\N{EN DASH}"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "features.h5"
    write_random_features(path)
    return path


@pytest.fixture(scope="module")
def live(file):
    with serving(file) as found:
        yield found


@pytest.fixture(scope="module")
def features(file):
    with open_features(file) as found:
        yield found


@pytest.fixture(scope="module")
def table(features):
    """The features that have data, the densest first."""
    found = features[SAE].table("density")
    return found[found["feature"] != NOT_COMPUTED]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A file of very many features, of which little is computed, and no prompt has any."""
    path = tmp_path_factory.mktemp("many") / "many.h5"
    write_random_file(path, names=("pattern",))
    rng = np.random.default_rng(3)
    some = {
        "density": (rng.random(MANY) ** 9).astype(np.float32),
        "max_activation": rng.random(MANY).astype(np.float32),
        "top_logit_token": rng.integers(0, 9, (MANY, 2)).astype(np.int32),
    }
    data = {
        name: xr.DataArray(one, dims=("feature", "rank")[: one.ndim]) for name, one in some.items()
    }
    identity = {"name": "wide", "hook": "blocks.1.hook_resid_pre", "n_features": MANY}
    layouts = feature_data_layouts(
        "wide", {name: one.isel(feature=0) for name, one in data.items()}
    )
    none = latent_layouts("wide", n_features=MANY, n_ctx=64)
    with StoreWriter(path, None, none, features={"wide": identity}) as writer:
        empty = tuple(np.empty(0, kind) for kind in (np.int64, np.int64, np.float32))
        writer.commit_computed([0], latents_block(none, [empty]))
    with StoreWriter(path, None, layouts, feature_data={"wide": {"n_prompts": 9}}) as writer:
        writer.commit_computed(range(MANY), feature_rows_block(layouts, data))
    with serving(path) as found:
        yield found, some


def is_ready(page):
    page.until("document.documentElement.dataset.ready === 'features'")


def opened(page, address, query=""):
    page.goto(f"{address}features.html{query}")
    is_ready(page)
    return page


def shown(page) -> int:
    return int(page.locator("#feature").get_attribute("data-feature"))


def shows(page, feature):
    page.until("n => document.querySelector('#feature').dataset.feature === n", str(feature))
    is_ready(page)


def rows(page) -> list[int]:
    return page.locator(".feature-room .feature-row").evaluate_all(
        "all => all.map(one => Number(one.dataset.feature))"
    )


def values(page, selector: str, key: str = "value") -> list[float]:
    return page.locator(selector).evaluate_all(
        "(all, key) => all.map(one => Number(one.dataset[key]))", key
    )


def card(page) -> dict[str, str]:
    return page.locator("#token-card").evaluate("one => ({...one.dataset})")


def sequences(features, feature):
    """The stored sequences of a feature, as many as there are."""
    one = features[SAE].sel(feature).load()
    return one.isel(sequence=np.flatnonzero(one["sequence_prompt"].values >= 0))


def token(page, sequence, place):
    return page.locator(f'.seq-token[data-sequence="{sequence}"][data-place="{place}"]')


# --- one feature ---------------------------------------------------------------------------------


def test_the_first_feature_is_the_densest_and_its_numbers_are_those_of_the_library(
    browse, live, features, table
):
    with browse(live) as page:
        opened(page, live)
        first = int(table["feature"].iloc[0])
        assert shown(page) == first
        assert rows(page) == table["feature"].tolist()
        one = features[SAE].sel(first).load()
        for selector, first_column, measure in (
            ("#top-logits li", "top_logit_token", "top_logit"),
            ("#bottom-logits li", "bottom_logit_token", "bottom_logit"),
        ):
            assert values(page, selector, "token") == one[first_column].values.tolist()
            assert values(page, selector) == pytest.approx(one[measure].values.tolist(), rel=1e-5)
        for table_id, number, measure in (
            ("neurons", "neuron", "neuron_alignment"),
            ("correlated-neurons", "correlated_neuron", "neuron_pearson"),
            ("correlated-features", "correlated_feature", "feature_pearson"),
            ("second-features", "second_feature", "second_pearson"),
        ):
            held = one[number].values >= 0
            key = "feature" if "feature" in table_id else "neuron"
            found = values(page, f"#{table_id} tbody tr", key)
            assert found == one[number].values[held].tolist()
            found = values(page, f"#{table_id} tbody td:nth-of-type(1)")
            assert found == pytest.approx(one[measure].values[held].tolist(), rel=1e-5)
        assert page.locator("#neurons tbody th").first.inner_text() == f"L0N{int(one['neuron'][0])}"
        counts = json.loads(page.locator("#activations").get_attribute("data-counts"))
        assert counts == one["activation_histogram"].values.tolist()
        assert page.locator("#all-logits .histogram-bar").count() == 40
        assert f"{int(one['n_active'])} tokens" in page.locator("#about").inner_text()


def test_sequences_by_group_with_activation_and_loss(browse, live, features):
    with browse(live) as page:
        opened(page, live, "?feature=3")
        stored = sequences(features, 3)
        assert page.locator(".sequence").count() == stored.sizes["sequence"]
        groups = page.locator(".sequence-group").evaluate_all(
            "all => all.map(one => one.dataset.group)"
        )
        assert groups == ["top", *map(str, range(9, -1, -1)), "bottom", "random"]
        low, high = (float(stored[f"interval_{name}"][9]) for name in ("low", "high"))
        title = page.locator('[data-group="9"] h3').inner_text()
        assert title.startswith(f"{low:.2f} {DASH} {high:.2f}")
        # the strongest of all is where the ground is strongest
        shares = page.locator(".seq-token").evaluate_all(
            "all => all.map(one => parseFloat(one.style.getPropertyValue('--share')) || 0)"
        )
        tokens = stored["sequence_token"].values >= 0
        want = np.sqrt(
            stored["sequence_activation"].values[tokens] / float(stored["max_activation"])
        )
        order = page.locator(".seq-token").evaluate_all(
            "all => all.map(one => [Number(one.dataset.sequence), Number(one.dataset.place)])"
        )
        grid = np.full(tokens.shape, np.nan)
        grid[tokens] = want
        assert shares == pytest.approx([90 * grid[s, p] for s, p in order], abs=0.51)
        loss = stored["loss_effect"].values
        for s, p in order:
            kind = token(page, s, p).get_attribute("class").split()
            effect = loss[s, p]
            is_large = abs(effect) > 0.02 * np.nanmax(np.abs(loss))
            assert ("is-worse" in kind) == bool(is_large and effect > 0)
            assert ("is-better" in kind) == bool(is_large and effect < 0)
        worse, better = (
            page.locator(f".seq-token.{one}").first.evaluate(
                "one => { const it = getComputedStyle(one); return [it.borderBottomColor, it.borderBottomStyle]; }"
            )
            for one in ("is-worse", "is-better")
        )
        assert (worse, better) == (["rgb(0, 114, 178)", "solid"], ["rgb(213, 94, 0)", "dashed"])


def test_hover_shows_a_token_and_a_click_locks_it_into_the_address(browse, live, features):
    with browse(live) as page:
        opened(page, live, "?feature=3")
        stored = sequences(features, 3)
        peak = int(stored["peak"][0])
        token(page, 0, peak).hover()
        page.until("!document.querySelector('#token-card').hidden")
        found = card(page)
        assert found["locked"] == "false"
        assert float(found["activation"]) == pytest.approx(
            float(stored["sequence_activation"][0, peak]), rel=1e-5
        )
        position = int(stored["sequence_start"][0]) + peak
        assert int(found["position"]) == position
        page.locator("h1").dispatch_event("click")
        token(page, 1, 0).hover()
        token(page, 1, 0).click()
        page.until("location.search.includes('token=1.0')")
        found = card(page)
        assert found["locked"] == "true"
        assert float(found["loss"]) == pytest.approx(float(stored["loss_effect"][1, 0]), rel=1e-5)
        raised = values(page, ".card-logits > div:first-child li", "token")
        rank = stored["raised_token"].dims[-1]
        assert raised == stored["raised_token"][1, 0].values.tolist()
        assert len(raised) == stored.sizes[rank] == 5
        lowered = values(page, ".card-logits > div:last-child li")
        assert lowered == pytest.approx(stored["lowered_logit"][1, 0].values.tolist(), rel=1e-3)
        # what is locked stays while others are passed over, and after a reload
        token(page, 0, peak).hover(force=True)
        assert card(page) == found
        state = page.url
        page.reload()
        is_ready(page)
        assert (page.url, card(page)) == (state, found)
        page.keyboard.press("Escape")
        page.until("!location.search.includes('token=')")


def test_a_locked_token_does_not_hold_the_page(browse, live):
    with browse(live, viewport={"width": 1400, "height": 420}) as page:
        opened(page, live, "?feature=3&token=0.0")
        before = page.locator("#token-card").bounding_box()["y"]
        page.evaluate("document.querySelector('#view').scrollTop = 60")
        page.until(
            "old => document.querySelector('#token-card').getBoundingClientRect().y < old", before
        )
        page.evaluate("document.querySelector('#view').scrollTop = 1e6")
        page.until("document.querySelector('#token-card').style.visibility === 'hidden'")
        assert page.evaluate("document.querySelector('#view').scrollTop") > 300


def test_keys_move_through_sequences_and_lock(browse, live, features):
    with browse(live) as page:
        opened(page, live, "?feature=3")
        first = page.locator('.seq-token[tabindex="0"]')
        assert first.count() == 1
        first.focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.until("location.search.includes('token=0.1')")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.until("location.search.includes('token=1.1')")
        page.keyboard.press("Enter")
        page.until("!location.search.includes('token=')")


def test_one_group_at_a_time(browse, live):
    with browse(live) as page:
        opened(page, live, "?feature=3&group=bottom")
        assert page.locator(".sequence-group").count() == 1
        page.locator("#group").select_option("9")
        page.until("location.search.includes('group=9')")
        assert page.locator(".sequence-group").get_attribute("data-group") == "9"
        page.locator("#group").select_option("")
        page.until("!location.search.includes('group=')")
        assert page.locator(".sequence-group").count() == 13


def test_a_feature_that_never_fires_says_so(browse, live):
    with browse(live) as page:
        opened(page, live, f"?feature={NEVER_FIRES}")
        assert "never fires" in page.locator("#about").inner_text()
        assert "never fires" in page.locator("#activations").inner_text()
        assert "fires on none of the stored tokens" in page.locator("#no-sequences").inner_text()
        assert page.locator("#top-logits li").count() == 10
        assert "There are none." in page.locator("#correlated-neurons").inner_text()


def test_what_is_not_there_is_a_sentence_and_the_table_stays(browse, live, table):
    with browse(live) as page:
        opened(page, live, f"?feature={NOT_COMPUTED}")
        assert "nothing is computed of feature 11" in page.locator("#refusal").inner_text()
        page.locator(".feature-room .feature-row").first.click()
        shows(page, table["feature"].iloc[0])
        page.watched.forgive_network()
        opened(page, live, "?feature=99&sae=nowhere&group=middle")
        notices = page.locator("#notices").inner_text()
        assert f"{SAE} has no feature 99" in notices or "no autoencoder “nowhere”" in notices
        assert "group=middle" in notices
        assert shown(page) == table["feature"].iloc[0]


# --- among all -----------------------------------------------------------------------------------


def test_sorting_and_going_on_in_the_order_of_the_table(browse, live, features, table):
    with browse(live) as page:
        opened(page, live, "?feature=3")
        for name, column in (("max", "max_activation"), ("correlation", "feature_pearson")):
            page.locator(f"[data-sort={name}]").click()
            page.until("name => location.search.includes(`sort=${name}`)", name)
            want = table.sort_values(column, ascending=False, na_position="last")
            assert rows(page) == want["feature"].tolist()
        page.locator("[data-sort=correlation]").click()
        page.until("location.search.includes('sort=-correlation')")
        order = table.sort_values("feature_pearson", na_position="last")["feature"].tolist()
        assert rows(page) == order
        at = order.index(3)
        page.keyboard.press("p" if at else "n")
        shows(page, order[at - 1 if at else 1])
        page.locator("#next").click()
        shows(page, order[at if at else 2])
        row = page.locator(f'.feature-room [data-feature="{order[0]}"]')
        row.focus()
        page.keyboard.press("End")
        shows(page, order[-1])
        assert page.evaluate("document.activeElement.dataset.feature") == str(order[-1])
        assert page.locator("#next").get_attribute("aria-disabled") == "true"
        state = page.url
        page.reload()
        is_ready(page)
        assert (page.url, rows(page)) == (state, order)


def test_features_are_found_by_number_and_token(browse, live, features):
    data = features[SAE].data
    texts = features[SAE].texts(data["top_logit_token"].values.ravel())
    raising = np.array(["cat" in one for one in texts]).reshape(data["top_logit_token"].shape)
    with browse(live) as page:
        opened(page, live)
        box = page.locator("#feature-search")
        page.keyboard.press("/")
        box.press_sequentially("10")
        page.until("location.search.includes('search=10')")
        is_ready(page)
        assert rows(page) == [10]
        box.press("Enter")
        shows(page, 10)
        page.locator("[data-within=raised]").click()
        box.fill("CAT")
        page.until("location.search.includes('search=CAT')")
        is_ready(page)
        assert sorted(rows(page)) == np.flatnonzero(raising.any(axis=1)).tolist()
        page.locator("[data-within=fires]").click()
        page.until("location.search.includes('within=fires')")
        is_ready(page)
        for feature in rows(page):
            stored = sequences(features, feature)
            places = stored["peak"].values
            peaks = stored["sequence_token"].values[np.arange(len(places)), places]
            assert any("cat" in one for one in features[SAE].texts(peaks))
        box.fill("nothing holds this")
        page.until("document.querySelector('.no-rows')")
        assert "0 of 11 features found" in page.locator("#feature-count").inner_text()


def test_links_between_features_and_autoencoders(browse, live, features):
    with browse(live) as page:
        opened(page, live, "?feature=3")
        other = int(features[SAE].sel(3)["correlated_feature"].values[0])
        page.locator(f'#correlated-features a[data-feature="{other}"]').click()
        shows(page, other)
        page.go_back()
        shows(page, 3)
        page.locator("#sae").select_option(OTHER)
        page.until("location.search.includes('sae=z.1')")
        is_ready(page)
        assert sorted(rows(page)) == [2, 3, 8]
        assert "dimension" in page.locator("#neurons tbody th").first.inner_text()
        page.locator("#sae").select_option(SAE)
        page.until("location.search.includes('sae=mlp.0')")
        is_ready(page)
        page.locator("#second-features a").first.click()
        page.until("location.search.includes('sae=z.1')")
        is_ready(page)


def test_very_many_features_have_rows_for_those_in_sight(browse, many):
    address, data = many
    with browse(address) as page:
        opened(page, address)
        order = np.argsort(-data["density"].astype(np.float64), kind="stable")
        assert len(rows(page)) < 100
        assert rows(page)[:20] == order[:20].tolist()
        assert "on other prompts" in page.locator("#notices").inner_text()
        assert f"{MANY:,} features" in page.locator("#feature-count").inner_text()
        page.locator("[data-sort=feature]").click()
        page.until("location.search.includes('sort=feature')")
        page.evaluate("document.querySelector('.feature-rows').scrollTop = 1e9")
        page.until("n => document.querySelector(`.feature-room [data-feature='${n}']`)", MANY - 1)
        assert len(rows(page)) < 100
        page.locator(f'.feature-room [data-feature="{MANY - 1}"]').click()
        shows(page, MANY - 1)
        # what was not computed says so, and the feature is shown all the same
        for part in ("neurons", "correlated-features", "activations", "all-logits"):
            assert "ot computed" in page.locator(f"#{part}").inner_text()
        assert "not computed" in page.locator("#no-sequences").inner_text()


def test_latents_without_data_have_their_prompts(browse, tmp_path):
    path = tmp_path / "latents.h5"
    hashes = [*write_random_file(path, names=("pattern",))["pattern"]]
    layouts = latent_layouts("resid", n_features=40, n_ctx=64)
    entries = np.array([0, 1]), np.array([7, 3]), np.array([1.5, 0.5], np.float32)
    identity = {"name": "resid", "hook": "blocks.1.hook_resid_pre", "n_features": 40}
    with StoreWriter(path, None, layouts, features={"resid": identity}) as writer:
        writer.commit_computed([0], latents_block(layouts, [entries]))
    with serving(path) as address, browse(address) as page:
        opened(page, address, f"?prompt={hashes[0]}")
        assert "pattern-lens features compute" in page.locator("#refusal").inner_text()
        assert "No feature yet." in page.locator("#features").inner_text()
        assert values(page, ".prompt-cell", "feature") == [7, 3]
        page.locator(".prompt-cell").first.click()
        page.until("location.search.includes('feature=7')")
        is_ready(page)
        assert "nothing is computed of feature 7" in page.locator("#refusal").inner_text()
        page.watched.forgive_network()


# --- features of a prompt ------------------------------------------------------------------------


def test_the_features_of_a_prompt_token_by_token(browse, live, features, file):
    with browse(live) as page:
        opened(page, live, "?feature=3")
        page.locator("#by-prompt").click()
        page.until("location.search.includes('prompt=')")
        is_ready(page)
        prompt = next(iter(pl.open_patterns(file)))
        assert f"prompt={prompt}" in page.url
        dense = features[SAE].dense(prompt).values
        for position, own in enumerate(dense):
            order = [n for n in np.argsort(-own, kind="stable") if own[n] > 0][:5]
            cells = f'.prompt-column[data-position="{position}"] .prompt-cell'
            assert values(page, cells, "feature") == order
            assert values(page, cells) == pytest.approx(own[order].tolist(), rel=1e-5)
        position = int(np.argmax((dense > 0).sum(axis=1)))
        page.locator(".prompt-token").nth(position).click()
        page.until("n => location.search.includes(`position=${n}`)", position)
        listed = values(page, "#prompt-features a", "feature")
        own = dense[position]
        assert listed == [n for n in np.argsort(-own, kind="stable") if own[n] > 0]
        page.locator("#prompt-features a").nth(1).click()
        shows(page, listed[1])
        is_firing = page.locator(".prompt-token").evaluate_all(
            "all => all.map(one => parseFloat(one.style.getPropertyValue('--share')) > 0)"
        )
        assert is_firing == (dense[:, listed[1]] > 0).tolist()
        state = page.url
        page.reload()
        is_ready(page)
        assert page.url == state
        assert values(page, "#prompt-features a", "feature") == listed
        page.keyboard.press("]")
        page.until("old => !location.search.includes(old)", prompt)
        is_ready(page)
        assert "position=" not in page.url
        page.locator('.prompt-panel [aria-label="leave the prompt"]').click()
        page.until("!location.search.includes('prompt=')")
        assert page.locator("#prompt").is_hidden()


def test_a_prompt_on_which_nothing_fires_and_one_without_latents(browse, live, file):
    hashes = [*pl.open_patterns(file)]
    with browse(live) as page:
        opened(page, live, f"?prompt={hashes[-1]}")
        assert "No feature fires on this prompt." in page.locator("#prompt-says").inner_text()
        opened(page, live, f"?sae={OTHER}&prompt={hashes[-1]}")
        assert "no features of 'z.1'" in page.locator("#prompt-says").inner_text()
        page.watched.forgive_network()


def test_a_locked_token_leads_to_its_prompt(browse, live, features):
    with browse(live) as page:
        opened(page, live, "?feature=3&token=0.0")
        prompt = page.locator('.sequence[data-sequence="0"]').get_attribute("data-prompt")
        page.locator("#card-prompt").click()
        page.until("prompt => location.search.includes(`prompt=${prompt}`)", prompt)
        is_ready(page)
        start = int(sequences(features, 3)["sequence_start"][0])
        assert f"position={start}" in page.url
        page.locator("#token-card a", has_text="patterns").click()
        page.until("location.pathname.endsWith('single.html')")
        assert f"prompt={prompt}" in page.url
        page.until("document.documentElement.dataset.ready === 'single'")
        page.locator("#to-features").click()
        page.until("location.pathname.endsWith('features.html')")
        is_ready(page)
        assert f"prompt={prompt}" in page.url


# --- exports, looks ------------------------------------------------------------------------------


def test_an_exported_page_works_offline_and_asks_for_nothing(
    browse, file, features, table, tmp_path
):
    prompt = [*pl.open_patterns(file)][2]
    export_features(file, tmp_path / "page.html", prompts=[prompt], progress=False)
    with browse() as page:
        page.context.set_offline(True)
        page.goto((tmp_path / "page.html").as_uri())
        is_ready(page)
        assert shown(page) == table["feature"].iloc[0]
        page.keyboard.press("n")
        shows(page, table["feature"].iloc[1])
        page.locator("#feature-search").fill("cat")
        page.until("location.hash.includes('search=cat')")
        is_ready(page)
        assert rows(page)
        page.locator("#feature-search").fill("")
        page.until("!location.hash.includes('search=')")
        page.locator("#by-prompt").click()
        page.until("location.hash.includes('prompt=')")
        is_ready(page)
        dense = features[SAE].dense(prompt).values
        assert page.locator(".prompt-token").count() == len(dense)
        state = page.url
        page.reload()
        is_ready(page)
        assert page.url == state
        made = [one for one in page.watched.requests if not one.startswith(("data:", "blob:"))]
        assert {one.partition("#")[0] for one in made} == {(tmp_path / "page.html").as_uri()}


def test_a_page_of_one_feature_shows_it_without_a_table(browse, file, tmp_path):
    export_features(file, tmp_path / "pages", sae=SAE, features=[3, 7], progress=False)
    with browse() as page:
        page.goto((tmp_path / "pages" / "index.html").as_uri())
        page.get_by_role("link", name="7", exact=True).click()
        is_ready(page)
        assert shown(page) == 7
        assert page.locator("#features").is_hidden()
        assert page.locator(".sequence").count() > 0
        page.locator(".seq-token").first.click()
        page.until("location.hash.includes('token=')")
        assert "not in this page" in page.locator("#token-card").inner_text()


def test_hostile_tokens_are_text(browse, live):
    with browse(live) as page:
        opened(page, live, "?feature=3&search=%3Cb%3E")
        assert page.locator("main b b, .sequences b, .feature-row b b").count() == 0
        assert "<b>" in page.locator("#logits").inner_text()
        assert rows(page)


def test_dark_and_narrow(browse, live):
    options = {"viewport": {"width": 700, "height": 900}, "color_scheme": "dark"}
    with browse(live, **options) as page:
        opened(page, live, "?feature=3&token=0.0&prompt=")
        assert page.evaluate("document.documentElement.scrollWidth") <= 700
        box = page.locator("#token-card").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 700
