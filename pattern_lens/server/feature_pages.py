"""Features as pages that work offline: one page with many and their table, or a folder with a page for each.

The rule: a page holds what a server answers on its features and nothing else, asks for nothing, and shows no prompt that
was not chosen but by the windows around its tokens.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tqdm import tqdm

from pattern_lens.errors import ExportTooLargeError, UnknownFeaturesError
from pattern_lens.server import model_answers
from pattern_lens.server.chosen import Chosen
from pattern_lens.server.feature_folder import write_folder, written
from pattern_lens.server.keys import ids_of
from pattern_lens.server.one_page import LIMIT_BYTES
from pattern_lens.server.pages import Application
from pattern_lens.server.view import BLOCK, View
from pattern_lens.server.whole_page import whole_page
from pattern_lens.store.reader import StoreReader
from pattern_lens.wording import counted, human_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

    from numpy.typing import NDArray

    Numbers = Mapping[str, NDArray[np.intp]]
    Answers = dict[str, Any]

_IS_PAGE: Final = re.compile(r"\.html?$", re.IGNORECASE)
_VIEW: Final = "features"
_ROUGHLY: Final = 1.3
_NOT_HERE: Final = {"patterns": False, "layers": [], "residual": False, "traces": []}


@dataclass(frozen=True)
class FeaturePagesReport:
    """What an export did.

    Attributes
    ----------
    path
        The page, or the folder.
    n_features
        Features that it holds.
    n_files, size_bytes
        Files that were written, and bytes of them all.
    seconds
        Time that it took.
    """

    path: Path
    n_features: int
    n_files: int
    size_bytes: int
    seconds: float

    def summary(self) -> str:
        """One line for people."""
        where = f"{counted(self.n_files, 'file')} of {self.path}" if self.n_files > 1 else self.path
        what = f"{counted(self.n_features, 'feature')} in {where}, {human_size(self.size_bytes)}"
        return f"{what} ({self.seconds:.1f} s)"


def export_features(
    path: str | PathLike[str],
    out: str | PathLike[str],
    *,
    sae: str | None = None,
    features: int | Iterable[int] | None = None,
    prompts: str | Iterable[str] = (),
    limit_bytes: int = LIMIT_BYTES,
    progress: bool = True,
) -> FeaturePagesReport:
    """Write features of a file into pages that need nothing else.

    Parameters
    ----------
    path
        A file with feature data, as `compute_features` stores it.
    out
        A name that ends in ``.html`` is one page with all of them, their table and its search; any other is a folder, with
        a page for each feature, such as ``mlp.0-7.html``, and ``index.html``, which lists them.
    sae
        Name of the autoencoder; by default all of the file.
    features
        Numbers of its features; by default all that have data. With numbers, a file of several autoencoders needs `sae`.
    prompts
        Hashes of prompts whose features are shown token by token, in a page with all; none by default.
    limit_bytes
        Size that a page with all may have.
    progress
        Whether to show a progress bar.

    Raises
    ------
    UnknownFeaturesError
        The file holds no such autoencoder, or no data of such a feature.
    UnknownPromptError
        The file does not hold such a prompt.
    ExportTooLargeError
        The page would be larger than the limit; nothing was written.
    ForeignFolderError
        `out` is no name of a page, and there is a file of this name.
    DiskFullError, FileNotWritableError
        What stood in the place of a page still does.
    """
    started = time.monotonic()
    target = Path(out).expanduser().absolute()
    hashes = [prompts] if isinstance(prompts, str) else list(prompts)
    pages = Application()
    with closing(StoreReader(Path(path))) as reader:
        positions = [reader.prompts.position(one) for one in hashes]
        numbers = _chosen(reader, sae, features)
        view = View(
            reader, positions=positions, figures=(), is_export=True, lens=False, features=numbers
        )
        one = Chosen(ids_of([(view.model_name, reader.path)])[0], view)
        if _IS_PAGE.search(target.name):
            sizes = _one_page(target, pages, one, limit_bytes, progress=progress)
        else:
            make = partial(_page, pages)
            sizes = write_folder(target, one, _shared(one), make, progress=progress)
    n_features = sum(len(one) for one in numbers.values())
    took = time.monotonic() - started
    return FeaturePagesReport(target, n_features, len(sizes), sum(sizes), took)


def _chosen(reader: StoreReader, sae: str | None, features: int | Iterable[int] | None) -> Numbers:
    """Numbers of the features of an export, by autoencoder."""
    from pattern_lens.features.stored import Features

    held = Features(reader)
    names = [*held] if sae is None else [sae]
    if not names or (features is not None and len(names) > 1):
        what = "it holds none" if not names else f"it holds those of {', '.join(names)}: give sae="
        raise UnknownFeaturesError(f"cannot export features of {reader.path}: {what}")
    if features is not None:
        wanted = [features] if isinstance(features, int) else [int(one) for one in features]
        held[names[0]].sel(wanted)  # says which there is no data of
        return {names[0]: np.unique(np.asarray(wanted, np.intp))}
    found = {name: np.asarray(held[name].computed, np.intp) for name in names}
    if not any(len(one) for one in found.values()):
        raise UnknownFeaturesError(
            f"cannot export features of {reader.path}: nothing is computed of those of {', '.join(names)}; compute_features does that"
        )
    return {name: one for name, one in found.items() if len(one)}


# --- one page ------------------------------------------------------------------------------------


def _page(pages: Application, answers: Answers) -> bytes:
    return whole_page(pages, {"answers": answers, "gzip": []}, view=_VIEW)


def _one_page(
    target: Path, pages: Application, one: Chosen, limit: int, *, progress: bool
) -> list[int]:
    """Write one page with everything; its size is estimated before it is made, from one feature of each autoencoder."""
    view = one.view
    each = {name: view.features.numbers(name).tolist() for name in view.feature_names}
    bare = len(_page(pages, _shared(one)))
    samples = (
        (len(one.answer(_of(name, some[0])).make()), len(some)) for name, some in each.items()
    )
    n = sum(map(len, each.values()))
    _check(bare + sum(size * count for size, count in samples), int(limit * _ROUGHLY), n, "about ")
    rests = [_of(name, number) for name, some in each.items() for number in some]
    bar = tqdm(rests, "exporting", unit="feature", disable=not progress)
    data = _page(pages, _shared(one) | {f"api/{one.id}/{rest}": _told(one, rest) for rest in bar})
    _check(len(data), limit, n)
    return [written(target, data)]


def _check(size: int, limit: int, n_features: int, about: str = "") -> None:
    if size > limit:
        raise ExportTooLargeError(
            f"cannot write {counted(n_features, 'feature')} into one page: it would have {about}{human_size(size)}, and may "
            f"have {human_size(limit)}; choose fewer features, allow more, or give a folder, which gets a page for each"
        )


def _of(sae: str, number: int) -> str:
    """Address of a feature."""
    return f"features/{sae}/feature/{number}.json"


def _told(one: Chosen, rest: str) -> Any:
    return json.loads(one.answer(rest).make())


def _shared(one: Chosen) -> Answers:
    """The answers that are of no one feature."""
    view = one.view
    entry = {**model_answers.entry(view, one.id), **_NOT_HERE}
    index = json.loads(model_answers.index([entry], (), live=False).make())
    rests = ["features.json"]
    for name in view.feature_names:
        rests += [f"features/{name}/{what}.json" for what in ("table", "tokens")]
    if len(view.positions):
        rests += [f"prompts/{n}.json" for n in range(-(-len(view.positions) // BLOCK))]
    for position in view.positions.tolist():
        rests += [f"prompt/{one.key(position)}.json", *one.features(position)]
    return {"api/index.json": index} | {f"api/{one.id}/{rest}": _told(one, rest) for rest in rests}
