"""The final norm, and directions of tokens, on stacks of one prompt, of many, and on lazy collections of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pattern_lens.errors import DimensionError, PromptError
from pattern_lens.names import POS, PROMPT
from pattern_lens.patterns.whole import dense
from pattern_lens.residual.attrs import logit_attrs, normalised
from pattern_lens.residual.inputs import ModelFacts
from pattern_lens.residual.lazy import Analysis, Reading, Results, then
from pattern_lens.residual.norm import norm_before
from pattern_lens.residual.over_prompts import per_prompt
from pattern_lens.residual.tokens import in_order, token_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pattern_lens.residual.inputs import Array, Needs
    from pattern_lens.residual.norm import Norm
    from pattern_lens.residual.over_prompts import Asked
    from pattern_lens.residual.tokens import Vocabulary


def apply_ln_over(
    asked: Asked, stack: Any, layer: int | None, *, mlp_input: bool, recompute_ln: bool
) -> Any:
    """`apply_ln_to_stack` of every prompt."""
    facts = ModelFacts.of(asked.weights.dataset)
    norm = norm_before(facts, layer, mlp_input=mlp_input, recompute=recompute_ln)
    function = partial(_normalise, norm=norm)
    said = f"apply_ln_to_stack({layer=}, {mlp_input=}, {recompute_ln=})"
    return _beside(asked, stack, norm.needs, function, said)


def attrs_over(
    asked: Asked, stack: Any, tokens: Any, incorrect: Any, vocabulary: Vocabulary
) -> Any:
    """`logit_attrs` of every prompt; of several, each may have its own token."""
    weights = asked.weights.dataset
    norm = norm_before(ModelFacts.of(weights), None, mlp_input=False)
    hashes = _hashes(stack)
    own: dict[str, Any] = {}
    for name, given in (("tokens", tokens), ("incorrect", incorrect)):
        if given is not None:
            ordered = given if hashes is None else in_order(given, hashes)
            own[name] = token_ids(ordered, weights, vocabulary)
    said = f"logit_attrs({', '.join(f'{k}={v.tolist()}' for k, v in own.items())})"
    if isinstance(stack, Results):
        own = {name: np.broadcast_to(ids, len(stack)) for name, ids in own.items()}
    return _beside(asked, stack, norm.needs, _attribute, said, own)


def _hashes(stack: Any) -> list[str] | None:
    """Of several prompts; None for one."""
    if isinstance(stack, Results):
        return list(stack)
    has_prompts = isinstance(stack, xr.DataArray) and PROMPT in stack.dims
    return [str(prompt) for prompt in stack[PROMPT].values] if has_prompts else None


def _normalise(
    stack: xr.DataArray,
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    pos: Any,
    *,
    norm: Norm,
) -> xr.DataArray:
    return normalised(stack, norm, activations, weights, pos)


def _attribute(
    stack: xr.DataArray,
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    pos: Any,
    *,
    tokens: Array,
    incorrect: Array | None = None,
) -> xr.DataArray:
    return logit_attrs(stack, activations, weights, tokens, incorrect, pos=pos)


def _beside(
    asked: Asked,
    stack: Any,
    needs: Needs,
    function: Callable[..., xr.DataArray],
    said: str,
    own: Mapping[str, Any] | None = None,
) -> Any:
    """A function of a stack and the activations beside it, for whichever prompts the stack is of.

    Parameters
    ----------
    own
        Further arguments; of a lazy collection with one entry for each prompt.
    """
    own = own or {}
    if isinstance(stack, Results):
        return _of_results(asked, stack, needs, function, said, own)
    if not isinstance(stack, xr.DataArray):
        raise DimensionError(
            f"expected a stack as the other methods give it, got {type(stack).__name__}"
        )
    weights = asked.weights.dataset
    if PROMPT in stack.dims:
        return function(stack, _at_one_position(asked, stack, needs), weights, 0, **own)
    prompt = asked.prompt or stack.attrs.get("hash")
    if prompt is None:
        raise PromptError("the stack does not say which prompt it is of; expected prompt=")
    held = {name: asked.activations[name][str(prompt)] for name in needs}
    return function(stack, held, weights, asked.pos, **own)


def _at_one_position(asked: Asked, stack: xr.DataArray, needs: Needs) -> dict[str, xr.DataArray]:
    """Activations (prompt, pos of one) of stacks that have lost their positions."""
    if POS in stack.dims or not isinstance(asked.pos, int | np.integer):
        raise DimensionError(
            "a stack of several prompts has one position: expected pos=, the one that was chosen for it"
        )
    hashes = stack[PROMPT].values.tolist()
    found = {}
    for name, layers in needs.items():
        chosen = asked.activations[name].sel(prompt=hashes)
        chosen = chosen if layers is None else chosen.sel(layer=list(layers))
        found[name] = dense(chosen.isel(pos=asked.pos)).expand_dims(POS, axis=-1)
    return found


def _of_results(
    asked: Asked,
    results: Results,
    needs: Needs,
    function: Callable[..., xr.DataArray],
    said: str,
    own: Mapping[str, Any],
) -> Any:
    positions = results.base.positions()
    reading = Reading(asked.activations, needs, said, positions=positions) if needs else None
    names = reading.names if reading else ()
    step = partial(_with_stack, function=function)
    analysis = Analysis(step, ("", *names), asked.weights, tuple(own), said)
    arrays = [per_prompt(values) for values in own.values()]
    title = said.partition("(")[0]
    return then(results, reading, analysis, title=title, per_prompt=arrays).whole()


def _with_stack(
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    *,
    function: Callable[..., xr.DataArray],
    **own: Any,
) -> xr.DataArray:
    """The stack stands first, under no name."""
    beside = {name: array for name, array in activations.items() if name}
    return function(activations[""], beside, weights, None, **own)
