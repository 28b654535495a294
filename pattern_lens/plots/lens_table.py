"""Where the cells of a logit lens' table are, and what stands in them.

The rule: a table that is too wide is broken into blocks, so that every token stays as large as it has to be to be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from pattern_lens.names import RANK
from pattern_lens.plots.labels import isolated, short
from pattern_lens.wording import visible

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pattern_lens.plots.colours import Colours

LETTERS: Final = 10
"""Letters that fit into a cell."""

NAMES: Final = 1.2
"""Width of the names of the streams, in cells."""

_HALF: Final = 0.47
_HEADER: Final = "#555555"
_INK, _PAPER = "#222222", "#ffffff"
_DARK_BELOW: Final = 0.55


@dataclass(frozen=True, eq=False)
class Table:
    """A lens with one row a stream and one column a position or prompt, and where its cells are.

    Parameters
    ----------
    numbers
        What the colours show, dims (stream, column).
    labels, headers
        What is said of each column on hover, and above it, where there is less room.
    n_columns
        Columns of a block.
    """

    lens: xr.Dataset
    numbers: NDArray[np.float64]
    streams: list[str]
    labels: list[str]
    headers: list[str]
    n_columns: int

    @property
    def n_blocks(self) -> int:
        """How many blocks there are, one under the other."""
        return -(-len(self.labels) // self.n_columns)

    @property
    def height(self) -> int:
        """Rows of all blocks, with a header and a gap each."""
        return self.n_blocks * (len(self.streams) + 2) - 1

    def place(self, row: Any, column: Any) -> tuple[Any, Any]:
        """Where a cell is, from the left and from the top; row -1 is the header."""
        return column % self.n_columns, (column // self.n_columns) * (len(self.streams) + 2) + row


def cells(table: Table) -> tuple[NDArray[Any], NDArray[Any]]:
    """Row and column of each cell, row by row."""
    return np.divmod(np.arange(table.numbers.size), len(table.labels))


def boxes(table: Table, colours: Colours) -> pd.DataFrame:
    """Corners of the cells, and the numbers that their colours show."""
    x, y = table.place(*cells(table))
    numbers = table.numbers.ravel()
    shown = np.clip(numbers, colours.low, colours.high) if colours.log else numbers
    return pd.DataFrame(
        {
            "left": x - _HALF,
            "top": y - _HALF,
            "right": x + _HALF,
            "bottom": y + _HALF,
            "value": np.asarray(shown, np.float32),
        }
    )


def texts(table: Table, colours: Colours) -> pd.DataFrame:
    """Text of the cells, of the header above each block and of the streams' names beside it."""
    x, y = table.place(*cells(table))
    tokens = [isolated(short(visible(token), LETTERS)) for token in tokens_at(table, 0)]
    columns = np.arange(len(table.labels))
    header_x, header_y = table.place(-1, columns)
    streams, blocks = len(table.streams), np.arange(table.n_blocks)
    _, name_y = table.place(
        np.tile(np.arange(streams), len(blocks)), np.repeat(blocks, streams) * table.n_columns
    )
    names = table.streams * len(blocks)
    return pd.DataFrame(
        {
            "x": [*x, *header_x, *np.full(len(names), -0.5 - NAMES / 2)],
            "y": [*y, *header_y, *name_y],
            "text": [*tokens, *table.headers, *names],
            "ink": [
                *_inks(table.numbers.ravel(), colours),
                *[_HEADER] * (len(columns) + len(names)),
            ],
        }
    )


def tokens_at(table: Table, rank: int) -> list[str]:
    """Text of the tokens at a rank, row by row; their ids where the file has no texts."""
    if "top_token" in table.lens:
        return [str(text) for text in table.lens["top_token"].isel({RANK: rank}).values.ravel()]
    return [f"<{number}>" for number in table.lens["top_id"].isel({RANK: rank}).values.ravel()]


def _inks(numbers: NDArray[np.float64], colours: Colours) -> list[str]:
    """White on dark cells."""
    low, high, values = colours.low, colours.high, np.nan_to_num(numbers, nan=colours.low)
    if colours.log:
        low, high, values = np.log(low), np.log(high), np.log(np.clip(values, low, high))
    at = np.clip((values - low) / (high - low), 0, 1) * (len(colours.colours) - 1)
    light = [_lightness(colours.colours[round(place)]) for place in at.tolist()]
    return [_PAPER if one < _DARK_BELOW else _INK for one in light]


def _lightness(colour: str) -> float:
    red, green, blue = bytes.fromhex(colour[1:7])
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def said_at(table: Table, rank: int) -> list[str]:
    """Tokens at a rank with their probabilities."""
    numbers = table.lens["top_probability"].isel({RANK: rank}).values.ravel()
    tokens = tokens_at(table, rank)
    return [
        f"{isolated(short(visible(t), 30))}  {p:.3g}" for t, p in zip(tokens, numbers, strict=True)
    ]
