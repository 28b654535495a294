"""Rows to a markdown table, with a line about the machine they come from."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.measure import Row, n_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

_BEGIN: Final = "<!-- table: written by python -m benchmarks -->"
_END: Final = "<!-- end of table -->"
_HEAD: Final = (
    "what",
    "budget",
    "ours",
    "other side",
    "ratio",
    "met?",
    "peak memory, ours / other",
    "pairs: lowest to highest ratio",
)
_PACKAGES: Final = ("pattern-lens", "numpy", "h5py", "xarray", "torch", "transformer-lens")


def table(rows: Sequence[Row]) -> str:
    """The markdown table."""
    lines = [_line(_HEAD), _line(["---"] * len(_HEAD)), *(_line(_cells(row)) for row in rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row) -> list[str]:
    spread = "" if row.spread is None else f": {row.spread[0]:.3g} to {row.spread[1]:.3g}"
    return [
        row.what,
        budget(row),
        row.ours,
        row.other,
        f"{row.ratio:.3g}",
        {True: "yes", False: "**no**", None: ""}[row.met],
        f"{_megabytes(row.peak_ours)} / {_megabytes(row.peak_other)}",
        f"{row.n_samples}{spread}",
    ]


def budget(row: Row) -> str:
    """The budget as people write it."""
    if row.at_most is not None:
        return f"≤ {row.at_most:g}"
    return "" if row.at_least is None else f"≥ {row.at_least:g} x"


def _megabytes(n_bytes: int | None) -> str:
    return "-" if n_bytes is None else f"{n_bytes / 1e6:,.0f} MB"


def machine(size: str) -> str:
    """Cores, processor, memory, versions, date and how busy the machine was."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    versions = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, size {size}: {n_cores()} cores, {_processor()}, {memory:.0f} GB, "
        f"load {os.getloadavg()[0]:.1f} at the start; Python {platform.python_version()}, {versions}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def write_between_markers(path: Path, text: str) -> None:
    """Replace what stands between the markers of a markdown file.

    Raises
    ------
    ValueError
        The file has no markers.
    """
    page = path.read_text(encoding="utf-8")
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"cannot write the table into {path}: expected {_BEGIN} and {_END} in it")
    path.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}", encoding="utf-8")
