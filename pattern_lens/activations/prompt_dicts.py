"""Prompts as the dicts of pattern-lens 0.6, and values by hook name: what its functions take and return."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.activations.capture import capture
from pattern_lens.activations.hooks import resolve_names
from pattern_lens.load_activations import InvalidPromptError, augment_prompt_with_hash
from pattern_lens.store.reader import StoreReader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pattern_lens.consts import ReturnCache
    from pattern_lens.models import CaptureModel

_TOLD_BY_RUN: Final = ("tokens", "n_tokens")


def matcher(names_filter: Any) -> Any:
    """A filter that looks at the beginning of a name, as the predecessor's regular expressions did."""
    if isinstance(names_filter, re.Pattern):
        return lambda name: names_filter.match(name) is not None
    return names_filter


def hooks_of(names_filter: Any, model: CaptureModel) -> list[str]:
    """Names of the hooks of a model that a filter chooses."""
    groups = resolve_names(matcher(names_filter), model)
    return [hook for group in groups for hook in group.hooks]


def capture_dicts(
    prompts: Sequence[dict[str, Any]],
    model: CaptureModel,
    path: Path,
    names_filter: Any,
    *,
    batch_size: int,
) -> None:
    """Capture prompts, which get their hashes, whether or not they are stored."""
    for prompt in prompts:
        if "text" not in prompt:
            raise InvalidPromptError(f"prompt must contain 'text' key: {prompt!r}")
        augment_prompt_with_hash(prompt)
    rows = [{k: v for k, v in p.items() if k not in _TOLD_BY_RUN} for p in prompts]
    names = matcher(names_filter)
    capture(model, rows, path, names=names, batch_size=batch_size, force=True, progress=False)


def read_values(path: Path, prompt: dict[str, Any], hooks: Sequence[str]) -> dict[str, Any]:
    """Values of one prompt by hook name, dims (1, …)."""
    reader = StoreReader(path)
    try:
        position = reader.prompts.position(prompt["hash"])
        cache: dict[str, Any] = {}
        for name in reader.names():
            array = reader.array(name)
            row = array.row_of(position)
            if row is None or not set(array.layout.hooks) & set(hooks):
                continue
            values = array.read(row)
            layers = values if array.layout.has_layers else values[None]
            cache |= {hook: layers[i][None] for i, hook in enumerate(array.layout.hooks)}
        return {hook: cache[hook] for hook in hooks if hook in cache}
    finally:
        reader.close()


def tell(path: Path, prompt: dict[str, Any]) -> None:
    """Add what the run says of a prompt."""
    reader = StoreReader(path)
    position = reader.prompts.position(prompt["hash"])
    tokens = reader.tokens(position, "token")[int(reader.prompts.bos([position])[0]) :]
    reader.close()
    prompt.setdefault("tokens", tokens)
    prompt["n_tokens"] = len(prompt["tokens"])


def returned(cache: dict[str, Any], return_cache: ReturnCache, *, stack_heads: bool) -> Any:
    """Values in the form that was asked for; stacked, one array of all layers along a second dim."""
    if return_cache is None:
        return None
    if return_cache == "numpy":
        return np.stack(list(cache.values()), axis=1) if stack_heads else cache
    import torch

    tensors = {hook: torch.from_numpy(value) for hook, value in cache.items()}
    return torch.stack(list(tensors.values()), dim=1) if stack_heads else tensors
