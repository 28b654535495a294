"""What is asked of each prompt, checked against one model before anything runs.

Rule: whoever asks may ask the same of all prompts, or of each its own; here every prompt has its own `Asked`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pattern_lens.errors import SpecificationError
from pattern_lens.names import KEY, QUERY
from pattern_lens.tokens import token_ids
from pattern_lens.tracing.ablations import Ablation, parse_ablation
from pattern_lens.tracing.batch import POSITIONS
from pattern_lens.tracing.ends import reading_of
from pattern_lens.tracing.objectives import Objective
from pattern_lens.tracing.traces import Trace, parse_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pattern_lens.models import CaptureModel
    from pattern_lens.prompts import Prompt
    from pattern_lens.tracing.sites import Sites

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """What is asked of one prompt.

    Attributes
    ----------
    objective
        None where a node is traced and nothing reads the objective.
    target_ids, distractor_ids
        Token ids of the objective's tokens.
    """

    objective: Objective | None
    ablate: tuple[Ablation, ...] = ()
    trace: Trace | None = None
    target_ids: tuple[int, ...] = ()
    distractor_ids: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What the file says of it."""
        said: dict[str, Any] = {
            "objective": None if self.objective is None else self.objective.to_json(),
            "ablate": [one.to_json() for one in self.ablate],
            "trace": None if self.trace is None else self.trace.to_json(),
        }
        tokens = {"target": self.target_ids, "distractor": self.distractor_ids}
        return said | {"tokens": {name: list(ids) for name, ids in tokens.items() if ids}}


