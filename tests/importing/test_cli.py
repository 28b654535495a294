"""``pattern-lens import``: what it prints, and its exit status."""

import json
import subprocess
import sys

import pytest

from pattern_lens import prompt_hash
from pattern_lens.cli import main


def test_a_folder(old, capsys):
    folder = old.path / "tiny" / "prompts" / prompt_hash("on")
    old.figure(folder, "svd.svgz", b"x")
    old.figure(folder, "raw.png", b"x")
    assert main(["import", str(old.path), "--quiet"]) == 0
    out, err = capsys.readouterr()
    first, *rest = out.splitlines()
    assert first.startswith("tiny: 3 prompts imported into tiny.h5, 1 figure, 1 of raw not stored")
    assert " before, " in first
    assert rest == [
        f"  next: pattern-lens info '{old.path / 'tiny.h5'}'",
        f"        pattern-lens verify '{old.path / 'tiny.h5'}'",
    ]
    assert err == ""
    assert main(["import", str(old.path), "--quiet"]) == 0
    assert "0 prompts imported into tiny.h5, 3 were there already" in capsys.readouterr().out


def test_what_is_left_out_is_listed(old, capsys):
    bad = old.prompt("tiny", "bad", 4)
    (bad / "activations.npz").write_bytes(b"no")
    old.prompt("tiny", "own", 4, hash="mine", tokens=[])
    assert main(["import", str(old.path), "--quiet"]) == 1
    out = capsys.readouterr().out
    assert "4 prompts imported into tiny.h5, 1 file skipped" in out
    assert f"  skipped: tiny/prompts/{bad.name}/activations.npz: it is damaged: " in out
    assert "  hash that is not the text's, kept: mine" in out
    assert "  tokens not known: mine" in out


def test_long_lists_are_cut(empty, capsys):
    for i in range(25):
        (empty.prompt("tiny", f"t{i}", 3) / "activations.npz").unlink()
    assert main(["import", str(empty.path), "--quiet"]) == 1
    out = capsys.readouterr().out
    assert out.count("  skipped: ") == 20
    assert "and 5 such lines more; --json has all" in out


def test_json(old, capsys):
    assert main(["import", str(old.path), "--quiet", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["model"], report["n_stored"]) == ("tiny", 3)
    assert report["figures"] == {
        "n_stored": 0,
        "n_failures": 0,
        "n_present": 0,
        "n_raw": 0,
        "n_stale": 0,
    }


def test_several_models_and_one_file(old, tmp_path, capsys):
    old.model("other")
    old.prompt("other", "hi", 4)
    mine = str(tmp_path / "mine.h5")
    assert main(["import", str(old.path), "-o", mine]) == 2
    assert "cannot import 2 models (other, tiny) into one file" in capsys.readouterr().err
    assert main(["import", str(old.path), "-m", "other", "-o", mine, "--quiet"]) == 0


def test_one_models_error_does_not_stop_the_next(old, capsys):
    old.model("a-first")
    old.prompt("a-first", "hi", 4)
    (old.path / "a-first.h5").write_text("no HDF5")
    assert main(["import", str(old.path), "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert "tiny: 3 prompts imported" in out
    assert "a-first.h5: expected an HDF5 file" in err


def test_no_folder(tmp_path, capsys):
    assert main(["import", str(tmp_path / "no")]) == 2
    assert "error: no folder" in capsys.readouterr().err


def test_help_and_light_start(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main(["import", "--help"])
    out = capsys.readouterr().out
    assert "examples:\n  pattern-lens import attn_data" in out
    assert max(map(len, out.splitlines())) <= 80
    code = (
        "import sys; from pattern_lens.cli.parser import build_parser; build_parser()\n"
        "assert not {'numpy', 'h5py', 'torch', 'tqdm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
