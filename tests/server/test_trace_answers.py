"""What the server says of traces is what the library says, stored or new; what cannot be asked is a sentence."""

import io
import json

import numpy as np
import pytest

import pattern_lens as pl
from pattern_lens.cli import main
from pattern_lens.demo import model_path, prompts_path
from pattern_lens.errors import ModelNotFoundError
from pattern_lens.server.files import ServedFiles
from pattern_lens.server.live_traces import Kept, loaded
from pattern_lens.server.one_page import export_html
from pattern_lens.server.running import prepared
from pattern_lens.server.site import export_site
from pattern_lens.testing import write_random_traces
from pattern_lens.tracing.objectives import logit_diff, logit_minus_mean
from pattern_lens.tracing.run import trace
from pattern_lens.tracing.stored import open_traces
from pattern_lens.tracing.top_tokens import next_tokens
from tests.server.conftest import ask, from_page, from_site, serving

STORED = "api/random"
LIVE = "api/demo-gpt2"
REPETITION = 3
INDUCTION, PREVIOUS = "L1H0@26,7", "L0H7@7,6"


def npy(body: bytes) -> np.ndarray:
    return np.load(io.BytesIO(body))


# --- stored traces -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "traced.h5"
    write_random_traces(path)
    return path


@pytest.fixture(scope="module")
def server(file):
    with serving(file) as found:
        yield found


@pytest.fixture(scope="module")
def traces(file):
    with open_traces(file) as found:
        yield found


@pytest.fixture(scope="module")
def hashes(traces):
    return traces["effects"]["prompt"].values.tolist()


@pytest.fixture(scope="module")
def get(server):
    def get(address: str, status: int = 200):
        reply = ask(server, f"/{STORED}/{address}")
        assert reply.status == status, reply.body
        return reply.json()

    return get


def test_the_index_names_traces_and_says_that_none_is_computed(server, get):
    (model,) = ask(server, "/api/index.json").json()["models"]
    assert model["traces"] == ["ablated", "effects"]
    assert model["computes"] is False
    assert get("tracing.json")["error"] == (
        "New traces need the model: start the server with pattern-lens serve traced.h5 --model random."
    )


def test_a_prompt_lists_the_traces_that_are_whole(get, hashes):
    found = get(f"prompt/{hashes[0]}/traces.json")["traces"]
    assert [one["name"] for one in found] == ["ablated", "effects"]
    ablated, effects = found
    assert ablated["node"] == "L2H3@-1,0:K"
    assert ablated["ablate"] == ["L1H0=mean"]
    assert (effects["node"], effects["ablate"]) == (None, [])
    assert [one["id"] for one in effects["objective"]["distractor"]] == [6, 5]
    assert effects["objective"]["target"] == [{"id": 4, "text": "<b>"}]
    assert effects["objective"]["position"] == 4
    names = [one["name"] for one in get(f"prompt/{hashes[5]}/traces.json")["traces"]]
    assert names == ["effects"], "of the other one value is stored, as a crash would leave it"


def test_nodes_are_those_of_the_library(get, traces, hashes):
    found = get(f"prompt/{hashes[2]}/trace/effects.json")
    nodes = found["nodes"]
    result = traces["effects"]
    for kind, name, measure in (
        ("pair", "total", "estimated_total_effect"),
        ("pair", "direct", "direct_effect"),
        ("head", "write", "write_magnitude"),
        ("neuron", "activation", "activation"),
        ("embed", "total", "estimated_total_effect"),
    ):
        want = result.nodes(by=measure, k=150, prompt=hashes[2], kinds=[kind])
        rows = [i for i, one in enumerate(nodes["kind"]) if one == kind]
        rows.sort(key=lambda i: -abs(nodes[name][i]))
        given = [nodes[name][i] for i in rows[: len(want)]]
        assert given == pytest.approx(want[measure].tolist(), rel=1e-5)
        first = want.iloc[0]
        places = [first["query"] if kind in ("pair", "head") else first["pos"]]
        places += [first["key"]] if kind == "pair" else []
        assert nodes["name"][rows[0]] == f"{first['label']}@{','.join(map(str, places))}"


