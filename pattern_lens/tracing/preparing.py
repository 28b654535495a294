"""Everything that can be wrong with what is asked, found before anything runs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.activations.batches import TokenizedPrompt
from pattern_lens.errors import SpecificationError
from pattern_lens.prompts import PromptSet, read_prompts
from pattern_lens.tracing.attention import find_live_hooks
from pattern_lens.tracing.baselines import Baselines
from pattern_lens.tracing.forward_pass import Surroundings
from pattern_lens.tracing.identity import specification
from pattern_lens.tracing.norms import Norms
from pattern_lens.tracing.scalars import scalar_names
from pattern_lens.tracing.sites import Sites
from pattern_lens.tracing.specification import Resolver, positions_in
from pattern_lens.tracing.splice import splice
from pattern_lens.tracing.trace_run import TraceRun
from pattern_lens.tracing.tracer import Tracer

if TYPE_CHECKING:
    from pathlib import Path

    from pattern_lens.models import CaptureModel
    from pattern_lens.prompts import Prompt

_HALF: Final = ("float16", "bfloat16")


def surroundings(loaded: CaptureModel, sae: Any = None) -> Surroundings:
    """A model and what has to be found out about it before anything is traced.

    Raises
    ------
    SpecificationError
        A model that cannot be traced, or an autoencoder that does not fit.
    """
    if loaded.dtype in _HALF:
        warnings.warn(
            f"model {loaded.name!r} computes in {loaded.dtype}: gradients lose most of their digits there; load it in float32",
            UserWarning,
            stacklevel=4,
        )
    if not hasattr(loaded.model, "blocks") or not hasattr(loaded.model, "unembed"):
        raise SpecificationError(
            f"model {loaded.name!r} cannot be traced: expected a decoder, with blocks and an unembedding"
        )
    sites = Sites(loaded, splice(loaded, sae))
    return Surroundings(loaded, sites, Norms(loaded), find_live_hooks(loaded))


def prepared(
    loaded: CaptureModel,
    prompts: Any,
    path: Path | None,
    *,
    objective: Any,
    ablate: Any,
    trace: Any,
    scalars: Any,
    sae: Any,
    baseline: Any,
    detach_norm: bool,
    seed: int,
    batch_size: int,
    progress: bool,
) -> TraceRun:
    """Everything checked, and nothing computed yet."""
    wanted = prompts if isinstance(prompts, PromptSet) else read_prompts(prompts)
    around = surroundings(loaded, sae)
    names = scalar_names(scalars)
    asked = Resolver(loaded, around.sites).each(wanted.prompts, objective, ablate, trace)
    rows = [tokenized(loaded, prompt) for prompt in wanted]
    for one, own in zip(rows, asked, strict=True):
        positions_in(own, len(one.ids), one.prompt.text[:40], causal=loaded.causal)
    others = others_of(loaded, baseline)
    baselines = Baselines(around, path, others, rows, seed)
    has_nodes = any(one.trace is not None for one in asked)
    tracer = Tracer(around, names, detach_norm, baselines, has_nodes)
    spec = specification(
        asked, tracer, seed=seed, baseline=[one.prompt.hash for one in others or ()]
    )
    return TraceRun(tracer, rows, asked, spec, path, batch_size, progress)


def others_of(loaded: CaptureModel, baseline: Any) -> list[TokenizedPrompt] | None:
    """The prompts that means and other prompts' values are taken from."""
    if baseline is None:
        return None
    # a list may say one prompt several times: each is a partner
    is_list = isinstance(baseline, list | tuple) and all(isinstance(one, str) for one in baseline)
    several = (
        [read_prompts([text])[0] for text in baseline] if is_list else [*read_prompts(baseline)]
    )
    return [tokenized(loaded, prompt) for prompt in several]


def tokenized(loaded: CaptureModel, prompt: Prompt) -> TokenizedPrompt:
    """A prompt with its token ids."""
    tokens = loaded.tokenize(prompt.text)
    return TokenizedPrompt(prompt, tokens.ids, tokens.truncated, tokens.bos)
