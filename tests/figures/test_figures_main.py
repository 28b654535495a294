"""Drawing by the names and flags of pattern-lens 0.6."""

import gzip
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import pattern_lens as pl
from pattern_lens.attn_figure_funcs import (
    ATTENTION_MATRIX_FIGURE_FUNCS,
    raw,
    register_attn_figure_func,
    register_attn_figure_multifunc,
)
from pattern_lens.errors import FigureFailedError, MapOptionError, MapWarning, UnknownFigureError
from pattern_lens.figure_util import save_matrix_wrapper
from pattern_lens.figures import (
    HTConfigMock,
    compute_and_save_figures,
    figure_function,
    figures_main,
    process_prompt,
    process_single_head,
    select_attn_figure_funcs,
)
from pattern_lens.figures.__main__ import main
from pattern_lens.load_activations import (
    ActivationsMismatchError,
    ActivationsMissingError,
    load_activations,
)
from pattern_lens.testing import tiny_model_folder, write_random_file

MODEL = "google/tiny"
CONFIG = HTConfigMock(model_name=MODEL, n_layers=2, n_heads=3)
MATRIX = np.array([[1, 0, 0], [0.25, 0.75, 0], [0.5, 0.2, 0.3]], np.float32)

SVD_SPECTRA = """
    from pathlib import Path
    import numpy as np
    import matplotlib.pyplot as plt
    from pattern_lens.figure_util import matplotlib_figure_saver, save_matrix_wrapper
    from pattern_lens.attn_figure_funcs import register_attn_figure_func
    from pattern_lens.figures import figures_main

    @register_attn_figure_func
    @matplotlib_figure_saver(fmt="svgz")
    def svd_spectra(attn_matrix: np.ndarray, ax: plt.Axes) -> None:
        _, s, _ = np.linalg.svd(attn_matrix, full_matrices=False)
        ax.plot(s, "o-")
        ax.set_yscale("log")
        ax.set_xlabel("Singular Value Index")
        ax.set_title("Singular Value Spectrum")

    figures_main(model_name="pythia-14m", save_path=Path("docs/demo/"), n_samples=5, force=False)
"""

NOTEBOOK = """
    from pathlib import Path
    import numpy as np
    import matplotlib.pyplot as plt
    from pattern_lens.figure_util import save_matrix_wrapper
    from pattern_lens.attn_figure_funcs import register_attn_figure_func
    from pattern_lens.activations import activations_main
    from pattern_lens.figures import figures_main

    PATH = Path("demo_data")

    activations_main(model_name={model!r}, save_path=PATH, prompts_path="data/pile_5.jsonl", min_chars=10,
        max_chars=100, n_samples=5, raw_prompts=True, force=True, no_index_html=False)

    @register_attn_figure_func
    def attention_flow(attn_matrix: np.ndarray, path: Path) -> None:
        fig, ax = plt.subplots(figsize=(4, 4))
        for i, row in enumerate(attn_matrix):
            for j, weight in enumerate(row):
                ax.plot([0, 1], [j, i], alpha=float(weight))
        plt.tight_layout()
        fig.savefig(path / "attention_flow.svgz", format="svgz")

    @register_attn_figure_func
    @save_matrix_wrapper(fmt="svgz")
    def gram_matrix(attn_matrix):
        return attn_matrix @ attn_matrix.T

    figures_main(model_name={model!r}, save_path=PATH, n_samples=5, force=True)
"""


@pytest.fixture
def save_path(tmp_path):
    """A data folder with the file of one model: six prompts, two layers, three heads."""
    folder = tmp_path / "attn_data"
    folder.mkdir()
    write_random_file(folder / "google-tiny.h5", names=("pattern",), layers=(0, 1), n_heads=3)
    return folder


@pytest.fixture
def draw(save_path):
    """Call `figures_main` in this process, and open what there is then."""

    def call(**options):
        report = figures_main(MODEL, save_path, **{"parallel": 1, "progress": False} | options)
        return report, pl.open_figures(report.path)

    return call


@pytest.fixture
def gram(registry):
    @register_attn_figure_func
    @save_matrix_wrapper(fmt="png")
    def gram(attn_matrix):
        return attn_matrix @ attn_matrix.T

    return gram


@pytest.fixture
def calls(registry):
    """Matrices that a registered function was given, as text; while there is "fail" among them, it fails."""
    noted = []

    @register_attn_figure_func
    def noting(attn_matrix, path):
        if "fail" in noted:
            raise ArithmeticError("no luck")
        noted.append(str(attn_matrix))
        (path / "noting.txt").write_text(noted[-1])

    return noted


