"""A stored trace, once more: of the same prompts or others, with the same model or another one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pattern_lens.errors import SpecificationError
from pattern_lens.names import PROMPT
from pattern_lens.store.reader import StoreReader
from pattern_lens.tracing.run import trace
from pattern_lens.tracing.writing import SPEC

if TYPE_CHECKING:
    from os import PathLike

    from pattern_lens.tracing.result import TraceResult

_ALIKE = ("scalars", "detach_norm", "seed")
_OWN = ("objective", "ablate", "trace")


def repeat(
    result: TraceResult,
    model: Any,
    path: str | PathLike[str] | None = None,
    *,
    prompts: Any = None,
    **changes: Any,
) -> TraceResult:
    """Trace again with the specification of a trace, or with some of it changed.

    Parameters
    ----------
    result
        What `trace` or `open_traces` gave.
    model, path
        As for `trace`.
    prompts
        Other prompts; by default those of `result`, whose texts its file has.
    changes
        Options of `trace` instead of those of the specification: ``ablate="L3H5"``.

    Returns
    -------
    As `trace`.

    Raises
    ------
    SpecificationError
        Something that a file cannot hold has to be given again: autoencoders, or the prompts of means and resampling; or the
        result is stored nowhere, and no prompts are given.
    """
    spec = result.spec
    for name, what in (("sae", "autoencoders"), ("baseline", "prompts")):
        if spec.get(name) and name not in changes:
            raise SpecificationError(
                f"the trace was made with {what} in {name}=, which the file names and does not hold: give {name}= again"
            )
    own = spec.get("own") or []
    if own and prompts is not None:
        raise SpecificationError(
            f"each prompt of the trace has its own {', '.join(own)}: other prompts need a specification of theirs"
        )
    known = {name: spec.get(name) for name in _OWN if name not in own}
    known |= {name: spec[name] for name in _ALIKE if name in spec}
    known["scalars"] = _without_autoencoders(known.get("scalars") or ())
    for name in own:
        known[name] = [json.loads(said)[name] for said in result[SPEC].values.tolist()]
    texts = _texts(result) if prompts is None else prompts
    return trace(model, texts, path, **{**known, **changes})


def _without_autoencoders(names: Any) -> list[str]:
    """Scalars as they are asked for: those of autoencoders without the name of each."""
    kinds = {"latent": "latent", "error": "sae_error"}
    found = []
    for name in names:
        _, dot, bare = name.rpartition(".")
        word, _, measure = bare.partition("_")
        found.append(f"{kinds[word]}_{measure}" if dot and word in kinds else name)
    return list(dict.fromkeys(found))


def _texts(result: TraceResult) -> list[dict[str, Any]]:
    path = result.attrs.get("path")
    if not path:
        raise SpecificationError(
            "the trace is stored nowhere, so its prompts are not known: give prompts="
        )
    reader = StoreReader(path)
    try:
        hashes = [str(one) for one in result[PROMPT].values.tolist()]
        positions = [reader.prompts.position(one) for one in hashes]
        texts = reader.prompts.texts(positions)
    finally:
        reader.close()
    return [{"text": text, "hash": own} for text, own in zip(texts, hashes, strict=True)]
