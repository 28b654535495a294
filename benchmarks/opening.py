"""`open_patterns`, on a million prompts against reading the bytes of their indexes, on ten against opening with h5py.

Opening reads no index; the patterns' one is read when the prompts are first asked for, which is measured as well.
The million prompts are real ones, written by the store itself: 2 tokens, 1 layer, 1 head each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import h5py
import hdf5plugin  # noqa: F401 - registers the filter for h5py
import numpy as np

from benchmarks import data
from benchmarks.measure import Row, alternate, compare, peaks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME: Final = "opening"
QUESTION: Final = (
    "What does open_patterns cost, in time and memory, with many prompts and with few?"
)
INDEXES: Final = ("prompts/index", "activations/pattern/index")
_MEMORY_BUDGET: Final = 200_000_000


@dataclass(frozen=True)
class Size:
    """Prompts of the large and of the small file, samples."""

    n_many: int
    n_few: int
    n_samples: int


SIZES: Final = {
    "smoke": Size(200, 10, 1),
    "small": Size(100_000, 10, 7),
    "full": Size(1_000_000, 10, 11),
}


def run(size: Size, folder: Path) -> list[Row]:
    found = sides(size, folder)
    peak = dict(zip(found, peaks(NAME, size, folder, *found), strict=True))
    many, counted, indexes, one_index, few, plain = found
    rows = []
    for what, ours, other, at_most in [
        (f"open {size.n_many:,} prompts", many, indexes, 3.0),
        (f"open {size.n_many:,} prompts and count them", counted, one_index, None),
        (f"open {size.n_few:,} prompts", few, plain, 2.0),
    ]:
        seconds = alternate({ours: found[ours], other: found[other]}, size.n_samples)
        options = {"at_most": at_most, "peak_ours": peak[ours], "peak_other": peak[other]}
        rows.append(compare(what, seconds, **options))
    share = peak[counted] / _MEMORY_BUDGET
    what = f"memory of opening and counting {size.n_many:,} prompts / 200 MB"
    held = f"{peak[counted] / 1e6:.1f} MB"
    peaks_of = {"peak_ours": peak[counted], "peak_other": peak[one_index]}
    rows.append(Row(what, held, "200 MB allowed", share, 1.0, **peaks_of))
    return rows


def sides(size: Size, folder: Path) -> dict[str, Callable[[], None]]:
    """Opening and closing many and few prompts, each with what it is compared to."""
    from pattern_lens import open_patterns  # the name alone imports what it needs

    many = data.write_many(folder / "many.h5", size.n_many)
    few = data.write_many(folder / "few.h5", size.n_few)
    saved = [folder / f"{i}.npy" for i in range(len(INDEXES))]
    with h5py.File(many, "r", locking=False) as file:
        for name, target in zip(INDEXES, saved, strict=True):
            if not target.exists():
                np.save(target, file[name][:])
    return {
        "open_patterns": lambda: open_patterns(many).close(),
        "open_patterns, len": lambda: _count(many, size.n_many),
        "numpy.load of the index bytes": lambda: _load(saved),
        "numpy.load of the bytes of the patterns' index": lambda: _load(saved[1:]),
        "open_patterns, few": lambda: open_patterns(few).close(),
        "h5py.File": lambda: h5py.File(few, "r").close(),
    }


def _count(path: Path, n_prompts: int) -> None:
    from pattern_lens import open_patterns

    with open_patterns(path) as patterns:
        if len(patterns) != n_prompts:
            raise AssertionError(f"{len(patterns)} prompts, expected {n_prompts}")


def _load(paths: list[Path]) -> None:
    kept = [np.load(path) for path in paths]
    del kept
