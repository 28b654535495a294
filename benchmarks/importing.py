"""`import pattern_lens` with `open_patterns` at hand, against importing the three libraries that it stands on.

Each sample is a new Python process; its own start does not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.measure import Row, alternate, compare, fresh_python

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME: Final = "importing"
QUESTION: Final = "Does importing the package cost more than importing xarray, h5py and pandas?"
STATEMENTS: Final = {
    "pattern_lens": "import pattern_lens; pattern_lens.open_patterns",
    "xarray, h5py, pandas": "import xarray, h5py, pandas",
}
_TIMED: Final = """
import time
from benchmarks.measure import peak_above, reset_peak
held = reset_peak()
started = time.perf_counter()
{statement}
print(time.perf_counter() - started, peak_above(held))
"""


@dataclass(frozen=True)
class Size:
    """Processes of each side."""

    n_samples: int


SIZES: Final = {"smoke": Size(1), "small": Size(5), "full": Size(11)}


def run(size: Size, folder: Path) -> list[Row]:
    seconds = alternate(sides(size, folder), size.n_samples)
    ours, other = (_measure(statement)[1] for statement in STATEMENTS.values())
    what = "import, with open_patterns at hand"
    return [compare(what, seconds, at_most=1.2, peak_ours=int(ours), peak_other=int(other))]


def sides(size: Size, folder: Path) -> dict[str, Callable[[], float]]:  # noqa: ARG001 - as the others have it
    """Both imports, each in a new process."""
    return {
        name: lambda statement=statement: _measure(statement)[0]
        for name, statement in STATEMENTS.items()
    }


def _measure(statement: str) -> list[float]:
    said = fresh_python("-c", _TIMED.format(statement=statement))
    return [float(number) for number in said.split()]