class Resolver:
    """Turns what was asked into what each prompt is asked, for one model."""

    def __init__(self, model: CaptureModel, sites: Sites) -> None:
        self._model, self._sites = model, sites
        self._known: dict[str, int] = {}
        self._resolved: dict[Any, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def each(
        self,
        prompts: Sequence[Prompt],
        objective: Any,
        ablate: Any,
        trace: Any,
    ) -> list[Asked]:
        """What each prompt is asked, in their order.

        Raises
        ------
        SpecificationError
            Something that the model does not have, or that contradicts itself.
        """
        objectives = _for_each(prompts, objective, _objective, "objective")
        ablations = _for_each(prompts, _several(ablate), _ablations, "ablate")
        traces = _for_each(prompts, trace, _trace, "trace")
        found = [Asked(*one) for one in zip(objectives, ablations, traces, strict=True)]
        return [self._checked(asked) for asked in found]

    def _checked(self, asked: Asked) -> Asked:
        _check_ends(asked.objective, asked.trace)
        for one in asked.ablate:
            self._sites.check_ablation(one)
        if asked.trace is not None:
            self._sites.check_trace(asked.trace)
            self._check_downstream(asked.trace)
        if asked.objective is None:
            return asked
        self._sites.check_objective(asked.objective)
        tokens = asked.objective.target, asked.objective.distractor
        if tokens not in self._resolved:
            target, distractor = (tuple(map(self._token, one)) for one in tokens)
            self._resolved[tokens] = target, distractor
        target, distractor = self._resolved[tokens]
        return replace(asked, target_ids=target, distractor_ids=distractor)

    def _check_downstream(self, trace: Trace) -> None:
        while trace.downstream is not None:
            reader, trace_place = trace.downstream, reading_of(trace, self._sites).place
            if not reading_of(reader, self._sites).place > trace_place:
                raise SpecificationError(
                    f"{reader.label!r} is not downstream of {trace.label!r}: it reads the stream before that is written"
                )
            trace = reader

    def _token(self, token: str | int) -> int:
        if isinstance(token, int):
            if not 0 <= token < self._sites.n_vocab:
                raise SpecificationError(
                    f"no token {token}: model {self._model.name!r} has ids from 0 to {self._sites.n_vocab - 1}"
                )
            return token
        if token not in self._known:
            self._known[token] = self._id(token)
        return self._known[token]

    def _id(self, text: str) -> int:
        ids = token_ids(self._model.model, text, prepend_bos=False).tolist() if text else []
        if len(ids) == 1:
            return int(ids[0])
        exact = [i for i, one in enumerate(self._texts) if one == text and text]
        if len(exact) == 1:  # such as a token behind which the tokenizer never cuts
            return exact[0]
        pieces = ", ".join(repr(self._texts[int(i)]) for i in ids) or "none"
        raise SpecificationError(
            f"{text!r} is {len(ids)} tokens of model {self._model.name!r} ({pieces}): expected a single token; "
            "a leading space is part of a token, and several tokens are given as a list"
        )

    @cached_property
    def _texts(self) -> list[str]:
        return self._model.vocab()["text"]


def _check_ends(objective: Objective | None, trace: Trace | None) -> None:
    if trace is None:
        if objective is None:
            raise SpecificationError(
                "nothing to differentiate: expected an objective, such as logit_diff(' Mary', ' John'), or trace="
            )
        return
    tail = trace
    while tail.downstream is not None:
        tail = tail.downstream
    if tail.path == "V" and objective is None:
        raise SpecificationError(
            f"the trace {trace.label!r} goes to the objective, and there is none: give objective=, or downstream= of the node that reads"
        )
    if tail.path != "V" and objective is not None:
        raise SpecificationError(
            f"objective {objective.kind!r} and trace {trace.label!r} contradict each other: the node is what is "
            "differentiated; leave the objective out, or trace path='V', which goes to the objective"
        )


# --- the same for all, or its own for each ------------------------------------------------------


def _for_each(
    prompts: Sequence[Prompt], given: Any, read: Callable[[Any], T], what: str
) -> list[T]:
    if isinstance(given, Mapping) and not _is_said(given):
        keys = [next((k for k in (p.hash, p.text) if k in given), None) for p in prompts]
        missing = [p for p, key in zip(prompts, keys, strict=True) if key is None]
        if missing:
            raise SpecificationError(
                f"{what}= has nothing for prompt {missing[0].text[:40]!r} ({missing[0].hash}): expected one for each, by hash or text"
            )
        return [read(given[key]) for key in keys]
    if isinstance(given, list):
        if len(given) != len(prompts):
            raise SpecificationError(
                f"{what}= has {len(given)} entries for {len(prompts)} prompts: expected one for each, or one for all"
            )
        return [read(one) for one in given]
    same = read(given)
    return [same] * len(prompts)


def _is_said(given: Mapping[Any, Any]) -> bool:
    """Whether a mapping is what a file says of one thing, and not one thing for each prompt."""
    return "kind" in given or "site" in given


def _several(ablate: Any) -> Any:
    """Ablations for all prompts as a tuple; for each its own stays a list or mapping."""
    if isinstance(ablate, Ablation | str):
        return (ablate,)
    if isinstance(ablate, Mapping) and not _is_said(ablate):
        return ablate
    found = list(ablate) if not isinstance(ablate, Mapping) else [ablate]
    is_flat = all(isinstance(one, Ablation | str) or _is_one(one) for one in found)
    return tuple(found) if is_flat else found


def _is_one(given: Any) -> bool:
    return isinstance(given, Mapping) and _is_said(given)


def _objective(given: Any) -> Objective | None:
    if given is None or isinstance(given, Objective):
        return given
    if isinstance(given, Mapping):
        return Objective.from_json(given)
    raise SpecificationError(
        f"an objective is a {type(given).__name__}, expected what logit_diff, logit_minus_mean, probs, zero, direction or node gives"
    )


def _ablations(given: Any) -> tuple[Ablation, ...]:
    several = [given] if isinstance(given, Ablation | str) or _is_one(given) else given or ()
    return tuple(_ablation(one) for one in several)


def _ablation(given: Any) -> Ablation:
    if isinstance(given, str):
        return parse_ablation(given)
    if isinstance(given, Mapping):
        return Ablation.from_json(given)
    if isinstance(given, Ablation):
        return given
    raise SpecificationError(
        f"an ablation is a {type(given).__name__}, expected an Ablation, or its label such as 'L3H5'"
    )


def _trace(given: Any) -> Trace | None:
    if given is None or isinstance(given, Trace):
        return given
    if isinstance(given, str):
        return parse_trace(given)
    if isinstance(given, Mapping):
        return Trace.from_json(given)
    raise SpecificationError(
        f"a trace is a {type(given).__name__}, expected a Trace, or its label such as 'L3H5@7,4:K'"
    )


def common(asked: Sequence[Asked]) -> dict[str, Any]:
    """What all prompts are asked alike; null where each has its own, and ``own`` says of what."""
    said = [one.to_json() for one in asked]
    found: dict[str, Any] = {}
    own = []
    for name in ("objective", "ablate", "trace"):
        is_same = all(one[name] == said[0][name] for one in said)
        found[name] = said[0][name] if is_same else None
        own += [] if is_same else [name]
    return found | {"own": own}


def positions_in(asked: Asked, n_ctx: int, who: str, *, causal: bool) -> None:
    """Raise unless every position that is named is one of the prompt's, and none looks ahead.

    Raises
    ------
    SpecificationError
        Names the prompt and the position.
    """
    for holder in _holders(asked):
        named = [(dim, holder.indices[dim]) for dim in POSITIONS if dim in holder.indices]
        if isinstance(holder, Objective):
            named.append(("position", holder.position))
        for dim, places in named:
            for place in np.atleast_1d(places).tolist():
                if not -n_ctx <= place < n_ctx:
                    raise SpecificationError(
                        f"no {dim} {place} in prompt {who!r}: it has {n_ctx} positions, 0 to {n_ctx - 1}"
                    )
        pair = [holder.indices.get(dim) for dim in (QUERY, KEY)]
        if causal and all(isinstance(one, int) for one in pair):
            query, key = (one % n_ctx for one in pair)
            if key > query:
                raise SpecificationError(
                    f"{holder.site!r} from query {pair[0]} to key {pair[1]} of prompt {who!r}, which has {n_ctx} positions: no query sees a later key"
                )


def _holders(asked: Asked) -> list[Any]:
    """Everything that may name positions."""
    found: list[Any] = [*asked.ablate, *([] if asked.objective is None else [asked.objective])]
    trace = asked.trace
    while trace is not None:
        found.append(trace)
        trace = trace.downstream
    return found
