"""Files of matplotlib figures: names, sizes, and the same text as matplotlib's own."""

import gzip
import io
import threading

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pattern_lens.errors import FigureFunctionError
from pattern_lens.figures import (
    matplotlib_figure_saver,
    matplotlib_multifigure_saver,
    produce,
)
from pattern_lens.figures.pyplot_use import uses_pyplot

MATRIX = np.array([[1.0, 0.0], [0.25, 0.75]], np.float32)


def spectrum(attn_matrix: np.ndarray, ax: plt.Axes) -> None:
    ax.plot(np.linalg.svd(attn_matrix, compute_uv=False), "o-")
    ax.set_yscale("log")
    ax.set_title("spectrum $10^2$")


def test_the_same_svg_as_matplotlib_alone(tmp_path):
    matplotlib_figure_saver(spectrum)(MATRIX, tmp_path)
    figure = Figure(figsize=(10, 10))
    spectrum(MATRIX, figure.subplots())
    figure.tight_layout()
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "pattern_lens"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    assert gzip.decompress((tmp_path / "spectrum.svgz").read_bytes()).decode() == text.getvalue()


def test_the_same_png_as_matplotlib_alone(tmp_path):
    matplotlib_figure_saver(spectrum, fmt="png")(MATRIX, tmp_path)
    figure = Figure(figsize=(10, 10))
    spectrum(MATRIX, figure.subplots())
    figure.tight_layout()
    figure.savefig(tmp_path / "own.png")
    found, own = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("spectrum", "own"))
    assert found.shape == (1000, 1000, 4)
    np.testing.assert_array_equal(found, own)


@pytest.mark.parametrize("fmt", ["png", "svg", "svgz", "pdf", "jpg"])
def test_any_format_of_matplotlib(fmt, tmp_path):
    function = matplotlib_figure_saver(None, fmt=fmt)(spectrum)
    function(MATRIX, tmp_path)
    (made,) = produce(function, MATRIX)
    assert (made.name, made.format) == ("spectrum", fmt)
    assert made.data == (tmp_path / f"spectrum.{fmt}").read_bytes()
    assert function.figure_save_fmt == fmt


def test_an_unknown_format_is_a_failure():
    (made,) = produce(matplotlib_figure_saver(fmt="xyz")(spectrum), MATRIX)
    assert (made.name, made.error) == ("spectrum", "ValueError")
    assert "Format 'xyz' is not supported" in made.message


