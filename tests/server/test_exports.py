"""Exported sites and pages: what they hold, what they refuse, and that nothing half-written stays."""

import gzip
import json
import re
from pathlib import Path

import pytest

import pattern_lens as pl
from pattern_lens.errors import (
    DiskFullError,
    ExportTooLargeError,
    ForeignFolderError,
    NothingToServeError,
    OutOfRangeError,
    UnknownAddressError,
    UnknownFigureError,
    UnknownPromptError,
)
from pattern_lens.figures import saving
from pattern_lens.server import site
from pattern_lens.server.keys import ids_of, model_id, prompt_key
from pattern_lens.server.pages import Application, inline_hashes
from pattern_lens.store.figures import FigureRecord
from pattern_lens.store.writer import StoreWriter
from tests.server.conftest import (
    HASHES,
    LENGTHS,
    from_page,
    from_site,
    layout,
    score_layout,
    write,
)

UNDER = "api/toy-model"


def export(file: Path, folder: Path, **options) -> Path:
    pl.export_site(file, folder, progress=False, **options)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


# --- a site --------------------------------------------------------------------------------------


def test_a_site_is_the_application_with_answers(rich_file, tmp_path):
    report = pl.export_site(str(rich_file), str(tmp_path / "site"), progress=False)
    there = files_of(tmp_path / "site")
    assert report.n_files == len(there)
    assert report.size_bytes == sum(map(len, there.values()))
    assert report.summary().startswith("6 prompts in ")
    assert {"index.html", "single.html", "static/app.css", "static/js/main.js"} <= set(there)
    assert all(b"modulepreload" in there[name] for name in ("index.html", "single.html"))
    assert json.loads(there["api/index.json"])["live"] is False
    assert not [name for name in there if name.endswith(".part")]
    for name in there:
        assert re.fullmatch(r"[A-Za-z0-9_.~@/-]+", name), name  # safe on every file system
        assert ".." not in name


def test_addresses_of_pages_are_in_the_folder(rich_file, tmp_path):
    folder = export(rich_file, tmp_path / "site")
    page = (folder / "index.html").read_text()
    addresses = re.findall(r'(?:href|src)="(?!data:|#)([^"]+)"', page)
    addresses += json.loads(re.search(r'importmap">(.*?)</script>', page)[1])["imports"].values()
    assert len(addresses) > 10
    for address in addresses:
        assert (folder / address.partition("?")[0]).is_file(), address
    assert "default-src 'self'" in page


def test_a_site_of_chosen_prompts_and_heads(rich_file, tmp_path):
    folder = export(
        rich_file,
        tmp_path / "site",
        prompts=[HASHES[2], HASHES[0]],
        heads="L3, L0H1",
        figures="spec*",
    )
    fetch = from_site(folder)
    (model,) = json.loads(fetch("api/index.json"))["models"]
    assert model["heads"] == ["L0H1", "L3H0", "L3H1", "L3H2", "L3H3"]
    assert model["n_prompts"] == 2
    listed = json.loads(fetch(f"{UNDER}/prompts/0.json"))["prompts"]
    assert [one["hash"] for one in listed] == [HASHES[2], HASHES[0]]
    under = folder / UNDER / "prompt" / HASHES[0]
    names = {p.name for p in (under / "pattern").iterdir()}
    labels = [*model["heads"], "L0Hx", "L3Hx", "LxHx"]
    assert names == {f"{label}.packed.npy" for label in labels}
    assert {p.name for p in (under / "pictures").iterdir()} == {"L0.npy", "L3.npy"}
    assert len(json.loads(fetch(f"{UNDER}/prompt/{HASHES[0]}/similar/L0H1.json"))["similar"]) == 4
    functions = json.loads(fetch(f"{UNDER}/functions.json"))["functions"]
    counts = {one["name"]: (one["n_figures"], one["n_failed"]) for one in functions}
    assert counts == {"raw": (10, 0), "spectra": (4, 0)}  # of 72, and of 10 of which one failed
    (scores,) = json.loads(fetch(f"{UNDER}/scores.json"))["scores"]
    assert scores["n_prompts"] == 2


