"""A first look at every prompt of a model: what there is, what is whole, and how it will lie in the file.

The rule: what all prompts must have in common is known before anything is written. Whether patterns are causal is
seen from the bits of the lowest layer of every prompt, not believed of the model.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pattern_lens
from pattern_lens.errors import PromptError
from pattern_lens.importing.archive import Shape, is_lower, open_archive
from pattern_lens.importing.folders import PROMPT_FILE, VALUES_FILE
from pattern_lens.importing.prompt_file import OldPrompt, read_prompt
from pattern_lens.importing.report import Skipped
from pattern_lens.importing.tokens import BOS, Vocabulary, places
from pattern_lens.names import ACTIVATIONS, HEAD, LAYER
from pattern_lens.store.layout import ArrayLayout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pattern_lens.importing.folders import ModelFolder
    from pattern_lens.store.reader import StoreReader

PATTERN: Final = "pattern"
ORIGIN: Final = "pattern-lens 0.6 folder"


@dataclass(frozen=True)
class ModelFacts:
    """What ``model_cfg.json`` says that prompts are read by."""

    config: dict[str, Any]

    @property
    def n_ctx(self) -> int | None:
        """Positions that the model has, if it says so."""
        return self.number("n_ctx")

    @property
    def prepends_bos(self) -> bool:
        """Whether a BOS stands before a text."""
        return bool(self.config.get("default_prepend_bos", True))

    def number(self, key: str) -> int | None:
        """A whole number of at least 1; None where there is none."""
        found = self.config.get(key)
        is_number = isinstance(found, int) and not isinstance(found, bool) and found > 0
        return found if is_number else None


@dataclass(frozen=True)
class Pending:
    """A prompt whose values are to be imported, and their shape."""

    folder: Path
    shape: Shape
    is_lower: bool


@dataclass
class Scan:
    """What the folder of a model holds.

    Attributes
    ----------
    pending
        Prompts to import, in the order of their folders.
    present
        Folders of prompts that the file holds, whole.
    """

    facts: ModelFacts
    vocabulary: Vocabulary
    pending: list[Pending] = field(default_factory=list)
    present: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    given_hashes: list[str] = field(default_factory=list)
    unknown_tokens: list[str] = field(default_factory=list)
    others: set[str] = field(default_factory=set)

    def skip(self, model: ModelFolder, file: Path, reason: object) -> None:
        """List a file that cannot be imported."""
        below = file.relative_to(model.path).as_posix()
        self.skipped.append(Skipped(f"{model.name}/{below}", str(reason)))


def scan(model: ModelFolder, folders: Iterable[Path], reader: StoreReader | None) -> Scan:
    """Look at prompts of a model.

    Parameters
    ----------
    folders
        Those of the model's prompts.
    reader
        The file, where there is one.
    """
    known = reader.vocab["token"] if reader else (BOS,)
    found = Scan(ModelFacts(model.config()), Vocabulary(known))
    for folder in folders:
        try:
            old = read_prompt(folder)
            is_present = reader is not None and _is_stored(reader, old)
        except PromptError as err:
            found.skip(model, folder / PROMPT_FILE, err)
            continue
        if old.is_hash_given:
            found.given_hashes.append(old.prompt.hash)
        if is_present:
            found.present.append(folder)
            continue
        try:
            pending = _look(found, folder, old)
        except PromptError as err:
            found.skip(model, folder / VALUES_FILE, err)
        else:
            _note_tokens(found, old, pending.shape.n_ctx)
            found.pending.append(pending)
    return found


def _is_stored(reader: StoreReader, old: OldPrompt) -> bool:
    """Whether the file holds the prompt with its values, whole."""
    position = reader.prompts.find(old.prompt.hash)
    if position is None:
        return False
    text = reader.prompts.texts([position])[0]
    if text != old.prompt.text:
        raise PromptError(f"{reader.path.name} holds another text under its hash, {text[:40]!r}")
    if PATTERN not in reader.names():
        return False
    array = reader.array(PATTERN)
    row = array.row_of(position)
    return row is not None and array.is_intact(row)


def _look(found: Scan, folder: Path, old: OldPrompt) -> Pending:
    most_ctx = old.most_ctx(found.facts.n_ctx)
    with open_archive(folder / VALUES_FILE, most_ctx) as archive:
        found.others.update(archive.others)
        shape = archive.shape
        return Pending(folder, shape, is_lower(archive.read(shape.layers[0])))


def _note_tokens(found: Scan, old: OldPrompt, n_ctx: int) -> None:
    facts = found.facts
    at = places(old, n_ctx, facts.n_ctx, prepends_bos=facts.prepends_bos)
    found.vocabulary.add(at.tokens)
    if not at.is_known:
        found.unknown_tokens.append(old.prompt.hash)


def settle(model: ModelFolder, found: Scan, stored: ArrayLayout | None) -> ArrayLayout | None:
    """How the patterns lie in the file; prompts that cannot lie so are moved to `skipped`.

    Parameters
    ----------
    stored
        How they lie in a file that exists.

    Returns
    -------
    None if there is nothing to store.
    """
    layout = stored or _layout([one.shape for one in found.pending], found.pending)
    if layout is None:
        return None
    fitting = []
    for one in found.pending:
        reason = _misfit(one, layout, is_new=stored is None)
        if reason is None:
            fitting.append(one)
        else:
            found.skip(model, one.folder / VALUES_FILE, reason)
    found.pending = fitting
    return layout


def _layout(shapes: Sequence[Shape], pending: Sequence[Pending]) -> ArrayLayout | None:
    if not shapes:
        return None
    kinds = Counter(shape.kind() for shape in shapes)
    layers, n_heads, dtype = max(kinds, key=lambda kind: (kinds[kind], len(kind[0])))
    spec = ACTIVATIONS[PATTERN]
    return ArrayLayout(
        name=PATTERN,
        dims=(LAYER, *spec.dims),
        sizes={LAYER: len(layers), HEAD: n_heads},
        packing="triangle" if all(one.is_lower for one in pending) else "rectangle",
        dtype=dtype,
        layers=layers,
        hooks=tuple(spec.hook(layer) for layer in layers),
        units="probability",
        origin={
            "imported_from": ORIGIN,
            "imported_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "pattern_lens": pattern_lens.__version__,
        },
    )


def _misfit(one: Pending, layout: ArrayLayout, *, is_new: bool) -> str | None:
    """Why the patterns of a prompt cannot lie beside the others; None if they can."""
    own, expected = one.shape.kind(), (layout.layers, layout.sizes[HEAD], layout.dtype)
    words = ("layers {}", "{} heads", "dtype {}")
    differing = [
        f"{word.format(_short(a))}, expected {_short(b)}"
        for word, a, b in zip(words, own, expected, strict=True)
        if a != b
    ]
    if differing:
        whose = "most prompts" if is_new else "the file"
        return f"its patterns have {'; '.join(differing)} as {whose}"
    if layout.packing == "triangle" and not one.is_lower:
        return (
            "its patterns have values above the diagonal, where the file keeps none; "
            "import the folder into a new file"
        )
    return None


def _short(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    runs = value == tuple(range(value[0], value[-1] + 1)) and len(value) > 1
    return f"{value[0]}-{value[-1]}" if runs else ",".join(map(str, value))
