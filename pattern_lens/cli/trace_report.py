"""How ``pattern-lens trace`` answers: what was traced, its nodes as a table, and what to look at next."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from pattern_lens.cli.output import print_table
from pattern_lens.tracing.labels import ablation_label, objective_label, trace_label
from pattern_lens.tracing.nodes import INDICES, MEASURES
from pattern_lens.wording import counted, visible

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from pattern_lens.tracing.result import TraceResult

_LONGEST: Final = 24
_UNSIGNED: Final = ("write_magnitude", "activation")
_NUMBERS: Final = ("objective", "node_value", "constant", "closure_error", "seconds")


def as_json(found: TraceResult, nodes: pd.DataFrame, args: argparse.Namespace) -> dict[str, Any]:
    """The answer for programs."""
    table = nodes.astype(object).where(nodes.notna(), None)
    return {
        "path": str(args.file),
        "trace": found.attrs.get("trace"),
        "model": found.attrs.get("model"),
        "specification": found.spec,
        "by": args.by,
        "prompts": [
            {"prompt": str(one), **{name: _number(found, name, i) for name in _held(found)}}
            for i, one in enumerate(found["prompt"].values)
        ],
        "nodes": table.to_dict("records"),
    }


def _held(found: TraceResult) -> list[str]:
    return [name for name in _NUMBERS if name in found]


def _number(found: TraceResult, name: str, at: int) -> float | None:
    value = float(found[name][at])
    return value if value == value else None


def print_report(found: TraceResult, nodes: pd.DataFrame, args: argparse.Namespace) -> None:
    """The answer for people."""
    spec, n = found.spec, found.sizes["prompt"]
    print(f"trace {found.attrs['trace']!r} of {found.attrs['model']} · {counted(n, 'prompt')}")
    if not n:
        print("no prompt is traced: the run ended before; run it again")
        return
    for line in _asked(found, spec):
        print(line)
    print(f"{_closure(found)}\n")
    print_table(_rows(nodes, args.by, named=n > 1))
    print(f"\n{counted(len(nodes), 'node')} with the largest {args.by}")
    print(f"stored as {found.attrs['trace']!r} in {args.file}")
    for hint in _next(nodes, args):
        print(f"next: {hint}")


def _asked(found: TraceResult, spec: dict[str, Any]) -> Iterable[str]:
    """What was asked, with the numbers that it gave: means of several prompts."""
    own = spec.get("own") or ()
    if spec.get("objective") or "objective" in own:
        yield f"objective  {_said('objective', spec, objective_label)}: {_mean(found, 'objective')}"
    if spec.get("trace") or "trace" in own:
        yield f"traced     {_said('trace', spec, trace_label)}: {_mean(found, 'node_value')}"
    if spec.get("ablate") or "ablate" in own:
        yield f"ablated    {_said('ablate', spec, lambda each: ', '.join(map(ablation_label, each)))}"


def _said(name: str, spec: dict[str, Any], label: Callable[[Any], str]) -> str:
    return label(spec[name]) if spec.get(name) else "each prompt's own"


def _mean(found: TraceResult, name: str) -> str:
    values = np.ravel(found[name].values)
    if len(values) == 1:
        return f"{values[0]:+.4g}"
    return f"{values.mean():+.4g} on average, {values.min():+.4g} to {values.max():+.4g}"


def _closure(found: TraceResult) -> str:
    worst = float(found["closure_error"].max())
    if math.isnan(worst):
        return "no closure error: what is traced is no sum of what components write"
    return f"closure error {worst:.1e}"


# --- the table -----------------------------------------------------------------------------------


def _rows(nodes: pd.DataFrame, by: str, *, named: bool) -> list[list[str]]:
    measures = [by, *(name for name in nodes if name in MEASURES and name != by)]
    head = ["node", "at", *(["prompt"] if named else []), *measures]
    return [head, *(_row(node, measures, named=named) for node in nodes.to_dict("records"))]


def _row(node: dict[Any, Any], measures: list[str], *, named: bool) -> list[str]:
    numbers = [_shown(measure, node[measure]) for measure in measures]
    return [str(node["label"]), _place(node), *([str(node["prompt"])] if named else []), *numbers]


def _shown(measure: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.3g}" if measure in _UNSIGNED else f"{value:+.3g}"


def _place(node: dict[Any, Any]) -> str:
    """Where a node is, with its tokens: ``9: ␣the <- 4: ␣cat``."""
    at = next((node[dim] for dim in ("query", "pos") if not pd.isna(node[dim])), None)
    place = "" if at is None else f"{at}: {_text(node['token'])}"
    return (
        place if pd.isna(node["key"]) else f"{place} <- {node['key']}: {_text(node['key_token'])}"
    )


def _text(token: Any) -> str:
    text = visible(str(token))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


# --- what to look at next ------------------------------------------------------------------------


def _next(nodes: pd.DataFrame, args: argparse.Namespace) -> Iterable[str]:
    again = f"pattern-lens trace {shlex.quote(str(args.file))}"
    if args.model is None:
        return
    again += f" -m {shlex.quote(args.model)} …"
    each = [
        {dim: node[dim] for dim in ("kind", "label", *INDICES)} for node in nodes.to_dict("records")
    ]
    kinds = {node["kind"] for node in each}
    strongest = next((node for node in each if node["kind"] in ("head", "pair", "neuron")), None)
    if strongest is not None:
        label, at = (
            strongest["label"],
            strongest["query"] if strongest["kind"] != "neuron" else strongest["pos"],
        )
        yield f"{again} --ablate {label}@{at}    what is left without it"
        if strongest["kind"] == "pair":
            yield f"{again} --trace {label}@{at},{strongest['key']}:K    what makes it look there"
        if strongest["kind"] == "neuron":
            yield f"{again} --trace {label}@{at}    what makes it fire"
    if "head" in kinds:
        yield f"{again} --scalars default,pair    where heads look"
