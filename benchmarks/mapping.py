"""Maps over prompts: two workers against one, many prompts against few, and measures of many heads against reading alone."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import data
from benchmarks.measure import Row, alternate, compare, n_cores, peaks

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

NAME: Final = "mapping"
QUESTION: Final = "Does a map use its workers, cost the same at any number of prompts, and measure many heads in seconds?"
GROWING: Final = ("map_figures", "map", "map_figures, nothing to do", "map, nothing to do")
MEASURES: Final = ("induction_score", "entropy", "head_scores")
_DRAWN: Final = ("gram_matrix", "svd_spectra")


@dataclass(frozen=True)
class Size:
    """Layers, prompts to measure, to draw by NumPy and by matplotlib, their tokens; prompts of a large and a small file; samples."""

    n_layers: int
    n_prompts: int
    n_drawn: int
    n_matplotlib: int
    n_tokens: int
    n_many: int
    n_few: int
    n_samples: int


SIZES: Final = {
    "smoke": Size(1, 4, 4, 2, 16, 60, 20, 1),
    "small": Size(12, 100, 40, 1, 128, 10_000, 100, 1),
    "full": Size(12, 1000, 300, 6, 128, 10_000, 100, 3),
}


def run(size: Size, folder: Path) -> list[Row]:
    found = sides(size, folder)
    peak = dict(zip(found, peaks(NAME, size, folder, *found), strict=True))

    def row(what: str, ours: str, other: str, **options: Any) -> Row:
        names = {ours.partition(": ")[2]: found[ours], other.partition(": ")[2]: found[other]}
        of = {"peak_ours": peak[ours], "peak_other": peak[other]}
        return compare(what, alternate(names, size.n_samples), **of, **options)

    n_heads = size.n_layers * data.N_HEADS
    n_bytes = size.n_prompts * n_heads * size.n_tokens**2 * 4
    numbers = {"gram_matrix": size.n_drawn, "svd_spectra": size.n_matplotlib}
    numbers["head_scores"] = size.n_prompts
    rows = [
        row(
            f"{name} of {n} prompts, {n_heads} heads, {size.n_tokens} tokens",
            f"{name}: 2 workers",
            f"{name}: 1 worker",
            at_least=1.8 if n_cores() > 1 else None,
        )
        for name, n in numbers.items()
    ]
    rows += [
        row(
            f"{operation}, a prompt",
            f"{operation}: at {size.n_many:,}",
            f"{operation}: at {size.n_few:,}",
            at_most=1.1,
        )
        for operation in GROWING
    ]
    what = f"{n_heads} heads x {size.n_prompts} prompts of {size.n_tokens} tokens"
    return rows + [
        row(f"{name} of {what}", f"{name}: map", "read: reading them alone", n_bytes=n_bytes)
        for name in MEASURES
    ]


def sides(size: Size, folder: Path) -> dict[str, Callable[[], float]]:
    """Every map, by what it does and where or on how many prompts."""
    from pattern_lens import map_figures, open_patterns  # noqa: F401 - the names alone import what they need

    return {**_on_workers(size, folder), **_growing(size, folder), **_measuring(size, folder)}


def _on_workers(size: Size, folder: Path) -> dict[str, Callable[[], float]]:
    from benchmarks import figure_functions

    numbers = dict(zip(_DRAWN, (size.n_drawn, size.n_matplotlib), strict=True))
    found = {}
    for name, n in numbers.items():
        path = _patterns(folder / f"{name}.h5", size, n)
        for text, n_workers in (("1 worker", 1), ("2 workers", 2)):
            function = getattr(figure_functions, name)
            found[f"{name}: {text}"] = _drawing(path, function, n_workers)
    path = _patterns(folder / "measured.h5", size, size.n_prompts)
    for text, n_workers in (("1 worker", 1), ("2 workers", 2)):
        found[f"head_scores: {text}"] = _mapping(path, head_scores, n_workers)
    return found


def _patterns(path: Path, size: Size, n_prompts: int) -> Path:
    return data.write_file(
        path, n_prompts, size.n_tokens, layout=data.pattern_layout(size.n_layers), is_same=True
    )


def _drawing(path: Path, function: Any, n_workers: int) -> Callable[[], float]:
    """Seconds of drawing all figures into a new copy of a file."""

    def sample() -> float:
        copy = Path(shutil.copy(path, path.with_suffix(".copy.h5")))
        took = _draw(copy, function, n_workers)
        copy.unlink()
        return took

    return sample


def _draw(path: Path, function: Any, n_workers: int | None) -> float:
    from pattern_lens import map_figures

    started = time.perf_counter()
    report = map_figures(path, function, n_workers=n_workers, progress=False)
    took = time.perf_counter() - started
    if report.n_failed:
        raise AssertionError(report.summary())
    return took


def _mapping(path: Path, function: Any, n_workers: int | None) -> Callable[[], float]:
    """Seconds of a map whose results are not stored."""
    import pattern_lens as pl

    def sample() -> float:
        started = time.perf_counter()
        with pl.open_patterns(path) as patterns:
            patterns.map(function, n_workers=n_workers, progress=False)
        return time.perf_counter() - started

    return sample


def head_scores(pattern: xr.DataArray) -> xr.DataArray:
    """Every score of a head, dims (layer, head, score)."""
    import xarray

    from pattern_lens.measures import HEAD_SCORES

    found = [measure(pattern) for measure in HEAD_SCORES.values()]
    stacked: xr.DataArray = xarray.concat(found, "score", coords="minimal", compat="override")
    return stacked.transpose(..., "score")


def _growing(size: Size, folder: Path) -> dict[str, Callable[[], float]]:
    """Seconds a prompt, in this process, of files with many and with few very small prompts."""
    found = {}
    for n in (size.n_many, size.n_few):
        path = data.write_many(folder / f"{n}.h5", n)
        done = path.with_suffix(".done.h5")
        if not done.exists():
            shutil.copy(path, done)
            _draw(done, _nothing_much, 0)
            _named(done)
        sides = (
            lambda path=path: _on_copy(path, lambda copy: _draw(copy, _nothing_much, 0)),
            lambda path=path: _on_copy(path, _named),
            lambda path=done: _draw(path, _nothing_much, 0),
            lambda path=done: _named(path),
        )
        for operation, side in zip(GROWING, sides, strict=True):
            found[f"{operation}: at {n:,}"] = lambda side=side, n=n: side() / n
    return found


def _on_copy(path: Path, do: Callable[[Path], float]) -> float:
    copy = Path(shutil.copy(path, path.with_suffix(".copy.h5")))
    took = do(copy)
    copy.unlink()
    return took


def _named(path: Path) -> float:
    import pattern_lens as pl

    started = time.perf_counter()
    with pl.open_patterns(path) as patterns:
        patterns.map(_largest, name="largest", n_workers=0, progress=False)
    return time.perf_counter() - started


def _largest(pattern: xr.DataArray) -> xr.DataArray:
    return pattern.max(("query", "key"))


def _nothing_much(pattern: xr.DataArray) -> Any:  # noqa: ARG001 - what it costs to call a function
    from pattern_lens.figures import Image

    return Image(b"picture", "png")


def _measuring(size: Size, folder: Path) -> dict[str, Callable[[], float]]:
    from pattern_lens import measures

    path = _patterns(folder / "measured.h5", size, size.n_prompts)
    functions = {name: getattr(measures, name, head_scores) for name in MEASURES}
    maps = {f"{name}: map": _mapping(path, one, None) for name, one in functions.items()}
    return {**maps, "read: reading them alone": lambda: _read(path)}


def _read(path: Path) -> float:
    import pattern_lens as pl
    from pattern_lens.patterns.blocks import blocks

    started = time.perf_counter()
    with pl.open_patterns(path) as patterns:
        for _ in blocks(patterns):
            pass
    return time.perf_counter() - started
