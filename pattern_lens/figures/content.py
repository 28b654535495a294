"""What one figure is made of: bytes in a file, or a pattern and the function that draws it.

The rule: nothing is read or drawn before it is asked for, and then once.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol

from pattern_lens.errors import FigureKindError
from pattern_lens.figures.metadata import figure_records
from pattern_lens.figures.produce import produce
from pattern_lens.figures.products import Failure, Picture

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from pattern_lens.figures.registry import FigureFunction
    from pattern_lens.store.figures import FigureTable


class Content(Protocol):
    """Bytes of a figure, or of the failure in its place."""

    @property
    def is_at_hand(self) -> bool:
        """Whether format, size and failure are known without drawing."""

    @property
    def format(self) -> str:
        """``png``, ``svgz``, …; empty for a failure."""

    @property
    def is_failure(self) -> bool:
        """Whether the bytes are those of a failure."""

    @property
    def size_bytes(self) -> int:
        """Number of bytes."""

    @property
    def about(self) -> dict[str, Any]:
        """What else is known of figures like this one."""

    def read(self) -> bytes:
        """The bytes."""


class StoredContent:
    """A row of a file.

    Parameters
    ----------
    row
        One of the rows of `table`.
    """

    is_at_hand: Final = True

    def __init__(self, table: FigureTable, row: Any) -> None:
        self._table, self._row = table, row

    @property
    def format(self) -> str:
        """``png``, ``svgz``, …; empty for a failure."""
        return str(self._table.kinds[int(self._row["kind"])]["format"])

    @property
    def is_failure(self) -> bool:
        """Whether the bytes are those of a failure."""
        return self._table.is_failure(self._row)

    @property
    def size_bytes(self) -> int:
        """Number of bytes."""
        return int(self._row["size"])

    @property
    def about(self) -> dict[str, Any]:
        """What the file says of figures like this one."""
        described = self._table.kinds[int(self._row["kind"])]
        return {key: value for key, value in described.items() if key not in ("name", "format")}

    def read(self) -> bytes:
        """The bytes, compared with their checksum."""
        return self._table.data(self._row)


class DrawnContent:
    """A figure that is not stored.

    Parameters
    ----------
    entry
        The function that draws it.
    name
        Which of the function's figures.
    pattern
        Gives the pattern of one head, dims (query, key).
    """

    def __init__(
        self, entry: FigureFunction, name: str, pattern: Callable[[], xr.DataArray]
    ) -> None:
        self._entry, self._name, self._pattern = entry, name, pattern

    @property
    def is_at_hand(self) -> bool:
        """Whether it was drawn already."""
        return "_product" in self.__dict__

    @cached_property
    def _product(self) -> Picture | Failure:
        entry = replace(self._entry, only=frozenset({self._name}))
        found = next(p for p in produce(entry, self._pattern()) if p.name == self._name)
        if not isinstance(found, Picture | Failure):
            raise FigureKindError(
                f"figure function {entry.name!r} returned numbers for {self._name!r}, not a picture; "
                f"for numbers use open_patterns(path).map({entry.name})"
            )
        return found

    @property
    def format(self) -> str:
        """``png``, ``svgz``, …; empty for a failure."""
        return self._product.format if isinstance(self._product, Picture) else ""

    @property
    def is_failure(self) -> bool:
        """Whether the function raised."""
        return isinstance(self._product, Failure)

    @property
    def size_bytes(self) -> int:
        """Number of bytes."""
        return len(self.read())

    @property
    def about(self) -> dict[str, Any]:
        """What is known of the function."""
        return about_function(self._entry, self._name)

    def read(self) -> bytes:
        """The bytes."""
        if isinstance(self._product, Picture):
            return self._product.data
        return json.dumps(asdict(self._product)).encode()


def about_function(entry: FigureFunction, name: str) -> dict[str, Any]:
    """What is known of a registered function's figure, with the keys of a stored description."""
    found = next(record for record in figure_records(entry) if record["name"] == name)
    return {"function": found["func_name"], "doc": found["doc"], "code": found["code"]}


def source_of(about: dict[str, Any]) -> str | None:
    """Source of a function, by what the file says of it: whichever key holds more than one line."""
    for key in ("source", "code"):
        text = about.get(key)
        if isinstance(text, str) and "\n" in text:
            return text
    return None
