"""Writing a file: append, flush, index row, flush. Nothing is stored before its row is flushed."""

from __future__ import annotations

import errno
import math
import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import h5py
import numpy as np

import pattern_lens
from pattern_lens.errors import DiskFullError, FileNotWritableError, ModelMismatchError
from pattern_lens.store.chunks import Array, aligned, combine_digests, pack_layers, write_layers
from pattern_lens.store.codec import filter_options, pool
from pattern_lens.store.handles import (
    FORMAT,
    FORMAT_VERSION,
    open_for_reading,
    recover,
    suspend_readers,
)
from pattern_lens.store.header import Header, check_same_model, read_model
from pattern_lens.store.journal import transaction
from pattern_lens.store.layout import ArrayLayout
from pattern_lens.store.lock import WriterLock, sidecar
from pattern_lens.store.prompt_table import PromptRecord, hash_key, record_checksum
from pattern_lens.store.reader import ACTIVATIONS, StoreReader
from pattern_lens.store.rows import (
    ARRAY_ROW,
    BOS_PREPENDED,
    PROMPT_ROW,
    TRUNCATED,
    is_blank,
    is_valid,
    seal,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

_ROWS_PER_CHUNK: Final = 2048
_STREAM_CHUNK_BYTES: Final = 32 * 1024
_FULL: Final = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_SPARE_BYTES: Final = 4 << 20


@dataclass(frozen=True)
class Block:
    """Values of one activation for the prompts of one commit.

    Parameters
    ----------
    sizes
        Sizes of the ragged dims of each prompt (the second is 1 where there is one ragged dim).
    data
        Stored layout (docs/format.md): the growing axis holds the prompts back to back.
    """

    sizes: Sequence[tuple[int, int]]
    data: Array


class StoreWriter:
    """The one writer of a file, as a context manager; the file is created when it does not exist.

    Parameters
    ----------
    path
        The file.
    header
        Model and vocabulary; what the file says of its model must be the same.
    layouts
        Activations that will be written; those that the file lacks are added.

    Raises
    ------
    WriterActiveError, FileNotWritableError, ModelMismatchError, DiskFullError
        Nothing was changed.
    """

    def __init__(
        self, path: str | Path, header: Header | None, layouts: Sequence[ArrayLayout] = ()
    ) -> None:
        self.path = Path(path).expanduser().resolve()
        self._lock = WriterLock(self.path)
        try:
            self._prepare(header, layouts)
        except BaseException:
            self._lock.release()
            raise

    def _prepare(self, header: Header | None, layouts: Sequence[ArrayLayout]) -> None:
        suspend_readers(self.path)
        if not self.path.exists():
            if header is None:
                raise FileNotFoundError(f"cannot write to {self.path}: there is no such file")
            create_file(self.path, header, layouts)
        recover(self.path)
        with _explain(self.path):
            self._file = self._open(header, layouts)
        self.reader = StoreReader(self.path)
        self._layouts = {layout.name: layout for layout in layouts}
        self._positions: dict[str, int] = {}
        self._clear_torn_rows()

    def _open(self, header: Header | None, layouts: Sequence[ArrayLayout]) -> h5py.File:
        with open_for_reading(self.path) as file:
            if header is not None:
                check_same_model(self.path, read_model(file), header.model)
            missing = [layout for layout in layouts if not _holds(self.path, file, layout)]
        if missing:
            with transaction(self.path) as file:
                for layout in missing:
                    _create_activation(file, layout)
        file = h5py.File(self.path, "r+", libver=("v110", "v110"), locking=False)
        file.swmr_mode = True
        return file

    def _clear_torn_rows(self) -> None:
        """Zero the rows that a crash left half written at the end of an index."""
        for name in (
            "prompts/index",
            *(f"{ACTIVATIONS}/{n}/index" for n in self._file[ACTIVATIONS]),
        ):
            dataset = self._file[name]
            tail = dataset[max(0, len(dataset) - _ROWS_PER_CHUNK) :]
            valid = np.flatnonzero(is_valid(tail))
            after = int(valid[-1]) + 1 if len(valid) else 0
            torn = tail[after:]
            if len(torn) and not bool(is_blank(torn).all()):
                dataset[len(dataset) - len(torn) :] = np.zeros(len(torn), torn.dtype)
                self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let the next writer in; everything committed is stored already."""
        try:
            self.reader.close()
            suspend_readers(self.path)
            with _explain(self.path):
                self._file.close()
            with suppress(OSError), self.path.open("rb") as file:
                os.fsync(file.fileno())
        finally:
            self._lock.release()

    def commit(self, records: Sequence[PromptRecord], blocks: Mapping[str, Block]) -> None:
        """Store the prompts and their values; they are stored when this returns.

        Parameters
        ----------
        records
            The prompts. Those that the file holds already get further values, or newer ones.
        blocks
            Values by activation name, each for all of `records`, in their order.

        Raises
        ------
        DiskFullError
            Nothing of this commit is stored; everything before it is.
        """
        packed = {}
        for name, block in blocks.items():
            layout = self._layouts[name]
            spans = _spans(layout, block.sizes)
            packed[name] = pack_layers(layout, block.data, spans, pool())
        _check_space(
            self.path, sum(len(c) for p in packed.values() for layer in p for c in layer.chunks)
        )
        with _explain(self.path):
            new = [record for record in records if self.position(record.hash) is None]
            prompt_rows = self._append_prompts(new)
            starts = {}
            for name, layers in packed.items():
                dataset = self._file[f"{ACTIVATIONS}/{name}/data"]
                layout = self._layouts[name]
                starts[name] = aligned(dataset.shape[layout.axis], layout.chunk_length)
                write_layers(dataset, layout, starts[name], layers)
            self._file.flush()
            if new:
                self._append_rows("prompts/index", prompt_rows, [record.hash for record in new])
            positions = [self._position(record.hash) for record in records]
            for name, block in blocks.items():
                sums = [
                    combine_digests(d)
                    for d in zip(*(layer.digests for layer in packed[name]), strict=True)
                ]
                rows = _array_rows(self._layouts[name], positions, block.sizes, starts[name], sums)
                self._append_rows(f"{ACTIVATIONS}/{name}/index", rows)
            self._file.flush()

    def position(self, prompt_hash: str) -> int | None:
        """Position of a prompt in the prompt table, or None where the file does not hold it."""
        found = self._positions.get(prompt_hash)
        return self.reader.prompts.find(prompt_hash) if found is None else found

    def _position(self, prompt_hash: str) -> int:
        position = self.position(prompt_hash)
        if position is None:
            raise KeyError(prompt_hash)
        return position

    def _append_prompts(self, records: Sequence[PromptRecord]) -> np.ndarray[Any, Any]:
        streams = {name: self._file[f"prompts/{name}"] for name in ("hash", "text", "token_id")}
        starts = {name: len(stream) for name, stream in streams.items()}
        parts: dict[str, list[bytes]] = {name: [] for name in streams}
        rows = np.zeros(len(records), PROMPT_ROW)
        for row, record in zip(rows, records, strict=True):
            encoded = record.encoded()
            raw_hash, text, meta, tokens = encoded
            row["key"], row["checksum"] = hash_key(record.hash), record_checksum(encoded)
            row["hash_start"], row["text_start"], row["token_start"] = starts.values()
            row["hash_size"], row["text_size"], row["meta_size"] = map(len, encoded[:3])
            row["n_ctx"] = len(tokens) // 4
            row["flags"] = TRUNCATED * record.truncated | BOS_PREPENDED * record.bos
            starts["hash"] += len(raw_hash)
            starts["text"] += len(text) + len(meta)
            starts["token_id"] += len(tokens) // 4
            parts["hash"].append(raw_hash)
            parts["text"] += [text, meta]
            parts["token_id"].append(tokens)
        for name, stream in streams.items():
            _append(stream, np.frombuffer(b"".join(parts[name]), stream.dtype))
        return seal(rows)

    def _append_rows(
        self, name: str, rows: np.ndarray[Any, Any], hashes: Sequence[str] = ()
    ) -> None:
        dataset = self._file[name]
        first = len(dataset)
        _append(dataset, rows)
        if hashes:
            self._file.flush()
            self._positions.update(zip(hashes, range(first, first + len(rows)), strict=True))

    def delete(self, positions: Sequence[int]) -> None:
        """Zero the rows of prompts, those of their values first."""
        gone = np.asarray(sorted(positions), np.int64)
        with _explain(self.path):
            for name in self._file[ACTIVATIONS]:
                dataset = self._file[f"{ACTIVATIONS}/{name}/index"]
                rows = dataset[:]
                hit = np.flatnonzero(
                    np.isin(rows["prompt"].astype(np.int64), gone) & is_valid(rows)
                )
                _blank(dataset, hit)
            self._file.flush()
            _blank(self._file["prompts/index"], gone)
            self._file.flush()
        self._positions.clear()
        self.reader.refresh()


def _blank(dataset: h5py.Dataset, positions: Sequence[int] | np.ndarray[Any, Any]) -> None:
    for position in positions:
        dataset[int(position)] = np.zeros((), dataset.dtype)


def _append(dataset: h5py.Dataset, values: np.ndarray[Any, Any]) -> None:
    first = len(dataset)
    dataset.resize(first + len(values), axis=0)
    if len(values):
        dataset[first:] = values


def _spans(layout: ArrayLayout, sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    stops = np.cumsum([layout.length(*size) for size in sizes]).tolist()
    return list(zip([0, *stops[:-1]], stops, strict=True))


def _array_rows(
    layout: ArrayLayout,
    positions: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    start: int,
    checksums: Sequence[int],
) -> np.ndarray[Any, Any]:
    rows = np.zeros(len(positions), ARRAY_ROW)
    rows["prompt"] = positions
    rows["start"] = [start + first for first, _ in _spans(layout, sizes)]
    rows["size0"], rows["size1"] = zip(*sizes, strict=True)
    rows["checksum"] = np.array(checksums, "<u8")
    return seal(rows)


def create_file(path: Path, header: Header, layouts: Sequence[ArrayLayout]) -> None:
    """Write an empty file with all its objects beside `path`, then rename it into place."""
    unfinished = sidecar(path, f"{os.getpid()}.new")
    try:
        with _explain(path):
            with h5py.File(unfinished, "w", libver=("v110", "v110"), locking=False) as file:
                _write_root(file)
                header.write(file)
                _create_stream(file, "prompts/index", PROMPT_ROW, _ROWS_PER_CHUNK)
                _create_stream(file, "prompts/hash", np.dtype("u1"), _STREAM_CHUNK_BYTES)
                _create_stream(file, "prompts/text", np.dtype("u1"), _STREAM_CHUNK_BYTES)
                _create_stream(file, "prompts/token_id", np.dtype("<i4"), _STREAM_CHUNK_BYTES // 4)
                file.create_group(ACTIVATIONS)
                for layout in layouts:
                    _create_activation(file, layout)
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_root(file: h5py.File) -> None:
    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = ".".join(map(str, FORMAT_VERSION))
    file.attrs["file_id"] = uuid.uuid4().hex
    file.attrs["created_utc"] = datetime.now(UTC).isoformat(timespec="seconds")
    file.attrs["created_by"] = f"pattern_lens {pattern_lens.__version__}"


def _create_stream(file: h5py.File, name: str, dtype: np.dtype[Any], chunk: int) -> None:
    file.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(chunk,), dtype=dtype)


def _create_activation(file: h5py.File, layout: ArrayLayout) -> None:
    group = file.create_group(f"{ACTIVATIONS}/{layout.name}")
    group.attrs["kind"] = "activation"
    group.attrs["version"] = 1
    group.attrs["spec"] = layout.to_json()
    maxshape: list[int | None] = list(layout.stored_shape(0))
    maxshape[layout.axis] = None
    group.create_dataset(
        "data",
        shape=layout.stored_shape(0),
        maxshape=tuple(maxshape),
        chunks=layout.chunks,
        dtype=layout.stored_dtype,
        **filter_options(),
    )
    _create_stream(file, f"{group.name}/index", ARRAY_ROW, _ROWS_PER_CHUNK)


def _holds(path: Path, file: h5py.File, layout: ArrayLayout) -> bool:
    """Whether the file has room for these values already; raises where it has, of another kind."""
    group = file.get(f"{ACTIVATIONS}/{layout.name}")
    if group is None:
        return False
    stored = ArrayLayout.from_json(group.attrs["spec"])
    for what in ("dims", "sizes", "packing", "dtype", "layers", "hooks"):
        if getattr(stored, what) != getattr(layout, what):
            raise ModelMismatchError(
                f"cannot add {layout.name!r} to {path}: it is stored with {what} {getattr(stored, what)!r}, "
                f"and this capture gives {getattr(layout, what)!r}; use the same, or capture into another file"
            )
    return True


def _check_space(path: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < n_bytes + _SPARE_BYTES:
        raise DiskFullError(
            errno.ENOSPC,
            f"cannot store {n_bytes:,} bytes more in {path}: {free:,} are free on its disk; "
            "everything stored before is safe: make room and run again",
        )


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    """Turn the operating system's errors into ours."""
    try:
        yield
    except OSError as err:
        if type(err) is not OSError and not isinstance(err, PermissionError):
            raise
        text = str(err)
        if err.errno in _FULL or any(f"errno = {code}" in text for code in _FULL):
            raise DiskFullError(
                errno.ENOSPC,
                f"cannot store more in {path}: the disk is full; everything stored before is safe: make room and run again",
            ) from err
        if (
            isinstance(err, PermissionError)
            or "Permission denied" in text
            or err.errno == errno.EROFS
        ):
            raise FileNotWritableError(
                f"cannot write to {path}: {text}; check its permissions"
            ) from err
        raise


def dense_bytes(layout: ArrayLayout, sizes: Sequence[tuple[int, int]]) -> int:
    """Bytes of the arrays that the prompts of these sizes unpack to."""
    return sum(math.prod(layout.shape(*size)) for size in sizes) * layout.value_dtype.itemsize