def test_kinds_count_all_nodes_and_a_table_holds_the_largest_by_each_measure(get, traces, hashes):
    found = get(f"prompt/{hashes[2]}/trace/effects.json")
    pairs = 3 * 4 * 8 * 9 // 2
    assert found["kinds"]["pair"] == {"n": pairs, "measures": ["total", "direct", "activation"]}
    assert found["kinds"]["embed"]["n"] == 8
    kinds = found["nodes"]["kind"]
    assert found["each"] < kinds.count("pair") <= pairs
    assert kinds.count("embed") == 8
    names = list(zip(found["nodes"]["name"], kinds, strict=True))
    assert len(set(names)) == len(names)


def test_numbers_of_a_trace(get, traces, hashes):
    found = get(f"prompt/{hashes[3]}/trace/ablated.json")
    one = traces["ablated"].sel(prompt=hashes[3])
    assert found["value"] == pytest.approx(float(one["objective"]))
    assert found["node_value"] == pytest.approx(float(one["node_value"]))
    assert found["closure_error"] == pytest.approx(float(one["closure_error"]))
    assert (found["next"], found["question"]) == (None, None)
    assert set(found["kinds"]) == {"head", "attn", "mlp", "embed", "latent", "sae_error"}
    assert "toy.saeF17@0" in found["nodes"]["name"]
    assert "toy.sae.error@2" in found["nodes"]["name"]
    assert get(f"prompt/{hashes[3]}/trace/effects.json")["node_value"] is None


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ("pattern", "pair_activation"),
        ("total", "pair_estimated_total_effect"),
        ("direct", "pair_direct_effect"),
    ],
)
def test_what_a_trace_holds_of_a_head(server, traces, hashes, values, variable):
    for prompt, n in ((hashes[2], 8), (hashes[1], 3)):
        address = f"/{STORED}/prompt/{prompt}/head/L2H1.npy?trace=effects&values={values}"
        found = npy(ask(server, address).body)
        want = traces["effects"][variable].sel(prompt=prompt, layer=2, head=1).values[:n, :n]
        assert np.array_equal(found, want)


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("trace/none.json", "no trace 'none' in traced.h5: it holds ablated, effects"),
        ("head/L2H1.npy?trace=effects&values=scores", "trace again with 'attn_scores'"),
        ("head/L2H1.npy?trace=effects&values=q", "expected pattern, scores, total, direct"),
        ("head/L3H0.npy?trace=effects", "no head 'L3H0' in this trace"),
        ("head/L2H1.npy?trace=ablated", "no pattern of heads in this trace"),
        ("trace.json?target=~3", "pattern-lens serve traced.h5 --model random"),
        ("head/L2H1.npy", "New traces need the model"),
    ],
)
def test_what_is_not_stored_is_a_sentence(get, hashes, rest, says):
    assert says in get(f"prompt/{hashes[0]}/{rest}", 404)["error"]


def test_of_a_prompt_that_a_trace_lacks(get, hashes):
    assert (
        "no trace 'ablated' of prompt"
        in get(f"prompt/{hashes[5]}/trace/ablated.json", 404)["error"]
    )


def test_answers_have_tags(server, hashes):
    addresses = [
        f"/{STORED}/prompt/{prompt}/{rest}"
        for prompt in hashes[:2]
        for rest in ("traces.json", "trace/effects.json", "trace/ablated.json")
    ]
    tags = [ask(server, one).headers["etag"] for one in addresses]
    assert len(set(tags)) == len(tags)
    again = ask(server, addresses[1], If_None_Match=tags[1])
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("kind", ["site", "page"])
def test_exports_hold_stored_traces(file, server, hashes, tmp_path, kind):
    if kind == "site":
        export_site(file, tmp_path / "site", prompts=hashes[:1], progress=False)
        fetch = from_site(tmp_path / "site")
    else:
        export_html(file, tmp_path / "page.html", prompts=hashes[:1], progress=False)
        fetch = from_page(tmp_path / "page.html")
    for rest in ("traces.json", "trace/effects.json", "trace/ablated.json"):
        address = f"{STORED}/prompt/{hashes[0]}/{rest}"
        assert json.loads(fetch(address)) == ask(server, f"/{address}").json()
    (model,) = json.loads(fetch("api/index.json"))["models"]
    assert (model["traces"], model["computes"]) == (["ablated", "effects"], False)
    with pytest.raises(KeyError):
        fetch(f"{STORED}/tracing.json")


