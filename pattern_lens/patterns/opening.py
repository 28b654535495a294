"""From a path to a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pattern_lens.patterns.base import Base
from pattern_lens.patterns.chosen import Chosen
from pattern_lens.patterns.collection import Activations, Chunks, Patterns
from pattern_lens.patterns.source import Source
from pattern_lens.store.reader import StoreReader

if TYPE_CHECKING:
    from os import PathLike


def open_patterns(path: str | PathLike[str], *, chunks: Chunks = None) -> Patterns:
    """The attention patterns of a file, lazily.

    Parameters
    ----------
    path
        A file that `capture` wrote, or is writing.
    chunks
        As in `xarray.open_dataset`: None reads without dask, anything else gives dask arrays.

    Raises
    ------
    FileNotFoundError, NotAPatternFileError, FormatTooNewError, DamagedFileError, UnknownActivationError
        It cannot be opened; the message says why and what to do.
    """
    return Patterns(whole_array(StoreReader(path), "pattern"), chunks=chunks)  # type: ignore[arg-type]


def open_activations(path: str | PathLike[str], name: str, *, chunks: Chunks = None) -> Activations:
    """Any stored activation of a file, lazily.

    Parameters
    ----------
    path
        A file that `capture` wrote, or is writing.
    name
        Short name (`resid_post`), alias or hook name.
    chunks
        As in `open_patterns`.
    """
    return collection_of(StoreReader(path), name, chunks=chunks)  # type: ignore[arg-type]


def collection_of(reader: StoreReader, name: str, *, chunks: Chunks = None) -> Activations:
    """A collection on an open file."""
    base = whole_array(reader, name)
    return (Patterns if base.source.name == "pattern" else Activations)(base, chunks=chunks)


def whole_array(reader: StoreReader, name: str) -> Base:
    """All prompts of one activation, nothing chosen."""
    source = Source(reader, name)
    return Base(source, Chosen(source.array.layout))
