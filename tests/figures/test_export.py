"""Figures as files: what is where, what happens a second time, and what is never touched."""

import json
from pathlib import Path

import numpy as np
import pytest

import pattern_lens as pl
from pattern_lens.attn_figure_funcs import raw
from pattern_lens.cli import main
from pattern_lens.errors import (
    ForeignFolderError,
    ModelMismatchError,
    UnknownFigureError,
    UnknownPromptError,
)
from pattern_lens.figures import register_attn_figure_func
from pattern_lens.figures.saving import file_name
from pattern_lens.figures.tree import model_folder_name
from pattern_lens.store.figures import FigureRecord, withdrawn
from pattern_lens.store.header import Header
from pattern_lens.store.prompt_table import PromptRecord
from pattern_lens.store.writer import StoreWriter
from pattern_lens.testing import write_random_file

EVIL = file_name("../../evil")


@pytest.fixture
def hashes(figure_file):
    with pl.open_patterns(figure_file) as patterns:
        return list(patterns)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def export(path, out, **options):
    return pl.export_figures(path, out, progress=False, **options)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def store(path, *records):
    with StoreWriter(path, None, figures=True) as writer:
        writer.commit_computed([], {}, records)


def test_the_tree(figure_file, out, hashes):
    report = export(figure_file, out)
    assert report.folder == out / "random"
    assert (report.n_written, report.n_present, report.n_failures) == (31 + 2 + 4 + 2 + 84, 0, 2)
    assert report.n_prompts == 7
    assert report.damaged == ()
    found = files(out)
    assert {
        "models.jsonl",
        "figures.jsonl",
        "random/prompts.jsonl",
        "random/model_cfg.json",
    } < found
    prompt = f"random/prompts/{hashes[1]}"
    assert {name for name in found if name.startswith(f"{prompt}/L2/H3/")} == {
        f"{prompt}/L2/H3/raw.png",
        f"{prompt}/L2/H3/spectra.error.txt",
    }
    assert {f"{prompt}/prompt.json", f"{prompt}/L0/H0/spectra.svgz", f"{prompt}/grid.html"} < found
    assert f"random/prompts/{hashes[2]}/L0/H1/multi.first.png" in found
    assert f"random/prompts/{hashes[2]}/grid.error.txt" in found
    assert (out / "random/all_prompts/L2/H1/mean.png").read_bytes() == b"\x89PNG mean 1"
    assert not any("entropy" in name or name.endswith(".part") for name in found)
    with pl.open_figures(figure_file) as figures:
        one = figures["spectra"].sel(prompt=hashes[4], layer=2, head=1)
        path = out / "random" / "prompts" / hashes[4] / "L2" / "H1" / "spectra.svgz"
        assert path.read_bytes() == one.data


def test_raw_has_the_predecessor_s_pixels(figure_file, out, hashes, tmp_path):
    export(figure_file, out, figures="raw")
    with pl.open_patterns(figure_file) as patterns:
        for prompt_hash, layer, head in [
            (hashes[2], 3, 1),
            (hashes[5], 0, 0),
            ("../../evil", 2, 3),
        ]:
            raw(patterns[prompt_hash].sel(layer=layer, head=head).values, tmp_path)
            path = out / "random/prompts" / file_name(prompt_hash) / f"L{layer}/H{head}/raw.png"
            assert path.read_bytes() == (tmp_path / "raw.png").read_bytes()


def test_what_the_indexes_say(figure_file, out, hashes):
    export(figure_file, out)
    assert [one["hash"] for one in lines(out / "random/prompts.jsonl")] == [*hashes[:6], EVIL]
    prompt = json.loads((out / "random/prompts" / hashes[1] / "prompt.json").read_text())
    assert prompt == {
        "text": "\n the #0.1",
        "meta": {"number": 1},
        "source_fname": "figures.h5",
        "hash": hashes[1],
        "n_tokens": 2,
        "tokens": ["\n", " the"],
    }
    assert "original_hash" not in prompt
    assert lines(out / "random/prompts.jsonl")[-1]["original_hash"] == "../../evil"
    (model,) = lines(out / "models.jsonl")
    assert model == {
        **json.loads((out / "random/model_cfg.json").read_text()),
        "sanitized_name": "random",
    }
    assert (model["model_name"], model["n_layers"], model["n_heads"]) == ("random", 4, 4)
    figures = {one["name"]: one for one in lines(out / "figures.jsonl")}
    assert list(figures) == ["grid", "multi.first", "raw", "spectra"]
    assert figures["raw"]["figure_save_fmt"] == "png"
    assert figures["spectra"] == {
        "name": "spectra",
        "func_name": "spectra",
        "doc": "Spectra.",
        "figure_save_fmt": "svgz",
        "source": None,
        "code": "def spectra(p):\n    ...\n",
    }


