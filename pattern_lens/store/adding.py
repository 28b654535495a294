"""New groups in a file that exists, and results and traces taken out: what changes its structure.

HDF5 rewrites metadata for that, so it is done in a transaction, before a writer begins to append.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.errors import ModelMismatchError, ResultMismatchError, TraceMismatchError
from pattern_lens.store.attributes import read_text
from pattern_lens.store.create import FIGURES, create_array, create_figures, explain_writing
from pattern_lens.store.handles import (
    explain_reading,
    open_for_reading,
    recover,
    shut_out_readers,
    suspend_readers,
)
from pattern_lens.store.header import Header, check_same_model, read_model
from pattern_lens.store.journal import transaction
from pattern_lens.store.layout import RESULTS, TRACES, ArrayLayout
from pattern_lens.store.lock import WriterLock
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.traces import lacking_specifications, write_specification
from pattern_lens.store.weights import check_same_facts, read_facts, write_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import h5py

_MISMATCHES: Final = {
    RESULTS: (ResultMismatchError, "use another name, or force=True to replace what is stored"),
    TRACES: (TraceMismatchError, "use another name, or drop_trace to begin anew"),
}
_OF_ANOTHER_MODEL: Final = (ModelMismatchError, "use the same, or capture into another file")


@dataclass(frozen=True)
class Rooms:
    """What a file is to have besides arrays.

    Parameters
    ----------
    figures
        Whether figures will be written.
    facts
        What ``/weights`` is to say of the model, if weights will be written.
    traces
        What traces are, by name.
    """

    figures: bool = False
    facts: Mapping[str, Any] | None = None
    traces: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def lacking(self, path: Path, file: h5py.File) -> list[Callable[[h5py.File], None]]:
        """What makes that of it which a file lacks, each given the file in a transaction.

        Raises
        ------
        ModelMismatchError
            The file says something else of the model.
        """
        found: list[Callable[[h5py.File], None]] = []
        if self.figures and FIGURES not in file:
            found.append(create_figures)
        if self.facts is not None:
            known = read_facts(file)
            if known:
                check_same_facts(path, known, self.facts)
            else:
                found.append(partial(write_facts, facts=self.facts))
        names = lacking_specifications(file, self.traces)
        return found + [
            partial(write_specification, name=name, specification=self.traces[name])
            for name in names
        ]


def add_missing(
    path: Path,
    header: Header | None,
    layouts: Sequence[ArrayLayout],
    rooms: Rooms,
) -> None:
    """Make the groups that the file lacks; the caller holds the writer lock.

    Raises
    ------
    ModelMismatchError, ResultMismatchError, TraceMismatchError
        The file is of another model, or holds something else under one of the names; nothing was changed.
    """
    with open_for_reading(path, patience_seconds=0) as file, explain_reading(path):
        if header is not None:
            check_same_model(path, read_model(file), header.model)
        missing = [layout for layout in layouts if not _holds(path, file, layout)]
        lacking = rooms.lacking(path, file)
    if missing or lacking:
        with transaction(path) as file:
            for layout in missing:
                create_array(file, layout)
            for make in lacking:
                make(file)


def _holds(path: Path, file: h5py.File, layout: ArrayLayout) -> bool:
    """Whether the file has room for these values already; raises where it has, of another kind."""
    group = file.get(layout.group)
    if group is None:
        return False
    stored = ArrayLayout.from_json(read_text(group, "spec"), section=layout.section)
    what = stored.differs_in(layout)
    if what is None:
        return True
    error, what_to_do = _MISMATCHES.get(layout.section, _OF_ANOTHER_MODEL)
    raise error(
        f"cannot add {layout.name!r} to {path}: it is stored with {what} {getattr(stored, what)!r}, "
        f"and this gives {getattr(layout, what)!r}; {what_to_do}"
    )


def drop_result(path: str | Path, name: str) -> None:
    """Take a result out of a file, with its values; `compact` gives their space back.

    Raises
    ------
    UnknownResultError
        The file does not hold it.
    WriterActiveError
        Another process writes to the file.
    """
    reader = StoreReader(path)
    reader.result(name)
    reader.close()
    _drop(reader.path, f"{RESULTS}/{name}")


def drop_trace(path: str | Path, name: str) -> None:
    """Take a trace out of a file, with all its variables; `compact` gives their space back.

    Raises
    ------
    UnknownTraceError
        The file does not hold it.
    WriterActiveError
        Another process writes to the file.
    """
    reader = StoreReader(path)
    reader.trace_variables(name)
    reader.close()
    _drop(reader.path, f"{TRACES}/{name}")


def _drop(path: Path, group: str) -> None:
    lock = WriterLock(path)
    try:
        with shut_out_readers(path), explain_writing(path):
            suspend_readers(path)
            recover(path)
            with transaction(path) as file:
                del file[group]
    finally:
        lock.release()
