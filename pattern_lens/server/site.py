"""The application as a folder of files, for any web host.

The rules: every file is written whole or not at all; the answers of one prompt are there when its mark is, so the same call goes
on where an earlier one stopped; nothing is removed but what an export wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tqdm import tqdm

from pattern_lens import __version__
from pattern_lens.errors import ForeignFolderError
from pattern_lens.figures.saving import write_whole
from pattern_lens.server import model_answers
from pattern_lens.server.answers import rows_tag, tag_of
from pattern_lens.server.chosen import Chosen, choose, close, index_of
from pattern_lens.server.figure_answers import unpacked
from pattern_lens.server.pages import VIEWS, Application
from pattern_lens.store.create import explain_writing
from pattern_lens.wording import counted, human_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike

    from pattern_lens.heads import HeadSelection

_MARK: Final = ".pattern_lens_site.json"
_DONE: Final = "complete.json"


@dataclass(frozen=True)
class SiteReport:
    """What an export did.

    Attributes
    ----------
    folder
        Where the site is; ``index.html`` is its first page.
    n_prompts
        Prompts that it holds.
    n_present
        Prompts of them that were there already.
    n_files, size_bytes
        Files of the site, and bytes of them all.
    seconds
        Time that it took.
    """

    folder: Path
    n_prompts: int
    n_present: int
    n_files: int
    size_bytes: int
    seconds: float

    def summary(self) -> str:
        """One line for people."""
        parts = [
            f"{counted(self.n_prompts, 'prompt')} in {counted(self.n_files, 'file')} of {self.folder}",
            human_size(self.size_bytes),
            *([f"{self.n_present:,} were there"] if self.n_present else []),
        ]
        return f"{', '.join(parts)} ({self.seconds:.1f} s)"


def export_site(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]],
    folder: str | PathLike[str],
    *,
    prompts: str | Iterable[str] | None = None,
    heads: HeadSelection | None = None,
    figures: str | Iterable[str] | None = None,
    lens: bool = False,
    features: bool = False,
    progress: bool = True,
    force: bool = False,
) -> SiteReport:
    """Write the web application with its data as a folder of files, for any web host.

    Parameters
    ----------
    paths
        A file, or several.
    folder
        Empty, new, or an earlier export, whose prompts and models that are not chosen now are removed.
    prompts
        Hashes; all prompts by default.
    heads
        Such as ``"L0-3H2, L5"``; all heads by default.
    figures
        Names or globs of stored figures; all by default.
    lens
        Whether to export the logit lens, where the file holds the residual stream: every stream is unembedded, which
        takes about half a second for 32 tokens of GPT-2 small.
    features
        Whether to export the features of autoencoders, where the file holds them: about 100 kB each.
    progress
        Whether to show a progress bar.
    force
        Write prompts again that are there.

    Raises
    ------
    UnknownPromptError, UnknownFigureError, HeadSelectionError, OutOfRangeError
        Something that is in none of the files; nothing was written.
    ForeignFolderError
        A folder with files that no export made; nothing was written.
    DiskFullError, FileNotWritableError
        What was written before is whole; the same call goes on where it stopped.
    """
    started = time.monotonic()
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    chosen = choose(
        [Path(one) for one in given],
        prompts=prompts,
        heads=heads,
        figures=figures,
        lens=lens,
        features=features,
    )
    try:
        site = _Site(Path(folder).expanduser().absolute(), force=force)
        site.write(chosen, progress=progress)
    finally:
        close(chosen)
    files = [path for path in site.folder.rglob("*") if path.is_file()]
    return SiteReport(
        folder=site.folder,
        n_prompts=sum(len(one.view.positions) for one in chosen),
        n_present=site.n_present,
        n_files=len(files),
        size_bytes=sum(path.stat().st_size for path in files),
        seconds=time.monotonic() - started,
    )


class _Site:
    """One folder, and what was found in it."""

    def __init__(self, folder: Path, *, force: bool) -> None:
        self.folder, self.force, self.n_present = folder, force, 0
        self._made: set[Path] = set()
        _check_is_ours(folder)

    def write(self, chosen: Sequence[Chosen], *, progress: bool) -> None:
        """Write everything; the index last, so that it names nothing that is not there."""
        self._write(_MARK, _json({"exported_by": "pattern_lens", "version": __version__}))
        self._remove_others(chosen)
        n_prompts = sum(len(one.view.positions) for one in chosen)
        with tqdm(total=n_prompts, desc="exporting", unit="prompt", disable=not progress) as bar:
            for one in chosen:
                for position in one.view.positions.tolist():
                    self._prompt(one, position)
                    bar.update()
                self._answers(one, one.of_file())
        self._write("api/colours.json", model_answers.colours().make())
        self._pages()
        self._write("api/index.json", index_of(chosen).make())

    def _prompt(self, one: Chosen, position: int) -> None:
        """The answers of one prompt, unless all of them are there."""
        done = f"api/{one.id}/prompt/{one.key(position)}/{_DONE}"
        mark = _json({"tag": _prompt_tag(one, position)})
        with suppress(OSError):
            if not self.force and (self.folder / done).read_bytes() == mark:
                self.n_present += 1
                return
        self._answers(one, one.of_prompt(position))
        self._write(done, mark)

    def _answers(self, one: Chosen, addresses: Iterable[str]) -> None:
        for rest in addresses:
            answer = one.answer(rest)
            data = answer.make()
            self._write(f"api/{one.id}/{rest}", unpacked(data) if answer.encoding else data)

    def _pages(self) -> None:
        pages = Application()
        for name in VIEWS:
            self._write(name, pages.page(name, is_exported=True).data)
        for name, file in pages.files().items():
            if not name.endswith(".html"):
                self._write(f"static/{name}", file.data)

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        if path.parent not in self._made:
            with explain_writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(path.parent)
        write_whole(path, data)

    def _remove_others(self, chosen: Sequence[Chosen]) -> None:
        """Remove what an earlier export wrote of other models and prompts: who gets this folder gets what was chosen."""
        (self.folder / "api" / "index.json").unlink(missing_ok=True)
        known = {one.id: one for one in chosen}
        for model in _below(self.folder / "api"):
            if model.is_dir() and model.name not in known:
                shutil.rmtree(model)
                continue
            keys = (
                {known[model.name].key(p) for p in known[model.name].view.positions.tolist()}
                if model.is_dir()
                else set()
            )
            for entry in _below(model / "prompt"):
                if entry.name.removesuffix(".json") not in keys:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _prompt_tag(one: Chosen, position: int) -> str:
    """Another one where any answer of a prompt would be another."""
    view = one.view
    row = None if view.array is None else view.array.row_of(position)
    values = None if view.array is None or row is None else rows_tag(view.array.rows[[row]])
    listed = [
        one.answer(f"prompt/{one.key(position)}/{name}.json").tag for name in ("figures", "scores")
    ]
    lens = [one.answer(rest).tag for rest in one.lens(position)]
    traces = [one.answer(rest).tag for rest in one.traces(position)]
    features = [one.answer(rest).tag for rest in one.features(position)]
    return tag_of(view.file_id, position, values, view.head_labels, listed, lens, traces, features)


def _below(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _check_is_ours(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ForeignFolderError(f"cannot export to {folder}: it is a file; give a folder")
    if not any(folder.iterdir()):
        return
    try:
        is_ours = json.loads((folder / _MARK).read_bytes())["exported_by"] == "pattern_lens"
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise ForeignFolderError(
            f"cannot export to {folder}: there are files in it that no export of a site made; give another folder"
        )


def _json(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"
