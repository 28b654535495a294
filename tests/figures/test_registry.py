"""Registering, choosing and describing figure functions."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from pattern_lens.errors import FigureFunctionError, UnknownFigureError
from pattern_lens.figures import (
    figure_function,
    figure_functions,
    figure_records,
    get_all_figure_names,
    matplotlib_figure_saver,
    produce,
    register_attn_figure_func,
    register_attn_figure_multifunc,
    save_matrix_wrapper,
    select_figure_functions,
)
from pattern_lens.figures.signature import kind_of

STANDARD = [
    "raw",
    "mean_over_prompts",
    "log_scale",
    "query_entropy",
    "attention_by_distance",
    "singular_values",
]


def scores(attn_matrix, path):
    """Write scores."""
    (Path(path) / "scores.txt").write_text(str(attn_matrix.sum()))


def half(pattern, factor=0.5):
    return pattern * factor


def test_the_standard_set_is_registered():
    assert list(figure_functions()) == STANDARD
    assert all(entry.is_standard for entry in figure_functions().values())
    assert [entry.name for entry in figure_functions().values() if not entry.is_stored] == ["raw"]


def test_registering_gives_the_function_back(registry):
    assert register_attn_figure_func(scores) is scores
    assert registry[-1] is scores
    assert scores._figure_names == ("scores",)
    entry = figure_functions()["scores"]
    assert (entry.kind, entry.format, entry.is_stored) == ("files", None, True)


def test_registering_with_options():
    @register_attn_figure_func(fmt="png", stored=False)
    def drawn(pattern):
        return pattern

    entry = figure_functions()["drawn"]
    assert (entry.kind, entry.format, entry.is_stored) == ("labelled", "png", False)


def test_registering_again_replaces_in_place(registry):
    def again():
        def cell(pattern):
            return 1

        return register_attn_figure_func(cell)

    again()
    register_attn_figure_func(scores)
    second = again()
    assert [f.__name__ for f in registry] == [*STANDARD, "cell", "scores"]
    assert figure_functions()["cell"].function is second


def test_the_list_is_live(registry):
    registry.append(scores)
    registry.append(scores)
    assert list(figure_functions()) == [*STANDARD, "scores"]
    register_attn_figure_func(scores)
    assert registry.count(scores) == 1
    registry.remove(scores)
    assert list(figure_functions()) == STANDARD


def test_several_figures():
    @register_attn_figure_multifunc(["a", "b.c"])
    def many(attn_matrix, path):
        pass

    entry = figure_functions()["many"]
    assert entry.figure_names == ("many.a", "many.b.c")
    assert get_all_figure_names() == {*STANDARD, "many.a", "many.b.c"}


def test_names_copied_by_wraps_do_not_count():
    register_attn_figure_multifunc(["a"])(scores)

    @functools.wraps(scores)
    def other(attn_matrix, path):
        pass

    other.__name__ = "other"
    assert figure_function(other).figure_names == ("other",)
    del scores._figure_names


def wraps(function):
    @functools.wraps(function)
    def handing_on(*args, **kwargs):
        return function(*args, **kwargs)

    return handing_on


def saver_of_own(function):
    @functools.wraps(function)
    def saving(matrix, out):
        np.savetxt(out / f"{function.__name__}.txt", function(matrix))

    return saving


class Drawer:
    def __call__(self, matrix, path):
        pass

    def draw(self, pattern):
        pass


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda m, p: 0, "files"),
        (lambda m, p, dpi=3: 0, "files"),
        (lambda m, path=None: 0, "files"),
        (lambda m, save_dir=".": 0, "files"),
        (lambda *args: 0, "files"),
        (lambda m, *rest: 0, "files"),
        (lambda m: 0, "labelled"),
        (lambda m, k=3: 0, "labelled"),
        (lambda m=None: 0, "labelled"),
        (lambda m, *, k=3: 0, "labelled"),
        (wraps(half), "labelled"),
        (wraps(scores), "files"),
        (saver_of_own(half), "files"),
        (save_matrix_wrapper(half), "files"),
        (matplotlib_figure_saver(scores), "files"),
        (wraps(save_matrix_wrapper(half)), "files"),
        (Drawer(), "files"),
        (Drawer().draw, "labelled"),
    ],
)
def test_the_kind_of_a_function(function, kind):
    assert kind_of(function) == kind


def annotated(m, where: Path = Path()):
    pass


def test_a_second_argument_annotated_as_a_path():
    assert kind_of(annotated) == "files"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda a, b, c: 0, "'<lambda>': expected .* but it also needs c; give them defaults"),
        (lambda a, *, k: 0, "but it also needs k"),
        (lambda: 0, "takes no argument"),
        (dict, "cannot tell what arguments <class 'dict'> takes"),
    ],
)
def test_functions_of_no_kind(function, message):
    with pytest.raises(FigureFunctionError, match=message):
        kind_of(function)


def test_what_cannot_be_registered():
    with pytest.raises(FigureFunctionError, match="define it with def"):
        register_attn_figure_func(lambda m: 0)
    with pytest.raises(FigureFunctionError, match="expected a function with a name"):
        register_attn_figure_func(functools.partial(half, factor=2))
    with pytest.raises(FigureFunctionError, match="it takes no attributes"):
        register_attn_figure_func(Drawer().draw)
    with pytest.raises(FigureFunctionError, match="names must be a list of strings"):
        register_attn_figure_multifunc("ab")


@pytest.fixture
def fft(registry):
    @register_attn_figure_multifunc(["log", "phase"])
    def fft(pattern):
        return {"log": 1, "phase": 2, "extra": 3}

    return fft


def chosen(select):
    return [(e.name, sorted(e.only) if e.only else None) for e in select_figure_functions(select)]


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (None, [*((name, None) for name in STANDARD), ("fft", None)]),
        ("raw", [("raw", None)]),
        ("*_*", [(n, None) for n in STANDARD if "_" in n]),
        ("fft.log", [("fft", ["fft.log"])]),
        ("fft.*", [("fft", ["fft.log", "fft.phase"])]),
        ("fft*", [("fft", None)]),
        ({"fft", "raw"}, [("raw", None), ("fft", None)]),
        (["fft", "fft.log", "raw"], [("raw", None), ("fft", None)]),
        (("fft.log", "fft.phase"), [("fft", ["fft.log", "fft.phase"])]),
        ([], []),
        (half, [("half", None)]),
        ([scores, "raw"], [("raw", None), ("scores", None)]),
    ],
)
def test_choosing(select, expected, fft):
    assert chosen(select) == expected


def test_a_chosen_figure_is_all_that_is_produced(fft, pattern):
    (entry,) = select_figure_functions("fft.log")
    assert [p.name for p in produce(entry, pattern)] == ["fft.log"]
    assert [p.name for p in produce(fft, pattern)] == ["fft.log", "fft.phase", "fft.extra"]


def test_an_entry_can_be_chosen(fft):
    entries = select_figure_functions("fft.log")
    assert select_figure_functions(entries) == entries


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ("ra", r"matches 'ra'; nearest: 'raw'; registered: raw, mean_over_prompts"),
        (["raw", "single*"], r"matches 'single\*'; nearest: 'singular_values'"),
        ("fft.lg", "nearest: 'fft.log'"),
        ("zzz", "matches 'zzz'; registered: raw, .*; import the module that registers it first"),
    ],
)
def test_a_name_that_matches_nothing(select, message, fft):
    with pytest.raises(UnknownFigureError, match=message):
        select_figure_functions(select)


def test_choosing_by_nonsense():
    with pytest.raises(FigureFunctionError, match="cannot choose figure functions by 3"):
        select_figure_functions(3)


def test_records_of_figures():
    @save_matrix_wrapper(fmt="png", normalize=True)
    def doubled(attn_matrix, factor=2):
        """Twice."""
        return attn_matrix * factor

    register_attn_figure_multifunc(["a", "b"])(doubled)
    records = figure_records(figure_function(doubled))
    assert [r["name"] for r in records] == ["doubled.a", "doubled.b"]
    first = json.loads(json.dumps(records[0]))
    assert first["func_name"] == "doubled"
    assert first["doc"] == "Twice."
    assert first["figure_save_fmt"] == "png"
    assert first["source"] == "tests/figures/test_registry.py"
    assert "return attn_matrix * factor" in first["code"]
    assert first["parameters"] == {
        "factor": 2,
        "normalize": True,
        "cmap": "viridis",
        "diverging_colormap": False,
        "normalize_min": None,
    }


def test_records_name_modules_of_packages_and_no_folders_of_the_machine():
    (record,) = figure_records(figure_functions()["raw"])
    assert record["source"] == "pattern_lens/figures/standard/heat_maps.py"
    assert (record["kind"], record["stored"]) == ("labelled", False)


def test_records_without_code():
    space = {}
    exec("def typed(pattern): pass", space)  # noqa: S102 - as in a terminal
    (record,) = figure_records(figure_function(space["typed"]))
    assert (record["code"], record["doc"]) == (None, None)
