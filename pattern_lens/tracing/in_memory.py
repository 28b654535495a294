"""Traces that are stored nowhere, labelled and padded as stored ones are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pattern_lens.patterns.results import in_memory
from pattern_lens.tracing.nodes import CAUSAL
from pattern_lens.tracing.result import TraceResult, trace_result
from pattern_lens.tracing.writing import SPEC, fitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pattern_lens.tracing.trace_run import TraceRun
    from pattern_lens.tracing.tracer import Values


def result_in_memory(run: TraceRun, values: Sequence[Values]) -> TraceResult:
    """All prompts of a run, in their order.

    Parameters
    ----------
    values
        Of each prompt, by variable.
    """
    layouts = run.layouts("memory", values[0], run.asked[0], packed=False)
    hashes = [one.prompt.hash for one in run.prompts]
    variables = {}
    for name, layout in layouts.items():
        if name == SPEC:
            continue
        each = {place: fitted(layout, own[name]) for place, own in enumerate(values)}
        array = in_memory(layout, each, hashes)
        if name in run.tracer.jobs.triangles:
            array.attrs[CAUSAL] = True
        variables[name] = array
    words = run.tracer.around.model.vocab()["text"]

    def tokens(place: int) -> list[str]:
        return [text_of(int(i)) for i in run.prompts[place].ids]

    def text_of(number: int) -> str:
        return words[number] if number < len(words) else f"<{number}>"

    def own(place: int) -> dict[str, Any]:
        return json.loads(json.dumps(run.asked[place].to_json()))  # type: ignore[no-any-return]

    return trace_result(
        variables,
        hashes,
        n_ctx=[len(one.ids) for one in run.prompts],
        tokens=tokens,
        own=own,
        text_of=text_of,
        attrs={
            "model": run.tracer.around.model.name,
            "path": "",
            "trace": "",
            "spec": json.dumps(run.spec),
        },
    )