def test_several_figures(tmp_path):
    @matplotlib_multifigure_saver(["left", "right"], fmt="png")
    def pair(attn_matrix, axes):
        axes["left"].imshow(attn_matrix)
        axes["right"].plot(attn_matrix[1])
        assert axes["left"].figure is not axes["right"].figure

    pair(MATRIX, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pair.left.png", "pair.right.png"]
    assert pair.figure_save_fmt == "png"
    assert not hasattr(pair, "_figure_names")
    assert [p.name for p in produce(pair, MATRIX)] == ["pair.left", "pair.right"]


def test_nothing_is_saved_of_several_if_one_raises(tmp_path):
    @matplotlib_multifigure_saver(["left", "right"])
    def pair(attn_matrix, axes):
        axes["left"].imshow(attn_matrix)
        raise KeyError("right")

    with pytest.raises(KeyError, match="right"):
        pair(MATRIX, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_layout_of_the_users_own_is_kept(tmp_path):
    seen = []

    @matplotlib_figure_saver(fmt="png")
    def mine(attn_matrix, ax):
        ax.figure.set_layout_engine("constrained")
        engine = ax.figure.get_layout_engine()
        ax.figure.set_layout_engine(engine)
        engine.execute, execute = (lambda fig: (seen.append(fig), execute(fig))), engine.execute

    mine(MATRIX, tmp_path)
    assert len(seen) == 1


def titled(attn_matrix, ax):
    ax.imshow(attn_matrix)
    plt.title("drawn by pyplot")


def through_a_helper(attn_matrix, ax):
    titled(attn_matrix, ax)


def imports_it(attn_matrix, ax):
    import matplotlib.pyplot as plt

    plt.sca(ax)


def in_a_loop(attn_matrix, ax):
    return [plt.setp(ax, title=str(i)) for i in range(2)]


def test_what_counts_as_use_of_pyplot():
    assert not uses_pyplot(spectrum)  # names it in an annotation only
    assert all(map(uses_pyplot, [titled, through_a_helper, imports_it, in_a_loop]))
    assert uses_pyplot(matplotlib_figure_saver(titled))
    assert not uses_pyplot(np.linalg.svd)
    assert not uses_pyplot(print)


@pytest.mark.parametrize("function", [titled, through_a_helper])
def test_pyplot_draws_on_the_given_axes(function, tmp_path):
    matplotlib_figure_saver(function, fmt="svg")(MATRIX, tmp_path)
    assert "drawn by pyplot" in (tmp_path / f"{function.__name__}.svg").read_text()


def test_a_figure_that_raised_is_not_left_open(tmp_path):
    def broken(attn_matrix, ax):
        plt.title("x")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        matplotlib_figure_saver(broken)(MATRIX, tmp_path)
    assert not plt.get_fignums()


def test_decorating_wrongly():
    with pytest.raises(FigureFunctionError, match="give the format as fmt='png'"):
        matplotlib_figure_saver("png")
    with pytest.raises(FigureFunctionError, match=r"must be a list of strings, got 'left'"):
        matplotlib_multifigure_saver("left")
    for names, what in (([], "none"), (["a", "a"], "twice"), (["a/b"], "unfit"), ([3], "unfit")):
        with pytest.raises(FigureFunctionError, match=f"at least one; got {what}"):
            matplotlib_multifigure_saver(names)


def files_function(attn_matrix, path):
    _, axes = plt.subplots()
    axes.imshow(attn_matrix)
    axes.set_title(f"{attn_matrix[0, 0]:.3f}")
    plt.savefig(path / "files_function.svg", metadata={"Date": None})


def returned_figure(pattern):
    figure = Figure(figsize=(3, 2))
    figure.subplots().set_title(f"$10^{{{int(pattern[0, 0] * 1000)}}}$")
    return figure


def test_threads_get_what_one_thread_gets():
    functions = [
        matplotlib_figure_saver(spectrum, fmt="svg"),
        matplotlib_figure_saver(titled, fmt="svg"),
        returned_figure,
    ]
    matrices = [np.full((2, 2), 0.1 * i, np.float32) + np.eye(2) * 0.01 for i in range(1, 5)]
    expected = [[produce(f, m)[0].data for f in functions] for m in matrices]
    found: dict[int, list[bytes]] = {}
    titles: dict[int, bytes] = {}
    start = threading.Barrier(len(matrices))

    def work(i: int) -> None:
        start.wait()
        found[i] = [produce(f, matrices[i])[0].data for f in functions]
        titles[i] = produce(files_function, matrices[i])[0].data

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(matrices))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(matrices))] == expected
    for i, matrix in enumerate(matrices):
        assert f"{matrix[0, 0]:.3f}".encode() in titles[i]
    assert mpl.rcParams["svg.hashsalt"] is None


def test_functions_that_write_files_have_pyplot_to_themselves():
    inside, overlaps = [], []
    never = threading.Event()

    def f(attn_matrix, path):
        overlaps.extend(inside)
        inside.append(1)
        never.wait(0.05)  # another thread would come in
        inside.clear()
        (path / "f.txt").write_text("x")

    threads = [threading.Thread(target=produce, args=(f, MATRIX)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not overlaps


def test_renderers_share_their_parser_of_math_text():
    from matplotlib.mathtext import MathTextParser

    function = matplotlib_figure_saver(spectrum)
    produce(function, MATRIX)
    parsed = MathTextParser._parse_cached.cache_info().misses
    produce(function, MATRIX)
    assert MathTextParser._parse_cached.cache_info().misses == parsed
