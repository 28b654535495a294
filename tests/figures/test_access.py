"""Figures of a file, chosen and looked at."""

import gzip
import os
import time

import numpy as np
import pytest

import pattern_lens as pl
from pattern_lens.errors import (
    DamagedFileError,
    DimensionError,
    FigureFailedError,
    FigureFormatError,
    FigureKindError,
    HeadSelectionError,
    NotAPatternFileError,
    OutOfRangeError,
    PromptError,
    UnknownFigureError,
    UnknownPromptError,
)
from pattern_lens.figures import register_attn_figure_func
from pattern_lens.figures.figure import StoredFigure
from pattern_lens.figures.show import SHOWN_BYTES
from pattern_lens.store.figures import FigureRecord, withdrawn
from pattern_lens.store.header import Header
from pattern_lens.store.prompt_table import PromptRecord
from pattern_lens.store.writer import StoreWriter
from pattern_lens.testing import write_random_file


@pytest.fixture
def figures(figure_file):
    with pl.open_figures(figure_file) as found:
        yield found


@pytest.fixture
def spectra(figures):
    return figures["spectra"]


@pytest.fixture
def hashes(figure_file):
    with pl.open_patterns(figure_file) as patterns:
        return list(patterns)


def store(path, *records):
    with StoreWriter(path, None, figures=True) as writer:
        writer.commit_computed([], {}, records)


def places(collection):
    return [(one.prompt, one.layer, one.head) for one in collection]


# --- what there is ---------------------------------------------------------------------------------


def test_names_are_those_of_figures(figures):
    assert list(figures) == ["grid", "mean", "multi.first", "raw", "spectra"]
    assert len(figures) == 5
    assert "entropy" not in figures  # a result of which only a failure is here
    assert {name for name, one in figures.items() if not one.is_stored} == {"raw"}


def test_order_is_prompt_layer_head(spectra, hashes):
    expected = [
        (hashes[p], layer, head)
        for p in (1, 4, 6)
        for layer in (0, 2, 3)
        for head in range(4)
        if (p, layer) != (4, 3)
    ]
    assert places(spectra) == expected
    assert len(spectra) == len(expected)


def test_what_a_collection_knows(spectra, hashes):
    assert (spectra.layers, spectra.heads, spectra.formats) == ((0, 2, 3), (0, 1, 2, 3), ("svgz",))
    assert spectra.dims == ("prompt", "layer", "head")
    assert list(spectra.prompts.index) == [hashes[p] for p in (1, 4, 6)]
    assert spectra.prompts.text.iloc[2] == "<script>alert(1)</script>"
    assert (spectra.function, spectra.doc) == ("mine.spectra", "Spectra.")
    assert spectra.code.startswith("def spectra")


def test_failures_are_listed(spectra, hashes, figures):
    table = spectra.failures
    assert table.columns.tolist() == ["prompt", "layer", "head", "error", "message"]
    assert table.iloc[0].tolist() == [hashes[1], 2, 3, "ValueError", "<b>no</b>"]
    assert len(table) == spectra.n_failures == 1
    assert len(figures["raw"].failures) == 0
    assert len(figures["grid"].failures) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("spectre", "nearest: 'spectra'"),
        ("multi", "nearest: 'multi.first'"),
        (
            "query_entropy",
            r"registered and was not drawn: draw it with map_figures\(path, 'query_entropy'",
        ),
        ("zzz", "it has grid, mean, multi.first, raw, spectra; to draw more"),
        ("entropy", "no figure 'entropy'"),
        (3, "no figure 3"),
    ],
)
def test_unknown_names(figures, name, message):
    with pytest.raises(UnknownFigureError, match=message):
        figures[name]
    assert name not in figures


def test_a_file_without_figures(tmp_path):
    path = tmp_path / "none.h5"
    write_random_file(path, names=("z",))
    with pl.open_figures(path) as found:
        assert list(found) == []
        with pytest.raises(UnknownFigureError, match="it has none"):
            found["mine"]
        with pytest.raises(UnknownFigureError, match=r"drawn from patterns .* the file holds none"):
            found["raw"]


def test_a_result_s_failures_are_no_figures_though_its_heads_have_some(figure_file):
    """A function that gives numbers fails at heads; such failures are found under its name."""
    store(
        figure_file,
        FigureRecord(0, 2, 1, "score", "", b'{"error": "E"}', failed=True),
        FigureRecord(0, None, None, "score", "", b'{"error": "E"}', failed=True),
    )
    with pl.open_figures(figure_file) as found:
        assert places(found["score"].sel(layer=2))[0][1:] == (2, 1)
        assert len(found["score"]) == 1


