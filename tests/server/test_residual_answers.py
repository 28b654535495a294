"""What the server says of the residual stream is what the library says; what cannot be asked is a sentence."""

import json
from pathlib import Path

import numpy as np
import pytest

import pattern_lens as pl
from pattern_lens.demo import model_path, prompts_path
from pattern_lens.server.one_page import export_html
from pattern_lens.server.site import export_site
from tests.server.conftest import ask, from_page, from_site, serving

MODEL = "api/demo-gpt2"


def capture(path: Path, n: int, names, weights: str = "compatibility") -> Path:
    some = path.with_suffix(".jsonl")
    some.write_text("".join(prompts_path().read_text().splitlines(keepends=True)[:n]))
    pl.capture(model_path(), some, path, names=names, weights=weights, progress=False)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("residual")
    return capture(folder / "res.h5", 3, ["pattern", "residual", "mlp_post"])


@pytest.fixture(scope="module")
def raw_file(tmp_path_factory):
    return capture(tmp_path_factory.mktemp("raw") / "raw.h5", 1, ["residual"], "raw")


@pytest.fixture(scope="module")
def server(file):
    with serving(file) as found:
        yield found


@pytest.fixture(scope="module")
def run(file):
    with pl.open_run(file) as found:
        yield found


@pytest.fixture(scope="module")
def prompt(run):
    return run.prompts.index[0]


@pytest.fixture(scope="module")
def get(server):
    def get(address: str, status: int = 200):
        reply = ask(server, f"/{MODEL}/{address}")
        assert reply.status == status, reply.body
        return reply.json()

    return get


def test_what_can_be_asked_of_a_file(get, run, prompt):
    found = get("residual.json")
    streams = run.logit_lens(prompt=prompt, pos=[0])["component"].values.tolist()
    assert found["error"] is None
    assert found["streams"] == streams
    assert found["units"] == dict.fromkeys(["component", "layer", "head", "neuron"])


def test_index_says_who_holds_streams(server):
    (model,) = ask(server, "/api/index.json").json()["models"]
    assert model["residual"] is True


def test_lens_is_that_of_the_library(get, run, prompt):
    want = run.logit_lens(prompt=prompt)
    blocks = [get(f"prompt/{prompt}/lens/{number}.json") for number in (0, 1)]
    assert [block["first"] for block in blocks] == [0, 32]
    ids = np.concatenate([block["top_ids"] for block in blocks], axis=1)
    probabilities = np.concatenate([block["top_probabilities"] for block in blocks], axis=1)
    divergences = np.concatenate([block["kl_to_final"] for block in blocks], axis=1)
    assert np.array_equal(ids, want["top_id"])
    assert np.allclose(probabilities, want["top_probability"], rtol=1e-5)
    assert np.allclose(divergences, want["kl_to_final"], rtol=1e-4, atol=1e-5)
    texts = blocks[1]["texts"]
    assert [texts[str(one)] for one in ids[-1, -1]] == want["top_token"].values[-1, -1].tolist()
    assert blocks[0]["closure_error"] is None
    assert 0 <= blocks[1]["closure_error"] < 1e-4
    assert "no block 2" in get(f"prompt/{prompt}/lens/2.json", 404)["error"]


def test_rank_and_probability_of_chosen_tokens(get, run, prompt):
    found = get(f"prompt/{prompt}/lens.json?position=3&answer=~311&distractor=n")
    for number, which in ((311, "answer"), ("n", "distractor")):
        want = run.logit_lens(prompt=prompt, pos=3, answer_tokens=number)
        assert found[which]["rank"] == want["answer_rank"].values.tolist()
        assert np.allclose(found[which]["probability"], want["answer_probability"], rtol=1e-5)
    assert found["answer"]["id"] == 311
    assert found["distractor"]["text"] == "n"


@pytest.mark.parametrize("unit", ["component", "layer", "head"])
@pytest.mark.parametrize("distractor", [None, 12])
def test_attribution_is_that_of_the_library(get, run, prompt, unit, distractor):
    more = "" if distractor is None else f"&distractor=~{distractor}"
    found = get(f"prompt/{prompt}/attribution.json?answer=~311{more}&unit={unit}")
    want = run.direct_logit_attribution(prompt, 311, distractor, unit=unit)
    assert found["names"] == want.scores["component"].values.tolist()
    assert np.allclose(found["values"], want.scores, rtol=1e-6, atol=1e-7)
    assert found["logit"] == pytest.approx(float(want.logit), rel=1e-6)
    assert found["unembed_bias"] == pytest.approx(float(want.unembed_bias), rel=1e-6)
    assert found["closure_error"] == pytest.approx(float(want.closure_error), abs=1e-7)
    assert abs(found["model_logit"] - found["logit"]) < 1e-4


