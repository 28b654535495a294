"""Writing a file: append, flush, index row, flush. Nothing is stored before its row is flushed."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from pattern_lens.errors import (
    DiskFullError,
    ModelMismatchError,
    PromptError,
    StoreError,
    UnknownActivationError,
)
from pattern_lens.store.abandon import diverted
from pattern_lens.store.attributes import read_text
from pattern_lens.store.block import Block, array_rows, check_block, spans
from pattern_lens.store.chunks import aligned, pack_layers, write_layers
from pattern_lens.store.codec import pool
from pattern_lens.store.create import (
    ROWS_PER_CHUNK,
    create_activation,
    create_file,
    explain_writing,
)
from pattern_lens.store.handles import (
    check_is_hdf5,
    explain_reading,
    forbid_reading,
    open_for_reading,
    recover,
    shut_out_readers,
    suspend_readers,
)
from pattern_lens.store.header import Header, check_same_model, read_model
from pattern_lens.store.journal import transaction
from pattern_lens.store.layout import ArrayLayout
from pattern_lens.store.lock import WriterLock
from pattern_lens.store.prompt_table import PromptRecord, hash_key, record_checksum
from pattern_lens.store.reader import ACTIVATIONS, StoreReader
from pattern_lens.store.rows import (
    BOS_PREPENDED,
    PROMPT_ROW,
    TRUNCATED,
    is_blank,
    is_valid,
    seal,
)
from pattern_lens.store.swmr import open_swmr_writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from types import TracebackType

    import h5py

    from pattern_lens.store.chunks import PackedLayer

__all__ = ["Block", "StoreWriter"]

_SPARE_BYTES: Final = 4 << 20


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
        self._file: Any = None
        self._failed = False
        try:
            with shut_out_readers(self.path), explain_writing(self.path):
                suspend_readers(self.path)
                self._prepare(header, layouts)
        except BaseException:
            self._let_go()
            self._lock.release()
            raise

    def _prepare(self, header: Header | None, layouts: Sequence[ArrayLayout]) -> None:
        if not self.path.exists():
            if header is None:
                raise FileNotFoundError(f"cannot write to {self.path}: there is no such file")
            create_file(self.path, header, layouts)
        check_is_hdf5(self.path)
        recover(self.path)
        self._add_missing(header, layouts)
        self._file = open_swmr_writer(self.path)
        # held open: what a dataset cannot write when it is closed is lost without an error
        self._datasets = {name: self._file[name] for name in _dataset_names(self._file)}
        self.reader = StoreReader(self.path)
        self._layouts = {layout.name: layout for layout in layouts}
        self._positions: dict[str, int] = {}
        self._clear_torn_rows()

    def _add_missing(self, header: Header | None, layouts: Sequence[ArrayLayout]) -> None:
        with open_for_reading(self.path, patience_seconds=0) as file, explain_reading(self.path):
            if header is not None:
                check_same_model(self.path, read_model(file), header.model)
            missing = [layout for layout in layouts if not _holds(self.path, file, layout)]
        if missing:
            with transaction(self.path) as file:
                for layout in missing:
                    create_activation(file, layout)

    def _clear_torn_rows(self) -> None:
        """Zero the rows that a crash left half written at the end of an index."""
        for name, dataset in self._datasets.items():
            if not name.endswith("/index"):
                continue
            tail = dataset[max(0, len(dataset) - ROWS_PER_CHUNK) :]
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
            if self._file is None:
                return
            with shut_out_readers(self.path), self._writing():
                self.reader.close()
                suspend_readers(self.path)
                self._file.flush()  # an error leaves the file open here, and half closed below
                self._file.close()
                self._file = None
            with suppress(OSError), self.path.open("rb") as file:
                os.fsync(file.fileno())
        finally:
            self._lock.release()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Let an error end this writer as a crash would: what it has half written stays unnamed."""
        self._ensure_open()
        try:
            with explain_writing(self.path):
                yield
        except BaseException:
            self._let_go()
            raise

    def _ensure_open(self) -> None:
        if self._file is None:
            why = "an earlier error ended this writer" if self._failed else "it was closed"
            raise StoreError(f"cannot write to {self.path}: {why}; open it again")

    def _let_go(self) -> None:
        if self._file is None:
            return
        self._failed = True
        with shut_out_readers(self.path):
            file, self._file = self._file, None
            with diverted(file):
                suspend_readers(self.path)
                try:
                    file.close()
                except (OSError, RuntimeError):
                    forbid_reading(self.path)
                with suppress(OSError):  # whoever opens the file next tries again
                    recover(self.path)

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
        PromptError, UnknownActivationError, DimensionError
            A prompt comes twice, or values do not fit; nothing was written.
        DiskFullError
            No values of this commit are stored; everything before it is. Open the file again.
        """
        self._ensure_open()
        self._check(records, blocks)
        if not records:
            return
        jobs = {}
        for name, block in blocks.items():
            layout = self._layouts[name]
            jobs[name] = pack_layers(layout, block.data, spans(layout, block.sizes), pool())
        self._check_space(blocks, jobs)
        new = [record for record in records if self.position(record.hash) is None]
        encoded = [record.encoded() for record in new]
        with self._writing():
            prompt_rows = self._append_prompts(new, encoded)
            starts, sums = {}, {}
            for name in blocks:
                dataset, layout = self._datasets[f"{ACTIVATIONS}/{name}/data"], self._layouts[name]
                starts[name] = aligned(dataset.shape[layout.axis], layout.chunk_length)
                sums[name] = write_layers(dataset, layout, starts[name], jobs[name])
            self._file.flush()
            if new:
                self._append_rows("prompts/index", prompt_rows, [record.hash for record in new])
            positions = [self._position(record.hash) for record in records]
            for name, block in blocks.items():
                rows = array_rows(
                    self._layouts[name], positions, block.sizes, starts[name], sums[name]
                )
                self._append_rows(f"{ACTIVATIONS}/{name}/index", rows)
            self._file.flush()

    def _check_space(
        self, blocks: Mapping[str, Block], jobs: Mapping[str, list[Future[PackedLayer]]]
    ) -> None:
        """Raise unless the disk has room; where it is scarce, wait to see how far the values compress."""
        free = shutil.disk_usage(self.path.parent).free - _SPARE_BYTES
        if free >= sum(block.data.nbytes for block in blocks.values()):
            return
        n_bytes = sum(
            len(chunk) for some in jobs.values() for job in some for chunk in job.result().chunks
        )
        if free < n_bytes:
            raise DiskFullError(
                errno.ENOSPC,
                f"cannot store {n_bytes:,} bytes more in {self.path}: {free + _SPARE_BYTES:,} are free on its disk; "
                "everything stored before is safe: make room and run again",
            )

    def _check(self, records: Sequence[PromptRecord], blocks: Mapping[str, Block]) -> None:
        """Raise unless the commit can be stored as it is; silent casts would store other values."""
        counts = Counter(record.hash for record in records)
        twice = [prompt_hash for prompt_hash, count in counts.items() if count > 1]
        if twice:
            raise PromptError(
                f"cannot store {twice[0]!r} in {self.path}: it comes {counts[twice[0]]} times in one commit; "
                "give each prompt once"
            )
        for name, block in blocks.items():
            if name not in self._layouts:
                raise UnknownActivationError(
                    f"cannot store {name!r} in {self.path}: this writer was opened for {', '.join(self._layouts) or 'none'}"
                )
            check_block(self._layouts[name], block, len(records))

    def position(self, prompt_hash: str) -> int | None:
        """Position of a prompt in the prompt table, or None where the file does not hold it."""
        found = self._positions.get(prompt_hash)
        return self.reader.prompts.find(prompt_hash) if found is None else found

    def _position(self, prompt_hash: str) -> int:
        position = self.position(prompt_hash)
        if position is None:
            raise KeyError(prompt_hash)
        return position

    def _append_prompts(
        self, records: Sequence[PromptRecord], encoded: Sequence[tuple[bytes, bytes, bytes, bytes]]
    ) -> np.ndarray[Any, Any]:
        streams = {name: self._datasets[f"prompts/{name}"] for name in ("hash", "text", "token_id")}
        starts = {name: len(stream) for name, stream in streams.items()}
        parts: dict[str, list[bytes]] = {name: [] for name in streams}
        rows = np.zeros(len(records), PROMPT_ROW)
        for row, record, fields in zip(rows, records, encoded, strict=True):
            raw_hash, text, meta, tokens = fields
            row["key"], row["checksum"] = hash_key(record.hash), record_checksum(fields)
            row["hash_start"], row["text_start"], row["token_start"] = starts.values()
            row["hash_size"], row["text_size"], row["meta_size"] = map(len, fields[:3])
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
        dataset = self._datasets[name]
        first = len(dataset)
        _append(dataset, rows)
        if hashes:
            self._file.flush()
            self._positions.update(zip(hashes, range(first, first + len(rows)), strict=True))

    def delete(self, positions: Sequence[int]) -> None:
        """Zero the rows of prompts, those of their values first."""
        gone = np.asarray(sorted(positions), np.int64)
        with self._writing():
            for name, dataset in self._datasets.items():
                if name == "prompts/index" or not name.endswith("/index"):
                    continue
                rows = dataset[:]
                hit = np.flatnonzero(
                    np.isin(rows["prompt"].astype(np.int64), gone) & is_valid(rows)
                )
                _blank(dataset, hit)
            self._file.flush()
            _blank(self._datasets["prompts/index"], gone)
            self._file.flush()
        self._positions.clear()
        self.reader.refresh()


def _dataset_names(file: h5py.File) -> list[str]:
    names = [f"prompts/{name}" for name in ("index", "hash", "text", "token_id")]
    return names + [
        f"{ACTIVATIONS}/{n}/{part}" for n in file[ACTIVATIONS] for part in ("data", "index")
    ]


def _blank(dataset: h5py.Dataset, positions: Sequence[int] | np.ndarray[Any, Any]) -> None:
    for position in positions:
        dataset[int(position)] = np.zeros((), dataset.dtype)


def _append(dataset: h5py.Dataset, values: np.ndarray[Any, Any]) -> None:
    first = len(dataset)
    dataset.resize(first + len(values), axis=0)
    if len(values):
        dataset[first:] = values


def _holds(path: Path, file: h5py.File, layout: ArrayLayout) -> bool:
    """Whether the file has room for these values already; raises where it has, of another kind."""
    group = file.get(f"{ACTIVATIONS}/{layout.name}")
    if group is None:
        return False
    stored = ArrayLayout.from_json(read_text(group, "spec"))
    for what in ("dims", "sizes", "packing", "dtype", "layers", "hooks"):
        if getattr(stored, what) != getattr(layout, what):
            raise ModelMismatchError(
                f"cannot add {layout.name!r} to {path}: it is stored with {what} {getattr(stored, what)!r}, "
                f"and this capture gives {getattr(layout, what)!r}; use the same, or capture into another file"
            )
    return True
