"""Answers on traces: which a file holds of a prompt, the nodes of one with their measures, and what one holds of a head.

The rule: a trace that was stored and one that was just computed are told in the same words.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import PatternLensError, UnknownAddressError
from pattern_lens.names import HEAD, KEY, LAYER, PROMPT, QUERY
from pattern_lens.server.answers import Answer, late_json, npy_answer, rounded, tag_of
from pattern_lens.server.keys import parse_label
from pattern_lens.server.node_columns import EACH, table_of
from pattern_lens.tracing.ablations import Ablation, parse_ablation
from pattern_lens.tracing.labels import ablation_label, trace_label
from pattern_lens.tracing.stored import read_trace
from pattern_lens.tracing.traces import parse_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from pattern_lens.server.view import View
    from pattern_lens.tracing.result import TraceResult

    Told = dict[str, Any]

HEAD_VALUES: Final = {
    "pattern": ("pattern", "pair_activation"),
    "scores": ("attn_scores",),
    "total": ("pair_estimated_total_effect",),
    "direct": ("pair_direct_effect",),
}
"""What can be shown of one head, and the variables that hold it."""

ANSWERS: Final = ("target", "distractor")
_NUMBERS: Final = ("node_value", "constant", "closure_error", "seconds")
_ASKED_HERE: Final = ("logit_diff", "logit_minus_mean")
_EXACT: Final = 9


# --- what a file holds ---------------------------------------------------------------------------


def listed(view: View, key: str) -> Answer:
    """``prompt/{prompt}/traces.json``: the stored traces of a prompt."""
    position = view.position(key)
    names = [name for name in view.trace_names if _is_traced(view, name, position)]

    def make() -> Told:
        with view.lock:
            return {"traces": [_entry(view, name, position) for name in names]}

    stamps = [_stamp(view, name, position) for name in names]
    return late_json(make, tag_of(view.file_id, "traces", key, stamps))


def _entry(view: View, name: str, position: int) -> Told:
    own = own_spec(read_trace(view.reader, name, np.array([position])))
    return {
        "name": name,
        "objective": objective_of(view, own, view.n_ctx(position)),
        "node": node_label(own),
        "ablate": ablation_labels(own),
    }


def stored(view: View, key: str, name: str) -> Answer:
    """``prompt/{prompt}/trace/{name}.json``: a stored trace of a prompt."""
    position = _position(view, key, name)

    def make() -> Told:
        with view.lock:
            one = read_trace(view.reader, name, np.array([position]))
            told = told_of(view, one, view.n_ctx(position))
        return {"name": name, **told, "next": None, "left_out": None}

    return late_json(make, tag_of(view.file_id, "trace", key, _stamp(view, name, position), EACH))


def of_head(view: View, key: str, label: str, name: str, values: str) -> Answer:
    """``prompt/{prompt}/head/{label}.npy?trace=…&values=…``: what a stored trace holds of one head."""
    position = _position(view, key, name)
    with view.lock:
        make = head_values(read_trace(view.reader, name, np.array([position])), label, values)

    def locked() -> NDArray[Any]:
        with view.lock:
            return make()

    stamp = _stamp(view, name, position)
    return npy_answer(locked, tag_of(view.file_id, "head", key, stamp, label, values))


def _position(view: View, key: str, name: str) -> int:
    """Where a prompt stands in the prompt table, if it has such a trace."""
    position = view.position(key)
    if name not in view.trace_names:
        raise UnknownAddressError(
            f"no trace {name[:80]!r} in {view.name}: it holds {', '.join(view.trace_names) or 'none'}"
        )
    if not _is_traced(view, name, position):
        raise UnknownAddressError(f"no trace {name!r} of prompt {key!r} in {view.name}")
    return position


def _is_traced(view: View, name: str, position: int) -> bool:
    return bool((view.reader.traced(name) == position).any())


def _stamp(view: View, name: str, position: int) -> tuple[Any, ...]:
    """What tells a trace of a prompt from another of its name."""
    arrays = {v: view.reader.trace_array(name, v) for v in view.reader.trace_variables(name)}
    rows = [(v, int(a.rows[a.row_of(position)]["checksum"])) for v, a in arrays.items()]
    return name, rows


# --- one trace of one prompt ---------------------------------------------------------------------


def told_of(view: View, one: TraceResult, n_ctx: int) -> Told:
    """What an answer says of a trace of one prompt."""
    own = own_spec(one)
    kinds, nodes = table_of(one)
    return {
        "objective": objective_of(view, own, n_ctx),
        "question": question_of(own, n_ctx),
        "ablate": ablation_labels(own),
        "node": node_label(own),
        "value": _number(one, "objective"),
        **{name: _number(one, name) for name in _NUMBERS},
        "each": EACH,
        "kinds": kinds,
        "nodes": nodes,
        "values": [name for name, held in HEAD_VALUES.items() if any(h in one for h in held)],
    }


def _number(one: TraceResult, name: str) -> float | None:
    if name not in one or one[name].dims != (PROMPT,):
        return None
    found: float | None = rounded(one[name].values, _EXACT)[0]
    return found


def own_spec(one: TraceResult) -> Told:
    """What was asked of the prompt."""
    found: Told = json.loads(str(one["spec"].values[0]))
    return found


# --- what was asked ------------------------------------------------------------------------------


def objective_of(view: View, own: Mapping[str, Any], n_ctx: int) -> Told:
    """The objective of a prompt with its tokens; of a traced node that is its own end, the node."""
    said = own.get("objective") or {"kind": "node"}
    return {
        "kind": said["kind"],
        **{which: [view.token(one) for one in _tokens(own, which)] for which in ANSWERS},
        "position": said["position"] % n_ctx if "position" in said and n_ctx else None,
    }


def _tokens(own: Mapping[str, Any], which: str) -> list[int]:
    """Ids of the tokens of an objective."""
    found = (own.get("tokens") or {}).get(which) or own.get(f"{which}_ids") or ()
    return [one for one in found if isinstance(one, int)]


def question_of(own: Mapping[str, Any], n_ctx: int) -> Told | None:
    """The same as addresses ask it; None where they cannot."""
    objective = own.get("objective")
    kind = "" if objective is None else objective["kind"]
    tokens = [_tokens(own, which) for which in ANSWERS]
    is_asked = objective is None or kind in _ASKED_HERE
    labels = ablation_labels(own)
    said = zip(labels, own.get("ablate") or (), strict=True)
    if not is_asked or any(len(one) > 1 for one in tokens) or not all(_is_said(*o) for o in said):
        return None
    node = node_label(own)
    if node is not None and not _is_node(node):
        return None
    target, distractor = (f"~{one[0]}" if one else None for one in tokens)
    return {
        "target": target,
        "distractor": distractor,
        "position": objective["position"] % n_ctx if objective and n_ctx else None,
        "ablate": labels,
        "node": node,
    }


def ablation_labels(own: Mapping[str, Any]) -> list[str]:
    """Ablations as they are written in addresses, as far as those can say them."""
    return [ablation_label(one) for one in own.get("ablate") or ()]


def node_label(own: Mapping[str, Any]) -> str | None:
    """The traced node as it is written in addresses."""
    return trace_label(own.get("trace")) or None


def _is_said(label: str, said: Mapping[str, Any]) -> bool:
    """Whether a label says the whole of an ablation."""
    try:
        return parse_ablation(label) == Ablation.from_json(said)
    except PatternLensError:
        return False


@lru_cache(256)
def _is_node(label: str) -> bool:
    try:
        parse_trace(label)
    except PatternLensError:
        return False
    return True


# --- one head ------------------------------------------------------------------------------------


def head_values(one: TraceResult, label: str, values: str) -> Callable[[], NDArray[np.float32]]:
    """A function that gives the numbers of one head, dims (query, key).

    Raises
    ------
    UnknownAddressError
        The trace does not hold them.
    """
    if values not in HEAD_VALUES:
        raise UnknownAddressError(
            f"no values {values[:20]!r} of a head: expected {', '.join(HEAD_VALUES)}"
        )
    held = next((name for name in HEAD_VALUES[values] if name in one), None)
    if held is None:
        raise UnknownAddressError(
            f"no {values} of heads in this trace: trace again with {HEAD_VALUES[values][-1]!r} among the scalars"
        )
    array = one[held].isel({PROMPT: 0})
    layers, heads = (array[dim].values.tolist() for dim in (LAYER, HEAD))
    place = parse_label(label)
    if place is None or place[0] not in layers or place[1] not in heads:
        raise UnknownAddressError(f"no head {label!r} in this trace: expected a label such as L3H5")
    chosen = array.isel({LAYER: layers.index(place[0]), HEAD: heads.index(place[1])})
    return lambda: np.asarray(chosen.transpose(QUERY, KEY).values, np.float32)
