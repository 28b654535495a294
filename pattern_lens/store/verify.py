"""Whether a file still holds what was written: every row, every text, every number.

What was never acknowledged is not damage: zero rows are deleted prompts, and a row that a crash cut off at
the end of an index is counted, not blamed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tqdm import tqdm

from pattern_lens.errors import DamagedFileError
from pattern_lens.names import head_label
from pattern_lens.store.chunks import Array, Selection, combine_digests, digest_slab, read_span
from pattern_lens.store.codec import pool
from pattern_lens.store.create import FIGURES
from pattern_lens.store.features import feature_data_groups
from pattern_lens.store.layout import DATA, FEATURES, TRACES, WEIGHTS, is_feature_data
from pattern_lens.store.prompt_table import hash_key
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.rows import NO_PROMPT, NONE, Rows, is_blank, is_valid
from pattern_lens.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pattern_lens.store.figures import FigureTable
    from pattern_lens.store.layout import ArrayLayout
    from pattern_lens.store.prompt_table import PromptTable
    from pattern_lens.store.reader import StoredArray

_RUN_BYTES: Final = 32 << 20
_PROMPTS_AT_ONCE: Final = 512
_DEPTH: Final = {
    TRACES: 2,
    FEATURES: 3,
}  # names that lead to an array; what fewer name is of no prompt


@dataclass(frozen=True)
class Damage:
    """One thing in a file that is not what was written.

    Attributes
    ----------
    prompt
        Hash of the prompt that it concerns, or None where that cannot be told.
    activation
        Name of the activation, result (``results/name``), figure (``figures/name``), weight (``weights/name``) or variable
        of a trace (``traces/trace/variable``) or of features (``features/autoencoder/latents/variable``,
        ``features/autoencoder/data/variable``); None where the prompt itself is damaged.
    what
        What is wrong, in words.
    feature
        Number of the feature whose data it concerns.
    """

    prompt: str | None
    activation: str | None
    what: str
    feature: int | None = None

    def __str__(self) -> str:
        what = f"{self.activation}: {self.what}" if self.activation else self.what
        section, *names = (self.activation or "").split("/")
        if self.feature is not None:
            return f"feature {self.feature} of {names[0]}: {what}"
        if section == WEIGHTS or len(names) < _DEPTH.get(section, 0):
            return what
        return f"{self.prompt or '(unknown prompt)'}: {what}"


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes
    ----------
    path
        The file.
    n_prompts, n_deleted
        Prompts in the file, and rows of deleted ones.
    n_values
        Prompts with values, by activation and ``results/name``; with all values of a trace, by ``traces/name``, with latents, by
        ``features/name``; features with all feature data by ``features/name/data``; number of figures under ``figures``,
        of weights under ``weights``.
    n_torn
        Rows that an interrupted run left half written; the next writer clears them.
    damaged
        Everything that is not what was written.
    seconds
        Time that it took.
    """

    path: Path
    n_prompts: int
    n_deleted: int
    n_values: Mapping[str, int]
    n_torn: int
    damaged: Sequence[Damage]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged

    def summary(self) -> str:
        """One line for people."""
        held = "".join(f", {name} of {n:,}" for name, n in self.n_values.items())
        found = "all intact" if self.ok else f"{len(self.damaged):,} damaged"
        return f"{self.path.name}: {counted(self.n_prompts, 'prompt')}{held}: {found} ({self.seconds:.1f} s)"


def verify(path: str | Path, *, progress: bool = True) -> VerifyReport:
    """Read everything in a file and compare it with its checksums.

    Parameters
    ----------
    path
        The file; a capture may be writing to it meanwhile.
    progress
        Whether to show a progress bar.

    Raises
    ------
    DamagedFileError
        The file cannot be opened, or its HDF5 structure cannot be read.
    NotAPatternFileError, FormatTooNewError, FormatTooOldError
        It is a file of another kind or version.
    """
    started = time.monotonic()
    reader = StoreReader(path)
    try:
        # A prompt's row is written before its values' rows: read in the other order, none is missed.
        arrays = {(array := reader.stored(g)).layout.key: array for g in reader.groups()}
        weights = {group: reader.stored(group) for group in reader.weight_groups()}
        features = {group: reader.stored(group) for group in reader.read(feature_data_groups)}
        figures = reader.figures
        values = [*arrays.values(), *weights.values(), *features.values()]
        total = sum(map(len, values)) + len(figures.rows) + len(reader.prompts)
        with tqdm(total=total, desc="verifying", unit="row", disable=not progress) as bar:
            check = _Check(reader, bar)
            check.prompts()
            for array in values:
                check.array(array)
            check.figures(figures)
            check.specifications()
        others = {FIGURES: len(figures.rows), WEIGHTS: sum(map(len, weights.values()))}
        held = {what: n for what, n in others.items() if n}
        return VerifyReport(
            path=reader.path,
            n_prompts=len(reader.prompts),
            n_deleted=int(is_blank(reader.prompts.rows).sum()),
            n_values=_counts(reader, arrays) | held,
            n_torn=check.n_torn,
            damaged=tuple(check.damaged),
            seconds=time.monotonic() - started,
        )
    finally:
        reader.close()


