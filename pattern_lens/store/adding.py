"""New groups in a file that exists, and results, traces and features taken out: what changes its structure.

HDF5 rewrites metadata for that, so it is done in a transaction, before a writer begins to append.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.errors import (
    FeaturesMismatchError,
    ModelMismatchError,
    ResultMismatchError,
    TraceMismatchError,
)
from pattern_lens.store.attributes import read_text
from pattern_lens.store.bundles import read_specification, write_specification
from pattern_lens.store.create import FIGURES, create_array, create_figures, explain_writing
from pattern_lens.store.features import check_same
from pattern_lens.store.handles import (
    explain_reading,
    open_for_reading,
    recover,
    shut_out_readers,
    suspend_readers,
)
from pattern_lens.store.header import Header, check_same_model, read_model
from pattern_lens.store.journal import transaction
from pattern_lens.store.layout import DATA, FEATURES, RESULTS, TRACES, ArrayLayout
from pattern_lens.store.lock import WriterLock
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.weights import check_same_facts, read_facts, write_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import h5py

_MISMATCHES: Final = {
    RESULTS: (ResultMismatchError, "use another name, or force=True to replace what is stored"),
    TRACES: (TraceMismatchError, "use another name, or drop_trace to begin anew"),
    FEATURES: (FeaturesMismatchError, "use another name, or drop_features to begin anew"),
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
    said
        What is to be said of groups of arrays, by their paths.
    """

    figures: bool = False
    facts: Mapping[str, Any] | None = None
    said: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def lacking(self, path: Path, file: h5py.File) -> list[Callable[[h5py.File], None]]:
        """What makes that of it which a file lacks, each given the file in a transaction.

        Raises
        ------
        ModelMismatchError, FeaturesMismatchError
            The file says something else of the model, or of an autoencoder.
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
        for group, said in self.said.items():
            if group not in file or "json" not in file[group].attrs:
                found.append(partial(write_specification, group=group, specification=said))
            elif group.startswith(f"{FEATURES}/"):  # of a trace what the file says stays
                check_same(path, group, read_specification(file, group, group), said)
        return found


def specifications(
    traces: Mapping[str, Mapping[str, Any]],
    features: Mapping[str, Mapping[str, Any]],
    feature_data: Mapping[str, Mapping[str, Any]],
) -> dict[str, Mapping[str, Any]]:
    """What is said of traces, of autoencoders and of feature data, by name each, by the paths of their groups."""
    return {
        **{f"{TRACES}/{name}": said for name, said in traces.items()},
        **{f"{FEATURES}/{name}": said for name, said in features.items()},
        **{f"{FEATURES}/{name}/{DATA}": said for name, said in feature_data.items()},
    }


def add_missing(
    path: Path,
    header: Header | None,
    layouts: Sequence[ArrayLayout],
    rooms: Rooms,
) -> None:
    """Make the groups that the file lacks; the caller holds the writer lock.

    Raises
    ------
    ModelMismatchError, ResultMismatchError, TraceMismatchError, FeaturesMismatchError
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
    _drop(path, f"{RESULTS}/{name}", lambda reader: reader.result(name))


def drop_trace(path: str | Path, name: str) -> None:
    """Take a trace out of a file, with all its variables; `compact` gives their space back.

    Raises
    ------
    UnknownTraceError
        The file does not hold it.
    WriterActiveError
        Another process writes to the file.
    """
    _drop(path, f"{TRACES}/{name}", lambda reader: reader.trace_variables(name))


def drop_features(path: str | Path, name: str) -> None:
    """Take the features of an autoencoder out of a file, latents and data; `compact` gives their space back.

    Raises
    ------
    UnknownFeaturesError
        The file does not hold them.
    WriterActiveError
        Another process writes to the file.
    """
    _drop(path, f"{FEATURES}/{name}", lambda reader: reader.feature_variables(name))


def drop_feature_data(path: str | Path, name: str) -> None:
    """Take the feature data of an autoencoder out of a file, and leave its latents; nothing happens where there is none.

    Raises
    ------
    UnknownFeaturesError
        The file does not hold features of this autoencoder.
    WriterActiveError
        Another process writes to the file.
    """
    _drop(path, f"{FEATURES}/{name}/{DATA}", lambda reader: reader.feature_variables(name))


def _drop(path: str | Path, group: str, check: Callable[[StoreReader], Any]) -> None:
    reader = StoreReader(path)
    try:
        check(reader)
        is_there = reader.read(lambda file: group in file)
    finally:
        reader.close()
    if not is_there:
        return
    lock = WriterLock(reader.path)
    try:
        with shut_out_readers(reader.path), explain_writing(reader.path):
            suspend_readers(reader.path)
            recover(reader.path)
            with transaction(reader.path) as file:
                del file[group]
    finally:
        lock.release()
