"""What makes two traces the same: everything that was asked, and nothing of when and where it ran."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.errors import TraceMismatchError
from pattern_lens.tracing.specification import common

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pattern_lens.tracing.specification import Asked
    from pattern_lens.tracing.tracer import Tracer

VERSION: Final = 1

_NOT_ASKED: Final = frozenset({"created_utc"})
_DIGITS: Final = 6


def specification(
    asked: Sequence[Asked], tracer: Tracer, *, seed: int, baseline: Sequence[str]
) -> dict[str, Any]:
    """The JSON object that a file holds of a trace (docs/format.md).

    Parameters
    ----------
    baseline
        Hashes of the prompts that means and other prompts' values were taken from.
    """
    spliced = tracer.around.sites.spliced.values()
    return {
        "version": VERSION,
        **common(asked),
        "scalars": [job.name for job in tracer.jobs.all],
        "detach_norm": tracer.detach_norm,
        "sae": [one.to_json() for one in spliced],
        "baseline": None if not baseline else _digest(list(baseline)),
        "seed": seed,
    }


def trace_name(spec: Mapping[str, Any]) -> str:
    """A name made from a specification: the same for the same.

    Examples
    --------
    >>> trace_name({"objective": {"kind": "logit_diff"}, "trace": None, "own": []})
    'logit_diff-ff2855'
    """
    kind = "own" if spec.get("own") else "node" if spec.get("trace") else spec["objective"]["kind"]
    return f"{kind}-{_digest(_asked(spec))[:_DIGITS]}"


def check_same_trace(
    path: Path, name: str, stored: Mapping[str, Any], given: Mapping[str, Any], *, force: bool
) -> bool:
    """Whether a stored trace has this specification.

    Raises
    ------
    TraceMismatchError
        It has another one, and is not to be replaced.
    """
    one, other = (json.loads(json.dumps(_asked(spec))) for spec in (stored, given))
    differing = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
    if not differing or force:
        return not differing
    details = "; ".join(
        f"{key} {_short(one.get(key))} in the file, {_short(other.get(key))} now"
        for key in differing
    )
    raise TraceMismatchError(
        f"trace {name!r} of {path} has another specification ({details}); use another name, or force=True to replace it"
    )


def check_same_asked(path: Path, name: str, prompt: str, stored: Any, asked: Asked) -> None:
    """Raise unless what a file says of one prompt is what is asked now."""
    now = json.loads(json.dumps(asked.to_json()))
    if stored != now:
        differing = sorted(key for key in now if stored.get(key) != now[key])
        raise TraceMismatchError(
            f"prompt {prompt!r} of trace {name!r} in {path} was asked something else ({', '.join(differing)}); use another name, "
            "or force=True to replace the trace"
        )


def _asked(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key not in _NOT_ASKED}


def _digest(value: Any) -> str:
    raw = json.dumps(value, sort_keys=True).encode()
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
