"""Tables of nodes and edges: the largest of a trace, without a table of all.

The rule: values are read a few prompts at a time, and of each read only what may still be among the k largest is kept.
NaN within a prompt is a value like any, and stands last; what is beyond it is no node.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from pattern_lens.errors import UnknownTraceError
from pattern_lens.names import (
    KEY,
    POS,
    PROMPT,
    QUERY,
    RAGGED_DIMS,
    SOURCE,
    TARGET,
    TOKEN_COORDS,
)
from pattern_lens.tracing.nodes import (
    CAUSAL,
    EDGES,
    INDICES,
    KINDS,
    MEASURES,
    N_CTX,
    Nodes,
    axis_of,
    chosen_nodes,
    name_of,
    of_prompt,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    import xarray as xr

    Array = np.ndarray[Any, np.dtype[Any]]

_READ_BYTES: Final = 32 << 20


def node_table(
    dataset: xr.Dataset,
    by: str,
    k: int,
    *,
    prompt: str | int | None = None,
    kinds: Sequence[str] | None = None,
    absolute: bool = True,
) -> pd.DataFrame:
    """The k nodes with the largest values; as `TraceResult.nodes`."""
    chosen = chosen_nodes(dataset, by, kinds)
    dataset = of_prompt(dataset, prompt)
    best = _Largest(k)
    for number, nodes in enumerate(chosen):
        for first, values, is_node in _read(dataset[nodes.variables[by]]):
            score = np.abs(values) if absolute else values
            score = np.where(np.isnan(score), -np.inf, score)
            score[~np.broadcast_to(is_node, score.shape)] = np.nan
            best.add(number, first, score)
    return _table(dataset, chosen, best.sorted())


def _read(array: xr.DataArray) -> Iterator[tuple[int, Array, Array]]:
    """Some prompts after the other: the number of the first, values, and which of them are of nodes that exist."""
    array = array.transpose(PROMPT, ...)
    bytes_each = max(math.prod(array.shape[1:]) * array.dtype.itemsize, 1)
    n_prompts = max(_READ_BYTES // bytes_each, 1)
    for first in range(0, len(array), n_prompts):
        some = array[first : first + n_prompts]
        values = some.values
        yield first, values, _exist(some)


def _exist(array: xr.DataArray) -> Array:
    """Where nodes are: within the prompt, and not above the diagonal; broadcasts to the array."""
    found = np.ones((1,) * array.ndim, np.bool_)
    places = {}
    for axis, dim in enumerate(array.dims):
        if dim in RAGGED_DIMS:
            places[dim] = _along(array[dim].values, axis, array.ndim)
            if N_CTX in array.coords:
                found = found & (places[dim] < _along(array[N_CTX].values, 0, array.ndim))
    if array.attrs.get(CAUSAL) and {QUERY, KEY} <= array.coords.keys():
        query, key = (places.get(dim, array[dim].values) for dim in (QUERY, KEY))
        found = found & (key <= query)
    return np.asarray(found)


def _along(values: Array, axis: int, n_dims: int) -> Array:
    return np.reshape(values, [-1 if i == axis else 1 for i in range(n_dims)])


class _Largest:
    """The k largest of everything that was added; ties in the order in which they came."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.floor = -np.inf
        self.held = np.empty(0, [("score", "f8"), ("nodes", "i4"), ("prompt", "i8"), ("at", "i8")])

    def add(self, nodes: int, first: int, score: Array) -> None:
        """Add scores of prompts, dims (prompt, ...), from number `first` on; NaN is no node."""
        flat = score.reshape(-1)
        at = np.flatnonzero(flat >= self.floor)
        if len(at) > self.k:
            at = np.sort(at[np.argpartition(-flat[at], self.k - 1)[: self.k]]) if self.k else at[:0]
        more = np.empty(len(at), self.held.dtype)
        size = max(flat.size // max(len(score), 1), 1)
        more["score"], more["nodes"] = flat[at], nodes
        more["prompt"], more["at"] = first + at // size, at % size
        held = np.concatenate([self.held, more])
        self.held = held[np.argsort(-held["score"], kind="stable")[: self.k]]
        if self.k and len(self.held) == self.k:
            self.floor = float(self.held["score"][-1])

    def sorted(self) -> Array:
        """Records of the largest, the largest first."""
        return self.held


# --- the table -----------------------------------------------------------------------------------


@dataclass
class _Columns:
    """Columns of a table whose rows come in groups, in no order."""

    n_rows: int
    columns: dict[str, Array] = field(default_factory=dict)

    def put(self, name: str, rows: Array, values: Any, missing: Any, dtype: Any) -> None:
        if name not in self.columns:
            self.columns[name] = np.full(self.n_rows, missing, dtype)
        self.columns[name][rows] = values


def _table(dataset: xr.Dataset, chosen: Sequence[Nodes], records: Array) -> pd.DataFrame:
    columns = _Columns(len(records))
    none = np.empty(0, np.intp)
    for name in ("label", "kind", PROMPT):
        columns.put(name, none, "", "", object)
    for name in INDICES:
        columns.put(name, none, 0, -1, np.int64)
    for name in ("token", "key_token"):
        columns.put(name, none, "", "", object)
    measures = {measure for nodes in chosen for measure in nodes.variables}
    for name in sorted(measures, key=lambda m: (m not in MEASURES, _rank(m), m)):
        columns.put(name, none, 0, np.nan, np.float64)
    for number, at in sorted({(int(r["nodes"]), int(r["prompt"])) for r in records}):
        rows = np.flatnonzero((records["nodes"] == number) & (records["prompt"] == at))
        _fill(columns, rows, dataset.isel({PROMPT: at}), chosen[number], records["at"][rows])
    table = pd.DataFrame(columns.columns)
    for name in INDICES:
        table[name] = table[name].astype("Int64").mask(table[name] < 0)
    return table


def _rank(measure: str) -> int:
    return MEASURES.index(measure) if measure in MEASURES else len(MEASURES)


def _fill(columns: _Columns, rows: Array, of_one: xr.Dataset, nodes: Nodes, at: Array) -> None:
    """The rows of some nodes of one kind and prompt."""
    kind = KINDS[nodes.kind]
    example = of_one[next(iter(nodes.variables.values()))]
    own = {dim: axis_of(example, dim) for dim in kind.dims}
    picks = dict(zip(example.dims, np.unravel_index(at, example.shape), strict=True))
    indices = {d: _labels(example, name, picks.get(name), len(at)) for d, name in own.items()}
    for dim, values in indices.items():
        columns.put(dim, rows, values, -1, np.int64)
    labels = [
        kind.label.format(sae=nodes.sae, **dict(zip(indices, one, strict=True)))
        for one in zip(*(values.tolist() for values in indices.values()), strict=True)
    ]
    columns.put("label", rows, np.array(labels, object), "", object)
    columns.put("kind", rows, nodes.kind, "", object)
    columns.put(PROMPT, rows, str(of_one[PROMPT].values), "", object)
    texts = _texts(of_one)
    for dim, column in ((QUERY, "token"), (POS, "token"), (KEY, "key_token")):
        if dim in indices:
            found = np.array([texts.get(place, "") for place in indices[dim].tolist()], object)
            columns.put(column, rows, found, "", object)
    for measure, name in nodes.variables.items():
        columns.put(measure, rows, _values(of_one[name], picks), np.nan, np.float64)


def _labels(array: xr.DataArray, name: Hashable, pick: Array | None, n: int) -> Array:
    """Numbers along a dim at some places; the same one everywhere where it was chosen before."""
    values = np.asarray(array[name].values, np.int64)
    return np.full(n, values) if pick is None else values[pick]


def _values(array: xr.DataArray, picks: Mapping[Hashable, Array]) -> Array:
    """Values of one prompt at some places; only the layers in which they are, are read."""
    picks = dict(picks)
    if array.ndim and array.dims[0] in picks:
        first = array.dims[0]
        wanted, picks[first] = np.unique(picks[first], return_inverse=True)
        array = array[{first: wanted}]
    return np.asarray(array.values[tuple(picks[dim] for dim in array.dims)], np.float64)


def _texts(of_one: xr.Dataset) -> dict[int, str]:
    """Text of each token of a prompt, by position."""
    for dim in (QUERY, POS, KEY):
        name = TOKEN_COORDS[dim]
        if name in of_one.coords and of_one[name].dims == (dim,):
            places = of_one[dim].values.tolist()
            return dict(zip(places, of_one[name].values.tolist(), strict=True))
    return {}


# --- edges ---------------------------------------------------------------------------------------


def edge_table(
    dataset: xr.Dataset, end: str, label: str, k: int, *, prompt: str | int | None = None
) -> pd.DataFrame:
    """The k largest edges at a node.

    Parameters
    ----------
    end
        `TARGET` for edges into it, `SOURCE` for edges out of it.
    label
        As the coordinate `end` of the edges has it.

    Raises
    ------
    UnknownTraceError
        The trace has no edges, or none at such a node.
    """
    if EDGES not in dataset.data_vars:
        raise UnknownTraceError(
            f"no edges in {name_of(dataset)}: trace again with edges among its scalars"
        )
    edges = of_prompt(dataset[[EDGES]], prompt)[EDGES].transpose(PROMPT, SOURCE, TARGET)
    held = list(map(str, edges[end].values.tolist()))
    if label not in held:
        near = get_close_matches(label, held) or held[:5]
        raise UnknownTraceError(
            f"no edges with the {end} {label!r} in {name_of(dataset)}; nearest: {', '.join(near) or 'none'}"
        )
    at_node = edges.isel({end: held.index(label)})
    values = at_node.values
    score = np.where(np.isnan(values), -np.inf, np.abs(values))
    best = _Largest(k)
    best.add(0, 0, score)
    records = best.sorted()
    other = SOURCE if end == TARGET else TARGET
    named = {end: np.full(len(records), label, object), other: at_node[other].values[records["at"]]}
    return pd.DataFrame(
        {
            SOURCE: named[SOURCE].astype(object),
            TARGET: named[TARGET].astype(object),
            PROMPT: at_node[PROMPT].values[records["prompt"]].astype(object),
            "direct_effect": values[records["prompt"], records["at"]].astype(np.float64),
        }
    )
