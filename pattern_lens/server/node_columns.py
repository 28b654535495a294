"""The nodes of a trace of one prompt as columns.

The rule: a table holds the largest nodes of each kind by each measure, so that its top is right whichever it is sorted by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from pattern_lens.names import FEATURE, HEAD, KEY, LAYER, NEURON, POS, QUERY
from pattern_lens.server.answers import rounded
from pattern_lens.tracing.nodes import CAUSAL, nodes_of

if TYPE_CHECKING:
    from pattern_lens.tracing.result import TraceResult

    Columns = dict[str, Any]

EACH: Final = 200
"""Nodes of each kind by each measure, at most."""

MEASURES: Final = {
    "total": "estimated_total_effect",
    "direct": "direct_effect",
    "write": "write_magnitude",
    "activation": "activation",
}
"""Columns of the table, by what addresses call them."""

_INDICES: Final = (LAYER, HEAD, QUERY, KEY, POS, NEURON, FEATURE)


def table_of(one: TraceResult) -> tuple[Columns, Columns]:
    """How many nodes of each kind there are, and columns of the largest by each measure."""
    kinds: Columns = {}
    parts = []
    for kind in dict.fromkeys(nodes.kind for nodes in nodes_of(one)):
        measures = {m for nodes in nodes_of(one) if nodes.kind == kind for m in nodes.variables}
        held = {name: m for name, m in MEASURES.items() if m in measures}
        if not held:
            continue
        tables = [one.nodes(by=m, k=EACH, kinds=[kind]) for m in held.values()]
        found = pd.concat(tables, ignore_index=True).drop_duplicates(["label", *_INDICES])
        kinds[kind] = {"n": _n_nodes(one, kind), "measures": list(held)}
        parts.append(found.rename(columns={m: name for name, m in held.items()}))
    return kinds, _columns(parts)


def _n_nodes(one: TraceResult, kind: str) -> int:
    """How many nodes of a kind the prompt has; of a causal model none looks ahead."""
    each = [nodes for nodes in nodes_of(one) if nodes.kind == kind]
    arrays = [one[next(iter(nodes.variables.values()))] for nodes in each]
    return sum(
        a.size * (a.sizes[KEY] + 1) // (2 * a.sizes[KEY]) if a.attrs.get(CAUSAL) else a.size
        for a in arrays
    )


def _columns(parts: list[pd.DataFrame]) -> Columns:
    names = ["name", "kind", *_INDICES, *MEASURES]
    if not parts:
        return {name: [] for name in names}
    table = pd.concat(parts, ignore_index=True)
    found: Columns = {"name": _names(table), "kind": table["kind"].tolist()}
    for name in _INDICES:
        found[name] = [None if n is pd.NA else int(n) for n in table[name]]
    for name in MEASURES:
        values = table[name].to_numpy(np.float64) if name in table else np.full(len(table), np.nan)
        found[name] = rounded(values)
    return found


def _names(table: pd.DataFrame) -> list[str]:
    """Labels with the positions: ``L3H5@7,4`` and ``L3N17@5``, as `parse_ablation` reads them."""
    own = zip(table["label"], table[QUERY], table[KEY], table[POS], strict=True)
    return [
        f"{label}@{pos if query is pd.NA else query}{'' if key is pd.NA else f',{key}'}"
        for label, query, key, pos in own
    ]
