"""What a function makes of one head, and every way in which it may not."""

import stat
import sys
import tempfile
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from PIL import Image as Pillow

from pattern_lens.errors import DimensionError, FigureFormatError, FigureKindError
from pattern_lens.figures import (
    Failure,
    Image,
    Picture,
    Values,
    matplotlib_figure_saver,
    produce,
    register_attn_figure_multifunc,
    save_matrix_wrapper,
)
from pattern_lens.figures.folder import private_folder


def only(function, pattern, **options):
    (made,) = produce(function, pattern, **options)
    return made


# --- functions that write files ----------------------------------------------------------------


def test_one_file(pattern):
    def attention_flow(attn_matrix, path):
        assert type(attn_matrix) is np.ndarray
        (path / "attention_flow.svgz").write_bytes(attn_matrix.tobytes())

    expected = Picture("attention_flow", "svgz", pattern.values.tobytes())
    assert only(attention_flow, pattern) == expected


def test_any_files(pattern):
    def f(attn_matrix, path):
        for name in ("f.png", "f.left.svg", "other.PDF", "plain", "f.b.c.json"):
            (path / name).write_text(name)
        (path / "sub").mkdir()
        (path / "sub" / "x.gif").write_text("sub/x.gif")
        (path / "empty").mkdir()

    assert {(p.name, p.format): p.data.decode() for p in produce(f, pattern)} == {
        ("f", "png"): "f.png",
        ("f.left", "svg"): "f.left.svg",
        ("f.other", "pdf"): "other.PDF",
        ("f.plain", "bin"): "plain",
        ("f.b.c", "json"): "f.b.c.json",
        ("f.sub.x", "gif"): "sub/x.gif",
    }


def test_one_figure_in_several_formats(pattern):
    def f(attn_matrix, path):
        (path / "f.svg").write_text("svg")
        (path / "f.png").write_text("png")

    assert {p.name: p.format for p in produce(f, pattern)} == {"f": "png", "f.svg": "svg"}


def test_the_folder_is_private_and_gone_afterwards(pattern):
    seen = []

    def f(attn_matrix, path):
        seen.append((path, stat.S_IMODE(path.stat().st_mode)))
        (path / "f.png").write_text("x")
        if len(seen) == 2:
            raise ValueError

    produce(f, pattern)
    produce(f, pattern)
    assert [mode for _, mode in seen] == [0o700, 0o700]
    assert seen[0][0] != seen[1][0]
    assert not any(path.exists() for path, _ in seen)


def test_a_folder_on_disk_where_there_is_no_shared_memory(monkeypatch, tmp_path):
    from pattern_lens.figures import folder

    folder._parent.cache_clear()
    monkeypatch.setattr(folder, "_SHARED_MEMORY", tmp_path / "nowhere")
    try:
        with private_folder() as path:
            assert path.parent == Path(tempfile.gettempdir())
    finally:
        folder._parent.cache_clear()


def test_float16_becomes_what_linear_algebra_takes(pattern):
    @save_matrix_wrapper
    def same(attn_matrix):
        assert attn_matrix.dtype == np.float32
        return attn_matrix

    assert isinstance(only(same, pattern.astype(np.float16)), Picture)


def test_figures_left_open_are_closed_and_others_are_not(pattern):
    mine = plt.figure()

    def f(attn_matrix, path):
        plt.figure()
        plt.savefig(path / "f.png")

    assert isinstance(only(f, pattern), Picture)
    assert plt.get_fignums() == [mine.number]
    plt.close(mine)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_function_cannot_change_what_the_next_one_gets(pattern, wrapped):
    before = pattern.values.copy()

    def f(attn_matrix, path=None):
        attn_matrix[:] = 0
        if path:
            (path / "f.txt").write_text("x")
        return attn_matrix

    assert isinstance(only(save_matrix_wrapper(f) if wrapped else f, pattern), Picture)
    np.testing.assert_array_equal(pattern.values, before)


def test_a_function_that_writes_nothing(pattern):
    def silent(attn_matrix, path):
        return 3

    made = only(silent, pattern)
    assert (made.name, made.error) == ("silent", "pattern_lens.errors.NoFigureError")
    assert made.message == "figure function 'silent' wrote nothing, not figure 'silent'"