def test_a_page_with_traces_knows_its_size(file, hashes, tmp_path):
    with pytest.raises(pl.errors.ExportTooLargeError):
        export_html(file, tmp_path / "page.html", limit_bytes=400_000, progress=False)
    assert not (tmp_path / "page.html").exists()


# --- new traces ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text():
    return json.loads(prompts_path().read_text().splitlines()[REPETITION])["text"]


@pytest.fixture(scope="module")
def demo_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    lines = prompts_path().read_text().splitlines(keepends=True)
    (folder / "some.jsonl").write_text(lines[REPETITION] + lines[0])
    pl.capture(model_path(), folder / "some.jsonl", folder / "demo.h5", progress=False)
    return folder / "demo.h5"


@pytest.fixture(scope="module")
def live(demo_file, file):
    with prepared([demo_file, file], port=0, model=model_path()).start() as found:
        yield found


@pytest.fixture(scope="module")
def prompt(text):
    return pl.prompt_hash(text)


@pytest.fixture(scope="module")
def new(live, prompt):
    def new(query: str, status: int = 200):
        reply = ask(live, f"/{LIVE}/prompt/{prompt}/trace.json?{query}")
        assert reply.status == status, reply.body
        return reply.json()

    return new


def largest(found, kind: str, measure: str = "total") -> str:
    nodes = found["nodes"]
    rows = [i for i, one in enumerate(nodes["kind"]) if one == kind]
    return nodes["name"][max(rows, key=lambda i: abs(nodes[measure][i]))]


@pytest.fixture(scope="module")
def model(live):
    return live.files.live.model


def test_a_server_with_a_model_says_of_whom_it_computes(live):
    demo, other = ask(live, "/api/index.json").json()["models"]
    assert (demo["computes"], other["computes"]) == (True, False)
    assert ask(live, f"/{LIVE}/tracing.json").json() == {"error": None}
    why = ask(live, f"/{STORED}/tracing.json").json()["error"]
    assert "computes new traces of demo-gpt2, not of random" in why
    assert why.endswith("pattern-lens serve traced.h5 --model random.")


def test_a_new_trace_is_that_of_the_library(new, model, text):
    found = new("target=w&distractor=%20the&position=26")
    target, distractor = (model.vocab()["text"].index(one) for one in ("w", " the"))
    objective = logit_diff(target, distractor, position=26)
    want = trace(model, [text], objective=objective, scalars=("pair", "default"), progress=False)
    assert found["value"] == pytest.approx(float(want["objective"][0]), rel=1e-6)
    table = want.nodes(kinds=["pair"], k=1)
    assert largest(found, "pair") == INDUCTION
    place = table["label"][0], int(table["query"][0]), int(table["key"][0])
    assert place == ("L1H0", 26, 7)
    at = found["nodes"]["name"].index(INDUCTION)
    assert found["nodes"]["total"][at] == pytest.approx(
        table["estimated_total_effect"][0], rel=1e-4
    )
    assert found["objective"]["distractor"] == [{"id": distractor, "text": " the"}]
    asked = {"target": f"~{target}", "distractor": f"~{distractor}", "position": 26}
    assert found["question"] == {**asked, "ablate": [], "node": None}
    assert found["name"] is None
    assert found["left_out"] is None


