"""Taking prompts out of a file, and giving back the space of what no row names any more.

A compacted file is written beside the old one, verified, and renamed over it: whatever ends the work early,
the old file is as it was.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import h5py
import numpy as np
from tqdm import tqdm

import pattern_lens
from pattern_lens.errors import DamagedFileError, DiskFullError, FormatTooNewError
from pattern_lens.store.attributes import as_text, write_text
from pattern_lens.store.create import FIGURES
from pattern_lens.store.features import PROMPT_UNITS, feature_data_groups, renumbered
from pattern_lens.store.handles import recover, shut_out_readers, suspend_readers
from pattern_lens.store.header import Header
from pattern_lens.store.layout import (
    ACTIVATIONS,
    DATA,
    FEATURES,
    LATENTS,
    RESULTS,
    TRACES,
    WEIGHTS,
)
from pattern_lens.store.lock import WriterLock, sidecar
from pattern_lens.store.prompt_table import PromptRecord
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.rows import NO_PROMPT
from pattern_lens.store.swmr import WHOLE_BLOCKS
from pattern_lens.store.verify import damaged_prompts, element_bytes, read_run, runs, verify
from pattern_lens.store.weights import write_weight
from pattern_lens.store.writer import Block, StoreWriter
from pattern_lens.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pattern_lens.store.chunks import Array
    from pattern_lens.store.figures import FigureRecord
    from pattern_lens.store.reader import StoredArray

_BATCH_BYTES: Final = 64 << 20
_BATCH_PROMPTS: Final = 4096
_BATCH_FIGURES: Final = 65_536
_SPARE_BYTES: Final = 8 << 20
_SECTIONS: Final = (ACTIVATIONS, RESULTS, WEIGHTS)
_ROOT_OBJECTS: Final = frozenset(
    {"model", "tokenizer", "prompts", FIGURES, TRACES, FEATURES, *_SECTIONS}
)
_OWN_ATTRIBUTES: Final = frozenset({"format", "format_version", "file_id"})


@dataclass(frozen=True)
class CompactReport:
    """What `compact` did.

    Attributes
    ----------
    path
        The file.
    n_prompts
        Prompts that it holds.
    before_bytes, after_bytes
        Its size.
    seconds
        Time that it took.
    """

    path: Path
    n_prompts: int
    before_bytes: int
    after_bytes: int
    seconds: float

    def summary(self) -> str:
        """One line for people."""
        return (
            f"{self.path.name}: {counted(self.n_prompts, 'prompt')}, {self.before_bytes:,} bytes before, "
            f"{self.after_bytes:,} now ({self.seconds:.1f} s)"
        )


def delete_prompts(path: str | Path, hashes: Sequence[str]) -> int:
    """Take prompts, with all their values, out of a file; `compact` gives their space back.

    Parameters
    ----------
    path
        The file.
    hashes
        Prompt hashes.

    Returns
    -------
    Number of prompts deleted.

    Raises
    ------
    UnknownPromptError
        The file does not hold one of the prompts; nothing was deleted.
    WriterActiveError
        Another process writes to the file.
    """
    target = _existing(path)
    with StoreWriter(target, None) as writer:
        positions = {writer.reader.prompts.position(prompt_hash) for prompt_hash in hashes}
        writer.delete(sorted(positions))
    return len(positions)


def compact(path: str | Path, *, progress: bool = True) -> CompactReport:
    """Write a file anew with nothing in it but what its rows name.

    Prompts keep their order; of values stored twice the newer ones stay. Open readers of the old file have to
    open the new one.

    Parameters
    ----------
    path
        The file.
    progress
        Whether to show progress bars.

    Raises
    ------
    DamagedFileError
        A prompt or values that would be carried over are damaged; the file is as it was.
    DiskFullError
        There is no room for the new file beside the old one; the file is as it was.
    WriterActiveError
        Another process writes to the file.
    FormatTooNewError
        The file holds objects that this version does not know, and would lose.
    """
    started = time.monotonic()
    target = _existing(path)
    lock = WriterLock(target)
    try:
        unfinished = sidecar(target, "compact")
        _remove(unfinished)
        recover(target)
        before = target.stat().st_size
        try:
            n_prompts = _rewrite(target, unfinished, progress=progress)
            _check_copy(unfinished, n_prompts, progress=progress)
            shutil.copymode(target, unfinished)
            with shut_out_readers(target):
                suspend_readers(target)
                unfinished.replace(target)
            _sync_folder(target.parent)
        finally:
            _remove(unfinished)
        return CompactReport(
            path=target,
            n_prompts=n_prompts,
            before_bytes=before,
            after_bytes=target.stat().st_size,
            seconds=time.monotonic() - started,
        )
    finally:
        lock.release()


def _existing(path: str | Path) -> Path:
    target = Path(path).expanduser().resolve()
    if not target.exists():
        raise FileNotFoundError(f"cannot open {target}: there is no such file")
    return target


def _remove(unfinished: Path) -> None:
    """The new file and its sidecars, left by this run or one that was killed."""
    hidden = unfinished.parent.glob(f".{unfinished.name}.*")
    for leftover in (unfinished, *hidden):
        with suppress(FileNotFoundError):
            leftover.unlink()


def _rewrite(target: Path, unfinished: Path, *, progress: bool) -> int:
    """Write the new file; returns the number of its prompts."""
    with _reading(target) as reader:
        _check_known(reader)
        arrays = {(array := reader.stored(g)).layout.key: array for g in reader.groups()}
        weights = {name: reader.weight(name) for name in reader.weight_names()}
        data = [
            {array.layout.key: array for array in map(reader.stored, groups)}
            for groups in _by_autoencoder(reader.read(feature_data_groups))
        ]
        every_array = [
            *arrays.values(),
            *weights.values(),
            *(a for one in data for a in one.values()),
        ]
        _check_space(reader, every_array)
        header = Header(reader.model, reader.vocab)
        layouts = [array.layout for array in every_array]
        rooms: dict[str, Any] = {
            "figures": len(reader.figures.rows) > 0,
            "facts": reader.facts or None,
            **_specifications(reader),
        }
        with (
            StoreWriter(unfinished, header, layouts, **rooms) as writer,
            tqdm(
                total=len(reader.prompts), desc="compacting", unit="prompt", disable=not progress
            ) as bar,
        ):
            for array in weights.values():
                write_weight(writer, array.layout, _values(reader, array, [len(array) - 1]))
            every = reader.prompts.positions.tolist()
            for first in range(0, len(every), _BATCH_PROMPTS):  # they keep their order
                writer.commit(_records(reader, every[first : first + _BATCH_PROMPTS]), {})
            for batch, names in _batches(every, arrays):
                positions = _as_they_lie(batch, [arrays[name] for name in names])
                blocks = {name: _block(reader, arrays[name], positions) for name in names}
                writer.commit(_records(reader, positions), blocks)
                bar.update(len(positions))
            for of_one in data:
                _copy_feature_data(reader, writer, of_one)
            for figures in _figures(reader):
                writer.commit_computed([], {}, _moved(figures, reader, writer))
        _carry_attributes(unfinished, reader.root)
        return len(reader.prompts)


def _specifications(reader: StoreReader) -> dict[str, Any]:
    """What the file says of its traces, autoencoders and feature data."""
    found = {}
    for what, names, read, way_out in (
        ("traces", reader.trace_names(), reader.trace_spec, "drop_trace takes that trace out"),
        ("features", reader.feature_sets(), reader.feature_set, "drop_features takes them out"),
        (
            "feature_data",
            reader.feature_sets(),
            reader.feature_data_spec,
            "drop_feature_data takes it out",
        ),
    ):
        try:
            said = {name: read(name) for name in names}
        except DamagedFileError as err:
            raise DamagedFileError(f"cannot compact {reader.path}: {err}; {way_out}") from err
        found[what] = {name: spec for name, spec in said.items() if spec}
    return found


def _by_autoencoder(groups: Sequence[str]) -> list[list[str]]:
    found: dict[str, list[str]] = {}
    for group in groups:
        found.setdefault(group.split("/")[1], []).append(group)
    return list(found.values())


def _copy_feature_data(
    reader: StoreReader, writer: StoreWriter, arrays: dict[str, StoredArray]
) -> None:
    """The feature data of one autoencoder; what counts prompts counts them as the new file does."""
    features = reduce(
        np.union1d, (array.rows["prompt"].astype(np.int64) for array in arrays.values())
    )
    for batch, names in _batches(features.tolist(), arrays):
        blocks = {}
        for name in names:
            block = _block(reader, arrays[name], batch)
            if arrays[name].layout.units == PROMPT_UNITS:
                block = replace(block, data=renumbered(block.data, reader.prompts))
            blocks[name] = block
        writer.commit_computed(batch, blocks)


@contextmanager
def _reading(path: Path) -> Iterator[StoreReader]:
    reader = StoreReader(path)
    try:
        yield reader
    finally:
        reader.close()


def _check_known(reader: StoreReader) -> None:
    with reader.handle.open() as file:
        unknown = [name for name in file if name not in _ROOT_OBJECTS]
        sections = [section for section in _SECTIONS if section in file]
        sections += [f"{TRACES}/{name}" for name in file.get(TRACES, ())]
        kinds = {section: section.partition("/")[0].removesuffix("s") for section in sections}
        for name in file.get(FEATURES, ()):
            held = file[FEATURES][name]
            parts = {LATENTS: "latent", DATA: "feature"}
            unknown += [f"{FEATURES}/{name}/{part}" for part in held if part not in parts]
            kinds |= {f"{FEATURES}/{name}/{p}": kind for p, kind in parts.items() if p in held}
        unknown += [
            f"{section}/{name}"
            for section, kind in kinds.items()
            for name, group in file[section].items()
            if as_text(group.attrs.get("kind")) != kind or int(group.attrs.get("version", 0)) > 1
        ]
    if unknown:
        raise FormatTooNewError(
            f"cannot compact {reader.path}: this version does not know /{', /'.join(unknown)}, and would lose it; "
            "update with 'pip install -U pattern-lens'"
        )


def _check_space(reader: StoreReader, arrays: Sequence[StoredArray]) -> None:
    """Raise unless what will be carried over fits beside the old file."""
    needed = 0
    for array in arrays:
        with reader.handle.open() as file:
            extent = int(file[f"{array.group}/data"].shape[array.layout.axis])
        live = sum(array.layout.length(*array.sizes(row)) for row in range(len(array)))
        needed += int(array.stored_bytes() * min(1.0, live / max(extent, 1)))
        needed += array.rows.nbytes
    needed += reader.figures.rows.nbytes + int(reader.figures.rows["size"].sum(dtype=np.int64))
    rows = reader.prompts.rows[reader.prompts.positions]
    sizes = ("hash_size", "text_size", "meta_size")
    needed += rows.nbytes + sum(int(rows[name].sum(dtype=np.int64)) for name in sizes)
    needed += 4 * int(rows["n_ctx"].sum(dtype=np.int64)) + _SPARE_BYTES
    free = shutil.disk_usage(reader.path.parent).free
    if free < needed:
        raise DiskFullError(
            errno.ENOSPC,
            f"cannot compact {reader.path}: the new file needs about {needed:,} bytes beside the old one, "
            f"{free:,} are free on its disk; make room and run again",
        )


def _batches(
    positions: Sequence[int], arrays: dict[str, StoredArray]
) -> Iterator[tuple[list[int], tuple[str, ...]]]:
    """Prompts (or features) in their order, as many at a time as share their arrays and fit in memory."""
    batch: list[int] = []
    held: tuple[str, ...] = ()
    size = 0
    for position in positions:
        rows = {name: array.row_of(position) for name, array in arrays.items()}
        names = tuple(name for name, row in rows.items() if row is not None)
        own = sum(
            arrays[name].layout.length(*arrays[name].sizes(row))
            * element_bytes(arrays[name].layout)
            for name, row in rows.items()
            if row is not None
        )
        full = size + own > _BATCH_BYTES or len(batch) == _BATCH_PROMPTS
        if batch and (names != held or full):
            yield batch, held
            batch, size = [], 0
        batch.append(position)
        held, size = names, size + own
    if batch:
        yield batch, held


def _as_they_lie(positions: list[int], arrays: list[StoredArray]) -> list[int]:
    """Prompts in the order of their values in the file, so that each chunk is restored once."""
    if not arrays:
        return positions
    starts = arrays[0].rows["start"]
    return sorted(positions, key=lambda position: int(starts[arrays[0].row_of(position)]))


def _block(reader: StoreReader, array: StoredArray, positions: Sequence[int]) -> Block:
    """Values of the prompts as a commit takes them."""
    rows = [row for row in map(array.row_of, positions) if row is not None]
    return Block([array.sizes(row) for row in rows], _values(reader, array, rows))


def _values(reader: StoreReader, array: StoredArray, rows: Sequence[int]) -> Array:
    """Values of the rows as they are stored, checked, back to back."""
    parts: list[Array] = []
    for run in runs(array, rows):
        try:
            parts.append(read_run(reader, array, run))
        except DamagedFileError as err:
            raise DamagedFileError(
                f"cannot compact {reader.path}: values of {array.layout.name!r} are damaged ({err}); "
                "'pattern-lens verify' names the prompts: capture them again, or delete them"
            ) from err
    return np.concatenate(parts, axis=array.layout.axis)


def _figures(reader: StoreReader) -> Iterator[list[FigureRecord]]:
    """Figures of prompts that exist, as many at a time as fit in memory."""
    table = reader.figures
    batch: list[FigureRecord] = []
    size = 0
    known = np.append(reader.prompts.positions.astype(np.uint64), np.uint64(NO_PROMPT))
    for row in table.rows[np.isin(table.rows["prompt"], known)]:
        try:
            record = table.record(row)
        except DamagedFileError as err:
            raise DamagedFileError(
                f"cannot compact {reader.path}: {err}; 'pattern-lens verify' names the prompts"
            ) from err
        if batch and (size + len(record.data) > _BATCH_BYTES or len(batch) == _BATCH_FIGURES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record.data)
    if batch:
        yield batch


def _moved(
    figures: list[FigureRecord], reader: StoreReader, writer: StoreWriter
) -> list[FigureRecord]:
    """The figures with the positions that their prompts have in the new file."""
    old = [one.prompt for one in figures if one.prompt is not None]
    new = dict(zip(old, map(writer.position, reader.prompts.hashes(old)), strict=True))
    return [one if one.prompt is None else replace(one, prompt=new[one.prompt]) for one in figures]


def _records(reader: StoreReader, positions: Sequence[int]) -> list[PromptRecord]:
    table = reader.prompts
    bad = damaged_prompts(table, positions)
    if bad:
        raise DamagedFileError(
            f"cannot compact {reader.path}: the prompt in row {bad[0]} of /prompts/index is damaged ({len(bad)} so far); "
            "'pattern-lens verify' names the prompts: delete them and capture them again"
        )
    fields = zip(
        table.hashes(positions),
        table.texts(positions),
        map(table.token_ids, positions),
        table.metas(positions),
        table.truncated(positions).tolist(),
        table.bos(positions).tolist(),
        strict=True,
    )
    return list(starmap(PromptRecord, fields))


def _carry_attributes(unfinished: Path, root: dict[str, Any]) -> None:
    """What the old file's root said, but for its identity; and that it was compacted."""
    options = {"libver": ("v110", "v110"), "locking": False} | WHOLE_BLOCKS
    with h5py.File(unfinished, "r+", **options) as file:
        for name, value in root.items():
            if name not in _OWN_ATTRIBUTES:
                _write(file, name, value)
        _write(file, "compacted_utc", datetime.now(UTC).isoformat(timespec="seconds"))
        _write(file, "compacted_by", f"pattern_lens {pattern_lens.__version__}")
    with unfinished.open("rb") as written:
        os.fsync(written.fileno())


def _write(file: h5py.File, name: str, value: Any) -> None:
    if isinstance(value, str):
        write_text(file.attrs, name, value)
    else:
        file.attrs[name] = value


def _check_copy(unfinished: Path, n_prompts: int, *, progress: bool) -> None:
    report = verify(unfinished, progress=progress)
    if not report.ok or report.n_prompts != n_prompts:
        raise DamagedFileError(
            f"cannot compact {unfinished}: what was written is not what was read back ({report.summary()}); "
            "the file is as it was; check its disk"
        )


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system lets a folder be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
