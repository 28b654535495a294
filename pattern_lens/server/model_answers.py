"""Answers on a file as a whole: its entry in the index, its model, its prompts, the colour maps."""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens import __version__
from pattern_lens.errors import UnknownAddressError
from pattern_lens.server.answers import Answer, json_answer, late_json, rows_tag, tag_of
from pattern_lens.server.keys import prompt_key
from pattern_lens.server.view import BLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pattern_lens.patterns.source import Positions
    from pattern_lens.server.view import View

_SHOWN_TEXT: Final = 300
_FOUND_AT_MOST: Final = 1000
_SEARCHED_AT_ONCE: Final = 2000
_DATASET_KEYS: Final = ("pile_set_name", "dataset", "source")
_SEQUENTIAL: Final = ("viridis", "cividis", "magma", "inferno", "plasma", "Blues", "Greys")
_DIVERGING: Final = ("RdBu_r", "PuOr_r", "coolwarm")


def entry(view: View, model_id: str) -> dict[str, Any]:
    """What ``api/index.json`` says of a file."""
    layout = None if view.array is None else view.array.layout
    d_model = view.model.get("d_model")
    weights = view.model.get("weights")
    return {
        "id": model_id,
        "name": view.model_name,
        "file": view.name,
        "file_id": view.file_id,
        "n_layers": view.n_layers,
        "n_heads": view.n_heads,
        "d_model": d_model if isinstance(d_model, int) else None,
        "n_prompts": len(view.positions),
        "n_blocks": -(-len(view.positions) // BLOCK),
        "layers": list(view.layers),
        "patterns": layout is not None,
        "residual": view.has_residual,
        "traces": list(view.trace_names),
        "features": [_features(view, name) for name in view.feature_names],
        "computes": False,
        "packing": layout.packing if layout else "triangle",
        "dtype": layout.dtype if layout else view.model.get("dtype"),
        "weights": weights.get("mode") if isinstance(weights, dict) else weights,
        "heads": view.head_labels,
        "is_written": False,
        "error": None,
    }


def _features(view: View, name: str) -> dict[str, Any]:
    """An autoencoder with what tells whether more was stored of it."""
    reader = view.reader
    computed = [reader.feature_array(name, v) for v in reader.feature_variables(name)[:1]]
    captured = [reader.latents(name, v) for v in reader.latent_variables(name)[:1]]
    n_computed, n_prompts = (sum(len(one.rows) for one in some) for some in (computed, captured))
    return {"name": name, "n_computed": n_computed, "n_prompts": n_prompts}


def damaged_entry(name: str, model_id: str, error: str) -> dict[str, Any]:
    """What ``api/index.json`` says of a file that cannot be shown."""
    return {
        "id": model_id,
        "name": name,
        "file": name,
        "file_id": None,
        "n_layers": 0,
        "n_heads": 0,
        "d_model": None,
        "n_prompts": 0,
        "n_blocks": 0,
        "layers": [],
        "patterns": False,
        "residual": False,
        "traces": [],
        "features": [],
        "computes": False,
        "packing": "triangle",
        "dtype": None,
        "weights": None,
        "heads": None,
        "is_written": False,
        "error": error,
    }


def index(models: Sequence[dict[str, Any]], notes: Sequence[str], *, live: bool) -> Answer:
    """``api/index.json``."""
    return json_answer(
        {"version": __version__, "live": live, "models": list(models), "notes": list(notes)}
    )


def colours() -> Answer:
    """``api/colours.json``."""
    return late_json(_colour_maps, tag_of("colours"))


@cache
def _colour_maps() -> dict[str, Any]:
    from pattern_lens.figures.colours import palette

    found = {}
    kinds = (("sequential", _SEQUENTIAL), ("diverging", _DIVERGING))
    for kind, names in kinds:
        for name in names:
            table = base64.b64encode(np.ascontiguousarray(palette(name).colours).tobytes())
            found[name] = {"colours": table.decode(), "kind": kind}
    return found


def about_model(view: View) -> Answer:
    """``model.json``: what the file says of its model."""
    root = {str(k): v for k, v in view.reader.root.items() if isinstance(v, str | int | float)}
    return json_answer({"model": view.model, "file": {"name": view.name, **root}})


# --- prompts -------------------------------------------------------------------------------------


def block(view: View, number: int) -> Answer:
    """``prompts/{block}.json``."""
    first = number * BLOCK
    if first >= len(view.positions) and number:
        raise UnknownAddressError(
            f"no block {number} of prompts in {view.name}: it has {len(view.positions):,} prompts"
        )
    positions = view.positions[first : first + BLOCK]

    def make() -> dict[str, Any]:
        listed = listing(view, positions)
        return {"first": first, "n_prompts": len(view.positions), "prompts": listed}

    rows = view.prompts.rows[positions]
    return late_json(make, tag_of(view.file_id, number, len(view.positions), rows_tag(rows)))


def listing(view: View, positions: Positions) -> list[dict[str, Any]]:
    """What tables show of some prompts."""
    table = view.prompts
    columns = (
        table.hashes(positions),
        table.texts(positions),
        table.metas(positions),
        table.n_ctx(positions).tolist(),
        table.truncated(positions).tolist(),
        table.bos(positions).tolist(),
    )
    return [
        {
            "key": prompt_key(prompt_hash),
            "hash": prompt_hash,
            "text": text[:_SHOWN_TEXT],
            "n_tokens": n_ctx - bos,
            "n_ctx": n_ctx,
            "truncated": truncated,
            "dataset": _dataset(meta),
        }
        for prompt_hash, text, meta, n_ctx, truncated, bos in zip(*columns, strict=True)
    ]


def _dataset(meta: dict[str, Any]) -> str | None:
    inner = meta.get("meta")
    for place in (meta, inner if isinstance(inner, dict) else {}):
        for key in _DATASET_KEYS:
            if isinstance(place.get(key), str):
                return str(place[key])
    return None


def search(view: View, words: str) -> Answer:
    """``prompts.json?find=…``: prompts whose text or hash holds the words, whatever their case."""
    tag = tag_of(view.file_id, words, rows_tag(view.prompts.rows))
    return late_json(lambda: _found(view, words.casefold()), tag)


def _found(view: View, words: str) -> dict[str, Any]:
    found: list[int] = []
    for first in range(0, len(view.positions), _SEARCHED_AT_ONCE):
        positions = view.positions[first : first + _SEARCHED_AT_ONCE]
        texts, hashes = view.prompts.texts(positions), view.prompts.hashes(positions)
        found += [
            position
            for position, text, one in zip(positions.tolist(), texts, hashes, strict=True)
            if words in text.casefold() or words in one.casefold()
        ]
    shown = np.array(found[:_FOUND_AT_MOST], np.intp)
    return {"n_found": len(found), "prompts": listing(view, shown) if found else []}


def prompt(view: View, key: str) -> Answer:
    """``prompt/{prompt}.json``."""
    position = view.position(key)
    row = None if view.array is None else view.array.row_of(position)
    sizes = view.array.sizes(row) if view.array is not None and row is not None else (0, 0)
    tag = tag_of(view.file_id, key, sizes, rows_tag(view.prompts.rows[[position]]))
    return late_json(lambda: _prompt(view, key, position, sizes), tag)


def _prompt(view: View, key: str, position: int, sizes: tuple[int, int]) -> dict[str, Any]:
    table = view.prompts
    ids = table.token_ids(position).tolist()
    with view.lock:
        words = view.reader.vocab["text"]
    return {
        "key": key,
        "hash": table.hashes([position])[0],
        "text": table.texts([position])[0],
        "meta": table.metas([position])[0],
        "tokens": [words[i] if 0 <= i < len(words) else f"<{i}>" for i in ids],
        "token_ids": ids,
        "n_ctx": len(ids),
        "bos": bool(table.bos([position])[0]),
        "truncated": bool(table.truncated([position])[0]),
        "n_query": sizes[0],
        "n_key": sizes[1],
    }
