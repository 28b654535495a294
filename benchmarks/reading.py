"""One head of one prompt from an open file, against h5py on the same chunks and against 0.6's npz.

A sample reads every prompt once, in random order. HDF5's chunk cache, which we do not use, is off for h5py: it would
hold all that a small benchmark reads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import h5py
import hdf5plugin  # noqa: F401 - registers the filter for h5py
import numpy as np

from benchmarks import data
from benchmarks.measure import Row, alternate, compare, peaks
from pattern_lens.store.chunks import Selection
from pattern_lens.store.packing import triangle_length
from pattern_lens.store.reader import StoreReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME: Final = "reading"
QUESTION: Final = "How long does it take to read one head of one prompt from an open file?"
LAYER, HEAD = 3, 5
OURS, STORE, H5PY = "pattern_lens", "StoredArray.read", "h5py"
NPZ, NPZ_WHOLE = "npz, its one layer", "npz, every layer (as load_activations of 0.6 does)"


@dataclass(frozen=True)
class Size:
    """Short and long prompts and their tokens, samples."""

    n_prompts: int
    n_tokens: int
    n_long: int
    n_long_tokens: int
    n_samples: int


SIZES: Final = {
    "smoke": Size(2, 16, 1, 48, 1),
    "small": Size(16, 128, 1, 256, 5),
    "full": Size(64, 128, 2, 1024, 9),
}


def run(size: Size, folder: Path) -> list[Row]:
    found = sides(size, folder)
    peak = dict(zip(found, peaks(NAME, size, folder, *found), strict=True))
    rows = []
    for n_tokens in (size.n_tokens, size.n_long_tokens):
        what = f"read one head of one prompt, {n_tokens} tokens, file open"
        short = n_tokens == size.n_tokens
        for a, b, budget in [
            (OURS, H5PY, {"at_most": 2.0 if short else None}),
            (OURS, NPZ, {"at_least": 50.0 if short else None}),
            (OURS, NPZ_WHOLE, {"at_least": 50.0 if short else None}),
            (STORE, H5PY, {"at_most": None}),
        ]:
            first, second = f"{n_tokens} {a}", f"{n_tokens} {b}"
            seconds = alternate({a: found[first], b: found[second]}, size.n_samples)
            rows.append(
                compare(what, seconds, **budget, peak_ours=peak[first], peak_other=peak[second])
            )
    return rows


def sides(size: Size, folder: Path) -> dict[str, Callable[[], float]]:
    """Four ways to read, for short and for long prompts; each returns seconds a read."""
    short = _ways(folder / "short.h5", size.n_prompts, size.n_tokens)
    long = _ways(folder / "long.h5", size.n_long, size.n_long_tokens)
    return {
        f"{n_tokens} {name}": way
        for n_tokens, ways in ((size.n_tokens, short), (size.n_long_tokens, long))
        for name, way in ways.items()
    }


def _ways(path: Path, n_prompts: int, n_tokens: int) -> dict[str, Callable[[], float]]:
    import pattern_lens as pl

    if not path.exists():
        data.write_file(path, n_prompts, n_tokens, batch=1 if n_tokens > 256 else 8)
        _write_npz(path, n_prompts)
    patterns = pl.open_patterns(path)
    array = StoreReader(path).array("pattern")
    dataset = h5py.File(path, "r", swmr=True, locking=False, rdcc_nbytes=0)[
        "activations/pattern/data"
    ]
    length = triangle_length(n_tokens)
    starts = array.rows["start"].tolist()
    head = Selection([LAYER], (slice(HEAD, HEAD + 1),))
    ways: dict[str, Callable[[int], np.ndarray]] = {
        OURS: lambda i: patterns.sel(layer=LAYER, head=HEAD, prompt=data.prompt_hash(i)).values,
        STORE: lambda i: array.read(i, head),
        H5PY: lambda i: dataset[LAYER, :, starts[i] : starts[i] + length],
        NPZ: lambda i: _load_layer(path, i),
        NPZ_WHOLE: lambda i: _load_layers(path, i)[LAYER][0, HEAD],
    }
    _check_equal(ways, n_tokens)
    return {name: _each(way, n_prompts) for name, way in ways.items()}


def _write_npz(path: Path, n_prompts: int) -> None:
    array = StoreReader(path).array("pattern")
    for i in range(n_prompts):
        layers = enumerate(array.read(i))
        arrays = {f"blocks.{layer}.attn.hook_pattern": values[None] for layer, values in layers}
        np.savez_compressed(path.with_suffix(f".{i}.npz"), allow_pickle=False, **arrays)


def _load_layer(path: Path, i: int) -> np.ndarray:
    with np.load(path.with_suffix(f".{i}.npz")) as file:
        values: np.ndarray = file[f"blocks.{LAYER}.attn.hook_pattern"][0, HEAD]
    return values


def _load_layers(path: Path, i: int) -> list[np.ndarray]:
    with np.load(path.with_suffix(f".{i}.npz")) as file:
        return [file[name] for name in file.files]


def _check_equal(ways: dict[str, Callable[[int], np.ndarray]], n_tokens: int) -> None:
    expected = ways[NPZ](0)
    np.testing.assert_array_equal(ways[OURS](0), expected)
    np.testing.assert_array_equal(ways[STORE](0)[0, 0], expected)
    np.testing.assert_array_equal(ways[H5PY](0)[HEAD], expected[np.tril_indices(n_tokens)])


def _each(way: Callable[[int], np.ndarray], n_prompts: int) -> Callable[[], float]:
    rng = np.random.default_rng(0)

    def sample() -> float:
        order = rng.permutation(n_prompts).tolist()
        started = time.perf_counter()
        for i in order:
            way(i)
        return (time.perf_counter() - started) / n_prompts

    return sample
