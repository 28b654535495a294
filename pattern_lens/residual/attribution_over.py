"""Direct logit attribution and the logit lens over many prompts, each with its own answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from pattern_lens.errors import PromptError
from pattern_lens.names import COMPONENT, PROMPT
from pattern_lens.residual.attribution import (
    NAME,
    attributed,
    direction_of,
    last_place,
    plan_of,
    token_pair,
)
from pattern_lens.residual.directions import logit_directions
from pattern_lens.residual.inputs import FINAL_LOGITS, LN_FINAL_SCALE, POS_EMBED, Array, ModelFacts
from pattern_lens.residual.lazy import Analysis, Results, results_of
from pattern_lens.residual.lens import (
    NAME as LENS,
)
from pattern_lens.residual.lens import (
    check_k,
    lens_plan,
    read_lens,
    unpacked,
)
from pattern_lens.residual.over_prompts import Asked, per_prompt, storable
from pattern_lens.residual.readings import Attribution, components_of
from pattern_lens.residual.tokens import Vocabulary, in_order, token_ids
from pattern_lens.residual.unembedding import reading_names

if TYPE_CHECKING:
    from pattern_lens.residual.directions import Direction
    from pattern_lens.residual.lazy import Reading
    from pattern_lens.residual.plans import Plan

_ITEM_BYTES: Final = 4


@dataclass(eq=False)
class Attributing:
    """What is done to a block of prompts; the directions are made once in each process.

    Parameters
    ----------
    pairs
        All different token ids, dims (answer and incorrect, direction).
    """

    plan: Plan
    pairs: Array
    place: int | None
    drops: bool
    direction: Direction | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "direction": None}

    def __call__(
        self, activations: Mapping[str, xr.DataArray], weights: xr.Dataset, *, which: Array
    ) -> xr.DataArray:
        """Rows of `attributed`; `which` is each prompt's pair."""
        if self.direction is None:
            self.direction = direction_of(self.plan.facts, weights, self.pairs)
        direction = self.direction.choose(which)
        ids = self.pairs[:, which]
        return attributed(
            self.plan, activations, weights, direction, ids, place=self.place, drops=self.drops
        )


def attribute_over(
    asked: Asked, answer_tokens: Any, incorrect_tokens: Any, unit: Any, vocabulary: Vocabulary
) -> Attribution:
    """`direct_logit_attribution` of every prompt."""
    weights = asked.weights.dataset
    facts = ModelFacts.of(weights)
    plan = plan_of(facts, weights, unit, has_pos_embed=POS_EMBED in asked.activations)
    needs = {**plan.needs, LN_FINAL_SCALE: None}
    reading = asked.reading(needs, NAME, (FINAL_LOGITS,))
    hashes = _hashes(reading)
    pairs = token_pair(
        in_order(answer_tokens, hashes),
        in_order(incorrect_tokens, hashes),
        weights,
        vocabulary,
    )
    pairs = np.broadcast_to(pairs.reshape(len(pairs), -1), (len(pairs), len(hashes)))
    unique, which = np.unique(pairs, axis=1, return_inverse=True)
    step = Attributing(plan, unique, last_place(asked.pos), asked.drops)
    said = f"{NAME}({unit=}, tokens={_digest(pairs)}, pos={asked.pos!r})"
    analysis = Analysis(step, reading.names, asked.weights, ("which",), said)
    n_bytes = (len(plan.components) + 2) * _ITEM_BYTES
    results = results_of(
        reading, analysis, title=NAME, result_bytes=n_bytes, per_prompt=[per_prompt(which)]
    )
    both = (unique[0], unique[1] if len(unique) == 2 else None)
    added = logit_directions(weights, *both, NAME)[1][which]
    labelled = xr.DataArray(added, dims=PROMPT, coords={PROMPT: np.array(hashes, dtype="U")})
    if asked.name is not None:
        _store(results, asked)
    if asked.is_one:
        return Attribution.of_rows(results[asked.prompt], labelled[0], unit, facts)
    return Attribution.of_rows(_one_array(results), labelled, unit, facts)


def _one_array(results: Results) -> xr.DataArray:
    """Prompts differ in length where positions are left: they are padded with NaN."""
    whole = results.whole()
    if isinstance(whole, xr.DataArray):
        return whole
    padded = whole.padded()
    return padded if results.chunks is not None else padded.load()


