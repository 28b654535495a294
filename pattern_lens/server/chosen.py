"""What an export holds: views of files, and the addresses of every answer in them.

The rule: an export holds what a live server answers at the same addresses; here stands only which of them there are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from pattern_lens.errors import (
    HeadSelectionError,
    NothingToServeError,
    OutOfRangeError,
    UnknownFigureError,
)
from pattern_lens.heads import parse_heads
from pattern_lens.names import head_label
from pattern_lens.patterns.operands import hashes_in
from pattern_lens.server import model_answers, resources
from pattern_lens.server.keys import ids_of, prompt_key
from pattern_lens.server.view import BLOCK, View
from pattern_lens.store.reader import StoreReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pattern_lens.heads import Head, HeadSelection
    from pattern_lens.server.answers import Answer


@dataclass(frozen=True)
class Chosen:
    """One file of an export."""

    id: str
    view: View

    def answer(self, rest: str) -> Answer:
        """What it answers at an address below its own."""
        return resources.answer(self.view, self.id, rest, {})

    def of_file(self) -> list[str]:
        """Addresses of what is of no one prompt."""
        blocks = range(-(-len(self.view.positions) // BLOCK))
        known = ["model.json", "functions.json", "figures.json", "scores.json"]
        return [
            *known,
            *(["residual.json"] if self.view.has_residual else []),
            *self._features(),
            *(f"prompts/{n}.json" for n in blocks or [0]),
            *self._figures("figures.json"),
        ]

    def of_prompt(self, position: int) -> list[str]:
        """Addresses of what is of one prompt."""
        key = self.key(position)
        known = [f"prompt/{key}.json", f"prompt/{key}/figures.json", f"prompt/{key}/scores.json"]
        return [
            *known,
            *self._patterns(position),
            *self.lens(position),
            *self.traces(position),
            *self.features(position),
            *self._figures(f"prompt/{key}/figures.json"),
        ]

    def key(self, position: int) -> str:
        """What a prompt is called."""
        return prompt_key(self.view.prompts.hashes([position])[0])

    def has_patterns(self, position: int) -> bool:
        """Whether there are patterns of a prompt."""
        return self.view.array is not None and self.view.array.row_of(position) is not None

    def _patterns(self, position: int) -> Iterator[str]:
        if not self.has_patterns(position):
            return
        under = f"prompt/{self.key(position)}"
        heads = self.view.heads
        layers = sorted({layer for layer, _ in heads})
        yield from (f"{under}/pictures/L{layer}.npy" for layer in layers)
        labels = [head_label(*head) for head in heads]
        means = [*(f"L{layer}Hx" for layer in layers), "LxHx"]
        yield from (f"{under}/pattern/{label}.packed.npy" for label in [*labels, *means])
        yield from (f"{under}/similar/{label}.json" for label in labels)

    def lens(self, position: int) -> list[str]:
        """Addresses of a prompt's logit lens; none where there is none."""
        if not self._has_lens or not self.view.streams.has(position):
            return []
        from pattern_lens.server.residual_answers import POSITIONS

        key = self.key(position)
        n_pos = self.view.streams.n_pos(position, key)
        return [f"prompt/{key}/lens/{n}.json" for n in range(max(1, -(-n_pos // POSITIONS)))]

    def traces(self, position: int) -> list[str]:
        """Addresses of what is of a prompt's stored traces; none where the file has no trace."""
        if not self.view.trace_names:
            return []
        under = f"prompt/{self.key(position)}"
        listed = json.loads(self.answer(f"{under}/traces.json").make())["traces"]
        return [f"{under}/traces.json", *(f"{under}/trace/{one['name']}.json" for one in listed)]

    def features(self, position: int) -> list[str]:
        """Addresses of the features of a prompt; none where it has none."""
        view, key = self.view, self.key(position)
        names = (n for n in view.feature_names if position in view.features.prompts(n))
        return [f"prompt/{key}/features/{name}.json" for name in names]

    def _features(self) -> Iterator[str]:
        if self.view.feature_names:
            yield "features.json"
        for name in self.view.feature_names:
            yield from (f"features/{name}/{one}.json" for one in ("table", "tokens"))
            numbers = self.view.features.numbers(name).tolist()
            yield from (f"features/{name}/feature/{number}.json" for number in numbers)

    @cached_property
    def _has_lens(self) -> bool:
        return self.view.has_residual and self.view.streams.why_not() is None

    def _figures(self, listed: str) -> Iterator[str]:
        start = f"api/{self.id}/"
        for one in json.loads(self.answer(listed).make())["figures"]:
            if one["href"] is not None:
                yield unquote(one["href"].removeprefix(start))


def choose(
    paths: Sequence[str | Path],
    *,
    prompts: str | Iterable[str] | None,
    heads: HeadSelection | None,
    figures: str | Iterable[str] | None,
    lens: bool,
    features: bool = False,
) -> list[Chosen]:
    """Open files, and choose of them.

    Parameters
    ----------
    prompts
        Hashes: those that a file lacks are left out of it, but each must be in one of them.
    heads
        A selection that each file must know.
    figures
        Names or globs; each must be in one of the files.
    lens
        Whether the logit lens is among them.
    features
        Whether features of autoencoders are among them.

    Raises
    ------
    UnknownPromptError, UnknownFigureError, HeadSelectionError, OutOfRangeError
        Something that is in none of the files.
    """
    given = [Path(path) for path in paths]
    if not given:
        raise NothingToServeError("cannot export: no file was given")
    readers = [StoreReader(path) for path in given]
    hashes = (
        None if prompts is None else hashes_in([prompts] if isinstance(prompts, str) else prompts)
    )
    if hashes is not None:
        _check_prompts(readers, hashes)
    globs = None if figures is None else [figures] if isinstance(figures, str) else list(figures)
    views = [_view(one, hashes, heads, globs, lens=lens, features=features) for one in readers]
    if globs is not None:
        _check_figures(views, globs)
    ids = ids_of([(view.model_name, view.reader.path) for view in views])
    return [Chosen(*one) for one in zip(ids, views, strict=True)]


def _check_prompts(readers: Sequence[StoreReader], hashes: Iterable[str]) -> None:
    for one in hashes:
        if all(reader.prompts.find(one) is None for reader in readers):
            readers[0].prompts.position(one)  # says which are near


def _view(
    reader: StoreReader,
    hashes: Sequence[str] | None,
    heads: HeadSelection | None,
    globs: Sequence[str] | None,
    *,
    lens: bool,
    features: bool,
) -> View:
    positions = None
    if hashes is not None:
        found = (reader.prompts.find(one) for one in dict.fromkeys(hashes))
        positions = [position for position in found if position is not None]
    whole = View(reader)
    names = None
    if globs is not None:
        names = [n for n in whole.held.names() if any(fnmatchcase(n, glob) for glob in globs)]
    chosen = None if heads is None else _heads(whole, heads)
    return View(
        reader,
        positions=positions,
        heads=chosen,
        figures=names,
        is_export=True,
        lens=lens,
        features=features,
    )


def _heads(view: View, heads: HeadSelection) -> list[Head]:
    try:
        if isinstance(heads, str):
            return view.parsed_heads(heads)
        found = parse_heads(heads, n_layers=view.n_layers, n_heads=view.n_heads)
    except (HeadSelectionError, OutOfRangeError) as err:
        err.add_note(f"file {view.reader.path}")
        raise
    view.check_heads(found)
    return found


def _check_figures(views: Sequence[View], globs: Iterable[str]) -> None:
    there = sorted({name for view in views for name in view.held.names()})
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in there):
            raise UnknownFigureError(
                f"no figure matches {glob!r}: there is {', '.join(there) or 'none'}"
            )


def index_of(chosen: Sequence[Chosen]) -> Answer:
    """``api/index.json`` of an export."""
    entries = [model_answers.entry(one.view, one.id) for one in chosen]
    return model_answers.index(entries, (), live=False)


def close(chosen: Sequence[Chosen]) -> None:
    """Close the files."""
    for one in chosen:
        one.view.reader.close()
