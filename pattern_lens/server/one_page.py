"""The application with its data in one file that works offline, from a mail attachment.

The rules: nothing in the page is loaded from anywhere, and its own policy forbids it; its size is known before anything is
written, and a selection that is too large is refused with what to choose less of.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tqdm import tqdm

from pattern_lens.errors import ExportTooLargeError
from pattern_lens.figures.saving import write_whole
from pattern_lens.names import head_label
from pattern_lens.server import model_answers
from pattern_lens.server.answers import JSON
from pattern_lens.server.chosen import Chosen, choose, close, index_of
from pattern_lens.server.figure_answers import estimated_sizes, unpacked
from pattern_lens.server.pages import Application
from pattern_lens.server.whole_page import whole_page
from pattern_lens.wording import counted, human_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from os import PathLike

    from pattern_lens.heads import HeadSelection

LIMIT_BYTES: Final = 25_000_000
"""What mail servers take."""

_BASE64: Final = 4 / 3
_JSON_OF_A_HEAD: Final = 40
_JSON_OF_A_TOKEN: Final = 40
_JSON_OF_A_LENS: Final = 90
_SAMPLED_HEADS: Final = 3
_OF_A_PICTURE: Final = 0.12
_OF_AN_ANSWER: Final = 300
_ROUGHLY: Final = 1.3


@dataclass(frozen=True)
class PageReport:
    """What an export did.

    Attributes
    ----------
    path
        The page.
    n_prompts, n_heads
        Prompts and heads that it holds.
    size_bytes
        Its size.
    seconds
        Time that it took.
    """

    path: Path
    n_prompts: int
    n_heads: int
    size_bytes: int
    seconds: float

    def summary(self) -> str:
        """One line for people."""
        what = f"{counted(self.n_prompts, 'prompt')}, {counted(self.n_heads, 'head')}"
        return f"{what} in {self.path}, {human_size(self.size_bytes)} ({self.seconds:.1f} s)"


def export_html(
    path: str | PathLike[str],
    out: str | PathLike[str],
    *,
    prompts: str | Iterable[str] | None = None,
    heads: HeadSelection | None = None,
    figures: str | Iterable[str] | None = None,
    lens: bool = False,
    features: bool = False,
    limit_bytes: int = LIMIT_BYTES,
    progress: bool = True,
    when_estimated: Callable[[int], None] = lambda _: None,
) -> PageReport:
    """Write the web application with a selection of a file into one page that needs nothing else.

    Parameters
    ----------
    path
        The file.
    out
        The page to write; replaced if it is there.
    prompts
        Hashes; all prompts by default, if they fit.
    heads
        Such as ``"L0-3H2, L5"``; all heads by default.
    figures
        Names or globs of stored figures; all by default.
    lens
        Whether to export the logit lens, where the file holds the residual stream: every stream is unembedded, which
        takes about half a second for 32 tokens of GPT-2 small.
    features
        Whether to export the features of autoencoders, where the file holds them: about 100 kB each.
    limit_bytes
        Size that the page may have.
    progress
        Whether to show a progress bar.
    when_estimated
        Called with the size that the page will have, roughly, before anything else is done.

    Raises
    ------
    ExportTooLargeError
        The page would be larger than the limit; nothing was written.
    UnknownPromptError, UnknownFigureError, HeadSelectionError, OutOfRangeError
        Something that is not in the file; nothing was written.
    DiskFullError, FileNotWritableError
        What stood in the page's place still does.
    """
    started = time.monotonic()
    chosen = choose(
        [Path(path)], prompts=prompts, heads=heads, figures=figures, lens=lens, features=features
    )
    one = chosen[0]
    try:
        pages = Application()
        size = estimated_bytes(one, pages)
        when_estimated(size)
        _check(one, size, limit_bytes, is_rough=True)
        data = whole_page(pages, _answers(one, progress=progress))
        _check(one, len(data), limit_bytes)
        target = Path(out).expanduser().absolute()
        write_whole(target, data)
    finally:
        close(chosen)
    return PageReport(
        path=target,
        n_prompts=len(one.view.positions),
        n_heads=len(one.view.heads),
        size_bytes=len(data),
        seconds=time.monotonic() - started,
    )


# --- size ----------------------------------------------------------------------------------------


def estimated_bytes(one: Chosen, pages: Application) -> int:
    """Roughly the size of the page: most of it are exact values and figures, of which a few are tried."""
    view = one.view
    n_tokens = int(view.prompts.n_ctx(view.positions).sum())
    n_heads = len(view.heads)
    n_values = n_heads + len({layer for layer, _ in view.heads}) + 1  # and the means
    sizes = {p: patterns_size(one, p) for p in view.positions.tolist() if one.has_patterns(p)}
    lists = n_tokens * _JSON_OF_A_TOKEN + len(sizes) * n_heads**2 * _JSON_OF_A_HEAD
    size = _BASE64 * sum(len(file.data) for file in pages.files().values()) + lists
    if sizes and n_heads:
        sample = max(sizes, key=sizes.__getitem__)
        labels = [head_label(*head) for head in view.heads][:: max(1, n_heads // _SAMPLED_HEADS)]
        packed = sum(_packed_bytes(one, sample, label) for label in labels) / len(labels)
        of_all = sum(sizes.values()) / max(sizes[sample], 1)
        size += _BASE64 * packed * of_all * (n_values + n_heads * _OF_A_PICTURE)
        size += len(sizes) * (n_values + n_heads) * _OF_AN_ANSWER
    size += sum(_lens_bytes(one, position) for position in view.positions.tolist())
    size += _traces_bytes(one) + _features_bytes(one)
    n_figures, of_figures = estimated_sizes(view)
    return int(size + _BASE64 * of_figures + n_figures * _OF_AN_ANSWER)


def _lens_bytes(one: Chosen, position: int) -> int:
    """Roughly what the logit lens of a prompt takes."""
    if not one.lens(position):
        return 0
    streams = one.view.streams
    return streams.n_pos(position, one.key(position)) * len(streams.streams()) * _JSON_OF_A_LENS


def _traces_bytes(one: Chosen) -> int:
    """Roughly what stored traces take: as many tables as there are, each as long as those of the longest prompt."""
    addresses = {position: one.traces(position) for position in one.view.positions.tolist()}
    if not any(addresses.values()):
        return 0
    sample = max(
        addresses, key=lambda position: (bool(addresses[position]), one.view.n_ctx(position))
    )
    size = sum(len(one.answer(rest).make()) for rest in addresses[sample])
    n_each = max(len(addresses[sample]), 1)
    return sum(size * len(found) // n_each for found in addresses.values())


def _features_bytes(one: Chosen) -> int:
    """Roughly what features take: as many as there are, each as large as the first of its autoencoder."""
    size = 0
    for name in one.view.feature_names:
        numbers = one.view.features.numbers(name).tolist()
        if numbers:
            answer = one.answer(f"features/{name}/feature/{numbers[0]}.json")
            size += len(numbers) * len(answer.make())
    return size


def patterns_size(one: Chosen, position: int) -> int:
    """Numbers of each of a prompt's patterns, a dense one."""
    array = one.view.array
    row = None if array is None else array.row_of(position)
    return 0 if array is None or row is None else math.prod(array.sizes(row))


