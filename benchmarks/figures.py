"""Figures of every head against `figures_main` of pattern-lens 0.6.0: the same functions and patterns, as many processes.

Ours keeps them in the file, 0.6 in a folder tree. NumPy has one thread in each process on both sides: 0.6 leaves it as many
as there are cores, which a row without a budget shows. Its `raw` is compared with the same picture drawn
by us, although we store none. Memory is that of the calling process, on both sides.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks import data
from benchmarks.measure import Row, alternate, compare, peaks
from benchmarks.peer import Peer, build_peer
from pattern_lens.mapping.worker import SURROUNDINGS
from pattern_lens.store.reader import StoreReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME: Final = "figures"
QUESTION: Final = "How much faster are figures drawn than by figures_main of pattern-lens 0.6.0?"
MODEL_NAME: Final = "benchmark"
BUDGETS: Final = {"raw_picture": 5.0, "gram_matrix": 5.0, "svd_spectra": 3.0}
"""Times faster, by function."""

_NAMES_THERE: Final = {"raw_picture": "raw"}
_MATPLOTLIB: Final = "svd_spectra"
_PROCESSES: Final[dict[str, int | None]] = {"one process": 0, "every core": None}
_NOTHING: Final = "every core, nothing to do"


@dataclass(frozen=True)
class Size:
    """Layers, prompts for matrix functions and for a matplotlib function, their tokens, samples."""

    n_layers: int
    n_prompts: int
    n_matplotlib: int
    n_tokens: int
    n_samples: int


SIZES: Final = {
    "smoke": Size(1, 2, 2, 16, 1),
    "small": Size(4, 40, 4, 128, 1),
    "full": Size(12, 40, 2, 128, 3),
}


def run(size: Size, folder: Path) -> list[Row]:
    build_peer()
    ours = sides(size, folder)
    for kind in ("matrix", "matplotlib"):
        _write_tree(folder, kind)

    def row(peer: Peer, function: str, where: str, **options: Any) -> Row:
        return _row(size, folder, peer, function, where, ours, **options)

    with _peer(SURROUNDINGS) as peer, _peer({}) as untamed:
        rows = [
            row(peer, function, where, at_least=budget)
            for function, budget in BUDGETS.items()
            for where in _PROCESSES
        ]
        rows.append(row(peer, "gram_matrix", _NOTHING))
        note = ", NumPy's threads as 0.6 leaves them"
        return [*rows, row(untamed, _MATPLOTLIB, "every core", note=note, n_samples=1)]


def _row(
    size: Size,
    folder: Path,
    peer: Peer,
    function: str,
    where: str,
    ours: Mapping[str, Callable[[], float]],
    *,
    at_least: float | None = None,
    note: str = "",
    n_samples: int | None = None,
) -> Row:
    n_figures = _n_prompts(size, function) * size.n_layers * data.N_HEADS
    task = {
        "save_path": str(folder / _kind(function)),
        "function": _NAMES_THERE.get(function, function),
        "n_prompts": _n_prompts(size, function),
        "is_parallel": where != "one process",
        "n_figures": n_figures,
        "is_fresh": where != _NOTHING,
    }
    name = f"{function}, {where}"
    (peak,) = peaks(NAME, size, folder, name)
    said: list[dict[str, Any]] = []

    def other() -> float:
        said.append(peer.sample(task))
        return float(said[-1]["seconds"])

    pair = {"map_figures": ours[name], "figures_main": other}
    return compare(
        f"{function} of {n_figures:,} heads, {size.n_tokens} tokens, {where}{note}",
        alternate(pair, n_samples or size.n_samples),
        at_least=at_least,
        peak_ours=peak,
        peak_other=max(int(one["peak_bytes"]) for one in said),
    )


def _kind(function: str) -> str:
    return "matplotlib" if function == _MATPLOTLIB else "matrix"


def _n_prompts(size: Size, function: str) -> int:
    return size.n_matplotlib if function == _MATPLOTLIB else size.n_prompts


def sides(size: Size, folder: Path) -> dict[str, Callable[[], float]]:
    """Our side of each row; the other one cannot be imported here."""
    from benchmarks import figure_functions
    from pattern_lens import map_figures  # noqa: F401 - the name alone imports what it needs

    layout = data.pattern_layout(size.n_layers)
    for kind, n in {"matrix": size.n_prompts, "matplotlib": size.n_matplotlib}.items():
        data.write_file(folder / f"{kind}.h5", n, size.n_tokens, layout=layout)
    found = {
        f"{function}, {where}": _drawing(size, folder, getattr(figure_functions, function), n)
        for function in BUDGETS
        for where, n in _PROCESSES.items()
    }
    again = _nothing_to_do(folder, figure_functions.gram_matrix)
    return {**found, f"gram_matrix, {_NOTHING}": again}


def _drawing(size: Size, folder: Path, function: Any, n_workers: int | None) -> Callable[[], float]:
    name = function.__name__
    n_figures = _n_prompts(size, name) * size.n_layers * data.N_HEADS

    def sample() -> float:
        path = Path(shutil.copy(folder / f"{_kind(name)}.h5", folder / "drawn.h5"))
        took, report = _map(path, function, n_workers)
        if report.n_drawn != n_figures:
            raise AssertionError(f"{report.n_drawn} of {n_figures} figures were drawn")
        path.unlink()
        return took

    return sample


def _nothing_to_do(folder: Path, function: Any) -> Callable[[], float]:
    path = folder / "again.h5"

    def sample() -> float:
        if not path.exists():
            shutil.copy(folder / "matrix.h5", path)
            _map(path, function, None)
        took, report = _map(path, function, None)
        if report.n_drawn:
            raise AssertionError(f"{report.n_drawn} figures were drawn, expected none")
        return took

    return sample


def _map(path: Path, function: Any, n_workers: int | None) -> tuple[float, Any]:
    from pattern_lens import map_figures

    started = time.perf_counter()
    report = map_figures(path, function, n_workers=n_workers, progress=False)
    return time.perf_counter() - started, report


def _write_tree(folder: Path, kind: str) -> None:
    """The prompts of a file in the layout of 0.6."""
    with closing(StoreReader(folder / f"{kind}.h5")) as reader:
        array = reader.array("pattern")
        model = folder / kind / MODEL_NAME
        model.mkdir(parents=True)
        lines = []
        for i in range(len(array)):
            prompt = {"text": f"text {i}", "hash": data.prompt_hash(i)}
            home = model / "prompts" / prompt["hash"]
            home.mkdir(parents=True)
            arrays = {
                f"blocks.{layer}.attn.hook_pattern": values[None]
                for layer, values in enumerate(array.read(i))
            }
            np.savez_compressed(home / "activations.npz", allow_pickle=False, **arrays)
            lines.append(json.dumps(prompt))
            (home / "prompt.json").write_text(lines[-1])
        (model / "prompts.jsonl").write_text("\n".join(lines) + "\n")
        n_layers, n_heads = array.layout.sizes["layer"], array.layout.sizes["head"]
        config = {"model_name": MODEL_NAME, "n_layers": n_layers, "n_heads": n_heads}
        (model / "model_cfg.json").write_text(json.dumps(config))


def _peer(surroundings: Mapping[str, str]) -> Peer:
    task = {
        "model_name": MODEL_NAME,
        "functions": [name for name in BUDGETS if name not in _NAMES_THERE],
        "script": str(Path(__file__).with_name("figure_functions.py")),
    }
    return Peer("figures_process.py", task, surroundings=surroundings)
