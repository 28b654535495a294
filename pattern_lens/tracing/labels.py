"""What a specification says, in a few words for tables; what it says in a way of a later version stays JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pattern_lens.errors import SpecificationError
from pattern_lens.tracing.ablations import Ablation
from pattern_lens.tracing.traces import Trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def objective_label(said: Mapping[str, Any] | str | None) -> str:
    """An objective in a few words; empty where nothing is said.

    Examples
    --------
    >>> objective_label({"kind": "logit_diff", "target": [" Mary"], "distractor": [" John"]})
    "logit_diff(' Mary', ' John')"
    """
    if isinstance(said, str) or said is None:  # a text where each prompt has its own
        return said or ""
    answers = [",".join(map(str, said[one])) for one in ("target", "distractor") if said.get(one)]
    place = [f"{one}={said[one]}" for one in ("site", "layer") if said.get(one) is not None]
    inside = ", ".join([*map(repr, answers), *place])
    return f"{said.get('kind', '?')}({inside})" if inside else str(said.get("kind", "?"))


def trace_label(said: Mapping[str, Any] | str | None) -> str:
    """A traced node in a few words; empty where it is the objective that is traced."""
    if isinstance(said, str) or said is None:  # a text where each prompt has its own
        return said or ""
    try:
        return Trace.from_json(said).label
    except (KeyError, TypeError, SpecificationError):  # of a later version
        return json.dumps(said)


def ablations_label(said: Sequence[Mapping[str, Any]] | str | None) -> str:
    """Ablations in a few words; empty where nothing is ablated."""
    return said if isinstance(said, str) else ", ".join(map(ablation_label, said or ()))


def ablation_label(said: Mapping[str, Any]) -> str:
    """An ablation in a few words."""
    try:
        return Ablation.from_json(said).label
    except (KeyError, TypeError, SpecificationError):  # of a later version
        return json.dumps(said)