# --- choosing --------------------------------------------------------------------------------------


def test_one_figure(spectra, hashes):
    one = spectra.sel(prompt=hashes[4], layer=2, head=-1)
    assert isinstance(one, StoredFigure)
    assert (one.prompt, one.layer, one.head) == (hashes[4], 2, 3)
    assert one.data.endswith(bytes([4, 2, 3]))
    for other in (
        spectra.sel(prompt=hashes[4], head="L2H3"),
        spectra.sel(prompt=hashes[4], head=(2, 3)),
        spectra.sel(layer=2).sel(head=3).sel(prompt=hashes[4]),
        spectra.sel(layer=2).sel(prompt=hashes[4]).sel(head="L2H3"),
        spectra.isel(prompt=1, layer=1, head=3),
    ):
        assert other.data == one.data


@pytest.mark.parametrize(
    ("indexers", "keep"),
    [
        ({"layer": 3}, lambda p, layer, head: layer == 3),
        ({"layer": slice(0, 2)}, lambda p, layer, head: layer <= 2),
        ({"layer": slice(None, -2)}, lambda p, layer, head: layer <= 2),
        ({"layer": [3, 0], "head": [-1]}, lambda p, layer, head: layer != 2 and head == 3),
        ({"head": "L0-3H2, L3"}, lambda p, layer, head: head == 2 or layer == 3),
        ({"head": "LxH0"}, lambda p, layer, head: head == 0),
        ({"head": ["L3H1", (2, 0)]}, lambda p, layer, head: (layer, head) in {(3, 1), (2, 0)}),
        (
            {"layer": [2], "head": "L2H1, L2H3"},
            lambda p, layer, head: layer == 2 and head in (1, 3),
        ),
        ({"layer": None}, lambda p, layer, head: True),
    ],
)
def test_a_smaller_collection(spectra, hashes, indexers, keep):
    expected = [place for place in places(spectra) if keep(*place)]
    assert places(spectra.sel(**indexers)) == expected
    prompts = [hashes[6], hashes[1]]
    few = spectra.sel(prompt=prompts).sel(**indexers)
    assert places(few) == [place for place in expected if place[0] in prompts]
    assert places(spectra.sel(**indexers, prompt=prompts)) == places(few)


def test_positions(spectra, hashes):
    assert places(spectra.isel(prompt=[2, 0], layer=-1, head=slice(1, 3))) == [
        (hashes[p], 3, head) for p in (1, 6) for head in (1, 2)
    ]
    with pytest.raises(OutOfRangeError, match="no prompt 3 "):
        spectra.isel(prompt=3)


def test_figures_of_all_prompts_and_of_all_heads(figures, hashes):
    mean = figures["mean"]
    assert mean.dims == ("layer", "head")
    one = mean.sel(layer=2, head=1)
    assert one.data == b"\x89PNG mean 1"
    assert (one.prompt, one.text) == (None, None)
    assert repr(one) == "<figure mean L2H1 of all prompts · png · 11 B>"
    assert len(mean.prompts) == 0
    grid = figures["grid"]
    assert grid.dims == ("prompt",)
    assert grid.sel(prompt=hashes[1]).data == b"<p>1</p>"
    assert grid.sel(prompt=hashes[2]).is_failure


@pytest.mark.parametrize(
    ("indexers", "error", "message"),
    [
        ({"layer": 1}, OutOfRangeError, "no layer 1 .*: expected one of 0, 2, 3"),
        ({"head": 4}, OutOfRangeError, "no head 4 .*: expected 0 to 3"),
        ({"head": "L1H2"}, OutOfRangeError, "no figure of 'L1H2': .* layers 0, 2, 3 and heads 0-3"),
        ({"head": "L9H2"}, OutOfRangeError, "the model has layers 0-3"),
        ({"head": "spam"}, HeadSelectionError, "'spam' .* is not a head"),
        ({"head": ""}, HeadSelectionError, "names no head"),
        ({"query": 1}, DimensionError, "no dim 'query': expected one of 'prompt', 'layer', 'head'"),
        ({"prompt": "nope"}, UnknownPromptError, "no prompt 'nope'"),
        ({"prompt": 2}, PromptError, r"\.isel takes positions"),
        ({"layer": 1.5}, TypeError, "cannot choose layer by 1.5"),
    ],
)
def test_what_is_not_there(spectra, indexers, error, message):
    with pytest.raises(error, match=message):
        spectra.sel(**indexers)


