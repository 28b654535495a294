"""How ``pattern-lens features`` shows what is stored: tables of autoencoders and features, and one feature in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from pattern_lens.cli.output import print_table
from pattern_lens.wording import counted, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import xarray as xr

    from pattern_lens.features.stored import Features, FeatureSet

    Row = list[str]

TABLES: Final = {
    "raised": ("top_logit_token", "top_logit"),
    "lowered": ("bottom_logit_token", "bottom_logit"),
    "writes to neuron": ("neuron", "neuron_alignment", "neuron_l1_share"),
    "fires with neuron": ("correlated_neuron", "neuron_pearson", "neuron_cosine"),
    "fires with feature": ("correlated_feature", "feature_pearson", "feature_cosine"),
    "of the second": ("second_feature", "second_pearson", "second_cosine"),
}
"""Tables of a feature: what a row is of, and its numbers."""

_HEADS: Final = {
    "top_logit": "logit",
    "bottom_logit": "logit",
    "neuron_alignment": "decoder",
    "neuron_l1_share": "share of L1",
}
_NUMBERS: Final = ("density", "n_active", "max_activation", "mean_activation")
_GROUPS: Final = {-1: "top", -2: "bottom", -3: "random"}
_SHOWN_RANKS: Final = 10
_LONGEST: Final = 24


def plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON can carry them."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(key): _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


# --- tables of many ------------------------------------------------------------------------------


def autoencoder_rows(features: Features) -> list[Row]:
    """A row for each autoencoder, below a head."""
    head = ["name", "hook", "kind", "features", "prompts", "active", "with data"]
    rows = [
        [
            one.name,
            one.hook,
            str(one.identity.get("kind") or "?"),
            *(f"{n:,}" for n in (one.n_features, one.n_prompts, one.n_entries)),
            f"{len(one.computed):,}{' (of other prompts)' if one.is_stale else ''}",
        ]
        for one in features.values()
    ]
    return [head, *rows]


def feature_rows(table: pd.DataFrame) -> list[Row]:
    """Rows of `FeatureSet.table` as text, below a head."""
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return [[str(name) for name in table], *rows]


def _cell(value: Any) -> str:
    if value is None or pd.isna(value):
        return "-"
    if isinstance(value, str):
        return _text(value)
    return f"{value:.3g}" if isinstance(value, float | np.floating) else f"{value:,}"


def _text(token: str) -> str:
    text = visible(token)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


# --- one feature ---------------------------------------------------------------------------------


def print_feature(features: FeatureSet, one: xr.Dataset, n_sequences: int) -> None:
    """A feature for people.

    Parameters
    ----------
    one
        Its data, without dim feature.
    n_sequences
        Most sequences of each group.
    """
    number = int(one["feature"])
    print(f"feature {number} of {features.name} at {features.hook}")
    n_active = _number(one, "n_active")
    if n_active == 0:
        print(f"never active on {counted(features.n_prompts, 'prompt')}")
    elif n_active is not None:
        print(
            f"active on {int(n_active):,} tokens ({one['density'].item():.3%}) · largest "
            f"{one['max_activation'].item():.4g} · mean {one['mean_activation'].item():.4g}"
        )
    for rows in _side_by_side(features, one):
        print()
        print_table(rows)
    for line in _sequence_lines(features, one, n_sequences):
        print(line)


def _number(one: xr.Dataset, name: str) -> float | None:
    return float(one[name]) if name in one else None


def _side_by_side(features: FeatureSet, one: xr.Dataset) -> Iterable[list[Row]]:
    """Tables with their columns, two or three beside each other."""
    names = [name for name, variables in TABLES.items() if variables[0] in one]
    for pair in (names[:2], names[2:4], names[4:]):
        parts = [_ranked_rows(features, one, name) for name in pair]
        n_rows = max((len(part) for part in parts), default=0)
        if n_rows > 1:
            yield [
                [cell for part in parts for cell in (part[i] if i < len(part) else _blank(part))]
                for i in range(n_rows)
            ]


def _blank(part: list[Row]) -> Row:
    return [""] * len(part[0])


def _ranked_rows(features: FeatureSet, one: xr.Dataset, name: str) -> list[Row]:
    variables = TABLES[name]
    head = [name, *(_HEADS.get(each, each.rpartition("_")[2]) for each in variables[1:])]
    return [
        head,
        *([_said(row[0]), *(f"{x:+.3f}" for x in row[1:])] for row in _ranked(features, one, name)),
    ]


def _said(label: Any) -> str:
    return _text(label) if isinstance(label, str) else str(label)


def _ranked(features: FeatureSet, one: xr.Dataset, name: str) -> list[tuple[Any, ...]]:
    """Label and numbers of each rank that is there; tokens as text."""
    first, *others = TABLES[name]
    ids = one[first].values[:_SHOWN_RANKS]
    there = ids >= 0
    labels = features.texts(ids[there]) if first.endswith("token") else ids[there].tolist()
    columns = [one[each].values[: len(ids)][there].tolist() for each in others if each in one]
    return list(zip(labels, *columns, strict=True))


# --- sequences -----------------------------------------------------------------------------------


def _sequence_lines(features: FeatureSet, one: xr.Dataset, n: int) -> Iterable[str]:
    """Groups of sequences, each below its name; the token that a sequence is about between brackets."""
    if "sequence_group" not in one:
        return
    groups = one["sequence_group"].values
    there = one["sequence_prompt"].values >= 0
    has_effect = "loss_effect" in one
    for group in dict.fromkeys(groups.tolist()):
        own = np.flatnonzero((groups == group) & there)
        if not len(own):
            continue
        yield ""
        yield f"{group_name(one, group)} · activation{' · loss effect on the next token' if has_effect else ''}"
        for i in own[:n]:
            yield f"  {_sequence_line(features, one.isel(sequence=i))}"


def group_name(one: xr.Dataset, group: int) -> str:
    """What a group of sequences is called."""
    if group in _GROUPS:
        return _GROUPS[group]
    if "interval_low" not in one:
        return f"interval {group}"
    low, high, share = (float(one[f"interval_{part}"][group]) for part in ("low", "high", "share"))
    return f"{low:.3g} to {high:.3g}, {share:.1%} of where it is active"


def _sequence_line(features: FeatureSet, row: xr.Dataset) -> str:
    peak = int(row["peak"])
    ids = row["sequence_token"].values
    numbers = f"{row['sequence_activation'].values[peak]:7.3f}"
    if "loss_effect" in row:
        effect = float(row["loss_effect"].values[peak])
        numbers += f"  {'' if np.isnan(effect) else f'{effect:+.3f}':>7}"
    shown = [f"⟦{text}⟧" if place == peak else text for place, text in _tokens(features, ids)]
    return f"{numbers}  {''.join(shown)}"


def _tokens(features: FeatureSet, ids: Any) -> list[tuple[int, str]]:
    places = np.flatnonzero(ids >= 0).tolist()
    texts: Sequence[str] = features.texts(ids[places])
    return [(place, visible(text)) for place, text in zip(places, texts, strict=True)]


# --- for programs --------------------------------------------------------------------------------


def as_json(features: FeatureSet, one: xr.Dataset) -> dict[str, Any]:
    """A feature for programs: numbers, tables, sequences; NaN as null."""
    known = {each for variables in TABLES.values() for each in variables}
    told: dict[str, Any] = {
        "autoencoder": features.name,
        "hook": features.hook,
        "feature": int(one["feature"]),
        **{name: _json(one[name].values) for name in _NUMBERS if name in one},
        "tables": {
            name: [
                dict(zip(TABLES[name], row, strict=False)) for row in _ranked(features, one, name)
            ]
            for name, variables in TABLES.items()
            if variables[0] in one
        },
    }
    along = {name for name in one.data_vars if "sequence" in one[name].dims}
    others = [name for name in one.data_vars if name not in {*known, *_NUMBERS, *along}]
    told |= {str(name): _json(one[name].values) for name in sorted(map(str, others))}
    told["sequences"] = _sequences(features, one, sorted(map(str, along)))
    return told


def _sequences(features: FeatureSet, one: xr.Dataset, names: list[str]) -> list[dict[str, Any]]:
    if "sequence_prompt" not in one:
        return []
    found = []
    for i in np.flatnonzero(one["sequence_prompt"].values >= 0).tolist():
        row = one.isel(sequence=i)
        ids = row["sequence_token"].values
        own: dict[str, Any] = {"group_name": group_name(one, int(row["sequence_group"]))}
        own["tokens"] = features.texts(np.maximum(ids, 0))
        found.append(own | {name: _json(row[name].values) for name in names})
    return found


def _json(values: Any) -> Any:
    """Numbers as JSON has them."""
    array = np.asarray(values)
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), np.array(None), array.astype(object))
    return array.tolist()