def test_an_export_goes_on_where_it_stopped(rich_file, tmp_path, monkeypatch):
    written: list[Path] = []

    def full(path: Path, data: bytes) -> None:
        if len(written) == 100:
            raise DiskFullError("no space left")
        written.append(path)
        saving.write_whole(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(site, "write_whole", full)
        with pytest.raises(DiskFullError):
            export(rich_file, tmp_path / "site")
    assert not (tmp_path / "site/api/index.json").exists()  # names nothing that is not there
    report = pl.export_site(rich_file, tmp_path / "site", progress=False)
    assert 0 < report.n_present < len(HASHES)
    assert files_of(tmp_path / "site") == files_of(export(rich_file, tmp_path / "whole"))
    again = pl.export_site(rich_file, tmp_path / "site", progress=False)
    assert again.n_present == len(HASHES)
    assert "6 were there" in again.summary()
    assert pl.export_site(rich_file, tmp_path / "site", progress=False, force=True).n_present == 0


def test_what_changed_is_exported_again(tmp_path):
    path = write(tmp_path / "a.h5", hashes=HASHES[:2], lengths=(5, 3))
    export(path, tmp_path / "site")
    write(path, hashes=[HASHES[0], HASHES[2]], lengths=(5, 4), seed=30)  # the first anew
    report = pl.export_site(path, tmp_path / "site", progress=False)
    assert (report.n_prompts, report.n_present) == (3, 1)
    assert files_of(tmp_path / "site") == files_of(export(path, tmp_path / "whole"))


def test_who_gets_a_site_gets_what_was_chosen(rich_file, tmp_path):
    other = write(tmp_path / "b.h5", name="b", hashes=HASHES[:1], lengths=(5,))
    pl.export_site([rich_file, other], tmp_path / "site", progress=False)
    assert (tmp_path / "site/api/b").is_dir()
    export(rich_file, tmp_path / "site", prompts=HASHES[0])
    assert not (tmp_path / "site/api/b").exists()
    left = {p.name for p in (tmp_path / f"site/{UNDER}/prompt").iterdir()}
    assert left == {HASHES[0], f"{HASHES[0]}.json"}


def test_foreign_folders_are_left_alone(rich_file, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ForeignFolderError, match="no export of a site made; give another folder"):
        export(rich_file, tmp_path)
    assert files_of(tmp_path) == {"mine.txt": b"mine"}
    with pytest.raises(ForeignFolderError, match="it is a file"):
        export(rich_file, tmp_path / "mine.txt")


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"prompts": ["nothing"]}, UnknownPromptError, "no prompt 'nothing'"),
        ({"heads": "L9"}, OutOfRangeError, "'L9' .* is out of range"),
        ({"heads": "L1"}, UnknownAddressError, "no head L1H0 in rich.h5"),
        ({"figures": "nothing*"}, UnknownFigureError, "no figure matches"),
    ],
)
def test_what_is_not_there_cannot_be_exported(rich_file, tmp_path, options, error, match):
    with pytest.raises(error, match=match):
        export(rich_file, tmp_path / "site", **options)
    assert not (tmp_path / "site").exists()
    with pytest.raises(error, match=match):
        pl.export_html(rich_file, tmp_path / "page.html", progress=False, **options)
    assert not (tmp_path / "page.html").exists()
    with pytest.raises(NothingToServeError):
        pl.export_site([], tmp_path / "site")


def test_a_file_without_prompts_or_patterns(tmp_path):
    path = write(tmp_path / "a.h5", hashes=[], lengths=())
    fetch = from_site(export(path, tmp_path / "site"))
    assert json.loads(fetch(f"{UNDER}/prompts/0.json"))["prompts"] == []
    assert pl.export_html(path, tmp_path / "page.html", progress=False).n_prompts == 0


# --- one page ------------------------------------------------------------------------------------


@pytest.fixture
def page(rich_file, tmp_path) -> Path:
    report = pl.export_html(
        rich_file, tmp_path / "page.html", prompts=HASHES[:3], heads="L0H1, L3", progress=False
    )
    assert report.size_bytes == report.path.stat().st_size
    assert report.summary().startswith("3 prompts, 5 heads in ")
    return report.path


def test_a_page_loads_nothing(page):
    text = page.read_text(encoding="utf-8")
    shell = re.sub(r"(?s)<(script|style)\b.*?</\1>|<!--.*?-->", "", text)
    assert not re.search(r'(?:src|href)="(?!data:|#)', shell)
    imports = json.loads(re.search(r'importmap">(.*?)</script>', text)[1])["imports"]
    assert set(imports) == set(Application().modules())
    assert all(url.startswith("data:text/javascript;base64,") for url in imports.values())
    for style in Application().styles():
        assert not re.search(rb"@import|url\((?!data:|\"data:|'data:)", style.data), style.name


def test_a_page_s_policy_allows_its_own_scripts_alone(page):
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)[1]
    policy = policy.replace("&#x27;", "'")
    assert policy.startswith("default-src 'none'; script-src data: 'sha256-")
    assert "unsafe" not in policy
    for one in inline_hashes(text):
        assert f"'{one}'" in policy
    assert text.index("Content-Security-Policy") < text.index("<script")