@pytest.fixture
def pair(registry):
    @register_attn_figure_multifunc(["left", "right"])
    def pair(attn_matrix, path):
        for name in ("left", "right"):
            (path / f"pair.{name}.txt").write_text(name)

    return pair


def run(*command, cwd):
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- its scripts and commands --------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["", ", parallel=2"])
def test_the_readme_script(tmp_path, workers):
    path = tmp_path / "docs" / "demo" / "pythia-14m.h5"
    path.parent.mkdir(parents=True)
    write_random_file(path, names=("pattern",), layers=(0, 1), n_heads=2)
    script = textwrap.dedent(SVD_SPECTRA).replace("force=False", f"force=False{workers}")
    (tmp_path / "my_figures.py").write_text(script)
    run("my_figures.py", cwd=tmp_path)
    with pl.open_patterns(path) as patterns, pl.open_figures(path) as figures:
        spectra = figures["svd_spectra"]
        assert spectra.prompts.index.tolist() == list(patterns)[:5]
        assert len(spectra) == 5 * 2 * 2
        assert all(b"<svg" in gzip.decompress(figure.data) for figure in spectra)
        assert [name for name in figures if figures[name].is_stored] == ["svd_spectra"]


def test_the_notebook(tmp_path):
    model = tiny_model_folder(tmp_path / "pythia-14m", n_layers=1)
    (tmp_path / "data").mkdir()
    rows = ({"text": f"the cat {i}", "meta": {"pile_set_name": "CC"}} for i in range(6))
    prompts = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "data" / "pile_5.jsonl").write_text(prompts.replace("cat", "cat sat"))
    script = textwrap.dedent(NOTEBOOK).format(model=str(model))
    (tmp_path / "demo.py").write_text(script)
    run("demo.py", cwd=tmp_path)
    with pl.open_figures(tmp_path / "demo_data" / "pythia-14m.h5") as figures:
        for name in ("attention_flow", "gram_matrix"):
            assert len(figures[name]) == 5 * 4
            assert {one.format for one in figures[name]} == {"svgz"}
            assert b"<svg" in gzip.decompress(next(iter(figures[name])).data)


def test_the_readme_commands(tmp_path, model_folder):
    (tmp_path / "pile.jsonl").write_text(json.dumps({"text": "the cat sat on the mat"}) + "\n")
    where = ("--model", model_folder, "--save-path", "attn_data")
    captured = run(
        "-m",
        "pattern_lens.activations",
        *where,
        "--prompts",
        "pile.jsonl",
        "--min-chars",
        1,
        cwd=tmp_path,
    )
    assert "1 prompt stored in tiny-gpt2.h5" in captured.stdout
    drawn = run("-m", "pattern_lens.figures", *where, cwd=tmp_path)
    assert re.fullmatch(
        r"0 figures stored in tiny-gpt2\.h5 \(.*\)\ndrawn when somebody looks, not stored: raw\n",
        drawn.stdout,
    )
    with pl.open_figures(tmp_path / "attn_data" / "tiny-gpt2.h5") as figures:
        assert next(iter(figures["raw"])).data


# --- the command's flags -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "n_drawn"),
    [
        ([], 0),
        (["-f"], 36),
        (["--force"], 36),
        (["--force", "True"], 36),
        (["--force=1"], 36),
        (["-f", "False"], 0),
        (["--force=False"], 0),
        (["--force", "no"], 0),
    ],
)
def test_force_is_a_flag(save_path, draw, gram, capsys, flag, n_drawn):
    draw()
    assert main(["-m", MODEL, "-s", str(save_path), *flag, "--figure-funcs", "gram"]) == 0
    assert f"{n_drawn} figures stored in google-tiny.h5" in capsys.readouterr().out


def test_force_is_nothing_else(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["-m", MODEL, "--force", "maybe"])
    assert "expected yes or no, or nothing, got 'maybe'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "drawn"),
    [
        ("None", {"gram", "pair.left", "pair.right"}),
        ("gram", {"gram"}),
        ("g*m", {"gram"}),
        (" gram , pair.left,", {"gram", "pair.left"}),
    ],
)
def test_choosing_by_flag(save_path, gram, pair, given, drawn):
    assert main(["-m", MODEL, "-s", str(save_path), "-n", "1", "--figure-funcs", given]) == 0
    with pl.open_figures(save_path / "google-tiny.h5") as figures:
        assert {name for name in figures if figures[name].is_stored} == drawn


