"""Functions that draw on matplotlib axes, with the names and signatures of pattern-lens 0.6.

The axes are those of a figure of its own, which pyplot does not know, so functions may run in several
threads. A function whose code names pyplot (``plt.title(...)``) gets a figure that is pyplot's current one
instead, and runs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, overload

from pattern_lens.errors import FigureFunctionError
from pattern_lens.figures.matrix_savers import AttentionMatrix
from pattern_lens.figures.pyplot_use import alone_with_pyplot, uses_pyplot
from pattern_lens.figures.saver import as_saver
from pattern_lens.figures.signature import check_figure_names, name_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pattern_lens.figures.saver import FilesFunction

AttentionMatrixFigureFunc: TypeAlias = Callable[[AttentionMatrix, Path], None]

MATPLOTLIB_FIGURE_FMT: Final = "svgz"
_FIGSIZE: Final = (10, 10)


@overload
def matplotlib_figure_saver(func: Callable[..., Any], fmt: str = ...) -> FilesFunction: ...
@overload
def matplotlib_figure_saver(
    func: None = None, fmt: str = ...
) -> Callable[[Callable[..., Any]], FilesFunction]: ...
def matplotlib_figure_saver(
    func: Callable[..., Any] | None = None, fmt: str = MATPLOTLIB_FIGURE_FMT
) -> FilesFunction | Callable[[Callable[..., Any]], FilesFunction]:
    """Decorate a function that draws a pattern's matrix on axes, to save the figure.

    Parameters
    ----------
    func
        Takes the attention matrix and matplotlib axes. The file is called ``{func.__name__}.{fmt}``.
    fmt
        Any format that matplotlib knows.

    Returns
    -------
    A function ``f(attn_matrix, save_dir)``; or a decorator, if `func` is left out.
    """
    if func is None:
        return lambda function: _saving(function, fmt)
    return _saving(func, fmt)


def _saving(function: Callable[..., Any], fmt: str) -> FilesFunction:
    file_name = f"{_checked(function)}.{fmt}"

    def draw(matrix: NDArray[Any]) -> list[tuple[str, bytes]]:
        with _axes(function, n=1) as (axes,):
            function(matrix, axes)
            return [(file_name, _saved(axes, fmt))]

    return as_saver(function, draw, fmt, {"fmt": fmt})


def matplotlib_multifigure_saver(
    names: Sequence[str], fmt: str = MATPLOTLIB_FIGURE_FMT
) -> Callable[[Callable[..., Any]], FilesFunction]:
    """Decorate a function that draws several figures, to save them all.

    Parameters
    ----------
    names
        Names of the figures. Their files are called ``{func.__name__}.{name}.{fmt}``.
    fmt
        Any format that matplotlib knows.

    Returns
    -------
    A decorator for functions that take the attention matrix and a dict from name to axes. If one
    raises, nothing is saved.
    """
    names = check_figure_names(names)
    return lambda function: _saving_all(function, names, fmt)


def _saving_all(function: Callable[..., Any], names: tuple[str, ...], fmt: str) -> FilesFunction:
    func_name = _checked(function)

    def draw(matrix: NDArray[Any]) -> list[tuple[str, bytes]]:
        with _axes(function, n=len(names)) as axes:
            function(matrix, dict(zip(names, axes, strict=True)))
            drawn = zip(names, axes, strict=True)
            return [(f"{func_name}.{name}.{fmt}", _saved(ax, fmt)) for name, ax in drawn]

    return as_saver(function, draw, fmt, {"fmt": fmt, "names": names})


def _checked(function: object) -> str:
    if not callable(function):
        raise FigureFunctionError(
            f"cannot decorate {function!r}: expected a function; give the format as fmt={function!r}"
        )
    return name_of(function)


@contextmanager
def _axes(function: Callable[..., Any], *, n: int) -> Iterator[list[Axes]]:
    """Axes of `n` new figures."""
    if not uses_pyplot(function):
        from pattern_lens.figures.canvases import QuickFigure

        yield [QuickFigure(figsize=_FIGSIZE).subplots() for _ in range(n)]
        return
    with alone_with_pyplot():
        import matplotlib.pyplot as plt

        yield [plt.subplots(figsize=_FIGSIZE)[1] for _ in range(n)]


def _saved(axes: Axes, fmt: str) -> bytes:
    from pattern_lens.figures.canvases import figure_bytes, lay_out

    figure: Figure = axes.get_figure(root=True)  # type: ignore[assignment]
    lay_out(figure)
    return figure_bytes(figure, fmt)
