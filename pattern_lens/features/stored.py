"""The features in a file by their autoencoders, read when their values are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Self

from pattern_lens.closing import Closing
from pattern_lens.features.feature_set import COLUMNS, FeatureSet
from pattern_lens.features.latents import LatentBlock
from pattern_lens.patterns import display
from pattern_lens.store.reader import StoreReader
from pattern_lens.wording import counted

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

__all__ = ["FeatureSet", "Features", "LatentBlock", "open_features"]


class Features(Closing, Mapping[str, FeatureSet]):
    """The features in a file by the name of their autoencoder.

    Parameters
    ----------
    reader
        The open file.
    """

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader
        self._opened: dict[str, FeatureSet] = {}

    def __getitem__(self, name: str) -> FeatureSet:
        if name not in self._opened:
            self._opened[name] = FeatureSet(self._reader, name)
        return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._reader.feature_sets())

    def __len__(self) -> int:
        return len(self._reader.feature_sets())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._reader.feature_sets()

    @property
    def path(self) -> Path:
        """The file."""
        return self._reader.path

    def refresh(self) -> Self:
        """See what was stored since; returns the mapping itself."""
        self._reader.refresh()
        self._opened.clear()
        return self

    def close(self) -> None:
        """Close the file, for everything that was taken from it too."""
        self._reader.close()

    def __repr__(self) -> str:
        if self._reader.handle.closed:
            return f"<Features · closed · {self.path}>"
        title = f"<Features {counted(len(self), 'autoencoder')} · {self.path.name}>"
        return "\n  ".join([title, *(one.headline() for one in self.values())])

    def _repr_html_(self) -> str:
        if self._reader.handle.closed:
            return f"<div>{escape(repr(self))}</div>"
        rows = [one.row() for one in self.values()]
        return f"<div><b>Features {escape(self.path.name)}</b>{display.table(COLUMNS, rows)}</div>"


def open_features(path: str | PathLike[str]) -> Features:
    """The features in a file, lazily.

    Parameters
    ----------
    path
        A file in which `capture_features` or `compute_features` stored what they found; they may be writing to it.

    Returns
    -------
    A mapping from the name of an autoencoder to its `FeatureSet`; values are read when they are asked for.

    Raises
    ------
    FileNotFoundError, NotAPatternFileError, FormatTooNewError, DamagedFileError
        It cannot be opened; the message says why and what to do.
    """
    return Features(StoreReader(path))  # type: ignore[arg-type]
