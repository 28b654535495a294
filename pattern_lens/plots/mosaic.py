"""Tiles of all heads as one image.

The rule: one array holds every tile, so that any number of heads is one glyph, and a page takes a tile out of it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from bokeh.models import CustomJSHover, HoverTool

from pattern_lens.names import HEAD, KEY, LAYER, QUERY
from pattern_lens.plots.bos import without_bos
from pattern_lens.plots.drawing import script
from pattern_lens.plots.heat_map import Side, heat_map, plain_name, pooled
from pattern_lens.plots.labels import labels_along

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pattern_lens.plots.heat_map import Look

MOST_CELLS: Final = 1 << 22
"""Cells of all tiles at most; of more, the largest of each block is kept."""

_GAP_SHARE: Final = 24


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Tiles, and what stands beside them.

    Parameters
    ----------
    tiles
        Dims (layer, head, row, column), float32.
    layers, heads
        Their numbers, as they are shown.
    queries, keys
        Labels of every position, not of every block.
    step
        A cell is the largest of `step` x `step`.
    coarse
        A cell of the picture is the largest of `coarse` x `coarse` of the tiles' cells.
    """

    tiles: NDArray[np.float32]
    layers: list[str]
    heads: list[str]
    queries: Side
    keys: Side
    step: int
    coarse: int = 1

    @cached_property
    def small(self) -> NDArray[np.float32]:
        """Tiles as they are in the picture."""
        return pooled(self.tiles, self.coarse)

    @property
    def gaps(self) -> tuple[int, int]:
        """Empty rows and columns around each tile."""
        n_rows, n_columns = self.small.shape[2:]
        return gap(n_rows), gap(n_columns)

    def picture(self) -> NDArray[np.float32]:
        """All tiles in one matrix; NaN between them."""
        (above, beside), (n_layers, n_heads, n_rows, n_columns) = self.gaps, self.small.shape
        slots = np.full(
            (n_layers, n_heads, n_rows + 2 * above, n_columns + 2 * beside), np.nan, np.float32
        )
        slots[:, :, above:-above, beside:-beside] = self.small
        side_by_side = slots.transpose(0, 2, 1, 3)
        return side_by_side.reshape(n_layers * slots.shape[2], n_heads * slots.shape[3])

    def geometry(self) -> dict[str, Any]:
        """What a script needs to find a tile, and a cell in it."""
        return {
            "shape": list(self.small.shape),
            "gaps": list(self.gaps),
            "step": self.step * self.coarse,
            "tile_shape": list(self.tiles.shape[2:]),
            "tile_step": self.step,
            "layers": self.layers,
            "heads": self.heads,
            "queries": self.queries.labels,
            "keys": self.keys.labels,
        }

    def sides(self) -> tuple[Side, Side]:
        """Labels of the layers and of the heads."""
        layers = Side(LAYER, [f"L{n}" for n in self.layers])
        return layers, Side(HEAD, [f"H{n}" for n in self.heads])

    def element(self, look: Look) -> Any:
        """The HoloViews image."""
        layers, heads = self.sides()
        return heat_map(
            self.picture(),
            layers,
            heads,
            look,
            extent=(len(layers), len(heads)),
            hover=partial(_hover_tool, self.geometry(), look.quantity),
        )


def read_mosaic(array: xr.DataArray, *, size: int, large: int, bos: bool = True) -> Mosaic:
    """Tiles of a (layer, head, query, key) array; read one layer at a time.

    Parameters
    ----------
    size, large
        Pixels of the picture, and of one tile that is shown large: no cell is smaller than a pixel.
    """
    step = _step(array, large)
    layers = []
    for i in range(array.sizes[LAYER]):
        layer = array.isel({LAYER: i}).compute()
        layers.append(pooled((layer if bos else without_bos(layer)).values, step))
    fitting = step_of(array, size)
    return Mosaic(
        np.stack(layers),
        [str(n) for n in array[LAYER].values],
        [str(n) for n in array[HEAD].values],
        Side(QUERY, labels_along(array, QUERY)),
        Side(KEY, labels_along(array, KEY)),
        step,
        max(1, -(-fitting // step)),
    )


def _step(array: xr.DataArray, large: int) -> int:
    longest = max(array.sizes[QUERY], array.sizes[KEY])
    step = max(1, -(-longest // large))
    n_heads = array.sizes[LAYER] * array.sizes[HEAD]
    while n_heads * -(-array.sizes[QUERY] // step) * -(-array.sizes[KEY] // step) > MOST_CELLS:
        step += 1
    return step


def step_of(array: xr.DataArray, size: int) -> int:
    """Side of the blocks of which the largest is shown, so that a picture fits into a size."""
    pixels = size / max(array.sizes[LAYER], array.sizes[HEAD])
    longest = max(array.sizes[QUERY], array.sizes[KEY])
    step = 1
    while longest > step and (n := -(-longest // step)) + 2 * gap(n) > pixels:
        step += 1
    return step


def gap(n: int) -> int:
    """Empty cells on each side of a tile of `n`."""
    return max(1, n // _GAP_SHARE)


def _hover_tool(geometry: dict[str, Any], quantity: str) -> Any:
    """Head, both tokens and the number of the cell under the pointer."""
    at = CustomJSHover(args={"mosaic": geometry}, code=script("at_tile"))
    tooltips = [("head", "$x{head}"), (QUERY, "$x{query}"), (KEY, "$x{key}")]
    return HoverTool(
        tooltips=[*tooltips, (plain_name(quantity), "@image{custom}")],
        formatters={"$x": at, "@image": CustomJSHover(code=script("exact"))},
    )