def test_a_figure_that_is_missing_costs_that_figure(pattern):
    @register_attn_figure_multifunc(["a", "b"])
    def pair(attn_matrix, path):
        (path / "pair.a.png").write_text("x")

    first, second = produce(pair, pattern)
    assert first == Picture("pair.a", "png", b"x")
    assert (second.name, second.error) == ("pair.b", "pattern_lens.errors.NoFigureError")
    assert second.message == "figure function 'pair' wrote only 'pair.a', not figure 'pair.b'"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("(path / 'f.png').touch()", "wrote 'f.png' without anything in it"),
        ("(path / 'f.png').symlink_to('/etc/hosts')", "wrote 'f.png', which is a link"),
        ("import os; os.mkfifo(path / 'f.png')", "wrote 'f.png', which is a pipe or device"),
        (
            "[(path / n).write_text(n) for n in ('f.a.png', 'a.png')]",
            "wrote two files for figure 'f.a' in format 'png'",
        ),
        (
            "(path / b'\\xff.png'.decode('utf-8', 'surrogateescape')).write_text('x')",
            "wrote '.*png', a name that is no text",
        ),
    ],
)
def test_files_that_cannot_be_kept(code, message, pattern):
    space = {}
    exec(f"def f(attn_matrix, path):\n    {code}", space)  # noqa: S102
    made = only(space["f"], pattern)
    assert (made.name, made.error) == ("f", "pattern_lens.errors.FigureKindError")
    with pytest.raises(FigureKindError, match=message):
        raise FigureKindError(made.message)


# --- functions that return something -----------------------------------------------------------


def test_the_labelled_array_is_handed_over(pattern):
    def f(pattern):
        assert pattern.dims == ("query", "key")
        assert (int(pattern["layer"]), int(pattern["head"])) == (3, 5)
        assert pattern.attrs["hash"] == "C7p4x9-iwFxWSKCb8kbLfQ"
        assert pattern.query_token.values.tolist()[1] == "The"
        return 1

    assert only(f, pattern).values.item() == 1


@pytest.mark.parametrize("value", [3, 2.5, True, np.float32(0.5), np.array(4), np.bool_(0)])
def test_a_number(value, pattern):
    def f(pattern):
        return value

    made = only(f, pattern)
    assert isinstance(made, Values)
    assert made.values.dims == ()
    assert made.values.item() == value
    assert made.size_bytes == np.asarray(value).nbytes


def test_a_labelled_array(pattern):
    def most(pattern):
        return pattern.max("key")

    made = only(most, pattern).values
    assert made.dims == ("query",)
    assert set(made.coords) == {"query", "query_token"}
    np.testing.assert_array_equal(made, pattern.values.max(1))


def test_a_lazy_array(pattern):
    def f(pattern):
        return pattern.chunk(2).sum("query")

    made = only(f, pattern.chunk(3)).values
    assert isinstance(made.data, np.ndarray)
    np.testing.assert_allclose(made, pattern.values.sum(0))


RNG = np.random.default_rng(2)
IMAGES = {
    "grey": RNG.integers(0, 256, (3, 5), np.uint8),
    "rgb": RNG.integers(0, 256, (3, 5, 3), np.uint8),
    "rgba": RNG.integers(0, 256, (3, 5, 4), np.uint8),
    "float": RNG.random((3, 5, 3), np.float32),
    "float16": RNG.random((3, 5)).astype(np.float16),
    "bool": RNG.random((3, 5)) > 0.5,
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_array(name, pattern, tmp_path):
    image = IMAGES[name]

    def f(pattern):
        return image

    made = only(f, pattern)
    assert (made.name, made.format) == ("f", "png")
    (tmp_path / "f.png").write_bytes(made.data)
    expected = image if image.dtype == np.uint8 else np.round(image * 255.0).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "f.png")), expected)


@pytest.mark.parametrize("what", ["figure", "axes", "of pyplot"])
def test_a_matplotlib_figure(what, pattern):
    from matplotlib.figure import Figure

    def f(pattern):
        figure = plt.figure() if what == "of pyplot" else Figure()
        axes = figure.subplots()
        return axes if what == "axes" else figure

    made = only(f, pattern)
    assert (made.name, made.format) == ("f", "svgz")
    assert only(f, pattern) == made  # nothing in it depends on time or chance


def test_a_figure_of_pyplot_from_another_module(pattern):
    def make():
        return plt.figure()

    make.__module__ = "elsewhere"

    def f(pattern):
        return make()

    assert isinstance(only(f, pattern), Picture)
    assert not plt.get_fignums()


def test_a_finished_image(pattern):
    def f(pattern):
        return Image(b"GIF89a", "gif")

    assert only(f, pattern) == Picture("f", "gif", b"GIF89a")


def test_a_dict_of_several(pattern):
    def f(pattern):
        return {"a": 3, "b": Image(b"x", "png"), "c": pattern.mean("query")}

    made = produce(f, pattern)
    assert [(type(p), p.name) for p in made] == [
        (Values, "f.a"),
        (Picture, "f.b"),
        (Values, "f.c"),
    ]


def test_a_dataset_is_a_dict(pattern):
    def f(pattern):
        return xr.Dataset({"low": pattern.min(), "high": pattern.max("key")})

    assert [p.name for p in produce(f, pattern)] == ["f.low", "f.high"]


