"""What is shown of one file: a snapshot of it, or a choice of its prompts, heads and figures.

The rule: a view never changes; a file that grew has another view. So threads share it, and tags of answers hold.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import UnknownAddressError
from pattern_lens.figures.held import HeldFigures
from pattern_lens.heads import parse_heads
from pattern_lens.names import HEAD, KEY, LAYER, QUERY, head_label
from pattern_lens.server.keys import parse_label, prompt_key
from pattern_lens.server.packed import PackedPatterns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pattern_lens.heads import Head
    from pattern_lens.patterns.source import Positions
    from pattern_lens.residual.tokens import Vocabulary
    from pattern_lens.server.feature_sets import FeaturesOfFile
    from pattern_lens.server.streams import StreamsOfFile
    from pattern_lens.store.prompt_table import PromptTable
    from pattern_lens.store.reader import StoredArray, StoreReader

PATTERN: Final = "pattern"
_SEPARATORS: Final = re.compile(r"[,~\s]+")
BLOCK: Final = 1000
"""Prompts of one answer."""


class View:
    """One file as it is shown.

    Parameters
    ----------
    reader
        The open file.
    positions
        Positions in the prompt table of the prompts that are shown, in order; all by default.
    heads
        Those that are shown; all by default.
    figures
        Names of figures that are shown; all by default.
    is_export
        Whether every answer will be asked for, and by one thread.
    lens
        Whether the residual stream is shown, where the file holds it.
    features
        Whether features of autoencoders are shown, where the file holds them; or the numbers of those that are, by
        autoencoder.
    """

    def __init__(
        self,
        reader: StoreReader,
        *,
        positions: Sequence[int] | None = None,
        heads: Sequence[Head] | None = None,
        figures: Sequence[str] | None = None,
        is_export: bool = False,
        lens: bool = True,
        features: bool | Mapping[str, Positions] = True,
    ) -> None:
        self.reader = reader
        self.lock = threading.RLock()  # of what is read on first use and is no array
        self.name = reader.path.name
        self.prompts: PromptTable = reader.prompts  # first: arrays leave out what is behind it
        self.file_id = reader.handle.file_id
        self.model: dict[str, Any] = reader.model
        self.names = reader.names()
        self.result_names = reader.result_names()
        self.trace_names = reader.trace_names()
        self.chosen_features = features if isinstance(features, Mapping) else None
        names = reader.feature_sets() if features else []
        self.feature_names = tuple(
            one for one in names if self.chosen_features is None or one in self.chosen_features
        )
        self.array: StoredArray | None = self._pattern_array()
        self.positions: Positions = (
            self.prompts.positions if positions is None else np.asarray(positions, np.intp)
        )
        self.is_whole = positions is None
        self.is_export = is_export
        self.has_residual = lens and "resid_pre" in self.names
        self.kept_cosines: tuple[int | None, dict[Head, Any]] = (None, {})
        self._chosen_heads = None if heads is None else frozenset(heads)
        self.figure_names = None if figures is None else frozenset(figures)

    def _pattern_array(self) -> StoredArray | None:
        if PATTERN not in self.names:
            return None
        array = self.reader.array(PATTERN)
        dims = array.layout.dims
        return array if dims == (LAYER, HEAD, QUERY, KEY) and len(array.rows) >= 0 else None

    @cached_property
    def held(self) -> HeldFigures:
        """Its figures; to be used under `lock`."""
        return HeldFigures(self.reader)

    @cached_property
    def streams(self) -> StreamsOfFile:
        """What can be asked of its residual stream."""
        from pattern_lens.server.streams import StreamsOfFile

        with self.lock:
            return StreamsOfFile(self)

    @cached_property
    def features(self) -> FeaturesOfFile:
        """What answers need of its features; to be used under `lock`."""
        from pattern_lens.server.feature_sets import FeaturesOfFile

        with self.lock:
            return FeaturesOfFile(self)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Texts of all tokens."""
        from pattern_lens.residual.tokens import Vocabulary

        with self.lock:
            return Vocabulary(self.reader.vocab)

    # --- the model -----------------------------------------------------------------------------

    @property
    def model_name(self) -> str:
        """Name of the model."""
        return str(self.model.get("name") or "?")

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the stored layers."""
        return () if self.array is None else self.array.layout.layers

    @cached_property
    def n_layers(self) -> int:
        """Layers of the model."""
        known = self.model.get("n_layers")
        return max(known if isinstance(known, int) else 0, max(self.layers, default=-1) + 1)

    @cached_property
    def n_heads(self) -> int:
        """Heads of a layer."""
        known = self.model.get("n_heads")
        if self.array is not None:
            return int(self.array.layout.sizes[HEAD])
        return known if isinstance(known, int) else 0

    # --- prompts -------------------------------------------------------------------------------

    def position(self, key: str) -> int:
        """Where a prompt stands in the prompt table.

        Raises
        ------
        UnknownAddressError
            There is none of this key, or it is not shown.
        """
        found = self._by_digest(key) if key.startswith("~") else self.prompts.find(key)
        if found is None or not self.shows(found):
            raise UnknownAddressError(
                f"no prompt {key!r} in {self.name}: it has {len(self.positions):,}; its hash may have been cut off or mistyped"
            )
        return found

    def shows(self, position: int) -> bool:
        """Whether a prompt is shown."""
        return self.is_whole or position in self._shown

    @cached_property
    def _shown(self) -> frozenset[int]:
        return frozenset(self.positions.tolist())

    def _by_digest(self, key: str) -> int | None:
        try:
            number = np.uint64(int(key[1:], 16))
        except (ValueError, OverflowError):
            return None
        rows = np.flatnonzero(self.prompts.rows["key"] == number)
        known = rows[np.isin(rows, self.prompts.positions)]
        for position, one in zip(known.tolist(), self.prompts.hashes(known), strict=True):
            if prompt_key(one) == key:
                return int(position)
        return None

    def n_ctx(self, position: int) -> int:
        """Tokens of a prompt, as the model saw it."""
        return int(self.prompts.n_ctx([position])[0])

    def token(self, number: int) -> dict[str, Any]:
        """A token of the vocabulary with its text."""
        return {"id": number, "text": self.vocabulary.text(number)}

    # --- patterns ------------------------------------------------------------------------------

    def patterns_of(self, key: str) -> PackedPatterns:
        """The patterns of one prompt.

        Raises
        ------
        UnknownAddressError
            The file has none, or none of this prompt.
        """
        position = self.position(key)
        if self.array is None:
            raise UnknownAddressError(
                f"no attention patterns in {self.name}: capture them with names=('pattern',)"
            )
        row = self.array.row_of(position)
        if row is None:
            raise UnknownAddressError(f"no attention patterns of prompt {key!r} in {self.name}")
        return PackedPatterns(self.array, row)

    def head(self, label: str) -> Head:
        """Layer and head of a label.

        Raises
        ------
        UnknownAddressError
            It is no label, or one of a head that is not stored or not shown.
        """
        found = parse_label(label)
        if found is None:
            raise UnknownAddressError(f"no head {label!r}: expected a label such as L3H5")
        self.check_heads([found])
        return found

    def layer(self, label: str) -> int:
        """Number of a layer that is stored, from ``L3``."""
        number = label[1:]
        if not (label[:1] == "L" and number.isascii() and number.isdecimal() and len(number) < 7):
            raise UnknownAddressError(f"no layer {label!r}: expected a label such as L3")
        if int(number) not in self.layers:
            raise UnknownAddressError(
                f"no layer {int(number)} in {self.name}: it has layers {', '.join(map(str, self.layers)) or 'none'}"
            )
        return int(number)

    def check_heads(self, heads: Sequence[Head]) -> None:
        """Raise unless heads are stored and shown."""
        for layer, head in heads:
            if layer not in self.layers or head >= self.n_heads:
                raise UnknownAddressError(
                    f"no head {head_label(layer, head)} in {self.name}: it has heads 0-{self.n_heads - 1} of layers "
                    f"{', '.join(map(str, self.layers)) or 'none'}"
                )
            if not self.is_shown((layer, head)):
                raise UnknownAddressError(
                    f"no head {head_label(layer, head)} here: this export holds {', '.join(self.head_labels or [])}"
                )

    def parsed_heads(self, selection: str) -> list[Head]:
        """Heads that a selection names; errors of the grammar name the term.

        Of a term that names several, those that are not stored are left out: ``x`` is every stored head.
        """
        sizes = {"n_layers": self.n_layers, "n_heads": self.n_heads}
        parse_heads(selection, **sizes)  # says which of all terms is wrong
        found: dict[Head, None] = {}
        for term in filter(None, _SEPARATORS.split(selection)):
            named = parse_heads(term, **sizes)
            stored = [head for head in named if head[0] in self.layers]
            self.check_heads(stored or named)
            found |= dict.fromkeys(stored)
        return list(found)

    def heads_of(self, layer: int) -> list[Head]:
        """Heads of a layer that are shown, ascending."""
        heads = range(self.n_heads) if layer in self.layers else ()
        return [(layer, head) for head in heads if self.is_shown((layer, head))]

    def is_shown(self, head: Head) -> bool:
        """Whether a head was chosen."""
        return self._chosen_heads is None or head in self._chosen_heads

    @property
    def heads(self) -> list[Head]:
        """All heads that are shown, by layer and head."""
        return [head for layer in self.layers for head in self.heads_of(layer)]

    @property
    def head_labels(self) -> list[str] | None:
        """Labels of the heads that are shown; None for all."""
        if self._chosen_heads is None:
            return None
        return [head_label(*head) for head in self.heads]
