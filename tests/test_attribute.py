"""``pattern-lens attribute``: what it prints, draws and stores, and what it says to what it cannot do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import pattern_lens as pl
from pattern_lens.cli import main
from pattern_lens.demo import model_path

TEXTS = ["zq xv kw pj zq xv kw pj zq xv", "tick tock tick tock tick", "one two three one two"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model on three prompts; not to be written to."""
    path = tmp_path_factory.mktemp("attribute") / "own.h5"
    names = ["pattern", "residual"]
    pl.capture(model_path(), TEXTS, path, names=names, weights="compatibility", progress=False)
    return path


@pytest.fixture
def file(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(shared, tmp_path / "own.h5"))


def hashes(path: Path) -> list[str]:
    with pl.open_run(path) as run:
        return list(run.prompts.index)


def answered(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["attribute", *argv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        status = main(["attribute", *argv])
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert "Traceback" not in err
    return err


def test_several_prompts_have_a_mean_and_a_spread(file, capsys):
    with pl.open_run(file) as run:
        found = run.direct_logit_attribution(None, "k", " the", unit="head")
        top = found.top(3, absolute=True)
    out = answered(
        [str(file), "--answer", "k", "--distractor", " the", "--unit", "head", "--top", "3"], capsys
    )
    lines = out.splitlines()
    mean, std = float(found.logit.mean()), float(found.logit.std())
    assert lines[0] == f"mean logit of 'k' - ' the': {mean:+.3f} (std {std:.3f})"
    assert lines[1].startswith("3 prompts · closure error ")
    assert lines[3].split() == ["head", "mean", "logit", "std"]
    assert lines[4].split() == [
        top.index[0],
        f"{top['attribution'].iloc[0]:+.3f}",
        f"{top['std'].iloc[0]:.3f}",
    ]
    assert lines[-1] == f"and {float(found.unembed_bias[0]):+.3f} from the bias of the unembedding"
    assert len(lines) == 9


def test_one_prompt_has_neither(file, capsys):
    out = answered([str(file), "--answer", "k", f"--prompt={hashes(file)[0]}"], capsys)
    assert out.startswith("logit of 'k': ")
    assert "std" not in out
    assert "1 prompt · closure error " in out
    assert "component   logit" in out


def test_streams_stand_in_the_model_s_order(file, capsys):
    out = answered([str(file), "--answer", "k", "--unit", "layer", "--top", "1", "--json"], capsys)
    names = [row["component"] for row in json.loads(out)["components"]]
    assert names[:2] == ["0_pre", "0_mid"]
    assert names[-1] == "final_post"
    assert len(names) == 9


def test_json(file, capsys):
    some = hashes(file)[:2]
    argv = [str(file), "--answer-id", "7", "--distractor-id", "9", "--json", "--top", "2"]
    told = json.loads(answered([*argv, f"--prompt={some[0]},{some[1]}", "--position", "2"], capsys))
    with pl.open_run(file) as run:
        found = run.direct_logit_attribution(some, 7, 9, pos=2)
    assert told["logit"] == pytest.approx(float(found.logit.mean()), rel=1e-5)
    assert told["logit_std"] == pytest.approx(float(found.logit.std()), rel=1e-4)
    assert told["closure_error"] is None  # the file holds the logits of the last position
    assert (told["n_prompts"], told["position"], told["logit_of"]) == (2, 2, "7 - 9")
    assert [*told["components"][0]] == ["component", "attribution", "std", "layer"]
    assert len(told["components"]) == 2


def test_a_hash_may_be_repeated(file, capsys):
    one = hashes(file)[1]
    argv = [str(file), "--answer", "k", "--json", f"--prompt={one}", f"--prompt={one}"]
    assert json.loads(answered(argv, capsys))["n_prompts"] == 1


@pytest.mark.parametrize("unit", ["component", "head", "layer"])
def test_a_page(file, unit, tmp_path, capsys):
    page = tmp_path / "page.html"
    argv = [str(file), "--answer", "k", "--distractor", " the", "--unit", unit, "-o", str(page)]
    assert f"drawn to {page}" in answered(argv, capsys)
    assert "&#x27;k&#x27; - &#x27; the&#x27;" in page.read_text("utf-8")


def test_results_are_stored(file, capsys):
    argv = [str(file), "--answer", "k", "--unit", "head", "--store", "k_heads", "--quiet"]
    assert "stored as 'k_heads' and 'k_heads.closure_error'" in answered(argv, capsys)
    with pl.open_run(file) as run:
        found = run.direct_logit_attribution(None, "k", unit="head")
        np.testing.assert_allclose(run.results["k_heads"], found.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--answer", " Nora"], "' Nora' is 3 tokens, ' N', 'or', 'a' "),
        (["--answer", "k", "--distractor", ""], "the empty string is no token"),
        (["--answer-id", "99999"], "no token 99999: expected an id from 0 to "),
        (["--answer", "k", "--position", "1000"], "1000"),
        (["--answer", "k", "--unit", "neuron"], "names=('residual', 'mlp_post')) adds them"),
        (["--answer", "k", "--prompt", "none-such"], "none-such"),
        (["--answer", "k", "-o", "page.pdf"], "cannot save a plot as 'page.pdf'"),
        (["--answer", "k", "--unit", "block"], "argument --unit: invalid choice: 'block'"),
        (["--answer", "k", "--top", "0"], "expected a whole number of at least 1, got 0"),
        (["--answer", "k", "--answer-id", "3"], "not allowed with argument --answer"),
        ([], "one of the arguments --answer --answer-id is required"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(shared, argv, words, capsys):
    assert words in refused([str(shared), *argv], capsys)


def test_a_file_with_patterns_alone(demo_file, capsys):
    err = refused([str(demo_file), "--answer", "k"], capsys)
    assert "capture(" in err
    assert "residual" in err


def test_raw_weights(model_folder, tmp_path, capsys):
    path = tmp_path / "raw.h5"
    pl.capture(model_folder, TEXTS, path, names="residual", weights="raw", progress=False)
    assert "compatibility" in refused([str(path), "--answer-id", "3"], capsys)
