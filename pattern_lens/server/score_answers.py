"""Answers made of stored results with one number a head.

The rule: a matrix is always that of the whole model, layer x head, with ``null`` where there is no number, so that its
places are layer and head numbers.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.names import HEAD, LAYER
from pattern_lens.server.answers import Answer, late_json, numbers, rows_tag, tag_of
from pattern_lens.store.chunks import Selection

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pattern_lens.server.view import View
    from pattern_lens.store.reader import StoredArray

_ROWS_AT_ONCE: Final = 4096
_CACHED: Final = 256

_means: dict[str, dict[str, Any]] = {}
_lock: Final = threading.Lock()


def score_arrays(view: View) -> dict[str, StoredArray]:
    """Stored results of dims (layer, head), by name."""
    found = {name: view.reader.result(name) for name in view.result_names}
    return {
        name: array
        for name, array in found.items()
        if array.layout.dims == (LAYER, HEAD) and array.layout.value_dtype.kind in "fiub"
    }


def scores(view: View) -> Answer:
    """``scores.json``: each result's mean over prompts."""
    arrays = score_arrays(view)
    tags = {name: _tag(view, name, array) for name, array in arrays.items()}

    def make() -> dict[str, Any]:
        return {"scores": [_summary(view, name, arrays[name], tags[name]) for name in arrays]}

    return late_json(make, tag_of("scores", sorted(tags.items())))


def _tag(view: View, name: str, array: StoredArray) -> str:
    return tag_of(view.file_id, name, array.group, rows_tag(_rows(view, array)))


def _rows(view: View, array: StoredArray) -> NDArray[Any]:
    """Index rows of the prompts that are shown."""
    if view.is_whole:
        return array.rows
    return np.asarray(array.rows[np.isin(array.rows["prompt"].astype(np.intp), view.positions)])


def _summary(view: View, name: str, array: StoredArray, tag: str) -> dict[str, Any]:
    """What is said of one result; kept, because it takes reading all of it."""
    with _lock:
        if tag in _means:
            return _means[tag]
    layout = array.layout
    summary = {
        "name": name,
        "long_name": layout.origin.get("long_name") or name,
        "units": layout.units,
        "n_prompts": len(_rows(view, array)),
        **_means_of(view, array),
    }
    with _lock:
        while len(_means) >= _CACHED:
            _means.pop(next(iter(_means)))
        _means[tag] = summary
    return summary


def _means_of(view: View, array: StoredArray) -> dict[str, Any]:
    shape = tuple(int(array.layout.sizes[dim]) for dim in (LAYER, HEAD))
    total, counts = np.zeros(shape), np.zeros(shape, np.int64)
    low, high = np.inf, -np.inf
    for values in _blocks(view, array):
        is_known = np.isfinite(values)
        total += np.where(is_known, values, 0).sum(axis=0, dtype=np.float64)
        counts += is_known.sum(axis=0)
        low = min(low, float(np.min(values, where=is_known, initial=np.inf)))
        high = max(high, float(np.max(values, where=is_known, initial=-np.inf)))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / counts
    return {
        "mean": numbers(whole_model(view, array, mean)),
        "min": low if np.isfinite(low) else None,
        "max": high if np.isfinite(high) else None,
    }


def _blocks(view: View, array: StoredArray) -> Iterator[NDArray[Any]]:
    """Values of some prompts at a time, dims (prompt, layer, head)."""
    chosen = np.arange(len(array))
    if not view.is_whole:
        chosen = chosen[np.isin(array.rows["prompt"].astype(np.intp), view.positions)]
    for first in range(0, len(chosen), _ROWS_AT_ONCE):
        yield read_scores(array, chosen[first : first + _ROWS_AT_ONCE].tolist())


def read_scores(array: StoredArray, rows: Sequence[int]) -> NDArray[Any]:
    """Values of some rows, dims (prompt, layer, head), float32 or float64."""
    parts = [(0, array.sizes(row)[0]) for row in rows]
    found = array.read_packed(rows, Selection.everything(array.layout), parts)
    dense = [array.unpack(one, 0, *array.sizes(row)) for row, one in zip(rows, found, strict=True)]
    values = np.stack(dense)
    return values if values.dtype == np.float64 else values.astype(np.float32)


def whole_model(view: View, array: StoredArray, values: NDArray[Any]) -> NDArray[Any]:
    """A matrix of the stored layers and heads as one of all, with NaN for the others."""
    layout = array.layout
    heads = layout.labels.get(HEAD, range(values.shape[1]))
    layers = layout.layers or layout.labels.get(LAYER, range(values.shape[0]))
    n_layers = max(view.n_layers, max(layers, default=-1) + 1)
    n_heads = max(view.n_heads, max(heads, default=-1) + 1)
    out = np.full((n_layers, n_heads), np.nan, np.result_type(values.dtype, np.float32))
    out[np.ix_(list(layers), list(heads))] = values
    return out


def prompt_scores(view: View, key: str) -> Answer:
    """``prompt/{prompt}/scores.json``."""
    position = view.position(key)
    found = {}
    for name, array in score_arrays(view).items():
        row = array.row_of(position)
        if row is not None:
            found[name] = (array, row)
    checksums = [(name, int(array.rows[row]["checksum"])) for name, (array, row) in found.items()]

    def make() -> dict[str, Any]:
        return {
            "scores": {
                name: numbers(whole_model(view, array, read_scores(array, [row])[0]))
                for name, (array, row) in found.items()
            }
        }

    return late_json(make, tag_of(view.file_id, "scores", key, checksums))