def _store(results: Results, asked: Asked) -> None:
    """Scores and closure errors, as two results of the file."""
    results.map(scores_of, name=asked.name, **asked.options)
    results.map(closure_of, name=f"{asked.name}.closure_error", **asked.options)


def scores_of(rows: xr.DataArray) -> xr.DataArray:
    """Rows without the sums behind them, as a result is stored."""
    return components_of(storable(rows)).assign_attrs(
        units="logit", long_name="direct logit attribution"
    )


def closure_of(rows: xr.DataArray) -> xr.DataArray:
    """The sum of parts against the model's logit, as a result is stored."""
    bare = storable(rows)
    bare = bare.drop_vars([name for name in bare.coords if bare[name].dims == (COMPONENT,)])
    closure = abs(bare.isel({COMPONENT: -2}) - bare.isel({COMPONENT: -1}))
    return closure.assign_attrs(units="logit", long_name="sum of parts against the model's logit")


def _hashes(reading: Reading) -> list[str]:
    found = list(reading.collections()[0])
    if not found:
        is_all = reading.positions is None
        why = "none has everything that it needs" if is_all else "none was named"
        raise PromptError(f"cannot do {reading.who} of no prompts: {why}")
    return found


def _digest(pairs: Array) -> str:
    import xxhash

    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(pairs, np.int64).tobytes())


# --- the logit lens ------------------------------------------------------------------------------


class LogitLens(Mapping[str, xr.Dataset]):
    """The logit lens of every prompt: `lens[hash]` is a Dataset, computed when it is asked for.

    Attributes
    ----------
    readings
        All numbers in one collection of arrays, dims (component, pos, reading).
    """

    def __init__(self, readings: Results, vocabulary: Vocabulary) -> None:
        self.readings, self._vocabulary = readings, vocabulary

    def __getitem__(self, prompt_hash: str) -> xr.Dataset:
        return unpacked(self.readings[prompt_hash], self._vocabulary)

    def __iter__(self) -> Iterator[str]:
        return iter(self.readings)

    def __len__(self) -> int:
        return len(self.readings)

    def padded(self) -> xr.Dataset:
        """All prompts in one Dataset, padded at their ends with NaN, and `top_id` with -1; computed now."""
        return unpacked(self.readings.padded().load(), self._vocabulary)

    def __repr__(self) -> str:
        return f"<LogitLens of {len(self):,} prompts>"


def lens_over(
    asked: Asked, answer_tokens: Any, vocabulary: Vocabulary, *, incl_mid: bool, k: int
) -> xr.Dataset | LogitLens:
    """`logit_lens` of every prompt."""
    weights = asked.weights.dataset
    plan = lens_plan(ModelFacts.of(weights), incl_mid=incl_mid)
    k = check_k(k, weights)
    reading = asked.reading(plan.needs, LENS, (FINAL_LOGITS,))
    own: dict[str, Any] = {}
    said = "None"
    if answer_tokens is not None:
        hashes = _hashes(reading)
        ids = token_ids(in_order(answer_tokens, hashes), weights, vocabulary)
        ids = np.broadcast_to(ids, len(hashes))
        own["answer"], said = per_prompt(ids), _digest(ids)
    function = partial(_read_lens, plan=plan, k=k, place=last_place(asked.pos), drops=asked.drops)
    said = f"{LENS}({incl_mid=}, {k=}, answer={said}, pos={asked.pos!r})"
    analysis = Analysis(function, reading.names, asked.weights, tuple(own), said)
    n_readings = len(plan.components) * len(reading_names(k, answer=bool(own)))
    results = results_of(
        reading,
        analysis,
        title=LENS,
        result_bytes=n_readings * _ITEM_BYTES,
        per_prompt=list(own.values()),
    )
    if asked.name is None and not asked.is_one and results.ragged:
        return LogitLens(results, vocabulary)
    return unpacked(asked.given(results), vocabulary)


def _read_lens(
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    *,
    plan: Plan,
    k: int,
    place: int | None,
    drops: bool,
    answer: Any = None,
) -> xr.DataArray:
    return read_lens(plan, activations, weights, k=k, answer=answer, place=place, drops=drops)
