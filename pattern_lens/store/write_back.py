"""Results and figures on their way into a file, a few commits a second.

The rule: what was added is in the file after `flush`; whatever ends a run, what was committed stays.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, Self

from pattern_lens.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from pattern_lens.store.figures import FigureRecord
    from pattern_lens.store.writer import Block, StoreWriter

_MOST_BYTES: Final = 16 << 20
_LONGEST_SECONDS: Final = 1.0


class WriteBack:
    """Collects what was computed of single prompts, and commits it together; the rest when the block ends.

    Parameters
    ----------
    writer
        The open file.
    blocks
        Makes the block of several prompts' values, for each `ArrayLayout.key`.
    """

    def __init__(
        self, writer: StoreWriter, blocks: Mapping[str, Callable[[Sequence[Any]], Block]]
    ) -> None:
        self._writer, self._blocks = writer, blocks
        self._values: dict[str, dict[int, Any]] = defaultdict(dict)
        self._figures: list[FigureRecord] = []
        self._n_bytes = 0
        self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not isinstance(err, StoreError):  # that ended the writer
            self.flush()

    def add(
        self,
        position: int,
        values: Mapping[str, Any],
        figures: Sequence[FigureRecord] = (),
        *,
        n_bytes: int = 0,
    ) -> None:
        """Take what was computed of one prompt; commits if that is due.

        Parameters
        ----------
        position
            The prompt's, in the prompt table.
        values
            By `ArrayLayout.key`.
        n_bytes
            How large the values are.
        """
        for key, one in values.items():
            self._values[key][position] = one
        self._n_bytes += n_bytes
        self.add_figures(figures)

    def add_figures(self, figures: Sequence[FigureRecord]) -> None:
        """Take figures of any prompts; commits if that is due."""
        self._figures += figures
        self._n_bytes += sum(len(one.data) for one in figures)
        late = time.monotonic() - self._flushed > _LONGEST_SECONDS
        if late or self._n_bytes > _MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Commit what was added."""
        figures, self._figures = self._figures, []
        values, self._values = self._values, defaultdict(dict)
        together: dict[tuple[int, ...], dict[str, Block]] = defaultdict(dict)
        for key, found in values.items():
            together[(*found,)][key] = self._blocks[key]([*found.values()])
        if figures and not together:
            together[()] = {}
        for positions, blocks in together.items():
            self._writer.commit_computed(positions, blocks, figures)
            figures = []
        self._n_bytes, self._flushed = 0, time.monotonic()