def test_what_was_not_drawn(spectra, hashes):
    with pytest.raises(UnknownPromptError, match=r"has the prompt; draw it with map_figures"):
        spectra.sel(prompt=hashes[0])
    with pytest.raises(UnknownPromptError, match="not among the 12 that were chosen"):
        spectra.sel(prompt=[hashes[1]]).sel(prompt=hashes[6])
    with pytest.raises(UnknownFigureError, match=r"of L3H0 of this prompt .* was not drawn"):
        spectra.sel(prompt=hashes[4], layer=3, head=0)
    with pytest.raises(DimensionError, match="no dim 'layer'"):
        spectra.sel(layer=0).sel(layer=0)


def test_many_prompts_at_once(figures, hashes):
    assert len(figures["raw"].sel(prompt=hashes * 10, layer=2)) == 7 * 4


# --- one figure ------------------------------------------------------------------------------------


def test_a_failure_says_so_everywhere(spectra, hashes):
    one = spectra.sel(prompt=hashes[1], layer=2, head=3)
    assert one.is_failure
    assert (one.error, one.message, one.format) == ("ValueError", "<b>no</b>", "")
    assert repr(one) == f"<figure spectra L2H3 of {hashes[1]!r} · failed: ValueError>"
    with pytest.raises(
        FigureFailedError, match="its function raised ValueError: <b>no</b>; mend"
    ) as caught:
        _ = one.data
    assert caught.value.__notes__ == ["Traceback <i>…</i>"]
    shown = one._repr_html_()
    assert "&lt;b&gt;no&lt;/b&gt;" in shown
    assert "Traceback &lt;i&gt;" in shown
    assert one._repr_svg_() is one._repr_png_() is one._repr_jpeg_() is None


def test_hostile_words_are_escaped(figures):
    one = figures["raw"].sel(prompt="../../evil", layer=0, head=0)
    assert one.text == "<script>alert(1)</script>"
    few = figures["spectra"].sel(prompt=["../../evil"])
    assert "<script>" not in few._repr_html_()
    assert "&lt;script&gt;" in few._repr_html_()
    assert one.file_name.startswith("raw.L0H0._.._evil-")


def test_a_figure_shows_itself(figures, hashes):
    svgz = figures["spectra"].sel(prompt=hashes[6], layer=0, head=0)
    assert svgz._repr_svg_() == "<svg>a &lt; b</svg>"
    assert svgz._repr_html_() is svgz._repr_png_() is None
    png = figures["mean"].sel(layer=2, head=0)
    assert png._repr_png_() == png.data
    page = figures["grid"].sel(prompt=hashes[0])
    assert 'sandbox="allow-scripts"' in page._repr_html_()
    assert "&lt;p&gt;0&lt;/p&gt;" in page._repr_html_()


@pytest.mark.parametrize(
    ("fmt", "data", "shown"),
    [
        ("gif", b"GIF89a", '<img alt="odd L0H0'),
        ("txt", b"a < b", "a &lt; b</pre>"),
        ("pdf", b"%PDF", r"pdf, 4 bytes; .save(path)"),
        ("svgz", gzip.compress(b" " * (SHOWN_BYTES + 1)), "is not shown: it unpacks to more than"),
        (
            "svgz",
            gzip.compress(b"<svg/>", mtime=0)[:-4],
            "is not shown: its packed text ends too early",
        ),
        ("svg", b"<svg" + b" " * SHOWN_BYTES, "is not shown: it has more than"),
    ],
)
def test_other_kinds(figure_file, hashes, fmt, data, shown):
    store(figure_file, FigureRecord(0, 0, 0, "odd", fmt, data))
    with pl.open_figures(figure_file) as found:
        one = found["odd"].sel(prompt=hashes[0], layer=0, head=0)
        assert shown in one._repr_html_()
        assert one._repr_svg_() is None
        assert found["odd"]._repr_html_()


