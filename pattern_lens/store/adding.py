"""New groups in a file that exists, and results taken out: what changes its structure.

HDF5 rewrites metadata for that, so it is done in a transaction, before a writer begins to append.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pattern_lens.errors import ModelMismatchError, ResultMismatchError
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
from pattern_lens.store.layout import RESULTS, ArrayLayout
from pattern_lens.store.lock import WriterLock
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.weights import check_same_facts, read_facts, write_facts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    import h5py


def add_missing(
    path: Path,
    header: Header | None,
    layouts: Sequence[ArrayLayout],
    *,
    figures: bool,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Make the groups that the file lacks; the caller holds the writer lock.

    Parameters
    ----------
    facts
        What ``/weights`` is to say of the model, if weights will be written.

    Raises
    ------
    ModelMismatchError, ResultMismatchError
        The file is of another model, or holds something else under one of the names; nothing was changed.
    """
    with open_for_reading(path, patience_seconds=0) as file, explain_reading(path):
        if header is not None:
            check_same_model(path, read_model(file), header.model)
        missing = [layout for layout in layouts if not _holds(path, file, layout)]
        figures = figures and FIGURES not in file
        known = read_facts(file)
        if facts is not None and known:
            check_same_facts(path, known, facts)
    says_more = facts is not None and not known
    if missing or figures or says_more:
        with transaction(path) as file:
            for layout in missing:
                create_array(file, layout)
            if figures:
                create_figures(file)
            if facts is not None and says_more:
                write_facts(file, facts)


def _holds(path: Path, file: h5py.File, layout: ArrayLayout) -> bool:
    """Whether the file has room for these values already; raises where it has, of another kind."""
    group = file.get(layout.group)
    if group is None:
        return False
    stored = ArrayLayout.from_json(read_text(group, "spec"), section=layout.section)
    what = stored.differs_in(layout)
    if what is None:
        return True
    is_result = layout.section == RESULTS
    error = ResultMismatchError if is_result else ModelMismatchError
    what_to_do = (
        "use another name, or force=True to replace what is stored"
        if is_result
        else "use the same, or capture into another file"
    )
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
    lock = WriterLock(reader.path)
    try:
        with shut_out_readers(reader.path), explain_writing(reader.path):
            suspend_readers(reader.path)
            recover(reader.path)
            with transaction(reader.path) as file:
                del file[f"{RESULTS}/{name}"]
    finally:
        lock.release()
