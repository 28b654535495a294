"""What a model says next, with something ablated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from pattern_lens.models import load_model
from pattern_lens.names import PROMPT, RANK, TOKEN
from pattern_lens.prompts import read_prompts
from pattern_lens.tracing.baselines import Baselines
from pattern_lens.tracing.batch import Batch
from pattern_lens.tracing.edits import Edits
from pattern_lens.tracing.forward_pass import ForwardPass
from pattern_lens.tracing.objectives import Objective
from pattern_lens.tracing.preparing import others_of, surroundings, tokenized
from pattern_lens.tracing.specification import Resolver, positions_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pattern_lens.tracing.forward_pass import Surroundings

_AT_ONCE: Final = 16


def next_tokens(
    model: Any,
    texts: Iterable[str],
    *,
    ablate: Any = (),
    k: int = 10,
    position: int = -1,
    sae: Any = None,
    baseline: Any = None,
    tokens: Iterable[str | int] = (),
) -> xr.Dataset:
    """The most probable next tokens, with ablations.

    Parameters
    ----------
    model, ablate, sae, baseline
        As for `trace`.
    texts
        Prompts.
    k
        How many tokens of each.
    position
        Behind which token; negative from the prompt's end.
    tokens
        Tokens that are wanted whatever their rank, as text or id.

    Returns
    -------
    Dims (prompt, rank): ``token_id``, ``logit`` (the model's own) and ``probability`` in [0, 1], most probable first; coordinate
    ``token`` is their text. With `tokens` also ``chosen_id``, ``chosen_logit`` and ``chosen_probability``, dims (prompt, token).

    Raises
    ------
    SpecificationError
        As `trace` does.
    """
    loaded = load_model(model)
    around = surroundings(loaded, sae)
    wanted = read_prompts([*texts])
    rows = [tokenized(loaded, prompt) for prompt in wanted]
    objective = Objective("probs", tuple(tokens) or (0,), position=position)
    asked = Resolver(loaded, around.sites).each(wanted.prompts, objective, ablate, None)
    for row, one in zip(rows, asked, strict=True):
        positions_in(one, len(row.ids), row.prompt.text[:40], causal=loaded.causal)
    baselines = Baselines(around, None, others_of(loaded, baseline), rows)
    parts = []
    for first in range(0, len(rows), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        numbers = range(first, first + len(rows[some]))
        batch = Batch(rows[some], asked[some], list(numbers))
        parts.append(_logits(around, batch, baselines))
    logits = np.concatenate(parts)
    chosen = asked[0].target_ids if tuple(tokens) else ()
    return _table(logits, [*wanted], loaded.vocab()["text"], k, chosen)


def _logits(around: Surroundings, batch: Batch, baselines: Baselines) -> Any:
    edits = Edits.of(batch, around.sites, baselines.values_for(batch))
    live = ForwardPass(around, batch, edits, (), {}, with_gradients=False).run()
    assert live.logits is not None  # noqa: S101 - the objective reads them
    return live.logits.detach().float().cpu().numpy()


def _table(logits: Any, prompts: Any, words: list[str], k: int, chosen: Any) -> xr.Dataset:
    """The largest of logits (prompt, token) with their probabilities."""
    exact = logits.astype(np.float64)
    probabilities = np.exp(exact - exact.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    ids = np.argsort(-logits, axis=-1, kind="stable")[:, : min(k, logits.shape[1])]
    texts = np.array([[_text(words, i) for i in row] for row in ids.tolist()], object)
    dims = (PROMPT, RANK)
    data: dict[str, Any] = {
        "token_id": (dims, ids),
        "logit": (dims, np.take_along_axis(logits, ids, -1)),
        "probability": (dims, np.take_along_axis(probabilities, ids, -1)),
    }
    coords: dict[str, Any] = {PROMPT: [one.hash for one in prompts], TOKEN: (dims, texts)}
    if len(chosen):
        own = np.array(chosen)
        data["chosen_logit"] = ((PROMPT, "chosen"), logits[:, own])
        data["chosen_probability"] = ((PROMPT, "chosen"), probabilities[:, own])
        coords["chosen"] = own
        coords["chosen_token"] = ("chosen", [_text(words, int(i)) for i in own])
    return xr.Dataset(data, coords)


def _text(words: list[str], number: int) -> str:
    return words[number] if number < len(words) else f"<{number}>"
