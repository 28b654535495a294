"""Figure files in, figure records out."""

import json
import os

import pytest

from pattern_lens import prompt_hash
from pattern_lens.importing import import_folder
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.verify import verify

PNG, SVGZ = b"\x89PNG first", b"\x1f\x8b second"


@pytest.fixture
def prompt(old):
    return old.path / "tiny" / "prompts" / prompt_hash("the cat")


def load(old):
    (report,) = import_folder(old.path, progress=False)
    return report


def held(report) -> dict:
    """Figures of a file: (hash, layer, head, name) to record."""
    reader = StoreReader(report.path)
    records = [reader.figures.record(row) for row in reader.figures.rows]
    hashes = reader.prompts.hashes([record.prompt for record in records])
    reader.close()
    keys = ((h, r.layer, r.head, r.name) for h, r in zip(hashes, records, strict=True))
    return dict(zip(keys, records, strict=True))


def test_pictures_of_all_kinds(old, prompt):
    old.figure(prompt, "svd_spectra.svgz", SVGZ, layer=2, head=1)
    old.figure(prompt, "fft.log.png", PNG)
    old.figure(prompt, "fft.linear.png", PNG * 2)
    old.describe(
        {
            "name": "svd_spectra",
            "func_name": "svd_spectra",
            "doc": "d",
            "code": "def f",
            "source": "/h/x.py",
        },
        {"name": "fft.log", "func_name": "fft", "doc": None},
    )
    report = load(old)
    assert (report.figures.n_stored, report.figures.n_failures) == (3, 0)
    found = held(report)
    at = prompt.name
    assert set(found) == {
        (at, 2, 1, "svd_spectra"),
        (at, 0, 0, "fft.log"),
        (at, 0, 0, "fft.linear"),
    }
    spectra = found[at, 2, 1, "svd_spectra"]
    assert (spectra.format, spectra.data, spectra.failed) == ("svgz", SVGZ, False)
    assert spectra.about == {
        "function": "svd_spectra",
        "func_name": "svd_spectra",
        "doc": "d",
        "code": "def f",
        "imported_from": "pattern-lens 0.6 folder",
    }
    assert found[at, 0, 0, "fft.linear"].about["function"] == "fft"
    assert verify(report.path, progress=False).ok


def test_raw_is_drawn_from_the_data(old, prompt):
    old.figure(prompt, "raw.png", PNG)
    old.figure(prompt, "raw.png", PNG, head=1)
    report = load(old)
    assert (report.figures.n_raw, report.figures.n_stored) == (2, 0)
    assert "2 of raw not stored (drawn from the data)" in report.summary()
    assert not held(report)


def test_failures(old, prompt):
    old.figure(prompt, "svd.error.txt", "did not converge é".encode())
    old.figure(prompt, "fft.error.txt", b"")
    old.describe(
        {"name": "fft.log", "func_name": "fft"}, {"name": "fft.linear", "func_name": "fft"}
    )
    report = load(old)
    assert (report.figures.n_stored, report.figures.n_failures) == (0, 3)
    found = held(report)
    assert {key[-1] for key in found} == {"svd", "fft.log", "fft.linear"}
    failure = found[prompt.name, 0, 0, "svd"]
    assert failure.failed
    assert json.loads(failure.data) == {
        "error": "Exception",
        "message": "did not converge é",
        "traceback": "",
    }


def test_a_stale_failure_does_not_hide_its_figure(old, prompt):
    old.figure(prompt, "svd.svgz", SVGZ)
    old.figure(prompt, "svd.error.txt", b"of an earlier run")
    report = load(old)
    assert (report.figures.n_stored, report.figures.n_stale) == (1, 1)
    assert not held(report)[prompt.name, 0, 0, "svd"].failed


def test_again_and_further_figures(old, prompt):
    old.figure(prompt, "svd.svgz", SVGZ)
    failed = old.figure(prompt, "fft.error.txt", b"no")
    load(old)
    report = load(old)
    assert (report.figures.n_stored, report.figures.n_present) == (0, 2)
    failed.unlink()
    old.figure(prompt, "fft.png", PNG)
    other = prompt.parent / prompt_hash("on")
    old.figure(other, "svd.svgz", SVGZ * 2)
    report = load(old)
    assert (report.figures.n_stored, report.figures.n_present) == (2, 1)
    found = held(report)
    assert found[prompt.name, 0, 0, "fft"].data == PNG
    assert found[other.name, 0, 0, "svd"].data == SVGZ * 2


def test_figures_that_come_later(old, prompt):
    assert load(old).figures.n_stored == 0
    old.figure(prompt, "svd.svgz", SVGZ)
    assert load(old).figures.n_stored == 1


def test_one_figure_in_two_formats(old, prompt):
    old.figure(prompt, "svd.svgz", SVGZ)
    old.figure(prompt, "svd.png", PNG)
    found = held(load(old))
    assert found[prompt.name, 0, 0, "svd"].data == PNG
    assert found[prompt.name, 0, 0, "svd.svgz"].data == SVGZ


def test_files_that_are_no_figures_are_listed(old, prompt, tmp_path):
    old.figure(prompt, "svd.svgz", SVGZ)
    old.figure(prompt, "empty.png", b"")
    old.figure(prompt, "no_ending", b"x")
    old.figure(prompt, "high.png", PNG, layer=3)
    old.figure(prompt, ".DS_Store", b"x")
    (prompt / "notes.md").write_text("mine")
    (prompt / "L0" / "H0" / "link.png").symlink_to(tmp_path)
    os.mkfifo(prompt / "L0" / "H0" / "pipe.png")
    report = load(old)
    assert report.figures.n_stored == 1
    found = {one.file.rpartition("/")[2]: one.reason for one in report.skipped}
    assert found == {
        "empty.png": "it is empty",
        "no_ending": "its ending '' is of no picture",
        "high.png": "there is no such head in a model of 3 layers of 2 heads",
        "link.png": "it is a link or a device, expected a file",
        "pipe.png": "it is a link or a device, expected a file",
    }


def test_figures_of_a_damaged_prompt_wait_for_it(old, prompt):
    old.figure(prompt, "svd.svgz", SVGZ)
    (prompt / "activations.npz").write_bytes(b"no")
    report = load(old)
    assert report.n_stored == 2
    assert not held(report)


def test_damaged_descriptions_are_no_obstacle(old, prompt):
    old.figure(prompt, "svd.svgz", SVGZ)
    lines = [b'{"name": "svd", "func_name": "s\\ud800"}', b"[1]", b"{", b"\xff"]
    (old.path / "figures.jsonl").write_bytes(b"\n".join(lines))
    assert held(load(old))[prompt.name, 0, 0, "svd"].about["function"] == "s?"


def test_many_figures(old, monkeypatch):
    from pattern_lens.importing import figures

    monkeypatch.setattr(figures, "_COMMIT_FIGURES", 5)
    for number, folder in enumerate(sorted((old.path / "tiny" / "prompts").iterdir())):
        for layer in range(3):
            for head in range(2):
                data = f"{number} {layer} {head}".encode()
                old.figure(folder, "f.svg", data, layer=layer, head=head)
    report = load(old)
    assert report.figures.n_stored == 18
    for (name, layer, head, _), record in held(report).items():
        number = sorted(p.name for p in (old.path / "tiny" / "prompts").iterdir()).index(name)
        assert record.data == f"{number} {layer} {head}".encode()
