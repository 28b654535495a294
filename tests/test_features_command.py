"""``pattern-lens features``: what it captures, computes, prints and exports, and what it says to what it cannot do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pattern_lens as pl
from pattern_lens.cli import main
from pattern_lens.demo import autoencoder_path, model_path
from pattern_lens.features import FeatureDirection

TEXTS = ["zq xv kw pj rm zq xv kw", "red cat, blue dog, red cat, blue", "one two three one two"]
FEATURES = [2, 49, 60, 255]


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents of three prompts; not to be written to."""
    path = tmp_path_factory.mktemp("features") / "captured.h5"
    pl.capture_features(model_path(), autoencoder_path(), TEXTS, path, progress=False)
    return path


@pytest.fixture(scope="module")
def shared(captured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with data of `FEATURES`; not to be written to."""
    path = tmp_path_factory.mktemp("computed") / "own.h5"
    shutil.copy(captured, path)
    pl.compute_features(path, autoencoder_path(), FEATURES, model=model_path(), progress=False)
    return path


@pytest.fixture
def file(captured: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(captured, tmp_path / "own.h5"))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def answered(argv: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["features", *map(str, argv)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(argv: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        status = main(["features", *map(str, argv)])
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert "Traceback" not in err
    return err


# --- capture -------------------------------------------------------------------------------------


def asked(path: Path, prompts: Path) -> list[object]:
    return ["capture", path, "-m", model_path(), "-a", autoencoder_path(), "-p", prompts, "--quiet"]


def test_latents_are_captured(tmp_path, prompts, captured, capsys):
    path = tmp_path / "new.h5"
    lines = answered([*asked(path, prompts), "--names", "post", "-b", "2"], capsys).splitlines()
    assert lines[0].startswith("3 prompts stored in new.h5")
    with pl.open_features(path) as new, pl.open_features(captured) as old:
        assert new["mlp.0"].n_entries == old["mlp.0"].n_entries
        assert f"mlp.0: {new['mlp.0'].n_entries:,} active latents of" in lines[1]
    assert [line.split()[0] for line in lines[2:]] == [
        "forward",
        "encode",
        "sparse",
        "pack",
        "write",
    ]
    with pl.open_activations(path, "post") as neurons:
        assert len(neurons) == 3
    again = json.loads(answered([*asked(path, prompts), "--json"], capsys))
    assert (again["n_stored"], again["n_present"]) == (0, 3)


def test_the_estimate_comes_before(tmp_path, prompts, capsys):
    argv = [str(one) for one in asked(tmp_path / "new.h5", prompts)]
    assert main(["features", *argv[:-1]]) == 0
    assert "active features of a token: " in capsys.readouterr().err


def test_a_dead_autoencoder_is_warned_of(tmp_path, prompts, capsys):
    argv = [*map(str, asked(tmp_path / "new.h5", prompts)), "--threshold", "1e9"]
    assert main(["features", *argv]) == 0
    err = capsys.readouterr().err
    assert err.startswith("pattern-lens: warning: no feature of 'mlp.0' is active on any prompt")
    assert err.count("\n") == 1


def test_a_file_of_weights_under_a_name_of_its_own(tmp_path, prompts, capsys):
    weights = autoencoder_path() / "sae_weights.safetensors"
    copied = shutil.copy(weights, tmp_path / "own.safetensors")
    path = tmp_path / "new.h5"
    argv = ["capture", path, "-m", model_path(), "-a", copied, "-p", prompts, "--quiet", "--json"]
    assert "give hook=" in refused(argv, capsys)
    argv += ["--hook", "blocks.0.mlp.hook_post", "--name", "mine", "-n", "2"]
    assert "apply_b_dec_to_input" in refused(argv, capsys)
    argv += ["--config", "apply_b_dec_to_input=true"]
    told = json.loads(answered(argv, capsys))
    assert list(told["n_entries"]) == ["mine"]
    assert told["n_stored"] == 2


# --- compute -------------------------------------------------------------------------------------


def test_data_is_computed(file, shared, capsys):
    argv = ["compute", file, "-a", autoencoder_path(), "-m", model_path()]
    argv += ["--features", "2,49,60,255"]
    lines = answered([*argv, "--quiet"], capsys).splitlines()
    assert lines[0].startswith("data of 4 features of mlp.0 stored in own.h5, ")
    assert "effects" in [line.split()[0] for line in lines[1:-2]]
    assert lines[-1] == f"next: pattern-lens features list {file} --sae mlp.0"
    with pl.open_features(file) as own, pl.open_features(shared) as other:
        mine, expected = (one["mlp.0"].data.drop_attrs() for one in (own, other))
        np.testing.assert_allclose(mine.loss_effect, expected.loss_effect, atol=1e-5)
        assert mine.feature.values.tolist() == FEATURES
    told = json.loads(answered([*argv, "--quiet", "--json"], capsys))
    assert (told["n_stored"], told["n_present"]) == (0, 4)
    assert main(["features", *map(str, argv), "--force"]) == 0
    assert "4 features to compute: about " in capsys.readouterr().err


def test_without_weights_there_is_what_latents_say(file, capsys):
    out = answered(["compute", file, "--features", "2", "--n-top", "3", "--quiet"], capsys)
    assert out.startswith("data of 1 feature of mlp.0 stored in own.h5")
    with pl.open_features(file) as features:
        data = features["mlp.0"].data
        assert "activation_histogram" in data
        assert "top_logit" not in data
        assert int((data.sequence_group == -1).sum()) == 3
    lines = answered(["show", file, "2"], capsys).splitlines()
    assert any(line == "top · activation" for line in lines)


# --- list and show -------------------------------------------------------------------------------


def test_autoencoders_are_listed(shared, capsys):
    lines = answered(["list", shared], capsys).splitlines()
    assert lines[0].split()[:4] == ["name", "hook", "kind", "features"]
    assert lines[1].split()[:4] == ["mlp.0", "blocks.0.mlp.hook_post", "jumprelu", "256"]
    assert lines[1].split()[-1] == "4"
    (one,) = json.loads(answered(["list", shared, "--json"], capsys))["autoencoders"]
    assert (one["name"], one["n_prompts"], one["n_computed"]) == ("mlp.0", 3, 4)


def test_features_are_listed_sorted(shared, capsys):
    argv = ["list", shared, "--sae", "mlp.0", "--by", "max_activation", "-k", "3"]
    lines = answered(argv, capsys).splitlines()
    with pl.open_features(shared) as features:
        best = features["mlp.0"].table("max_activation", 3)
    assert [line.split()[0] for line in lines[1:4]] == [str(n) for n in best.feature]
    assert (
        f"features compute {shared} -a AUTOENCODER -m MODEL --features {best.feature[0]}"
        in lines[-1]
    )
    by_logit = answered(["list", shared, "--by", "top_logit", "-k", "1"], capsys).splitlines()
    assert by_logit[-1] == f"next: pattern-lens features show {shared} {by_logit[1].split()[0]}"
    told = json.loads(answered([*argv, "--ascending", "--json"], capsys))["features"]
    assert len(told) == 3
    assert told[0]["max_activation"] <= told[1]["max_activation"]


def test_a_feature_is_shown(shared, capsys):
    with pl.open_features(shared) as features:
        found = features["mlp.0"]
        one = found.sel(2).load()
        token = found.texts(one.top_logit_token[:1].values)[0].replace(" ", "␣")
    lines = answered(["show", shared, "2", "-k", "2"], capsys).splitlines()
    assert lines[0] == "feature 2 of mlp.0 at blocks.0.mlp.hook_post"
    assert lines[1].startswith(f"active on {int(one.n_active):,} tokens ({float(one.density):.3%})")
    assert lines[3].split() == ["raised", "logit", "lowered", "logit"]
    assert lines[4].split()[:2] == [token, f"{float(one.top_logit[0]):+.3f}"]
    at = lines.index("top · activation · loss effect on the next token")
    peak = int(one.peak[0])
    assert lines[at + 1].split()[:2] == [
        f"{float(one.sequence_activation[0, peak]):.3f}",
        f"{float(one.loss_effect[0, peak]):+.3f}",
    ]
    assert "⟦" in lines[at + 1]
    assert lines[at + 3] == ""  # two of the group, and no more


def test_a_feature_as_json(shared, capsys):
    told = json.loads(answered(["show", shared, "49", "--json"], capsys))
    with pl.open_features(shared) as features:
        one = features["mlp.0"].sel(49).load()
    assert told["feature"] == 49
    assert told["density"] == pytest.approx(float(one.density))
    first = told["tables"]["raised"][0]
    assert first["top_logit"] == pytest.approx(float(one.top_logit[0]), rel=1e-6)
    assert len(told["activation_histogram"]) == 40
    sequence = told["sequences"][0]
    assert sequence["group_name"] == "top"
    assert len(sequence["tokens"]) == len(sequence["loss_effect"])


def test_reading_needs_no_torch(shared):
    code = (
        "import sys; from pattern_lens.cli import main; "
        f"assert main(['features', 'show', {str(shared)!r}, '2']) == 0; "
        f"assert main(['features', 'list', {str(shared)!r}, '--sae', 'mlp.0']) == 0; "
        "assert not {'torch', 'transformers', 'transformer_lens'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- export --------------------------------------------------------------------------------------


def test_a_page_and_a_folder(shared, tmp_path, capsys):
    page = tmp_path / "page.html"
    out = answered(["export-html", shared, "--features", "2,49", "-o", page, "--quiet"], capsys)
    assert out.startswith("2 features in ")
    assert page.stat().st_size > 10_000
    told = answered(["export-html", shared, "-o", tmp_path / "pages", "--quiet", "--json"], capsys)
    assert json.loads(told)["n_features"] == 4
    assert (tmp_path / "pages" / "index.html").exists()


# --- what cannot be done -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["show", "FILE", "7"], "no data of feature 7 of 'mlp.0'"),
        (["show", "FILE", "256"], "no feature 256 of 'mlp.0'"),
        (["show", "FILE", "2", "--sae", "other"], "no features of an autoencoder 'other' in "),
        (["list", "FILE", "--by", "beauty"], "cannot sort the features of 'mlp.0' by 'beauty'"),
        (["list", "FILE", "-k", "0"], "expected a whole number of at least 1, got 0"),
        (["compute", "FILE", "--features", "5-2"], "numbers of features such as 7 or 0-255,300"),
        (["compute", "FILE", "--features", "999"], "no feature 999 of 'mlp.0'"),
        (["compute", "FILE", "--window", "5"], "expected two whole numbers such as 5,5, got 5"),
        (["compute", "FILE", "--second", "other"], "other"),
        (["compute", "FILE", "-a", "x,y"], "one autoencoder at a time"),
        (["export-html", "FILE", "--features", "7", "-o", "p.html"], "no data of feature 7"),
        (["capture", "FILE", "-m", "x", "-p", "x", "-a", "x,y", "--name", "n"], "-a names several"),
        (["capture", "FILE", "-m", "x", "-p", "x", "-a", "x", "--threshold", "-1"], "at least 0"),
        (
            ["capture", "FILE", "-m", "x", "-p", "x", "-a", "x", "--config", "k"],
            "such as k=32, got k",
        ),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(shared, argv, words, capsys):
    assert words in refused([shared if one == "FILE" else one for one in argv], capsys)


def test_a_pickle_is_refused(tmp_path, prompts, capsys):
    pickle = tmp_path / "sae.pt"
    pickle.write_bytes(b"\x80\x04K\x01.")
    argv = ["capture", tmp_path / "new.h5", "-m", model_path(), "-a", pickle, "-p", prompts]
    assert "is a pickle, which runs whatever code" in refused([*argv, "--quiet"], capsys)
    assert not (tmp_path / "new.h5").exists()


def test_a_file_without_features(demo_file, capsys):
    assert answered(["list", demo_file], capsys) == f"{demo_file} holds no features\n"
    assert "it holds those of none" in refused(["show", demo_file, "1"], capsys)


def test_of_several_autoencoders_one_is_said(file, capsys):
    vector = np.linspace(-1, 1, 512)
    direction = FeatureDirection("blocks.0.mlp.hook_post", vector, "line")
    pl.capture_features(model_path(), direction, TEXTS, file, progress=False)
    capsys.readouterr()  # a bar of the loading
    assert "holds features of line, mlp.0: say which with --sae" in refused(
        ["show", file, "0"], capsys
    )
    out = answered(["list", file, "--sae", "line"], capsys)
    assert out.splitlines()[1].split()[0] == "0"


@pytest.mark.parametrize("command", ["capture", "compute", "list", "show", "export-html"])
def test_help_has_examples(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main(["features", command, "--help"])
    out = capsys.readouterr().out
    assert f"examples:\n  pattern-lens features {command} " in out
    assert max(map(len, out.splitlines())) <= 80
