"""One feature as an answer tells it: numbers by rank, histograms, intervals, sequences with the texts of their tokens.

The rule: what was not computed is ``null``, and what is there is told with its own numbers; nothing is derived here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.server.answers import rounded
from pattern_lens.server.keys import prompt_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray as xr
    from numpy.typing import NDArray

    from pattern_lens.server.view import View

    Told = dict[str, Any]

RANKED: Final = {
    "top_logits": {"token": "top_logit_token", "logit": "top_logit"},
    "bottom_logits": {"token": "bottom_logit_token", "logit": "bottom_logit"},
    "neurons": {
        "neuron": "neuron",
        "alignment": "neuron_alignment",
        "l1_share": "neuron_l1_share",
    },
    "correlated_neurons": {
        "neuron": "correlated_neuron",
        "pearson": "neuron_pearson",
        "cosine": "neuron_cosine",
    },
    "correlated_features": {
        "feature": "correlated_feature",
        "pearson": "feature_pearson",
        "cosine": "feature_cosine",
    },
    "second_features": {
        "feature": "second_feature",
        "pearson": "second_pearson",
        "cosine": "second_cosine",
    },
}
"""Tables of a feature: their columns, the first of which says what a row is of, and the variables that hold them."""

_NUMBERS: Final = ("density", "n_active", "max_activation", "mean_activation")
_HISTOGRAMS: Final = {
    "activation_histogram": "activation_edges",
    "logits_histogram": "logits_edges",
}
_INTERVALS: Final = {"low": "interval_low", "high": "interval_high", "share": "interval_share"}
_ABOUT: Final = {
    "group": "sequence_group",
    "prompt": "sequence_prompt",
    "start": "sequence_start",
    "token": "sequence_token",
    "peak": "peak",
}
_GROUPS: Final = {-1: "top", -2: "bottom", -3: "random"}
_PER_PLACE: Final = {
    "activation": "sequence_activation",
    "loss_effect": "loss_effect",
    "source": "source_attribution",
}
_CHANGED: Final = ("raised", "lowered")
_DIGITS: Final = 6
_FEW_DIGITS: Final = 4


def told_of(view: View, one: xr.Dataset) -> Told:
    """What an answer says of a feature.

    Parameters
    ----------
    one
        Its variables, without dim feature.
    """
    told: Told = {name: _number(one, name) for name in _NUMBERS}
    told |= {name: _ranked(one, columns) for name, columns in RANKED.items()}
    told |= {name: _histogram(one, name, edges) for name, edges in _HISTOGRAMS.items()}
    told["intervals"] = _columns(one, _INTERVALS)
    told["sequences"] = _sequences(view, one)
    told["texts"] = {str(n): view.vocabulary.text(n) for n in sorted(_tokens(told))}
    return told


def _values(one: xr.Dataset, name: str) -> NDArray[Any] | None:
    return np.asarray(one[name].values) if name in one else None


def _number(one: xr.Dataset, name: str) -> float | None:
    values = _values(one, name)
    if values is None or values.ndim:
        return None
    found: float | None = rounded(values[None], _DIGITS)[0]
    return int(found) if found is not None and values.dtype.kind in "iu" else found


def _ranked(one: xr.Dataset, columns: dict[str, str]) -> Told | None:
    """Columns of equal length, the first of them of numbers of tokens, neurons or features; without ranks that nothing has."""
    found = [_values(one, name) for name in columns.values()]
    held = {key: values for key, values in zip(columns, found, strict=True) if values is not None}
    first, *measures = columns
    if first not in held or len(held) < len(columns):
        return None
    is_held = held[first] >= 0
    for key in measures:
        is_held = is_held & ~np.isnan(held[key])
    return {
        first: held[first][is_held].astype(int).tolist(),
        **{key: rounded(held[key][is_held]) for key in measures},
    }


def _histogram(one: xr.Dataset, name: str, edges: str) -> Told | None:
    counts, bounds = _values(one, name), _values(one, edges)
    if counts is None or bounds is None or np.isnan(np.asarray(bounds, float)).any():
        return None
    return {"counts": counts.astype(int).tolist(), "edges": rounded(bounds)}


def _columns(one: xr.Dataset, columns: dict[str, str]) -> Told | None:
    found = {key: _values(one, name) for key, name in columns.items()}
    held = {key: rounded(values) for key, values in found.items() if values is not None}
    return held if len(held) == len(columns) else None


# --- sequences -----------------------------------------------------------------------------------


def _sequences(view: View, one: xr.Dataset) -> list[Told] | None:
    if any(name not in one for name in _ABOUT.values()):
        return None
    about = {key: np.asarray(one[name].values) for key, name in _ABOUT.items()}
    tokens, peaks = about["token"], about["peak"]
    rows = np.flatnonzero((about["prompt"] >= 0) & (tokens >= 0).any(axis=1)).tolist()
    keys = _keys(view, {int(about["prompt"][i]) for i in rows})
    return [_sequence(one, i, tokens[i], int(peaks[i]), about, keys) for i in rows]


def _sequence(
    one: xr.Dataset,
    i: int,
    tokens: NDArray[Any],
    peak: int,
    about: dict[str, NDArray[Any]],
    keys: dict[int, Told],
) -> Told:
    places = np.flatnonzero(tokens >= 0)
    group = int(about["group"][i])
    told: Told = {
        "group": _GROUPS.get(group, str(group)),
        **keys[int(about["prompt"][i])],
        "start": int(about["start"][i]),
        "peak": peak - int(places[0]),
        "tokens": tokens[places].astype(int).tolist(),
    }
    for key, name in _PER_PLACE.items():
        values = _values(one, name)
        told[key] = None if values is None else rounded(values[i][places])
    for key in _CHANGED:
        ids, logits = _values(one, f"{key}_token"), _values(one, f"{key}_logit")
        told[key] = told[f"{key}_logit"] = None
        if ids is not None and logits is not None:
            told[key] = ids[i][places].astype(int).tolist()
            told[f"{key}_logit"] = rounded(logits[i][places], _FEW_DIGITS)
    return told


def _keys(view: View, positions: set[int]) -> dict[int, Told]:
    """What prompts are called, and how long they are; of one that is not shown no key is told, so that nothing leads to it."""
    known = sorted(positions)
    table = view.prompts
    hashes, n_ctx = table.hashes(known), table.n_ctx(known).tolist()
    return {
        position: {
            "prompt": one,
            "key": prompt_key(one) if view.shows(position) else None,
            "n_ctx": n,
        }
        for position, one, n in zip(known, hashes, n_ctx, strict=True)
    }


def _tokens(told: Told) -> set[int]:
    """Ids of all tokens that are told of."""
    found: set[int] = set()
    for name in ("top_logits", "bottom_logits"):
        found |= set((told[name] or {}).get("token", ()))
    for one in told["sequences"] or ():
        found |= set(one["tokens"])
        for key in _CHANGED:
            found |= set(_flat(one[key] or ()))
    return {n for n in found if n >= 0}


def _flat(rows: Iterable[Iterable[int]]) -> Iterable[int]:
    return (n for row in rows for n in row)
