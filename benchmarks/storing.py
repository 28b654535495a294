"""Storing patterns that are in memory already, as an accelerator hands them over, against `savez_compressed`.

Both sides may use the same cores. Ours gets packed triangles, because an accelerator packs before it copies;
a row without a budget adds packing on the host. Neither side waits for the disk.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks import data
from benchmarks.measure import Row, alternate, compare, n_cores, peaks
from pattern_lens.store.packing import pack_triangle, triangle_length
from pattern_lens.store.writer import Block, StoreWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME: Final = "storing"
QUESTION: Final = "How many dense bytes a second are stored, against numpy.savez_compressed?"


@dataclass(frozen=True)
class Size:
    """Prompts of one commit, their tokens, commits a sample, samples."""

    n_prompts: int
    n_tokens: int
    n_commits: int
    n_samples: int


SIZES: Final = {
    "smoke": Size(2, 32, 1, 1),
    "small": Size(8, 128, 2, 3),
    "full": Size(32, 128, 1, 7),
}


def run(size: Size, folder: Path) -> list[Row]:
    found = sides(size, folder)
    n_bytes = dense_bytes(size) * size.n_commits
    rows = []
    for cores in range(1, min(n_cores(), 2) + 1):
        for kind, budget in {"packed": 12.0, "dense": None}.items():
            pair = {
                "pattern_lens": _on_cores(cores, found[f"ours, {kind}"]),
                "savez_compressed": _on_cores(cores, found["npz"]),
            }
            ours, other = peaks(NAME, size, folder, f"ours, {kind}", "npz")
            plural = "core" if cores == 1 else "cores"
            what = (
                f"store {n_bytes / 1e6:.0f} MB (dense) of patterns, given {kind}, {cores} {plural}"
            )
            options = {"at_least": budget, "peak_ours": ours, "peak_other": other}
            rows.append(compare(what, alternate(pair, size.n_samples), n_bytes=n_bytes, **options))
    return rows


def dense_bytes(size: Size) -> int:
    """Bytes of one commit's patterns, unpacked."""
    return size.n_prompts * data.N_LAYERS * data.N_HEADS * size.n_tokens**2 * 4


def sides(size: Size, folder: Path) -> dict[str, Callable[[], float]]:
    """Ours from packed triangles, ours from squares, and one npz a prompt; the times that they return leave out clean-up."""
    packed = data.random_patterns(data.pattern_layout(), size.n_prompts, size.n_tokens)
    arrays = [data.as_arrays(packed, i, size.n_tokens) for i in range(size.n_prompts)]
    return {
        "ours, packed": lambda: _store(folder, size, lambda: packed),
        "ours, dense": lambda: _store(folder, size, lambda: _pack(arrays, size)),
        "npz": lambda: _save(folder, size, arrays),
    }


def _store(folder: Path, size: Size, values: Callable[[], data.Array]) -> float:
    layout = data.pattern_layout()
    path = folder / "stored.h5"
    sizes = [(size.n_tokens, size.n_tokens)] * size.n_prompts
    with StoreWriter(path, data.header(layout), [layout]) as writer:
        started = time.perf_counter()
        for i in range(size.n_commits):
            numbers = range(i * size.n_prompts, (i + 1) * size.n_prompts)
            writer.commit(data.records(numbers, size.n_tokens), {"pattern": Block(sizes, values())})
        took = time.perf_counter() - started
    path.unlink()
    return took


def _pack(arrays: list[dict[str, data.Array]], size: Size) -> data.Array:
    length = triangle_length(size.n_tokens)
    out = np.empty(data.pattern_layout().stored_shape(length * len(arrays)), np.float32)
    for i, prompt in enumerate(arrays):
        for layer, values in enumerate(prompt.values()):
            pack_triangle(values[0], out[layer, :, i * length : (i + 1) * length])
    return out


def _save(folder: Path, size: Size, arrays: list[dict[str, data.Array]]) -> float:
    files = [folder / f"{i}.npz" for i in range(size.n_prompts * size.n_commits)]
    started = time.perf_counter()
    for i, file in enumerate(files):
        np.savez_compressed(file, allow_pickle=False, **arrays[i % len(arrays)])
    took = time.perf_counter() - started
    for file in files:
        file.unlink()
    return took


def _on_cores(n: int, side: Callable[[], float]) -> Callable[[], float]:
    def limited() -> float:
        with _cores(n):
            return side()

    return limited


@contextmanager
def _cores(n: int) -> Iterator[None]:
    """Keep this thread, and those it starts, on the first `n` cores; the store's pool follows."""
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(every)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)