def test_a_second_run_writes_nothing(figure_file, out):
    first = export(figure_file, out)
    before = {
        path: path.stat().st_ino
        for path in out.rglob("*.[psh]*")
        if path.suffix in (".png", ".svgz")
    }
    again = export(figure_file, out)
    assert (again.n_written, again.n_present, again.written_bytes) == (0, first.n_written, 0)
    assert "were there" in again.summary()
    assert {path: path.stat().st_ino for path in before} == before
    assert export(figure_file, out, force=True).n_written == first.n_written


def test_it_goes_on_where_it_stopped(figure_file, out, hashes):
    export(figure_file, out)
    whole = {name: (out / name).read_bytes() for name in files(out)}
    gone = [
        out / name
        for i, name in enumerate(sorted(whole))
        if i % 3 == 0 and "export.json" not in name
    ]
    for path in gone:
        path.unlink()
    (gone[-1].parent / f".{gone[-1].name}.part").write_bytes(b"half")
    report = export(figure_file, out)
    assert {name: (out / name).read_bytes() for name in files(out)} == whole
    assert report.n_written == sum(path.suffix in (".png", ".svgz", ".html") for path in gone)


def test_what_was_mended_has_no_error_file(figure_file, out, hashes):
    export(figure_file, out, figures="spectra")
    store(figure_file, FigureRecord(1, 2, 3, "spectra", "svgz", b"now"))
    assert export(figure_file, out, figures="spectra").n_written == 1
    folder = out / "random/prompts" / hashes[1] / "L2/H3"
    assert [path.name for path in folder.iterdir()] == ["spectra.svgz"]


def test_choosing(figure_file, out, hashes):
    report = export(figure_file, out, figures=["multi*", "mean"], prompts=hashes[2])
    assert (report.n_written, report.n_prompts) == (2, 1)
    assert not (out / "random/all_prompts").exists()
    export(figure_file, out, raw=False)
    assert not any(name.endswith("raw.png") for name in files(out))
    assert [one["hash"] for one in lines(out / "random/prompts.jsonl")] == [
        *(hashes[p] for p in (0, 1, 2, 4)),
        EVIL,
    ]


def test_what_is_drawn_on_demand_can_be_named(figure_file, out, hashes):
    n_drawn = 0

    @register_attn_figure_func(stored=False, fmt="png")
    def dots(pattern):
        nonlocal n_drawn
        n_drawn += 1
        if pattern.layer == 2:
            raise ValueError("no")
        return np.zeros((2, 2))

    report = export(figure_file, out, figures="dots", prompts=hashes[0])
    assert (report.n_written, report.n_failures, n_drawn) == (8, 4, 12)
    export(figure_file, out, figures="dots", prompts=hashes[0])
    assert n_drawn == 12 + 4  # what failed is tried again


def test_nothing_matches(figure_file, out):
    with pytest.raises(
        UnknownFigureError, match=r"matches 'spectre' .*; nearest: 'spectra'; it has"
    ):
        export(figure_file, out, figures=["spectre"])
    with pytest.raises(UnknownPromptError, match="no prompt 'nope'"):
        export(figure_file, out, prompts=["nope"])
    assert not out.exists()


def test_a_folder_of_somebody_else_is_not_touched(figure_file, out):
    theirs = out / "random" / "prompts" / "x" / "activations.npz"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    for force in (False, True):
        with pytest.raises(ForeignFolderError, match="no export made it; give another folder"):
            export(figure_file, out, force=force)
    assert files(out) == {"random/prompts/x/activations.npz"}


