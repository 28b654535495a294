"""``pattern-lens trace``: what it traces, prints and reads again, and what it says to what it cannot do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pattern_lens as pl
from pattern_lens.cli import main
from pattern_lens.demo import model_path

TEXT = "zq xv kw pj rm zq xv kw"
ASKED = ["-m", str(model_path()), "--prompt", TEXT, "--target", " p", "--distractor", " r"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the trace ``answer`` of one prompt; not to be written to."""
    path = tmp_path_factory.mktemp("trace") / "own.h5"
    pl.trace(
        model_path(),
        [TEXT],
        path,
        objective=pl.logit_diff(" p", " r"),
        scalars=["default", "pair"],
        name="answer",
        progress=False,
    )
    return path


@pytest.fixture
def file(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(shared, tmp_path / "own.h5"))


def answered(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["trace", *map(str, argv), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        status = main(["trace", *map(str, argv), "--quiet"])
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert "Traceback" not in err
    return err


def test_a_prompt_is_traced_and_stored(tmp_path, capsys):
    path = tmp_path / "new.h5"
    lines = answered([path, *ASKED, "--name", "mine", "-k", "3"], capsys).splitlines()
    with pl.open_traces(path) as traces:
        found = traces["mine"]
        best = found.nodes(k=3)
        objective = float(found.objective[0])
    assert lines[0] == "trace 'mine' of demo-gpt2 · 1 prompt"
    assert lines[1] == f"objective  logit_diff(' p', ' r'): {objective:+.4g}"
    assert lines[2].startswith("closure error ")
    head = ["node", "at", "estimated_total_effect", "write_magnitude", "direct_effect"]
    assert lines[4].split() == head
    assert lines[5].split()[0] == best.label[0]
    assert f"{best.estimated_total_effect[0]:+.3g}" in lines[5]
    assert "3 nodes with the largest estimated_total_effect" in lines
    assert f"stored as 'mine' in {path}" in lines


def test_pairs_say_what_looks_at_what_and_what_to_ask_next(file, capsys):
    out = answered([file, *ASKED, "--scalars", "default,pair", "--name", "answer"], capsys)
    row = next(line for line in out.splitlines() if line.startswith("L1H5"))
    assert "19: w <- 8: ␣p" in row
    assert f"next: pattern-lens trace {file} -m {model_path()} … --ablate L0H7@19 " in out
    assert "--trace L0H7@19,18:K " in out


def test_a_traced_node_needs_no_target(file, capsys):
    prompt = ["-m", model_path(), "--prompt", TEXT]
    out = answered([file, *prompt, "--trace", "L1H5@19,8:K", "--name", "where"], capsys)
    with pl.open_traces(file) as traces:
        value = float(traces["where"].node_value[0])
    assert f"traced     L1H5@19,8:K: {value:+.4g}" in out
    assert "objective" not in out.splitlines()[1]


def test_ablations_are_several_words_or_several_options(file, capsys):
    out = answered([file, *ASKED, "--ablate", "L1H5", "L0H7@8", "--ablate", "L1H0=0.5"], capsys)
    assert "ablated    L1H5, L0H7@8, L1H0=0.5" in out
    assert "logit_diff-" in out.splitlines()[0]


def test_what_is_stored_is_listed_and_shown_without_a_model(file, capsys):
    answered([file, *ASKED, "--name", "again"], capsys)
    lines = answered([file, "--list"], capsys).splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["again", "1"], ["answer", "1"]]
    code = (
        "import sys; from pattern_lens.cli import main; "
        f"assert main(['trace', {str(file)!r}, '--show', 'answer', '--kinds', 'head', '-k', '4']) == 0; "
        "assert not {'torch', 'transformers', 'transformer_lens'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 nodes with" in done.stdout
    assert "next:" not in done.stdout


def test_sorted_by_another_measure(file, capsys):
    out = answered([file, "--show", "answer", "--by", "direct_effect", "-k", "1"], capsys)
    with pl.open_traces(file) as traces:
        best = traces["answer"].nodes("direct_effect", 1).iloc[0]
    row = out.splitlines()[5].split()
    assert (row[0], row[3]) == (best.label, f"{best.direct_effect:+.3g}")


def test_json(file, capsys):
    told = json.loads(answered([file, "--show", "answer", "--json", "-k", "2"], capsys))
    assert told["trace"] == "answer"
    assert told["specification"]["objective"]["kind"] == "logit_diff"
    (prompt,) = told["prompts"]
    assert prompt["closure_error"] < 1e-4
    assert "node_value" not in prompt
    assert [*told["nodes"][0]][:2] == ["label", "kind"]
    assert told["nodes"][0]["neuron"] is None
    listed = json.loads(answered([file, "--list", "--json"], capsys))
    assert [one["name"] for one in listed["traces"]] == ["answer"]


def test_each_prompt_of_a_file_has_its_own_tokens(tmp_path, capsys):
    prompts = tmp_path / "prompts.jsonl"
    rows = [
        {"text": TEXT, "target": " p", "distractor": " r"},
        {"text": "red cat, blue dog, red cat, blue", "target": " do", "distractor": " c"},
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "own.h5"
    out = answered([path, "-m", model_path(), "-p", prompts, "--name", "own"], capsys)
    assert "objective  each prompt's own: " in out
    assert "2 prompts" in out
    with pl.open_traces(path) as traces:
        found = traces["own"]
        own = json.loads(found["spec"].values[1])
        assert own["objective"]["target"] == [" do"]
        assert f"{float(found.objective.mean()):+.4g} on average" in out
        hashes = found.prompt.values.tolist()
    assert all(prompt_hash in out for prompt_hash in hashes)


def test_a_probability_is_no_sum(file, capsys):
    asked = ["-m", model_path(), "--prompt", TEXT, "--target", " p", "--probability"]
    out = answered([file, *asked], capsys)
    assert "objective  probs(' p'): +0." in out
    assert "no closure error: what is traced is no sum" in out


def test_several_targets_and_ids(file, capsys):
    one = [file, "-m", model_path(), "--prompt", TEXT, "--target", " p", "--target", " r", "--json"]
    ids = pl.load_model(model_path()).tokenize(TEXT).ids
    p, r = int(ids[8]), int(ids[10])
    capsys.readouterr()  # a bar of the loading
    other = [*one[:5], "--target-id", p, "--target-id", r, "--json"]
    first, second = (json.loads(answered(argv, capsys))["prompts"] for argv in (one, other))
    assert first[0]["objective"] == pytest.approx(second[0]["objective"])


def test_a_trace_that_is_there_is_not_computed_again(file, capsys):
    argv = [file, *ASKED, "--scalars", "default,pair", "--name", "answer", "--json", "-k", "1"]
    first = json.loads(answered(argv, capsys))
    again = json.loads(answered([*argv, "--force"], capsys))
    assert first["prompts"][0]["seconds"] != again["prompts"][0]["seconds"]
    assert json.loads(answered(argv, capsys))["prompts"] == again["prompts"]
    np.testing.assert_allclose(
        [one["estimated_total_effect"] for one in (first["nodes"][0], again["nodes"][0])],
        first["nodes"][0]["estimated_total_effect"],
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--list", "--show", "answer"], "--show: not allowed with argument --list"),
        (["--show", "none"], "no trace 'none' in "),
        (["--show", "answer", "--by", "effect"], "no 'effect' in trace 'answer'"),
        (["--show", "answer", "--kinds", "neuron"], "no neuron nodes in trace 'answer'"),
        ([], "tracing needs -m MODEL and --prompt TEXT or -p PROMPTS"),
        (["-m", "gpt2"], "tracing needs -m MODEL and --prompt TEXT or -p PROMPTS"),
        (["-m", "no-such/model", "--prompt", "a", "--target", "b"], "no-such/model"),
        (["-m", model_path(), "--prompt", "a b"], "nothing to trace of 'a b': give --target"),
        ([*ASKED, "--probability"], "leave the distractor out"),
        (["-m", model_path(), "--prompt", "a", "--distractor", "b"], "is not given"),
        ([*ASKED[:4], "--target", " Nora"], "' Nora' is 3 tokens of model 'demo-gpt2'"),
        ([*ASKED, "--ablate", "L9H0"], "no layer 9 in model 'demo-gpt2': it has 4, 0 to 3"),
        ([*ASKED, "--ablate", "everything"], "cannot read the ablation 'everything'"),
        ([*ASKED, "--trace", "L1H5@19,8:K"], "contradict each other"),
        ([*ASKED, "--scalars", "hed"], "no scalar 'hed'"),
        ([*ASKED, "--name", "answer"], "has another specification"),
        ([*ASKED, "--position", "99"], "99"),
        ([*ASKED, "-k", "0"], "expected a whole number of at least 1, got 0"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(shared, argv, words, capsys):
    assert words in refused([shared, *argv], capsys)


def test_a_file_without_traces(demo_file, capsys):
    assert answered([demo_file, "--list"], capsys) == f"{demo_file} holds no traces\n"
    assert "it holds none" in refused([demo_file, "--show", "answer"], capsys)


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["trace", "--help"])
    out = capsys.readouterr().out
    assert "--trace L9H9@14,2:K" in out
    assert max(map(len, out.split("examples:")[1].splitlines())) <= 80