def test_without_a_target_the_likeliest_token_is_explained(new, model, text):
    found = new("position=26")
    want = next_tokens(model, [text], k=3, position=26)
    assert found["objective"]["kind"] == "logit_minus_mean"
    assert found["objective"]["target"][0]["id"] == int(want["token_id"][0, 0])
    first = found["next"]["tokens"][0]
    assert first["before"] == pytest.approx(float(want["logit"][0, 0]), rel=1e-6)
    assert first["probability"] == pytest.approx(float(want["probability"][0, 0]), rel=1e-5)
    assert first["role"] == "target"
    assert new("")["objective"]["position"] == 34


def test_upstream_of_the_key_side_is_the_previous_token_head(new, model, text):
    found = new(f"target=w&position=26&node={INDUCTION}:K")
    assert largest(found, "pair") == PREVIOUS
    assert found["node"] == f"{INDUCTION}:K"
    want = trace(model, [text], trace=f"{INDUCTION}:K", scalars=("pair",), progress=False)
    assert found["node_value"] == pytest.approx(float(want["node_value"][0]), rel=1e-5)
    assert found["objective"]["target"][0]["text"] == "w", "what the logits are of"
    value = new(f"target=w&position=26&node={PREVIOUS}:V%3E{INDUCTION}:K")
    assert value["node"] == f"{PREVIOUS}:V>{INDUCTION}:K"


def test_ablations_change_the_logits(new, model, text):
    found = new("target=w&position=26&ablate=L1H0~L0H7")
    assert found["ablate"] == ["L1H0", "L0H7"]
    (target,) = [one for one in found["next"]["tokens"] if one["role"] == "target"]
    for ablate, side in (((), "before"), (("L1H0", "L0H7"), "after")):
        want = next_tokens(model, [text], ablate=list(ablate), k=1024, position=26)
        at = want["token_id"].values[0].tolist().index(target["id"])
        assert target[side] == pytest.approx(float(want["logit"][0, at]), rel=1e-5)
        mean = float(want["logit"].mean())
        assert found["next"]["objective"][side] == pytest.approx(target[side] - mean, rel=1e-5)
    assert found["next"]["objective"]["after"] < found["next"]["objective"]["before"] - 5
    assert found["value"] == pytest.approx(found["next"]["objective"]["after"], rel=1e-5)
    objective = logit_minus_mean(target["id"], position=26)
    options = {"scalars": ("head",), "progress": False}
    want = trace(model, [text], objective=objective, ablate=["L1H0", "L0H7"], **options)
    assert found["value"] == pytest.approx(float(want["objective"][0]), rel=1e-5)


def test_gradients_that_are_set_change_no_logit(new):
    found = new("target=w&position=26&ablate=backward:L1H3")
    assert found["ablate"] == ["backward:L1H3"]
    assert found["next"]["objective"]["before"] == found["next"]["objective"]["after"]


@pytest.mark.parametrize("values", ["pattern", "scores", "total", "direct"])
def test_what_a_new_trace_has_of_a_head(live, model, prompt, text, values):
    address = f"/{LIVE}/prompt/{prompt}/head/L1H0.npy?target=w&position=26&values={values}"
    found = npy(ask(live, address).body)
    name = {"pattern": "pattern", "scores": "attn_scores"}.get(values)
    name = name or {"total": "pair_estimated_total_effect", "direct": "pair_direct_effect"}[values]
    objective = logit_minus_mean("w", position=26)
    want = trace(model, [text], objective=objective, scalars=(name,), progress=False)
    want = want[name].sel(layer=1, head=0).values[0]
    low = np.tril_indices(35)
    assert found.shape == (35, 35)
    assert np.allclose(found[low], want[low], rtol=1e-4, atol=1e-6)