def _counts(reader: StoreReader, arrays: Mapping[str, StoredArray]) -> dict[str, int]:
    """Prompts with values; of a trace, of latents and of feature data what all of their variables have."""
    of_one = {k: len(a) for k, a in arrays.items() if a.layout.section not in (TRACES, FEATURES)}
    of_one |= {f"{TRACES}/{n}": len(reader.traced(n)) for n in reader.trace_names()}
    for name in reader.feature_sets():
        of_one[f"{FEATURES}/{name}"] = len(reader.with_latents(name))
        if n_features := len(reader.with_feature_data(name)):
            of_one[f"{FEATURES}/{name}/{DATA}"] = n_features
    return of_one


class _Check:
    """The rules, applied to one file; what breaks them is collected in `damaged`."""

    def __init__(self, reader: StoreReader, bar: tqdm[Any]) -> None:
        self.reader = reader
        self.bar = bar
        self.damaged: list[Damage] = []
        self.n_torn = 0
        with reader.handle.open() as file:
            self._hash_bytes = len(file["prompts/hash"])

    def prompts(self) -> None:
        """Seals of the prompts' rows, and checksums of their texts and tokens."""
        table = self.reader.prompts
        for position in self._damaged_rows(table.rows):
            what = f"row {position} of /prompts/index is damaged"
            self.damaged.append(Damage(self._name(position), None, what))
        for first in range(0, len(table), _PROMPTS_AT_ONCE):
            positions = table.positions[first : first + _PROMPTS_AT_ONCE].tolist()
            for position in damaged_prompts(table, positions):
                what = f"hash, text, metadata or tokens (row {position} of /prompts/index) do not have their checksum"
                self.damaged.append(Damage(self._name(position), None, what))
            self.bar.update(len(positions))

    def array(self, array: StoredArray) -> None:
        """Seals of one activation's rows, and checksums of its values."""
        with self.reader.handle.open() as file:
            index: Rows = file[f"{array.group}/index"][:]
            extent = int(file[f"{array.group}/data"].shape[array.layout.axis])
        for row in self._damaged_rows(index):
            what = f"row {row} of /{array.group}/index is damaged"
            self._blame(array, int(index[row]["prompt"]), what)
        known = self._names_something(array)
        inside = np.array([array.span(row)[1] <= extent for row in range(len(array))], np.bool_)
        for row in np.flatnonzero(~known).tolist():
            number = int(array.rows[row]["prompt"])
            where = "the autoencoder" if is_feature_data(array.group) else "/prompts/index"
            what = f"names row {number} of {where}, which does not exist"
            self._blame(array, number, what)
        for row in np.flatnonzero(known & ~inside).tolist():
            number = int(array.rows[row]["prompt"])
            self._blame(array, number, f"lies beyond the end of /{array.group}/data")
        self.bar.update(len(array) - int((known & inside).sum()))
        whole = sorted(np.flatnonzero(known & inside).tolist(), key=array.span)
        for run in runs(array, whole):
            for row in damaged_rows(self.reader, array, run):
                number = int(array.rows[row]["prompt"])
                self._blame(array, number, "its values do not have their checksum")
            self.bar.update(len(run))

    def _names_something(self, array: StoredArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows are of prompts, or of features, that exist; of a weight, which are of no prompt."""
        if array.layout.section == WEIGHTS:
            return np.asarray(array.rows["prompt"] == NO_PROMPT)
        if is_feature_data(array.group):
            return np.asarray(array.rows["prompt"] < self._n_features(array.group.split("/")[1]))
        return self.reader.prompts.has(array.rows["prompt"])

    def _n_features(self, name: str) -> int:
        """Features of an autoencoder; where what is said of it is damaged, as many as there may be."""
        try:
            return int(self.reader.feature_set(name).get("n_features", NO_PROMPT))
        except DamagedFileError:
            return NO_PROMPT

    def figures(self, table: FigureTable) -> None:
        """Seals of the figures' rows, and checksums of their bytes."""
        for row in self._damaged_rows(table.all_rows):
            what = f"row {row} of /{FIGURES}/index is damaged"
            self.damaged.append(Damage(None, FIGURES, what))
        for place in table.damaged_descriptions():
            what = f"the description in row {place} of /{FIGURES}/index does not have its checksum"
            self.damaged.append(Damage(None, FIGURES, what))
        for found in table.rows:
            if not table.is_intact(found):
                self.damaged.append(self._damaged_figure(table, found))
            self.bar.update(1)

    def specifications(self) -> None:
        """Checksums of what is said of traces, of autoencoders and of feature data."""
        reader = self.reader
        said = [(f"{TRACES}/{name}", reader.trace_spec, name) for name in reader.trace_names()]
        for name in reader.feature_sets():
            said.append((f"{FEATURES}/{name}", reader.feature_set, name))
            said.append((f"{FEATURES}/{name}/{DATA}", reader.feature_data_spec, name))
        for group, read, name in said:
            try:
                read(name)
            except DamagedFileError:
                what = "what is said of it (attribute json) does not have its checksum"
                self.damaged.append(Damage(None, group, what))

    def _damaged_figure(self, table: FigureTable, found: Any) -> Damage:
        layer, head = int(found["layer"]), int(found["head"])
        where = "" if NONE in (layer, head) else f" of {head_label(layer, head)}"
        name = f"{FIGURES}/{table.kinds[int(found['kind'])]['name']}"
        what = f"the bytes{where} do not have their checksum"
        prompt = int(found["prompt"])
        return Damage(None if prompt == NO_PROMPT else self._name(prompt), name, what)

    def _blame(self, array: StoredArray, number: int, what: str) -> None:
        """Note what is wrong with the values of the prompt, or of the feature, of this number."""
        of_feature = is_feature_data(array.group)
        prompt, feature = (None, number) if of_feature else (self._name(number), None)
        self.damaged.append(Damage(prompt, array.layout.key, what, feature))

    def _damaged_rows(self, rows: Rows) -> list[int]:
        """Rows that are neither valid, deleted nor cut off by a crash; counts the last kind."""
        valid = is_valid(rows)
        bad = np.flatnonzero(~valid & ~is_blank(rows))
        end = int(np.flatnonzero(valid)[-1]) + 1 if valid.any() else 0
        # A row cut off lies behind all valid ones and ends in what was there before: zeros.
        last_byte = (
            np.ascontiguousarray(rows).view("u1").reshape(len(rows), rows.dtype.itemsize)[:, -1]
        )
        torn = (bad >= end) & (last_byte[bad] == 0)
        self.n_torn += int(torn.sum())
        return [int(row) for row in bad[~torn]]

    def _name(self, position: int) -> str | None:
        """Hash of the prompt at a position, valid or not, where it can still be read."""
        table = self.reader.prompts
        if not position < len(table.rows):
            return None
        row = table.rows[position]
        if int(row["hash_start"]) + int(row["hash_size"]) > self._hash_bytes:
            return None
        try:
            found = table.hashes([position])[0]
        except DamagedFileError:
            return None
        return found if found and hash_key(found) == int(row["key"]) else None


def damaged_prompts(table: PromptTable, positions: Sequence[int]) -> list[int]:
    """Those of the positions whose hash, text, metadata or tokens are not what was written."""
    try:
        sums = table.checksums(positions)
    except DamagedFileError:
        if len(positions) == 1:
            return list(positions)
        return [bad for position in positions for bad in damaged_prompts(table, [position])]
    stored = table.rows["checksum"][np.asarray(positions, np.intp)].tolist()
    return [at for at, a, b in zip(positions, sums, stored, strict=True) if a != b]


def runs(
    array: StoredArray, rows: Sequence[int], *, size_bytes: int = _RUN_BYTES
) -> Iterator[list[int]]:
    """The rows in order, in groups whose values lie back to back, so that a chunk is restored once.

    Parameters
    ----------
    size_bytes
        Most bytes of values in a group of several rows.
    """
    per_element = element_bytes(array.layout)
    run: list[int] = []
    first = last = 0
    for row in rows:
        start, stop = array.span(row)
        if run and (start != last or (stop - first) * per_element > size_bytes):
            yield run
            run = []
        if not run:
            first = start
        run.append(row)
        last = stop
    if run:
        yield run


def element_bytes(layout: ArrayLayout) -> int:
    """Stored bytes, not compressed, of one element along the growing axis."""
    return math.prod(layout.stored_shape(1)) * layout.stored_dtype.itemsize


def read_run(reader: StoreReader, array: StoredArray, run: Sequence[int]) -> Array:
    """Values of rows that lie back to back, in stored layout and dtype.

    Raises
    ------
    DamagedFileError
        A chunk cannot be restored, or a prompt's values do not have their checksum.
    """
    layout = array.layout
    first, last = array.span(run[0])[0], array.span(run[-1])[1]
    try:
        with reader.handle.open() as file:
            data = file[f"{array.group}/data"]
            values = read_span(data, layout, Selection.everything(layout), (first, last), pool())
    except ValueError as err:
        raise DamagedFileError(f"cannot read /{array.group}/data of {reader.path}: {err}") from err
    layers = values if layout.has_layers else values[None]
    axis = layout.axis - int(layout.has_layers)
    for row in run:
        start, stop = array.span(row)
        part = (slice(None),) * axis + (slice(start - first, stop - first),)
        digests = [digest_slab(layer[part]) for layer in layers]
        if combine_digests(digests) != int(array.rows[row]["checksum"]):
            raise DamagedFileError(
                f"values {start} to {stop} of /{array.group}/data in {reader.path} do not have their checksum"
            )
    return values


def damaged_rows(reader: StoreReader, array: StoredArray, run: Sequence[int]) -> list[int]:
    """Those of the rows, which lie back to back, whose values are not what was written."""
    try:
        read_run(reader, array, run)
    except DamagedFileError:
        return [row for row in run if len(run) == 1 or damaged_rows(reader, array, [row])]
    return []
