"""What the standard figures have in common: size, title, and labels of positions.

The rules: token text is never parsed as math and never an index; spaces and line ends are visible; what the
font has no glyph for is shown as its code.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.names import HEAD, LAYER, TOKEN_COORDS, head_label
from pattern_lens.wording import visible

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

MOST_TOKENS: Final = 30
"""Up to this many, each position is labelled with its token."""

BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
GREY: Final = "#d9d9d9"
_LONGEST: Final = 14


def finished(axes: Axes) -> Figure:
    """The figure of some axes, laid out."""
    from pattern_lens.figures.canvases import lay_out

    figure: Figure = axes.get_figure(root=True)  # type: ignore[assignment]
    lay_out(figure)
    return figure


def new_axes(pattern: xr.DataArray, what: str, *, figsize: tuple[float, float]) -> Axes:
    """Axes of a new figure, titled with the head and what is shown of it."""
    from pattern_lens.figures.canvases import QuickFigure

    axes = QuickFigure(figsize=figsize, layout="constrained").subplots()
    label = _head(pattern)
    axes.set_title(f"{label} · {what}" if label else what, parse_math=False)
    return axes


def _head(pattern: xr.DataArray) -> str:
    coords = pattern.coords
    if not all(dim in coords and coords[dim].ndim == 0 for dim in (LAYER, HEAD)):
        return ""
    return head_label(coords[LAYER].item(), coords[HEAD].item())


def label_positions(axis: Axis, pattern: xr.DataArray, dim: str) -> None:
    """Label an axis whose place *i* is the *i*-th position along a dim."""
    n = pattern.sizes[dim]
    numbers = pattern[dim].values
    axis.set_label_text(f"{dim} position")
    if n > MOST_TOKENS:
        _number(axis, numbers)
        return
    is_x = axis is axis.axes.xaxis
    tokens = _tokens(pattern, dim)
    labels = [
        f"{number}: {t}" if t else f"{number}" for number, t in zip(numbers, tokens, strict=True)
    ]
    axis.set_ticks(range(n))
    axis.set_ticklabels(
        labels, parse_math=False, fontsize=7, rotation=90 if is_x and any(tokens) else 0
    )


def _number(axis: Axis, numbers: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    last = len(numbers) - 1
    axis.set_major_formatter(
        lambda place, _: str(numbers[int(place)]) if 0 <= place <= last else ""
    )


def _tokens(pattern: xr.DataArray, dim: str) -> list[str]:
    name = TOKEN_COORDS[dim]
    if name not in pattern.coords:
        return [""] * pattern.sizes[dim]
    return [shown(str(token)) for token in pattern.coords[name].values]


def shown(token: str) -> str:
    r"""A token's text as a short label.

    Examples
    --------
    >>> shown(" the"), shown("a\n")
    ('␣the', 'a⏎')
    """
    glyphs = _glyphs()
    text = "".join(
        c if ord(c) in glyphs else c.encode("ascii", "backslashreplace").decode()
        for c in visible(token)
    )
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


@cache
def _glyphs() -> frozenset[int]:
    """Characters that the font which comes with matplotlib can draw, without control characters."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    found = get_font(findfont(FontProperties())).get_charmap()
    return frozenset(code for code in found if code >= 0x20 and not 0x7F <= code < 0xA0)
