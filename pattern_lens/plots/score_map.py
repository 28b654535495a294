"""One number a head, as a map of layers and heads."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bokeh.models import CustomJSHover, HoverTool

from pattern_lens.names import HEAD, LAYER
from pattern_lens.plots.drawing import script
from pattern_lens.plots.heat_map import Side, heat_map, plain_name

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pattern_lens.plots.heat_map import Look


def map_sides(scores: xr.DataArray) -> tuple[Side, Side]:
    """Labels of the layers and of the heads."""
    return (
        Side(LAYER, [f"L{n}" for n in scores[LAYER].values]),
        Side(HEAD, [f"H{n}" for n in scores[HEAD].values]),
    )


def score_map(
    values: NDArray[Any],
    rows: Side,
    columns: Side,
    look: Look,
    *,
    more: list[list[str]] | None = None,
) -> Any:
    """A HoloViews image; on hover the head, its number and `more` about it, dims (layer, head)."""
    hover = partial(_hover_tool, rows.labels, columns.labels, look.quantity, more)
    return heat_map(values, rows, columns, look, hover=hover)


def _hover_tool(
    layers: list[str], heads: list[str], quantity: str, more: list[list[str]] | None
) -> Any:
    args = {"layers": layers, "heads": heads, "more": more or []}
    at = CustomJSHover(args=args, code=script("at_head"))
    tooltips = [("head", "$x{head}"), (plain_name(quantity), "@image{custom}")]
    tooltips += [("prompts", "$x{more}")] if more else []
    return HoverTool(
        tooltips=tooltips, formatters={"$x": at, "@image": CustomJSHover(code=script("exact"))}
    )
