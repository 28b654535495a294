"""Figure files of prompts -> figure records.

The rule: every file of a head's folder that is not hidden is a figure, a failure, `raw`, or listed with the reason why
it is none.
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.errors import DamagedFileError
from pattern_lens.figures.produce import SIZE_LIMIT_BYTES
from pattern_lens.importing.folders import FIGURES_FILE, files_below, read_bytes
from pattern_lens.importing.report import Figures, Skipped
from pattern_lens.importing.scan import ORIGIN
from pattern_lens.store.create import FIGURES
from pattern_lens.store.figures import FigureRecord
from pattern_lens.store.rows import NONE

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from pattern_lens.importing.folders import ModelFolder
    from pattern_lens.store.figures import FigureTable
    from pattern_lens.store.writer import StoreWriter

_HEAD: Final = re.compile(r"L(\d{1,6})/H(\d{1,6})/(.+)")
_FORMAT: Final = re.compile(r"[a-z0-9]{1,16}")
_ERROR: Final = ".error.txt"
_RAW: Final = "raw"
_COMMIT_BYTES: Final = 16 << 20
_COMMIT_FIGURES: Final = 4096

Key = tuple[int, int, str]


@dataclass(frozen=True)
class FigureFile:
    """One file of a head's folder.

    Parameters
    ----------
    name
        ``func`` or ``func.figure``; of a failure the function's name.
    format
        Ending of its name; empty for a failure.
    """

    path: Path
    layer: int
    head: int
    name: str
    format: str

    @property
    def function(self) -> str:
        """Name of the function that drew it."""
        return self.name.partition(".")[0]


def figure_file(folder: Path, path: Path) -> FigureFile | None:
    """What the name of a file in a prompt's folder says; None if it belongs to no head.

    Raises
    ------
    ValueError
        No figure can have this name.
    """
    below = path.relative_to(folder).as_posix()
    found = _HEAD.fullmatch(below)
    if found is None:
        return None
    layer, head, file_name = int(found.group(1)), int(found.group(2)), found.group(3)
    if PurePosixPath(file_name).name.startswith("."):  # of the desktop, such as .DS_Store
        return None
    if _text(file_name) != file_name:
        raise ValueError("its name is no text")
    if file_name.endswith(_ERROR):
        return FigureFile(path, layer, head, file_name.removesuffix(_ERROR), "")
    pure = PurePosixPath(file_name)
    name, ending = ".".join(pure.with_suffix("").parts), pure.suffix.lower().removeprefix(".")
    if not _FORMAT.fullmatch(ending):
        raise ValueError(f"its ending {pure.suffix!r} is of no picture")
    return FigureFile(path, layer, head, name, ending)


def descriptions(model: ModelFolder) -> dict[str, dict[str, Any]]:
    """What ``figures.jsonl`` of the data folder says of each figure, by name; lines that are damaged say nothing.

    Its `source` is left out: it names a file of another machine, and always the same one.
    """
    root = model.path.parents[model.name.count("/")]
    try:
        lines = read_bytes(root / FIGURES_FILE).splitlines()
    except (OSError, ValueError):
        return {}
    found = {}
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("name"), str):
            kept = ("func_name", "doc", "figure_save_fmt", "code")
            found[row["name"]] = {
                key: _text(row[key]) for key in kept if isinstance(row.get(key), str)
            }
    return found


@dataclass
class FigureImport:
    """The figures of a model's prompts, on their way into its file.

    Attributes
    ----------
    counts
        What was stored, and what was not.
    skipped
        Files that are no figures.
    """

    model: ModelFolder
    writer: StoreWriter
    n_layers: int
    n_heads: int
    counts: Figures = field(default_factory=Figures)
    skipped: list[Skipped] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._descriptions = descriptions(self.model)
        self._table: FigureTable = self.writer.reader.figures
        self._records: list[FigureRecord] = []
        self._n_bytes = 0

    def add(self, folder: Path, position: int) -> None:
        """Store the figures of one prompt; they are stored when `commit` returns.

        Parameters
        ----------
        position
            Of the prompt in the prompt table.
        """
        files = [file for entry in files_below(folder) if (file := self._file(folder, entry))]
        there = self._there(position)
        for file in _named(files):
            names = [file.name] if file.format else self._names_of(file)
            for name in names:
                self._take(file, name, position, there)

    def _file(self, folder: Path, entry: os.DirEntry[str]) -> FigureFile | None:
        """The figure that a file is; None if it is none, which is counted or listed unless it is the prompt's own."""
        path = Path(entry.path)
        info = entry.stat(follow_symlinks=False)
        try:
            file = figure_file(folder, path)
            if file is None:
                return None
            if file.function == _RAW:
                self.counts.n_raw += 1
                return None
            self._check(file, info.st_size, is_file=stat.S_ISREG(info.st_mode))
        except ValueError as err:
            self._skip(path, err)
            return None
        return file

    def _check(self, file: FigureFile, size: int, *, is_file: bool) -> None:
        if not is_file:
            raise ValueError("it is a link or a device, expected a file")
        if file.format and not size:
            raise ValueError("it is empty")
        if size > SIZE_LIMIT_BYTES:
            raise ValueError(f"it has {size:,} bytes, more than the limit of {SIZE_LIMIT_BYTES:,}")
        if file.layer >= self.n_layers or file.head >= self.n_heads:
            raise ValueError(
                f"there is no such head in a model of {self.n_layers} layers of {self.n_heads} heads"
            )

    def _there(self, position: int) -> dict[Key, bool]:
        """Figures of a prompt that the file held before, and whether they are failures."""
        rows = self._table.rows
        first, last = rows["prompt"].searchsorted([position, position + 1])
        return {
            (int(row["layer"]), int(row["head"]), self._table.kinds[int(row["kind"])]["name"]): (
                self._table.is_failure(row)
            )
            for row in rows[first:last]
            if NONE not in (row["layer"], row["head"])
        }

    def _names_of(self, failed: FigureFile) -> list[str]:
        """Figures that a function which failed should have drawn."""
        known = [n for n, row in self._descriptions.items() if row.get("func_name") == failed.name]
        return known or [failed.name]

    def _take(self, file: FigureFile, name: str, position: int, there: dict[Key, bool]) -> None:
        key = (file.layer, file.head, name)
        if not file.format and there.get(key) is False:
            self.counts.n_stale += 1
            return
        if key in there and (not there[key] or not file.format):
            self.counts.n_present += 1
            return
        try:
            data = file.path.read_bytes()
        except OSError as err:
            self._skip(file.path, err)
            return
        there[key] = not file.format
        self._append(
            FigureRecord(
                prompt=position,
                layer=file.layer,
                head=file.head,
                name=name,
                format=file.format,
                data=data if file.format else _failure(data),
                failed=not file.format,
                about=self._about(file, name),
            )
        )

    def _about(self, file: FigureFile, name: str) -> Mapping[str, Any]:
        known = self._descriptions.get(name, {})
        function = known.get("func_name", file.function)
        return {"function": function, **known, "imported_from": ORIGIN}

    def _append(self, record: FigureRecord) -> None:
        self.counts.n_failures += record.failed
        self.counts.n_stored += not record.failed
        self._records.append(record)
        self._n_bytes += len(record.data)
        if self._n_bytes > _COMMIT_BYTES or len(self._records) == _COMMIT_FIGURES:
            self.commit()

    def commit(self) -> None:
        """Store what was added, and read it back.

        Raises
        ------
        DamagedFileError
            What was read is not what was written.
        """
        records, self._records, self._n_bytes = self._records, [], 0
        if not records:
            return
        self.writer.commit_computed([], {}, records)
        reader = self.writer.reader
        reader.refresh()
        written = b"".join(record.data for record in records)
        with reader.handle.open() as file:
            data = file[f"{FIGURES}/data"]
            found = data[len(data) - len(written) :].tobytes()
        if found != written:
            raise DamagedFileError(
                f"figures read back from {self.writer.path} are not what was written; look at its disk, and import "
                "the folder into another file"
            )

    def _skip(self, path: Path, reason: object) -> None:
        below = path.relative_to(self.model.path).as_posix()
        shown = f"{self.model.name}/{below}".encode("utf-8", "backslashreplace").decode()
        self.skipped.append(Skipped(shown, str(reason)))


def _named(files: list[FigureFile]) -> Iterator[FigureFile]:
    """Files with figure names of their own, pictures before failures.

    A figure that lies there in several formats has its name for the first of them, and ``{name}.{format}`` for each other.
    """
    used: set[Key] = set()
    for file in sorted(files, key=lambda file: (not file.format, file.layer, file.head)):
        key = (file.layer, file.head, file.name)
        if file.format and key in used:
            yield FigureFile(
                file.path, file.layer, file.head, f"{file.name}.{file.format}", file.format
            )
            continue
        used.add(key)
        yield file


def _text(text: str) -> str:
    """A text without what UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()


def _failure(message: bytes) -> bytes:
    """A failure of which only the message is known."""
    text = message.decode("utf-8", "replace")
    known = {"error": "Exception", "message": text, "traceback": ""}
    return json.dumps(known, ensure_ascii=False).encode()