def test_one_models_error_does_not_stop_the_next(save_path, gram, capsys):
    assert main(["--model", f"gone,{MODEL}", "--save-path", str(save_path)]) == 1
    out, err = capsys.readouterr()
    assert "36 figures stored in google-tiny.h5" in out
    assert "pattern_lens.figures: error: no activations of 'gone': no file " in err
    assert main(["-m", MODEL, "-s", str(save_path), "--figure-funcs", "nope"]) == 1
    assert "error: no figure function or figure matches 'nope'" in capsys.readouterr().err


def test_failures_are_told_by_the_command(save_path, calls, capsys):
    calls.append("fail")
    assert main(["-m", MODEL, "-s", str(save_path), "-n", "1"]) == 1
    out, err = capsys.readouterr()
    assert "0 figures stored in google-tiny.h5, 6 failed" in out
    assert re.search(r"^pattern_lens\.figures: noting of L0H0 of \S+: ArithmeticError", err, re.M)


def test_interrupting_the_command(save_path, registry, capsys):
    @register_attn_figure_func
    def stopping(attn_matrix, path):
        raise KeyboardInterrupt

    assert main(["-m", MODEL, "-s", str(save_path)]) == 130
    assert capsys.readouterr().err == "pattern_lens.figures: interrupted\n"


# --- figures_main --------------------------------------------------------------------------------


def test_the_first_prompts_in_their_order(draw, save_path, gram):
    with pl.open_patterns(save_path / "google-tiny.h5") as patterns:
        hashes = list(patterns)
    for n_samples, wanted in ((0, []), (2, hashes[:2]), (-1, hashes[:-1]), (None, hashes)):
        report, figures = draw(n_samples=n_samples)
        with figures:
            found = figures["gram"].prompts.index.tolist() if "gram" in figures else []
        assert found == wanted
    assert (report.n_drawn, report.n_present) == (6, 30)


def test_standard_figures_are_drawn_if_asked_for(draw, gram):
    report, figures = draw(n_samples=1)
    with figures:
        assert [name for name in figures if figures[name].is_stored] == ["gram"]
    assert report.not_stored == ("raw",)
    report, figures = draw(n_samples=1, figure_funcs_select=("log_scale",))
    with figures:
        assert [name for name in figures if figures[name].is_stored] == ["gram", "log_scale"]


def test_what_failed_is_tried_again(draw, calls):
    calls.append("fail")
    with pytest.warns(MapWarning, match="6 figures failed, the first is noting of L0H0"):
        draw(n_samples=1)[1].close()
    calls.clear()
    report, figures = draw(n_samples=2)
    assert (report.n_drawn, report.n_failed, report.n_present) == (12, 0, 0)
    with figures:
        assert not any(figure.is_failure for figure in figures["noting"])
    assert draw(n_samples=2)[0].n_present == 12


