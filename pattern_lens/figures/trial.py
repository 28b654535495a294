"""Functions tried on a few heads before a run: which return numbers, how these are stored, what a call costs.

The rule: nothing that a function does here ends the run; one that fails on every head tried is tried on all others too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pattern_lens.errors import ResultMismatchError
from pattern_lens.figures.drawing import called, of_heads
from pattern_lens.figures.products import Failure, Values
from pattern_lens.figures.settings import own_settings
from pattern_lens.mapping import ItemFailure
from pattern_lens.names import HEAD, KEY, LAYER, QUERY
from pattern_lens.patterns.computed import fit, plan
from pattern_lens.patterns.identity import describe_function

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import xarray as xr

    from pattern_lens.figures.drawing import Chosen
    from pattern_lens.patterns.collection import Patterns
    from pattern_lens.store.layout import ArrayLayout

    Run = Callable[[Callable[[Sequence[Any]], Iterable[Any]], Any], Iterable[tuple[Any, Any]]]

COSTLY: Final = ("TimeoutError", "ChildProcessError")
"""Failures of items that took time, or a process."""

_N_SIZES: Final = 2
_N_HEADS: Final = 4
_N_MORE: Final = 8


class Try(NamedTuple):
    """One call: a function, the place of a prompt, without its last token or not, and a head."""

    function: int
    place: int
    is_shorter: bool
    cell: int


@dataclass
class Tried:
    """What came of one call: seconds, whether all of it failed, and numbers by name."""

    seconds: float
    failed: bool
    examples: dict[str, xr.DataArray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Trying:
    """The functions, as workers call them."""

    patterns: Patterns
    chosen: Sequence[Chosen]
    size_limit_bytes: int
    settings: Mapping[str, Any] = field(default_factory=own_settings)

    def __call__(self, tries: Sequence[Try]) -> Iterator[Tried]:
        """What each call makes, in order."""
        for one in tries:
            yield self._of(one)

    def _of(self, one: Try) -> Tried:
        array = self.patterns.isel(prompt=one.place)
        if one.is_shorter:
            array = array.isel({QUERY: slice(0, -1), KEY: slice(0, -1)})
        layer, head = divmod(one.cell, array.sizes[HEAD])
        pattern = array[layer, head].load()
        started = time.perf_counter()
        made = called(self.chosen[one.function], pattern, self.size_limit_bytes, self.settings)
        seconds = time.perf_counter() - started
        cells = list(np.ndindex(array.sizes[LAYER], array.sizes[HEAD]))
        examples = {
            product.name: of_heads(array, dict.fromkeys(cells, product))
            for product in made
            if isinstance(product, Values)
        }
        return Tried(seconds, all(isinstance(one, Failure) for one in made), examples)


def try_out(
    patterns: Patterns,
    chosen: Sequence[Chosen],
    which: Sequence[int],
    run: Run,
    *,
    size_limit_bytes: int,
) -> tuple[list[Chosen], float]:
    """Functions with layouts where they return numbers, and the seconds that a call costs on average.

    Parameters
    ----------
    which
        Places of those that have something to do; the others are left as they are.
    run
        Computes batches, and gives each item with what became of it.
    """
    trying = Trying(patterns, chosen, size_limit_bytes)
    tried: dict[int, list[Tried]] = {i: [] for i in which}
    worked: dict[int, set[tuple[int, bool]]] = {i: set() for i in which}
    ended: set[int] = set()
    seconds: dict[int, float] = {}
    for shapes in _rounds(patterns):
        open_ = [i for i in which if len(worked[i]) < _N_SIZES and i not in ended]
        if not open_:
            break
        for one, made in run(trying, [[Try(i, *shape) for shape in shapes] for i in open_]):
            if isinstance(made, ItemFailure):
                ended |= {one.function} if made.error in COSTLY else set()
            else:
                tried[one.function].append(made)
                worked[one.function] |= set() if made.failed else {(one.place, one.is_shorter)}
                known = seconds.get(one.function, made.seconds)  # the first call imports
                seconds[one.function] = min(known, made.seconds)
    out = list(chosen)
    for i in which:
        if not out[i].layouts:
            out[i] = _with_layouts(chosen[i], [one.examples for one in tried[i]])
    return out, max(sum(seconds.values()) / max(len(seconds), 1), 1e-5)


def _rounds(patterns: Patterns) -> list[list[tuple[int, bool, int]]]:
    """A head of a short and of a longer prompt first; then others, of other prompts, heads and layers.

    Where all prompts have one size, the shorter one is the first without its last token.
    """
    sizes = patterns.base.sizes()[:, 0]
    order = np.argsort(sizes, kind="stable")
    short, middle = int(order[0]), int(order[len(order) // 2])
    is_one_size = sizes[short] == sizes[middle]
    shapes = [(short, bool(is_one_size and sizes[short] > 1)), (middle, False)]
    n_heads = int(patterns.sizes[HEAD])  # type: ignore[arg-type] # not a ragged dim
    n_cells = len(patterns.layers) * n_heads
    heads = range(1, min(_N_HEADS, n_cells))
    longest = [int(i) for i in order[np.linspace(len(order) - 1, 0, _N_MORE, dtype=np.intp)]]
    cells = np.linspace(n_cells - 1, 0, _N_MORE, dtype=np.intp).tolist()
    return [
        [(*shape, 0) for shape in shapes],
        [(*shape, head) for head in heads for shape in shapes],
        [(place, False, cell) for place, cell in zip(longest, cells, strict=True)],
    ]


def _with_layouts(chosen: Chosen, examples: Sequence[Mapping[str, xr.DataArray]]) -> Chosen:
    names = dict.fromkeys(name for found in examples for name in found)
    try:
        layouts = {
            name: _layout(chosen, name, [e[name] for e in examples if name in e]) for name in names
        }
    except ResultMismatchError as err:
        return replace(chosen, refusal=str(err))
    return replace(chosen, layouts=layouts)


def _layout(chosen: Chosen, name: str, examples: Sequence[xr.DataArray]) -> ArrayLayout:
    layout = plan(name, examples, origin_of(chosen))
    for example in examples:
        fit(layout, example)  # raises now what would fail every prompt
    return layout


def origin_of(chosen: Chosen) -> dict[str, Any]:
    """What the file says of where a function's numbers come from."""
    return {"activation": "pattern", "of": "", **describe_function(chosen.entry.function, {})}
