"""Random latents, and feature data that follows from them, for files of tests.

Rule: what can be known from the latents is computed from them, so that a reader can be held to it; the rest is random.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Array = np.ndarray[Any, np.dtype[Any]]
    Latents = dict[int, tuple[Array, Array, Array]]

N_RANKS: Final = 10
N_CHANGED: Final = 5
N_BINS: Final = 40
N_INTERVALS: Final = 10
WINDOW: Final = (2, 3)
N_TOP: Final = 2
NEVER_ACTIVE: Final = 5

_N_NEURONS: Final = 7
_PLACES: Final = sum(WINDOW) + 1
_GROUPS: Final = (*[-1] * N_TOP, *[-2] * N_TOP, *range(N_INTERVALS), -3)


def random_latents(
    rng: np.random.Generator, lengths: Mapping[int, int], n_features: int, *, silent: Sequence[int]
) -> Latents:
    """Positions, features and values of each prompt's entries; a third of all, none of feature `NEVER_ACTIVE`.

    Parameters
    ----------
    lengths
        Tokens of each prompt.
    silent
        Prompts in which nothing is active.
    """
    found = {}
    for prompt, n in lengths.items():
        is_active = rng.random((n, n_features)) < (0.0 if prompt in silent else 0.35)
        is_active[:, NEVER_ACTIVE] = False
        position, feature = np.nonzero(is_active)
        value = rng.gamma(2.0, 1.5, len(position)).astype(np.float32)
        found[prompt] = (position, feature, value)
    return found


def random_data(
    rng: np.random.Generator,
    latents: Latents,
    token_ids: Mapping[int, Array],
    feature: int,
    n_features: int,
    *,
    has_sources: bool,
) -> dict[str, xr.DataArray]:
    """Every variable of one feature's data, with its dims."""
    entries = [
        (prompt, int(position), float(value))
        for prompt, (positions, features, values) in latents.items()
        for position, value in zip(
            positions[features == feature], values[features == feature], strict=True
        )
    ]
    n_tokens = sum(map(len, token_ids.values()))
    own = {
        **_of_logits(rng, 1 + int(max(ids.max() for ids in token_ids.values()))),
        **_of_activations(np.array([value for *_, value in entries], np.float32), n_tokens),
        **_of_others(rng, feature, n_features, is_active=bool(entries)),
        **_of_sequences(rng, entries, token_ids, has_sources=has_sources),
    }
    return {name: xr.DataArray(values, dims=dims) for name, (dims, values) in own.items()}


Variables = dict[str, tuple[tuple[str, ...], Any]]


def _ranked(rng: np.random.Generator, n: int, *, sign: int = 1) -> tuple[Array, Array]:
    """Numbers below `n`, each once, and what they are ranked by; -1 and NaN behind them."""
    numbers, values = np.full(N_RANKS, -1, np.int32), np.full(N_RANKS, np.nan, np.float32)
    held = min(n, N_RANKS)
    numbers[:held] = rng.permutation(n)[:held]
    values[:held] = sign * np.sort(rng.random(held))[::-1]
    return numbers, values


def _of_logits(rng: np.random.Generator, n_vocab: int) -> Variables:
    top, bottom = _ranked(rng, n_vocab), _ranked(rng, n_vocab, sign=-1)
    counts, edges = np.histogram(rng.standard_normal(500), N_BINS)
    return {
        "top_logit_token": (("rank",), top[0]),
        "top_logit": (("rank",), top[1] * 4),
        "bottom_logit_token": (("rank",), bottom[0]),
        "bottom_logit": (("rank",), bottom[1] * 4),
        "logits_histogram": (("bin",), counts.astype(np.int32)),
        "logits_edges": (("edge",), edges.astype(np.float32)),
    }


def _of_activations(values: Array, n_tokens: int) -> Variables:
    missing = np.float32(np.nan)
    largest = values.max(initial=0)
    counts, edges = np.histogram(values, N_BINS, (0, largest or 1))
    bounds = np.linspace(0, largest, N_INTERVALS + 1)
    interval = np.clip(np.searchsorted(bounds, values) - 1, 0, N_INTERVALS - 1)
    shares = np.bincount(interval, minlength=N_INTERVALS) / (len(values) or np.nan)
    is_active = len(values) > 0
    known = (lambda one: np.asarray(one, np.float32)) if is_active else lambda one: one * missing
    return {
        "activation_histogram": (("bin",), counts.astype(np.int32)),
        "activation_edges": (("edge",), known(edges).astype(np.float32)),
        "density": ((), np.float64(len(values) / n_tokens)),
        "n_active": ((), np.int64(len(values))),
        "max_activation": ((), np.float32(largest) if is_active else missing),
        "mean_activation": (
            (),
            np.float32(values.mean(dtype=np.float64)) if is_active else missing,
        ),
        "interval_low": (("interval",), known(bounds[:-1]).astype(np.float32)),
        "interval_high": (("interval",), known(bounds[1:]).astype(np.float32)),
        "interval_share": (("interval",), shares.astype(np.float32)),
    }