def test_an_array_without_labels(pattern):
    def f(pattern):
        return pattern.dims == ("query", "key")

    assert only(f, pattern.values).values.item() is True


def test_a_labelled_array_cannot_be_written_to(pattern):
    def f(pattern):
        pattern.values[0, 0] = 7
        return 1

    before = pattern.values.copy()
    assert "read-only" in only(f, pattern).message
    np.testing.assert_array_equal(pattern.values, before)
    pattern.values[0, 0] = 1  # the caller still may


def nested(pattern):
    return {"a": {"b": 1}}


CASES = [
    (lambda p: None, "FigureKindError", "returned NoneType for figure 'f': expected a number"),
    (lambda p: b"x", "FigureKindError", r"returned bytes .*say their format: return Image"),
    (lambda p: "<svg/>", "FigureKindError", r"returned str .*return Image\(text.encode"),
    (lambda p: [1, 2], "FigureKindError", r"returned list .*return an xarray.DataArray"),
    (lambda p: (1, 2), "FigureKindError", "returned tuple .*return a dict"),
    (lambda p: 1j, "FigureKindError", "returned complex"),
    (lambda p: np.complex64(1), "FigureKindError", "dtype complex64 for 'f': expected real"),
    (lambda p: 10**30, "FigureKindError", "dtype object for 'f': expected real numbers"),
    (lambda p: p.astype(str), "FigureKindError", "dtype <U.* for 'f': expected real numbers"),
    (lambda p: {}, "FigureKindError", "returned an empty dict: expected"),
    (lambda p: {3: 1}, "FigureFunctionError", r"distinct strings .* got unfit \[3\]"),
    (lambda p: {"a/b": 1}, "FigureFunctionError", r"got unfit \['a/b'\]"),
    (nested, "FigureKindError", "returned dict for figure 'f.a': expected"),
    (lambda p: Image(b"", "png"), "FigureKindError", "image for 'f' without anything in it"),
    (lambda p: np.zeros(3), "FigureShapeError", r"shape \(3,\) for 'f': an image has shape"),
    (lambda p: np.zeros((2, 2, 5)), "FigureShapeError", r"\(2, 2, 5\) .*xarray.DataArray\(values"),
    (lambda p: np.zeros((0, 3)), "FigureShapeError", r"shape \(0, 3\)"),
    (lambda p: np.eye(3, dtype=int), "FigureKindError", "dtype int64 for 'f': an image is uint8"),
    (lambda p: np.eye(3) * 2, "MatrixError", r"values in \[0, 2\], expected \[0, 1\]"),
    (lambda p: np.full((2, 2), np.nan), "MatrixError", r"values in \[nan, nan\]"),
    (lambda p: p.expand_dims("layer"), "FigureShapeError", "'layer' cannot be a dim"),
    (lambda p: p.rename(query="head"), "FigureShapeError", "'head' cannot be a dim"),
]


@pytest.mark.parametrize(("function", "error", "message"), CASES)
def test_what_cannot_be_kept(function, error, message, pattern):
    if "layer" in message or "head" in message:
        pattern = pattern.drop_vars(["layer", "head"])
    function.__name__ = "f"
    made = only(function, pattern)
    assert (made.name, made.error) == ("f", f"pattern_lens.errors.{error}")
    assert made.traceback.startswith(f"pattern_lens.errors.{error}: ")
    with pytest.raises(FigureKindError, match=message):
        raise FigureKindError(made.message)


def test_images_check_themselves():
    with pytest.raises(FigureKindError, match="cannot make an image of str: expected bytes"):
        Image("<svg/>", "svg")
    for fmt in ("", ".png", "PNG", "a/b"):
        with pytest.raises(FigureFormatError, match="invalid format"):
            Image(b"x", fmt)


# --- functions that fail -----------------------------------------------------------------------


def write_much(attn_matrix, path):
    for name in ("a.bin", "b.bin"):
        (path / name).write_bytes(bytes(600))


def return_much(pattern):
    return xr.DataArray(np.zeros(200), dims="x")


def draw_much(attn_matrix):
    return np.random.default_rng(1).random((60, 60))


@pytest.mark.parametrize("function", [write_much, return_much, save_matrix_wrapper(draw_much)])
def test_too_many_bytes(function, pattern):
    made = only(function, pattern, size_limit_bytes=1000)
    assert made.error == "pattern_lens.errors.FigureTooLargeError"
    assert f"{function.__name__!r} made 1," in made.message or "of one head" in made.message
    assert "more than the limit of 1,000; draw less, or raise size_limit_bytes" in made.message
    assert not isinstance(produce(function, pattern)[0], Failure)


def helper():
    return 1 / 0


def raising(attn_matrix, path):
    return helper()


def raising_too(pattern):
    return helper()


@save_matrix_wrapper
def raising_decorated(attn_matrix):
    return helper()