def test_damaged_prompts_cost_themselves(draw, save_path, gram):
    path = save_path / "google-tiny.h5"
    with h5py.File(path) as file:
        info = file["activations/pattern/data"].id.get_chunk_info(2)  # of the second commit
    with path.open("r+b") as file:
        file.seek(info.byte_offset + info.size // 2)
        file.write(b"?????")
    with pytest.warns(MapWarning, match="12 figures failed"):
        report, figures = draw()
    assert (report.n_drawn, report.n_failed) == (24, 12)
    with pl.open_patterns(path) as patterns, figures:
        damaged = {one.prompt for one in figures["gram"] if one.is_failure}
        assert damaged == set(list(patterns)[2:4])


@pytest.mark.parametrize("parallel", [True, False, 0, 1, 2])
def test_any_number_of_processes(draw, registry, parallel):
    @register_attn_figure_func
    def process(attn_matrix, path):
        (path / "process.txt").write_text(str(os.getpid()))

    report, figures = draw(parallel=parallel)
    assert report.n_drawn == 36
    with figures:
        processes = {int(figure.data) for figure in figures["process"]}
    if parallel is not True:  # as many as pay: on a slow machine that may be more
        assert (processes == {os.getpid()}) == (parallel != 2)


def test_bad_arguments(draw, save_path, gram, tmp_path):
    with pytest.raises(MapOptionError, match="n_workers is -1"):
        draw(parallel=-1)
    with pytest.raises(UnknownFigureError, match="matches 'nope'"):
        draw(figure_funcs_select={"gram", "nope"})
    with pytest.raises(ActivationsMissingError, match=r"capture it first: python -m pattern_lens"):
        figures_main("nope", save_path)
    (tmp_path / "google-gemma").mkdir()
    (tmp_path / "google-gemma" / "model_cfg.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="take the folder over first: pattern-lens import"):
        figures_main("google/gemma", tmp_path)


# --- choosing functions --------------------------------------------------------------------------


def test_all_that_users_registered(gram, pair):
    assert select_attn_figure_funcs() == [raw, gram, pair]


def test_a_raw_of_the_users(registry):
    @register_attn_figure_func
    def raw(attn_matrix, path):
        """Another one."""

    assert select_attn_figure_funcs("raw") == select_attn_figure_funcs() == [raw]


@pytest.mark.parametrize(
    "select", ["gr?m", {"gram"}, ["gram"], ("gram", "g*"), frozenset({"gram"})], ids=repr
)
def test_by_name_and_glob(gram, select):
    assert select_attn_figure_funcs(select) == [gram]


def test_one_figure_of_several(pair, tmp_path):
    (entry,) = select_attn_figure_funcs("pair.right")
    assert entry.function is pair
    (tmp_path / "pair.left.error.txt").write_text("kept")
    assert process_single_head(0, 0, MATRIX, tmp_path, [entry]) == {"pair": True}
    assert names_in(tmp_path) == ["pair.left.error.txt", "pair.right.txt"]


def test_nothing_of_that_name(gram):
    for select in ("nope", {"gram", "nope"}, ["nope*"]):
        with pytest.raises(UnknownFigureError, match="no figure function or figure matches 'nope"):
            select_attn_figure_funcs(select)


# --- one head ------------------------------------------------------------------------------------


def test_one_head_into_a_folder(tmp_path, gram, pair, calls):
    folder = tmp_path / "L0" / "H0"
    done = process_single_head(0, 0, MATRIX, folder, ATTENTION_MATRIX_FIGURE_FUNCS[:1])
    assert done == {"raw": True}
    done = process_single_head(
        0, 0, MATRIX, folder, [gram, pair, *select_attn_figure_funcs("not*")]
    )
    assert done == {"gram": True, "pair": True, "noting": True}
    assert names_in(folder) == [
        "gram.png",
        "noting.txt",
        "pair.left.txt",
        "pair.right.txt",
        "raw.png",
    ]
    image = np.asarray(Image.open(folder / "raw.png").convert("RGB"))
    assert image[0, :2].tolist() == [[8, 48, 107], [247, 251, 255]]  # the ends of "Blues"
    assert calls == [str(MATRIX)]


def test_what_is_there_is_not_drawn_again(tmp_path, calls):
    functions = select_attn_figure_funcs("noting")
    for n_calls, force in ((1, False), (1, False), (2, True)):
        assert process_single_head(0, 0, MATRIX, tmp_path, functions, force) == {"noting": True}
        assert len(calls) == n_calls


def test_a_missing_figure_of_several_is_drawn(tmp_path, pair):
    (tmp_path / "pair.left.txt").write_text("kept")
    (tmp_path / "pair.right.txt.part").write_text("other")
    process_single_head(0, 0, MATRIX, tmp_path, [pair])
    assert (tmp_path / "pair.right.txt").read_text() == "right"


def test_another_format_is_drawn(tmp_path, gram):
    (tmp_path / "gram.svg").write_text("<svg/>")
    process_single_head(0, 0, MATRIX, tmp_path, [gram])
    assert names_in(tmp_path) == ["gram.png", "gram.svg"]


def test_an_error_is_kept_told_and_tried_again(tmp_path, calls, gram):
    functions = select_attn_figure_funcs(["noting", "gram"])
    calls.append("fail")
    with pytest.warns(MapWarning, match="Error in noting for L3H5: ArithmeticError: no luck"):
        done = process_single_head(3, 5, MATRIX, tmp_path, functions)
    assert done["gram"] is True
    assert isinstance(done["noting"], FigureFailedError)
    assert 'raise ArithmeticError("no luck")' in done["noting"].__notes__[0]
    assert names_in(tmp_path) == ["gram.png", "noting.error.txt"]
    kept = (tmp_path / "noting.error.txt").read_text()
    assert kept.startswith("ArithmeticError: no luck\n\nTraceback")
    calls.clear()
    assert process_single_head(3, 5, MATRIX, tmp_path, functions) == {"noting": True, "gram": True}
    assert names_in(tmp_path) == ["gram.png", "noting.txt"]


def test_errors_of_0_6_are_tried_again(tmp_path, pair, gram):
    for name in ("pair.error.txt", "gram.error.txt", "gram.png", "gram2.error.txt"):
        (tmp_path / name).write_text("of 0.6")
    assert process_single_head(0, 0, MATRIX, tmp_path, [pair, gram]) == {"pair": True, "gram": True}
    assert names_in(tmp_path) == [
        "gram.png",
        "gram2.error.txt",
        "pair.left.txt",
        "pair.right.txt",
    ]
    assert (tmp_path / "gram.png").read_bytes().startswith(b"\x89PNG")


def test_functions_that_return_what_they_made(tmp_path):
    def titled(pattern):
        from pattern_lens.figures import Image as Made

        return Made(f"L{pattern['layer']:d}H{pattern['head']:d}".encode(), "txt")

    def most(pattern):
        return float(pattern.max())

    with pytest.warns(MapWarning, match=r"Error in most for L2H1: .*map_figures stores them"):
        done = process_single_head(2, 1, MATRIX, tmp_path, [titled, most])
    assert done["titled"] is True
    assert isinstance(done["most"], FigureFailedError)
    assert (tmp_path / "titled.txt").read_text() == "L2H1"


def test_two_formats_of_one_figure_keep_their_names(tmp_path):
    def both(attn_matrix, path):
        for ending in ("png", "svg"):
            (path / f"both.{ending}").write_text(ending)

    process_single_head(0, 0, MATRIX, tmp_path, [both])
    assert names_in(tmp_path) == ["both.png", "both.svg"]


# --- one prompt ----------------------------------------------------------------------------------


def test_one_prompt_into_the_file(save_path, gram, registry):
    with pl.open_patterns(save_path / "google-tiny.h5") as patterns:
        prompt = {"hash": list(patterns)[3]}
    for n_drawn, force in ((6, False), (0, False), (6, True)):
        report = process_prompt(prompt, CONFIG, save_path, [gram, raw], force)
        assert (report.n_drawn, report.not_stored) == (n_drawn, ("raw",))
    with pl.open_figures(save_path / "google-tiny.h5") as figures:
        assert figures["gram"].prompts.index.tolist() == [prompt["hash"]]
    with pytest.raises(ActivationsMissingError, match="does not hold them"):
        process_prompt({"text": "not there"}, CONFIG, save_path, [gram])
    with pytest.raises(ActivationsMismatchError, match="at key text"):
        process_prompt({"text": "x", **prompt}, CONFIG, save_path, [gram])


@pytest.mark.parametrize("form", ["numpy", "torch", "stacked", "stacked with a batch"])
def test_a_prompts_values_into_folders(tmp_path, save_path, gram, form):
    with pl.open_patterns(save_path / "google-tiny.h5") as patterns:
        prompt = {"hash": next(iter(patterns))}
    fmt = "torch" if form == "torch" else "numpy"
    path, cache = load_activations(MODEL, prompt, save_path, fmt)
    if "stacked" in form:
        cache = np.stack(list(cache.values()), axis=1)
        cache = cache[0] if form == "stacked" else cache
    folder = tmp_path / prompt["hash"]
    done = compute_and_save_figures(
        CONFIG, folder / "activations.npz", cache, [gram], save_path, track_results=True
    )
    heads = [(layer, head) for layer in range(2) for head in range(3)]
    assert done == {key: {"gram": True} for key in heads}
    found = {one.relative_to(folder).as_posix() for one in folder.rglob("*.png")}
    assert found == {f"L{layer}/H{head}/gram.png" for layer, head in heads}
    with pytest.raises(ValueError, match=r"cannot tell of which prompt .* call process_prompt"):
        compute_and_save_figures(CONFIG, path, cache, [gram], save_path)


def test_values_of_another_shape(tmp_path):
    with pytest.raises(TypeError, match=r"cache must be a dict or np\.ndarray, got ndarray of 2"):
        compute_and_save_figures(CONFIG, tmp_path / "x.npz", MATRIX, [raw])


# --- configurations and import paths -------------------------------------------------------------


def test_a_configuration():
    known = {"model_name": "google/gemma 2b", "n_layers": 18, "dtype": "torch.float32"}
    config = HTConfigMock.load(json.loads(json.dumps(known)))
    assert (config.n_layers, config.dtype) == (18, "torch.float32")
    assert config.model_name_sanitized == "google-gemma_2b"
    assert config.serialize() == known
    with pytest.raises(AttributeError, match="has no 'd_mlp', only model_name, n_layers, dtype"):
        _ = config.d_mlp


def test_its_raw_is_not_stored():
    assert not figure_function(raw).is_stored
    assert "raw" not in [f.__name__ for f in ATTENTION_MATRIX_FIGURE_FUNCS if f is raw]


def test_other_names_are_refused():
    import pattern_lens.figures as figures

    with pytest.raises(AttributeError, match=r"'pattern_lens\.figures' has no attribute 'nothing'"):
        _ = figures.nothing