def test_a_pattern_under_an_ablation_is_another(live, prompt):
    under = f"/{LIVE}/prompt/{prompt}/head/L1H0.npy?target=w&position=26&values=pattern"
    plain, ablated = (npy(ask(live, under + more).body) for more in ("", "&ablate=L0H7"))
    assert plain[26, 7] > 0.4
    assert ablated[26, 7] < plain[26, 7] - 0.1


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("target=%20velvet%20anchor", "expected a single token"),
        ("target=~99999", "expected an id from 0 to 1023"),
        ("position=35", "expected 0 to 34"),
        ("ablate=L1H3@", "cannot read the ablation 'L1H3@'"),
        ("ablate=L9H3", "9"),
        ("ablate=L1H3@99", "99"),
        ("ablate=" + "~".join(f"L0N{i}" for i in range(65)), "expected at most 64"),
        ("node=L1H0@26,7", "cannot read the node"),
        ("node=L1H0@26,99:K", "99"),
        ("ablate=L1H3=mean", "mean"),
        ("ablate=L1H3=nan", "NaN"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(new, query, says):
    assert says in new(query, 404)["error"]


def test_an_answer_is_kept_and_its_tag_is_known_before(live, prompt):
    address = f"/{LIVE}/prompt/{prompt}/trace.json?target=w&position=26"
    first = ask(live, address)
    again = ask(live, address)
    assert again.json()["seconds"] == first.json()["seconds"], "it was not computed again"
    assert ask(live, address, If_None_Match=first.headers["etag"]).status == 304
    other = ask(live, f"{address}&ablate=L0H7")
    assert other.headers["etag"] != first.headers["etag"]


def test_what_was_used_longest_ago_is_let_go():
    kept, made = Kept(2), []
    for name in ("a", "b", "a", "c", "a", "b"):
        kept.get(name, lambda name=name: made.append(name))
    assert made == ["a", "b", "c", "b"]


# --- the model of a server -----------------------------------------------------------------------


def test_a_model_is_loaded_as_the_file_was_captured(tmp_path):
    some = tmp_path / "some.jsonl"
    some.write_text(prompts_path().read_text().splitlines(keepends=True)[0])
    path = tmp_path / "compatible.h5"
    pl.capture(model_path(), some, path, weights="compatibility", prepend_bos=False, progress=False)
    files = ServedFiles([path])
    live = loaded(model_path(), files)
    assert live.model.weights["mode"] == "compatibility"
    assert live.model.prepend_bos is False
    assert live.why_not(files.views()[0]) is None
    files.close()


def test_a_model_that_is_not_there_ends_before_a_port_is_taken(file, tmp_path, capsys):
    with pytest.raises(ModelNotFoundError, match="no folder"):
        prepared([file], port=0, model=tmp_path / "none")
    assert main(["serve", str(file), "--port", "0", "--model", str(tmp_path / "none")]) != 0
    assert "no folder" in capsys.readouterr().err


def test_files_that_do_not_fit_the_model_say_so(live, demo_file, tmp_path):
    some = tmp_path / "some.jsonl"
    some.write_text(prompts_path().read_text().splitlines(keepends=True)[0])
    bare, folded = tmp_path / "bare.h5", tmp_path / "folded.h5"
    pl.capture(model_path(), some, bare, prepend_bos=False, progress=False)
    pl.capture(model_path(), some, folded, weights="compatibility", progress=False)
    with prepared([demo_file, bare, folded], port=0, model=model_path()).start() as server:
        _, without_bos, other = ask(server, "/api/index.json").json()["models"]
        assert (without_bos["computes"], other["computes"]) == (True, False)
        why = ask(server, f"/api/{other['id']}/tracing.json").json()["error"]
        assert "captured with compatibility weights, and this server has loaded raw ones" in why
        with pl.open_run(bare) as run:
            (prompt,) = run.prompts.index
        reply = ask(server, f"/api/{without_bos['id']}/prompt/{prompt}/trace.json")
        assert reply.status == 404
        assert "puts a BOS where the file has none" in reply.json()["error"]


def test_a_file_of_other_weights_is_not_traced(live, tmp_path):
    from tests.server.conftest import write

    path = write(tmp_path / "other.h5", name="demo-gpt2", weights_hash="0" * 16)
    files = ServedFiles([path])
    assert "has other weights" in live.files.live.why_not(files.views()[0])
    files.close()
