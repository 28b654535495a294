"""What one prompt costs in a large file, against one in a small file: storing, opening, finding, resuming.

Both sides run the same code; only the number of prompts that are stored already differs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks import data
from benchmarks.measure import Row, alternate, compare, peaks
from pattern_lens.activations.resume import missing_names
from pattern_lens.prompts import Prompt
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.writer import Block, StoreWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME: Final = "growth"
QUESTION: Final = "Does a prompt cost more in a file that holds many?"
OPERATIONS: Final = ("store a prompt", "open, a prompt", "find a prompt", "resume, a prompt")
_N_COMMITS: Final = 20
_PER_COMMIT: Final = 8
_N_LOOKUPS: Final = 500


@dataclass(frozen=True)
class Size:
    """Prompts of the large and of the small file, samples."""

    n_many: int
    n_few: int
    n_samples: int


SIZES: Final = {
    "smoke": Size(300, 50, 1),
    "small": Size(10_000, 100, 5),
    "full": Size(100_000, 100, 7),
}


def run(size: Size, folder: Path) -> list[Row]:
    found = sides(size, folder)
    peak = dict(zip(found, peaks(NAME, size, folder, *found), strict=True))
    rows = []
    for operation in OPERATIONS:
        many, few = f"{operation}, {size.n_many}", f"{operation}, {size.n_few}"
        pair = {f"at {size.n_many:,}": found[many], f"at {size.n_few:,}": found[few]}
        seconds = alternate(pair, size.n_samples)
        options = {"at_most": 1.1, "peak_ours": peak[many], "peak_other": peak[few]}
        rows.append(compare(operation, seconds, **options))
    return rows


def sides(size: Size, folder: Path) -> dict[str, Callable[[], float]]:
    """Each operation on both files; seconds a prompt."""
    both: dict[str, Callable[[], float]] = {}
    for n in (size.n_many, size.n_few):
        stored = data.write_many(folder / f"{n}.h5", n)
        growing = data.write_many(folder / f"{n}-growing.h5", n)
        for operation, side in zip(OPERATIONS, _operations(stored, growing, n), strict=True):
            both[f"{operation}, {n}"] = side
    return both


def _operations(stored: Path, growing: Path, n: int) -> list[Callable[[], float]]:
    from pattern_lens import open_patterns  # the name alone imports what it needs

    fresh = count(10_000_000)
    every = [Prompt(record.text, hash=record.hash) for record in data.records(range(n), 2)]
    return [
        lambda: _store(growing, fresh),
        lambda: _seconds_each(lambda: open_patterns(stored).close(), n),
        lambda: _find(stored, n),
        lambda: _seconds_each(lambda: _resume(stored, every), n),
    ]


def _seconds_each(do: Callable[[], object], n: int) -> float:
    started = time.perf_counter()
    do()
    return (time.perf_counter() - started) / n


def _store(path: Path, numbers: count[int]) -> float:
    """Commits in one session, after its first."""
    layout = data.pattern_layout(1, 1)
    values = data.random_patterns(layout, _PER_COMMIT, 2)
    block = {layout.name: Block([(2, 2)] * _PER_COMMIT, values)}
    with StoreWriter(path, data.header(layout), [layout]) as writer:
        new = [
            data.records([next(numbers) for _ in range(_PER_COMMIT)], 2) for _ in range(_N_COMMITS)
        ]
        writer.commit(new[0], block)
        started = time.perf_counter()
        for batch in new[1:]:
            writer.commit(batch, block)
        return (time.perf_counter() - started) / (_PER_COMMIT * (_N_COMMITS - 1))


def _find(path: Path, n: int) -> float:
    """Lookups by hash in an open file, after the first."""
    reader = StoreReader(path)
    chosen = np.random.default_rng(0).integers(n, size=_N_LOOKUPS)
    hashes = [data.prompt_hash(i) for i in chosen.tolist()]
    reader.prompts.position(hashes[0])
    started = time.perf_counter()
    for one in hashes:
        reader.prompts.position(one)
    took = time.perf_counter() - started
    reader.close()
    return took / len(hashes)


def _resume(path: Path, prompts: list[Prompt]) -> None:
    """What a capture with nothing left to do does with the file."""
    reader = StoreReader(path)
    missing = missing_names(reader, prompts, ["pattern"], progress=False)
    reader.close()
    if any(missing):
        raise AssertionError(f"{sum(map(bool, missing))} prompts of {path} are said to be missing")