def _of_others(
    rng: np.random.Generator, feature: int, n_features: int, *, is_active: bool
) -> Variables:
    found: Variables = {}
    neuron, alignment = _ranked(rng, _N_NEURONS)
    found["neuron"] = ("rank",), neuron
    found["neuron_alignment"] = ("rank",), alignment * np.float32(0.7)
    found["neuron_l1_share"] = ("rank",), alignment * np.float32(0.2)
    for variable, prefix, n in (
        ("correlated_neuron", "neuron", _N_NEURONS),
        ("correlated_feature", "feature", n_features - 1),
        ("second_feature", "second", 4),
    ):
        number, pearson = _ranked(rng, n if is_active else 0)
        if prefix == "feature":  # of itself nothing is to be learnt
            number += number >= feature
        found[variable] = ("rank",), number
        found[f"{prefix}_pearson"] = ("rank",), pearson
        found[f"{prefix}_cosine"] = ("rank",), pearson * np.float32(0.9)
    return found


def _chosen(
    rng: np.random.Generator, entries: list[Any], token_ids: Mapping[int, Array]
) -> list[Any]:
    """Prompt and position of each sequence, or None."""
    by_value = sorted(entries, key=lambda entry: entry[2])
    n = min(N_TOP, len(by_value))
    chosen = [*by_value[::-1][:n], *[None] * (N_TOP - n), *by_value[:n], *[None] * (N_TOP - n)]
    bounds = np.linspace(0, by_value[-1][2] if by_value else 1, N_INTERVALS + 1)
    for low, high in pairwise(bounds):
        within = [entry for entry in entries if low < entry[2] <= high]
        chosen.append(within[int(rng.integers(len(within)))] if within else None)
    prompt = int(rng.choice([*token_ids]))
    chosen.append((prompt, int(rng.integers(len(token_ids[prompt]))), None) if entries else None)
    return [None if one is None else one[:2] for one in chosen]


def _of_sequences(
    rng: np.random.Generator,
    entries: list[Any],
    token_ids: Mapping[int, Array],
    *,
    has_sources: bool,
) -> Variables:
    n = len(_GROUPS)
    value_at = {(prompt, position): value for prompt, position, value in entries}
    whole = {name: np.full(n, fill, np.int32) for name, fill in _PER_SEQUENCE.items()}
    whole["sequence_group"][:] = _GROUPS
    tokens = np.full((n, _PLACES), -1, np.int32)
    numbers = {name: np.full((n, _PLACES), np.nan, np.float32) for name in _PER_PLACE}
    changed = {
        name: np.full((n, _PLACES, N_CHANGED), fill, dtype)
        for name, (fill, dtype) in _CHANGED.items()
    }
    for at, one in enumerate(_chosen(rng, entries, token_ids)):
        if one is None:
            continue
        prompt, position = one
        ids = token_ids[prompt]
        start, stop = max(position - WINDOW[0], 0), min(position + WINDOW[1] + 1, len(ids))
        length = stop - start
        told = {"prompt": prompt, "start": start, "length": length}
        for name, number in told.items():
            whole[f"sequence_{name}"][at] = number
        whole["peak"][at] = position - start
        tokens[at, :length] = ids[start:stop]
        of_places = [value_at.get((prompt, place), 0.0) for place in range(start, stop)]
        numbers["sequence_activation"][at, :length] = of_places
        effect = rng.standard_normal(length)
        numbers["loss_effect"][at, :length] = np.where(
            np.arange(start, stop) == len(ids) - 1, np.nan, effect
        )
        numbers["source_attribution"][at, : position - start + 1] = rng.random(position - start + 1)
        for name, (_, dtype) in _CHANGED.items():
            sign = -1 if name.startswith("lowered") else 1
            drawn = rng.random((length, N_CHANGED)) * sign
            is_number = np.issubdtype(dtype, np.floating)
            changed[name][at, :length] = drawn if is_number else rng.integers(0, 10, drawn.shape)
    if not has_sources:
        del numbers["source_attribution"]
    return {
        **{name: (("sequence",), values) for name, values in whole.items()},
        "sequence_token": (("sequence", "place"), tokens),
        **{name: (("sequence", "place"), values) for name, values in numbers.items()},
        **{name: (("sequence", "place", "rank"), values) for name, values in changed.items()},
    }


_PER_SEQUENCE: Final = {
    "sequence_group": 0,
    "sequence_prompt": -1,
    "sequence_start": -1,
    "sequence_length": 0,
    "peak": -1,
}
_PER_PLACE: Final = ("sequence_activation", "loss_effect", "source_attribution")
_CHANGED: Final[dict[str, tuple[float, Any]]] = {
    "raised_token": (-1, np.int32),
    "raised_logit": (np.nan, np.float32),
    "lowered_token": (-1, np.int32),
    "lowered_logit": (np.nan, np.float32),
}