@matplotlib_figure_saver
def raising_on_axes(attn_matrix, ax):
    plt.title("x")
    return helper()


RAISING = [raising, raising_too, raising_decorated, raising_on_axes]


@pytest.mark.parametrize("function", RAISING)
def test_the_traceback_begins_at_the_users_function(function, pattern):
    made = only(function, pattern)
    assert (made.name, made.error) == (function.__name__, "ZeroDivisionError")
    assert made.message == "division by zero"
    lines = made.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert __file__ in lines[1]
    frames = [line.rsplit(" ", 1)[1] for line in lines if line.startswith("  File")]
    assert frames == [function.__name__, "helper"]
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_causes_are_kept(pattern):
    def f(pattern):
        try:
            helper()
        except ZeroDivisionError as error:
            raise np.linalg.LinAlgError("no inverse") from error

    made = only(f, pattern)
    assert made.error == "numpy.linalg.LinAlgError"
    assert "ZeroDivisionError" in made.traceback
    assert "no inverse" in made.traceback


def test_each_declared_figure_fails(pattern):
    @register_attn_figure_multifunc(["a", "b"])
    def pair(pattern):
        raise ValueError("both")

    assert [(p.name, p.message) for p in produce(pair, pattern)] == [
        ("pair.a", "both"),
        ("pair.b", "both"),
    ]


class Odd(BaseException):
    def __str__(self):
        raise RuntimeError("not even this")


@pytest.mark.parametrize("error", [Odd(), GeneratorExit(), RecursionError("deep"), MemoryError()])
def test_whatever_is_raised(error, pattern):
    def f(pattern):
        raise error

    made = only(f, pattern)
    assert made.error.endswith(type(error).__name__)
    if isinstance(error, Odd):
        assert made.message == "<no message: its str() raised RuntimeError>"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_passes(error, pattern):
    seen = []

    def f(attn_matrix, path):
        seen.append(path)
        raise error

    with pytest.raises(error):
        produce(f, pattern)
    assert not seen[0].exists()


def test_very_long_messages_are_cut(pattern):
    def f(pattern):
        raise ValueError("a" * 1_000_000 + "\udcff end")

    made = only(f, pattern)
    assert len(made.message) < 51_000
    assert made.message.endswith("? end")
    assert "characters left out" in made.message
    made.traceback.encode()


def test_a_lock_is_given_back_by_what_fails(pattern):
    for _ in range(3):
        assert only(raising, pattern).error == "ZeroDivisionError"


@pytest.mark.parametrize("shape", [(5,), (2, 5, 5)])
def test_patterns_of_other_dims(shape):
    with pytest.raises(DimensionError, match="choose one layer and head"):
        produce(raising, np.zeros(shape))
    dims = ("head", "query", "key")[-len(shape) :]
    with pytest.raises(DimensionError, match=r"expected \('query', 'key'\)"):
        produce(raising, xr.DataArray(np.zeros(shape), dims=dims))


def test_transposed_patterns(pattern):
    with pytest.raises(DimensionError, match=r"with dims \('key', 'query'\)"):
        produce(raising, pattern.T)


# --- functions of scripts and notebooks --------------------------------------------------------


SCRIPT = """
    import numpy as np
    from pattern_lens.figures import *

    factor = 3

    @register_attn_figure_func
    @save_matrix_wrapper(fmt="png", normalize=True)
    def scaled(attn_matrix):
        return attn_matrix * factor

    @register_attn_figure_func
    def most(pattern):
        return pattern.max() * factor
"""


def test_entries_of_a_notebook_travel(pattern):
    import cloudpickle

    space = {"__name__": "__main__"}
    exec(textwrap.dedent(SCRIPT), space)  # noqa: S102
    from pattern_lens.figures import select_figure_functions

    for name in ("scaled", "most"):
        (entry,) = select_figure_functions(name)
        (there,) = produce(cloudpickle.loads(cloudpickle.dumps(entry)), pattern)
        (here,) = produce(entry, pattern)
        assert type(there) is type(here)
        assert there.size_bytes == here.size_bytes
    assert sys.modules["__main__"].__dict__.get("scaled") is None


def test_a_saver_that_travelled_still_needs_no_disk(pattern):
    import cloudpickle

    from pattern_lens.figures.saver import saver_of

    @save_matrix_wrapper
    def same(attn_matrix):
        return attn_matrix

    assert saver_of(cloudpickle.loads(cloudpickle.dumps(same))) is not None
    assert saver_of(same) is not None


def test_a_decorator_around_a_saver_is_not_passed_by(pattern):
    import functools

    @save_matrix_wrapper
    def same(attn_matrix):
        return attn_matrix

    @functools.wraps(same)
    def also(attn_matrix, path):
        same(attn_matrix, path)
        (path / "same.note.txt").write_text("seen")

    assert [p.name for p in produce(also, pattern)] == ["same.note", "same"]