def _packed_bytes(one: Chosen, position: int, label: str) -> int:
    answer = one.answer(f"prompt/{one.key(position)}/pattern/{label}.packed.npy")
    return len(_zipped(answer.make()))


def _check(one: Chosen, size: int, limit: int, *, is_rough: bool = False) -> None:
    if size <= limit * (_ROUGHLY if is_rough else 1):
        return
    about = "about " if is_rough else ""
    raise ExportTooLargeError(
        f"cannot write {counted(len(one.view.positions), 'prompt')} with {counted(len(one.view.heads), 'head')} into one "
        f"page: it would have {about}{human_size(size)}, and may have {human_size(limit)}; choose fewer prompts "
        "or fewer heads, allow more, or export a site, which has no limit"
    )


# --- the page ------------------------------------------------------------------------------------


def _answers(one: Chosen, *, progress: bool) -> dict[str, Any]:
    """What the page holds: `answers` by address, JSON as it is and bytes as base64; `gzip` names those that are compressed."""
    answers: dict[str, Any] = {
        "api/index.json": json.loads(index_of([one]).make()),
        "api/colours.json": json.loads(model_answers.colours().make()),
    }
    zipped: list[str] = []
    addresses = one.of_file()
    _add(one, addresses, answers, zipped)
    positions = one.view.positions.tolist()
    for position in tqdm(positions, "exporting", unit="prompt", disable=not progress):
        _add(one, one.of_prompt(position), answers, zipped)
    return {"answers": answers, "gzip": zipped}


def _add(one: Chosen, rests: Iterable[str], answers: dict[str, Any], zipped: list[str]) -> None:
    for rest in rests:
        answer = one.answer(rest)
        data = answer.make()
        address = f"api/{one.id}/{rest}"
        if answer.media_type == JSON and not answer.is_foreign:
            answers[address] = json.loads(data)
        elif answer.is_foreign:  # shown by its address: a browser takes it as it is
            found = base64.b64encode(unpacked(data) if answer.encoding else data).decode()
            answers[address] = found
        else:
            answers[address] = base64.b64encode(_zipped(data)).decode()
            zipped.append(address)


def _zipped(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)