def test_of_neurons_those_that_do_most_and_the_sum_of_the_others(get, run, prompt):
    found = get(f"prompt/{prompt}/attribution.json?answer=~311&unit=neuron&position=4")
    want = run.direct_logit_attribution(prompt, 311, unit="neuron", pos=4)
    assert len(found["names"]) == 50 < found["n_parts"] == want.scores.size
    least = min(map(abs, found["values"]))
    assert (np.abs(want.scores.values) > least * 1.0001).sum() < 50
    assert sum(found["values"]) + found["others"] == pytest.approx(
        float(want.scores.sum()), rel=1e-4
    )
    assert found["model_logit"] is None
    assert found["closure_error"] is None


def test_tokens_are_found_by_what_they_hold(get, run):
    texts = run._vocabulary().texts
    found = get("tokens.json?find=an")
    assert found["n_found"] == sum("an" in text.casefold() for text in texts)
    assert found["tokens"][0]["text"] == "an"
    assert all(texts[one["id"]] == one["text"] for one in found["tokens"])
    assert get("tokens.json?find=%20an")["tokens"][0]["text"] == " an"
    assert get("tokens.json?find=" + "x" * 300) == {"n_found": 0, "tokens": []}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "no answer token"),
        ("answer=%20velvet", "is 4 tokens"),
        ("answer=velvet%20anchor" + "x" * 300, "which is no token"),
        ("answer=~99999999999999999999", "expected an id from 0 to"),
        ("answer=~5&unit=token", "no unit 'token'"),
        ("answer=~5&position=45", "expected 0 to 44"),
        ("answer=~5&position=-1", "expected 0 to 44"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(get, prompt, query, says):
    assert says in get(f"prompt/{prompt}/attribution.json?{query}", 404)["error"]


def test_answers_have_tags_that_tell_questions_apart(server, prompt):
    tags = {
        ask(server, f"/{MODEL}/prompt/{prompt}/attribution.json?{query}").headers["etag"]
        for query in ("answer=~5", "answer=~6", "answer=~5&position=3", "answer=~5&unit=layer")
    }
    assert len(tags) == 4
    first = ask(server, f"/{MODEL}/prompt/{prompt}/lens/0.json")
    again = ask(
        server, f"/{MODEL}/prompt/{prompt}/lens/0.json", If_None_Match=first.headers["etag"]
    )
    assert (again.status, again.body) == (304, b"")


def test_raw_weights_are_refused_with_the_sentence_of_the_library(raw_file):
    with pl.open_run(raw_file) as run, serving(raw_file) as server:
        prompt = run.prompts.index[0]
        with pytest.raises(pl.errors.RawWeightsError) as err:
            run.logit_lens(prompt=prompt)
        assert ask(server, f"/{MODEL}/residual.json").json()["error"] == str(err.value)
        reply = ask(server, f"/{MODEL}/prompt/{prompt}/lens/0.json")
        assert (reply.status, reply.json()["error"]) == (404, str(err.value))


def test_a_file_without_streams_says_how_to_add_them(rich_server):
    found = ask(rich_server, "/api/toy-model/residual.json").json()
    assert "resid_pre" in found["error"] or "W_U" in found["error"] or "raw" in found["error"]
    assert all(why for why in found["units"].values())


@pytest.mark.parametrize("kind", ["site", "page"])
def test_exports_hold_the_lens(file, server, prompt, tmp_path, kind):
    if kind == "site":
        export_site(file, tmp_path / "site", prompts=[prompt], lens=True, progress=False)
        fetch = from_site(tmp_path / "site")
    else:
        choice = {"prompts": [prompt], "heads": "L0H0", "lens": True}
        export_html(file, tmp_path / "page.html", **choice, progress=False)
        fetch = from_page(tmp_path / "page.html")
    for rest in ("residual.json", f"prompt/{prompt}/lens/0.json", f"prompt/{prompt}/lens/1.json"):
        live = ask(server, f"/{MODEL}/{rest}").json()
        assert json.loads(fetch(f"{MODEL}/{rest}")) == live


def test_an_export_without_the_lens_does_not_promise_it(file, prompt, tmp_path):
    export_site(file, tmp_path / "site", prompts=[prompt], heads="L0H0", progress=False)
    index = json.loads((tmp_path / "site/api/index.json").read_bytes())
    assert [model["residual"] for model in index["models"]] == [False]
    assert not list((tmp_path / "site").rglob("lens"))