def test_collections_show_themselves(figures):
    assert repr(figures["spectra"]) == (
        "<FigureCollection spectra · 32 figures of 3 prompts · svgz · 1 failed · figures.h5>"
    )
    assert figures["spectra"]._repr_html_().count("<img") == 11
    assert "failed: ValueError" in figures["spectra"]._repr_html_()
    assert "… 20 more" in figures["spectra"]._repr_html_()
    assert "raw · 84 figures of 7 prompts · svgz · drawn when looked at" in repr(figures)
    assert "mean · 4 figures of all prompts · png" in repr(figures)
    assert "<td style='text-align:left'>multi.first</td>" in figures._repr_html_()


# --- saving ----------------------------------------------------------------------------------------


def test_save(figures, hashes, tmp_path):
    one = figures["spectra"].sel(prompt=hashes[4], layer=2, head=1)
    assert one.save(tmp_path / "a") == tmp_path / "a.svgz"
    assert one.save(os.fspath(tmp_path / "b.SVGZ")).read_bytes() == one.data
    assert one.save(tmp_path / "c.svg").read_bytes() == b"<svg>a &lt; b</svg>"
    in_folder = one.save(tmp_path)
    assert in_folder.name == f"spectra.L2H1.{hashes[4]}.svgz"
    assert one.save(tmp_path) == in_folder  # written over
    assert not list(tmp_path.glob(".*.part"))


def test_save_refuses(figures, hashes, tmp_path):
    one = figures["mean"].sel(layer=2, head=1)
    with pytest.raises(
        FigureFormatError, match=r"format 'png' as 'x.jpg': expected the ending .png"
    ):
        one.save(tmp_path / "x.jpg")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        one.save(tmp_path / "none" / "x.png")
    with pytest.raises(FigureFailedError):
        figures["grid"].sel(prompt=hashes[2]).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if "figures.h5" not in path.name] == []


def test_nothing_is_half_saved(figures, tmp_path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="File name too long"):
        figures["mean"].sel(layer=2, head=1).save(tmp_path / f"{'x' * 300}.png")
    assert sorted(tmp_path.iterdir()) == before


# --- drawn when looked at --------------------------------------------------------------------------


def test_raw_is_drawn_from_the_data(figures, hashes):
    raw = figures["raw"]
    assert (len(raw), raw.dims) == (84, ("prompt", "layer", "head"))
    one = raw.sel(prompt=hashes[2], head="L3H1")
    assert repr(one) == f"<figure raw L3H1 of {hashes[2]!r} · drawn when looked at>"
    assert one._repr_svg_().startswith("<?xml")
    assert "L3H1" in one._repr_svg_()
    assert " · svgz · " in repr(one)
    assert raw.function == "raw"
    assert "def raw" in raw.code


def test_what_is_drawn_gets_the_right_head(figure_file, hashes):
    seen = []

    @register_attn_figure_func(stored=False)
    def look(pattern):
        seen.append(pattern)
        return np.full((2, 2), pattern.layer.item() / 4)

    with pl.open_figures(figure_file) as found, pl.open_patterns(figure_file) as patterns:
        assert found["look"].sel(prompt=hashes[2], layer=3, head=-1).data.startswith(b"\x89PNG")
        np.testing.assert_array_equal(seen[0], patterns[hashes[2]].sel(layer=3, head=3))
        assert seen[0].attrs["hash"] == hashes[2]
        assert len(seen) == 1


def test_what_is_drawn_may_fail(figure_file, hashes):
    @register_attn_figure_func(stored=False)
    def bad(pattern):
        raise ZeroDivisionError("<x>")

    @register_attn_figure_func(stored=False)
    def number(pattern):
        return 1.0

    @register_attn_figure_func(stored=False)
    def several(pattern):
        return {"a": np.zeros((2, 2)), "b": np.zeros((2, 2))}

    with pl.open_figures(figure_file) as found:
        one = found["bad"].isel(prompt=0, layer=0, head=0)
        assert "ZeroDivisionError: &lt;x&gt;" in one._repr_html_()
        assert (one.error, one.message) == ("ZeroDivisionError", "<x>")
        with pytest.raises(FigureKindError, match="returned numbers for 'number', not a picture"):
            _ = found["number"].isel(prompt=0, layer=0, head=0).data
        assert (
            "only 'several.a', 'several.b'"
            in found["several"].isel(prompt=0, layer=0, head=0).message
        )