def test_records_of_others_stay(figure_file, out):
    out.mkdir()
    (out / "models.jsonl").write_text('{"model_name": "zebra"}\n')
    (out / "figures.jsonl").write_text('{"name": "zoom"}\n{"name": "raw", "code": "old"}\n\n')
    export(figure_file, out)
    assert [one["model_name"] for one in lines(out / "models.jsonl")] == ["zebra", "random"]
    assert [one["name"] for one in lines(out / "figures.jsonl")][-1] == "zoom"
    assert lines(out / "figures.jsonl")[2]["code"] is None


@pytest.mark.parametrize("text", ["no json\n", "[1]\n", '{"model_name": []}\n'])
def test_an_index_that_cannot_be_read_is_not_lost(figure_file, out, text):
    out.mkdir()
    (out / "models.jsonl").write_text(text)
    with pytest.raises(ForeignFolderError, match=r"line 1 of models.jsonl is no record"):
        export(figure_file, out)
    assert files(out) == {"models.jsonl"}


def test_another_model_of_the_same_name(figure_file, out, tmp_path):
    export(figure_file, out, figures="mean")
    other = tmp_path / "other.h5"
    write_random_file(other, names=("pattern",), n_heads=2)
    with pytest.raises(ModelMismatchError, match="give another folder"):
        export(other, out)


def test_names_that_would_lead_elsewhere(tmp_path, out):
    path = tmp_path / "evil.h5"
    header = Header(
        {"name": "../../x", "n_layers": 1, "n_heads": 1}, {"token": ["a"], "text": ["a"]}
    )
    ids = np.zeros(1, np.int32)
    names = ["..", "/tmp/x", "a/../../b", ".hidden", "é", "n" * 300, "-dash"]  # noqa: S108
    with StoreWriter(path, header, figures=True) as writer:
        writer.commit([PromptRecord(name, "t", ids) for name in names], {})
        records = [FigureRecord(i, 0, 0, name, "../f", b"x") for i, name in enumerate(names)]
        writer.commit_computed([], {}, records)
    report = export(path, out)
    assert report.n_written == len(names)
    assert report.folder.parent == out
    assert len([name for name in files(out) if "/L0/H0/" in name]) == len(names)
    assert sorted(entry.name for entry in tmp_path.iterdir() if "evil.h5" not in entry.name) == [
        "out"
    ]
    for prompt in lines(report.folder / "prompts.jsonl"):
        assert (report.folder / "prompts" / prompt["hash"] / "prompt.json").is_file()


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("gpt2", "gpt2"),
        ("google/gemma-2b", "google-gemma-2b"),
        ("", "model"),
        ("../..", "-.."),
        ("..", "model"),
    ],
)
def test_model_folders(name, folder):
    assert model_folder_name(name) == folder


def test_damage_costs_one_figure(figure_file, out):
    at = figure_file.read_bytes().index(b"\x89PNG mean 1")
    with figure_file.open("r+b") as file:
        file.seek(at)
        file.write(b"?")
    report = export(figure_file, out, figures="mean")
    assert report.n_written == 3
    assert report.damaged[0].startswith("mean L2H1 of all prompts: cannot read a figure")
    assert main(["export-figures", str(figure_file), "-o", str(out), "--quiet"]) == 1


def test_a_file_without_figures(tmp_path, out):
    path = tmp_path / "none.h5"
    write_random_file(path, names=("z",))
    report = export(path, out)
    assert (report.n_written, report.n_prompts) == (0, 0)
    assert lines(out / "figures.jsonl") == []


def test_withdrawn_figures_are_not_written(figure_file, out):
    store(figure_file, withdrawn("mean", (None, 2, 0)))
    assert export(figure_file, out, figures="mean").n_written == 3


def test_the_command(figure_file, out, hashes, capsys):
    options = ["export-figures", str(figure_file), "-o", str(out), "--quiet"]
    assert main([*options, "--figures", "multi*, mean", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_written"] == 6
    assert main([*options, f"--prompts={hashes[1]}", "--no-raw"]) == 0
    assert f"12 figures of 1 prompt written to {out / 'random'}" in capsys.readouterr().out
    assert main([*options, "--figures", "nope"]) == 2
    assert "no figure matches 'nope'" in capsys.readouterr().err


def test_the_command_has_help(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main(["export-figures", "--help"])
    out = capsys.readouterr().out
    assert "examples:\n  pattern-lens export-figures gpt2.h5" in out
    assert max(map(len, out.splitlines())) <= 80
