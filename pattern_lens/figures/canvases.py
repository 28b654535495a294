"""matplotlib figures -> bytes, without pyplot; the one module here that imports matplotlib's classes.

The rules: a figure is drawn under one lock, since matplotlib's parser of math text is shared between
threads; the same figure gives the same bytes, so no file holds a time or a random name.
"""

from __future__ import annotations

import io
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import TightLayoutEngine

from pattern_lens.figures.encode import gzipped

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK: Final = threading.RLock()
_TIMELESS: Final[dict[str, dict[str, None]]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}
_TEXT_PARTS: Final = ("_text2path", "mathtext_parser")
_N_SIZES: Final = 4
_shared: Final[dict[tuple[type, str], Any]] = {}
_measuring: Final[dict[tuple[float, ...], Any]] = {}


class QuickFigure(Figure):
    """A figure with the Agg canvas, drawn three times as fast as by matplotlib alone.

    matplotlib makes a parser of math text for each renderer, which parses the same tick labels again for
    each figure and twice for its layout. Here all renderers share one, and figures of one size the
    renderer that they are measured with, which remembers texts. Where a later matplotlib has other names for
    these parts, nothing is shared and the picture is the same.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        FigureCanvasAgg(self)

    def draw(self, renderer: Any) -> None:
        """Draw on a renderer."""
        _share(renderer)
        super().draw(renderer)

    def _get_renderer(self) -> Any:
        # Asked for by what measures only; drawing has a renderer of its own.
        size = (*self.get_size_inches(), self.dpi)
        renderer = _measuring.get(size)
        if renderer is None:
            if len(_measuring) >= _N_SIZES:
                _measuring.clear()
            renderer = _measuring[size] = super()._get_renderer()  # type: ignore[misc]
            _share(renderer)
        return renderer


def _share(renderer: Any) -> None:
    inner = getattr(renderer, "_vector_renderer", renderer)
    for part in _TEXT_PARTS:
        if part in getattr(inner, "__dict__", {}):
            setattr(inner, part, _shared.setdefault((type(inner), part), getattr(inner, part)))


def lay_out(figure: Figure) -> None:
    """Make room for labels, by the figure's own layout engine or as pyplot's `tight_layout` does.

    Done once, before drawing: matplotlib would draw a figure that has an engine twice.
    """
    engine = figure.get_layout_engine()
    if engine is None:
        engine = TightLayoutEngine(rect=None)  # type: ignore[arg-type]
    with _LOCK:
        engine.execute(figure)
        figure.set_layout_engine(None)


def figure_bytes(figure: Figure, fmt: str) -> bytes:
    """A figure as the bytes of a file.

    Parameters
    ----------
    fmt
        Any format that matplotlib knows: ``png``, ``svg``, ``svgz``, ``pdf``, ``jpg``, …

    Raises
    ------
    ValueError
        A format that it does not know.
    """
    fmt = fmt.lower()
    if fmt == "svgz":
        return gzipped(figure_bytes(figure, "svg"))
    with _LOCK, _same_names():
        if fmt == "svg":
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata=_TIMELESS["svg"])
            return text.getvalue().encode()
        buffer = io.BytesIO()
        figure.savefig(buffer, format=fmt, metadata=_TIMELESS.get(fmt))
        return buffer.getvalue()


@contextmanager
def _same_names() -> Iterator[None]:
    """Names of an SVG file's parts that depend on nothing but them, unless the user salts them."""
    before = mpl.rcParams["svg.hashsalt"]
    mpl.rcParams["svg.hashsalt"] = before or "pattern_lens"
    try:
        yield
    finally:
        mpl.rcParams["svg.hashsalt"] = before