def test_what_is_stored_is_not_drawn(figure_file, hashes):
    store(figure_file, FigureRecord(0, 0, 0, "raw", "png", b"\x89PNG"))
    with pl.open_figures(figure_file) as found:
        assert found["raw"].is_stored
        assert found["raw"].sel(prompt=hashes[0], layer=0, head=0).data == b"\x89PNG"


# --- the file --------------------------------------------------------------------------------------


def test_refresh_sees_what_was_stored_since(figures, figure_file, hashes):
    layer = figures["spectra"].sel(layer=3)
    mean = figures["mean"]
    store(
        figure_file,
        FigureRecord(0, 3, 2, "spectra", "png", b"new"),
        FigureRecord(0, 1, 2, "spectra", "png", b"one"),
        FigureRecord(2, 0, 0, "fresh", "png", b"fresh"),
        withdrawn("mean", (None, 2, 0)),
    )
    assert len(layer) == 8
    assert "fresh" not in figures
    few = figures["spectra"].sel(head=2)
    assert layer.refresh() is layer
    assert places(layer)[0] == (hashes[0], 3, 2)
    assert len(layer) == 9
    assert few.layers == (0, 2, 3)
    assert few.refresh().layers == (0, 1, 2, 3)
    assert few.sel(layer=1).sel(prompt=hashes[0]).data == b"one"
    assert len(mean) == 4
    assert len(mean.refresh()) == 3
    assert "fresh" in figures.refresh()
    assert len(figures["spectra"]) == 34


def test_prompts_that_were_deleted_are_gone(figure_file, hashes):
    with StoreWriter(figure_file, None, figures=True) as writer:
        writer.delete([4])
    with pl.open_figures(figure_file) as found:
        assert list(found["spectra"].prompts.index) == [hashes[1], hashes[6]]


def test_closed(figures):
    one = figures["spectra"].isel(prompt=0, layer=0, head=0)
    few = figures["spectra"].sel(layer=0)
    few.close()
    with pytest.raises(ValueError, match="it was closed; open it again"):
        _ = one.data
    for shown in (figures, few, one):
        assert "closed" in repr(shown)
        assert "closed" in shown._repr_html_()


def test_damage_is_told(figures, figure_file, hashes):
    one = figures["mean"].sel(layer=2, head=1)
    at = figure_file.read_bytes().index(one.data)
    figures.close()
    with figure_file.open("r+b") as file:
        file.seek(at + 6)
        file.write(b"!")
    with pl.open_figures(figure_file) as found:
        one = found["mean"].sel(layer=2, head=1)
        with pytest.raises(DamagedFileError, match="do not have their checksum; draw it again"):
            _ = one.data
        assert "checksum" in one._repr_html_()
        assert one._repr_png_() is None
        assert "checksum" in found["mean"]._repr_html_()
        assert found["mean"].sel(layer=2, head=2).data == b"\x89PNG mean 2"


def test_a_failure_that_is_no_json(figure_file):
    store(figure_file, FigureRecord(0, 0, 0, "odd", "", b"[1]", failed=True))
    with pl.open_figures(figure_file) as found:
        with pytest.raises(DamagedFileError, match="expected an object, got list"):
            _ = found["odd"].failures
        assert "expected an object" in found["odd"].isel(prompt=0, layer=0, head=0)._repr_html_()


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        pl.open_figures(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(NotAPatternFileError):
        pl.open_figures(tmp_path / "text.h5")


def test_finding_one_of_many_is_fast(tmp_path):
    path, n, cells = (
        tmp_path / "many.h5",
        500,
        [(layer, head) for layer in range(8) for head in range(8)],
    )
    ids = np.zeros(1, np.int32)
    records = [PromptRecord(f"h{i}", f"t{i}", ids) for i in range(n)]
    header = Header({"name": "m", "n_layers": 8, "n_heads": 8}, {"token": ["a"], "text": ["a"]})
    with StoreWriter(path, header, figures=True) as writer:
        writer.commit(records, {})
        many = [FigureRecord(i, *cell, "f", "png", b"%d" % i) for i in range(n) for cell in cells]
        writer.commit_computed([], {}, many)
    with pl.open_figures(path) as found:
        collection = found["f"]
        assert len(collection) == 32_000
        collection.sel(prompt="h1", layer=0, head=0)
        started = time.perf_counter()
        for i in range(0, n, 5):
            assert collection.sel(prompt=f"h{i}", layer=3, head=-1).data == b"%d" % i
        assert time.perf_counter() - started < 2