def test_nothing_of_the_data_is_markup(page):
    text = page.read_text(encoding="utf-8")
    inside = re.search(r'id="pattern-lens-data">(.*?)</script>', text, re.DOTALL)[1]
    assert "<" not in inside
    tokens = json.loads(inside)["answers"][f"{UNDER}/prompt/{HASHES[0]}.json"]["tokens"]
    assert tokens[1] == "<script>alert(1)</script>"
    assert "\u202e" not in re.sub(r"(?s)<script.*?</script>", "", text)


def test_figures_of_a_page_are_as_a_browser_takes_them(page):
    fetch = from_page(page)
    listed = json.loads(fetch(f"{UNDER}/prompt/{HASHES[0]}/figures.json"))["figures"]
    assert {(one["layer"], one["head"]) for one in listed} == {(0, 1), (3, 0), (3, 1), (3, 2)}
    assert fetch(listed[0]["href"]).startswith(b"<svg")


def test_its_size_is_said_before(rich_file, tmp_path):
    said: list[int] = []
    report = pl.export_html(
        rich_file, tmp_path / "page.html", progress=False, when_estimated=said.append
    )
    assert 0.7 < said[0] / report.size_bytes < 1.4


@pytest.mark.parametrize("n_prompts", [3, None])
def test_its_size_is_said_before_where_figures_are_most_of_it(tmp_path, n_prompts):
    hashes = [f"prompt-{i}" for i in range(9)]
    path = write(tmp_path / "a.h5", hashes=hashes, lengths=(60,) * 9, figures=True)
    text = " ".join(f"<text>{i}</text>" for i in range(2000)).encode()
    svgz = gzip.compress(b"<svg xmlns='http://www.w3.org/2000/svg'>" + text + b"</svg>", mtime=0)
    drawn = [FigureRecord(i, 2, head, "big", "svgz", svgz) for i in range(9) for head in (0, 3)]
    with StoreWriter(path, None, [score_layout("entropy")], figures=True) as writer:
        writer.commit_computed(range(9), {}, drawn)
    said: list[int] = []
    report = pl.export_html(
        path,
        tmp_path / "page.html",
        prompts=None if n_prompts is None else hashes[:n_prompts],
        heads="L2H0-1",
        limit_bytes=100_000_000,
        progress=False,
        when_estimated=said.append,
    )
    assert 0.8 < said[0] / report.size_bytes < 1.25


@pytest.mark.parametrize("limit", [100_000, 1_500_000])
def test_what_does_not_fit_is_refused(rich_file, tmp_path, limit):
    (tmp_path / "page.html").write_text("before")
    with pytest.raises(
        ExportTooLargeError, match=r"6 prompts with 12 heads .* choose fewer prompts or fewer heads"
    ):
        pl.export_html(rich_file, tmp_path / "page.html", limit_bytes=limit, progress=False)
    assert (tmp_path / "page.html").read_text() == "before"


def test_the_same_page_again_is_the_same(rich_file, page, tmp_path):
    pl.export_html(
        rich_file, tmp_path / "b.html", prompts=HASHES[:3], heads="L0H1,L3", progress=False
    )
    assert (tmp_path / "b.html").read_bytes() == page.read_bytes()


# --- names ---------------------------------------------------------------------------------------


def test_keys_are_safe_names():
    keys = [prompt_key(one) for one in HASHES]
    assert keys[0] == HASHES[0]
    assert keys[2] == HASHES[2]
    for key in (keys[1], keys[3], keys[4], prompt_key("a" * 81), prompt_key("")):
        assert re.fullmatch(r"~[0-9a-f]{16}", key)
    assert len(set(keys)) == len(LENGTHS)


def test_ids_are_safe_and_different():
    names = [
        ("gpt2", "a"),
        ("GPT2", "b"),
        ("../x", "c"),
        ("", "d"),
        ("con", "e"),
        ("gpt2", "a"),
        ("é" * 300, "f"),
    ]
    ids = ids_of([(name, Path(f"{stem}.h5")) for name, stem in names])
    assert ids[:6] == ["gpt2", "GPT2@b", "-x", "model", "con_", "gpt2@a"]
    assert len({one.lower() for one in ids}) == len(ids)
    assert max(map(len, ids)) < 100
    assert model_id("...") == "model"


def test_layouts_of_two_files_may_differ(tmp_path):
    one = write(tmp_path / "one.h5", name="one", hashes=HASHES[:2], lengths=(5, 2))
    kind = layout("rectangle", layers=(0, 1), n_heads=2)
    two = write(tmp_path / "two.h5", name="two", kind=kind, hashes=HASHES[:1], lengths=(3,))
    pl.export_site((one, two), tmp_path / "site", prompts=[HASHES[1]], progress=False)
    models = json.loads((tmp_path / "site/api/index.json").read_bytes())["models"]
    assert [(model["id"], model["n_prompts"]) for model in models] == [("one", 1), ("two", 0)]
