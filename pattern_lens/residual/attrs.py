"""The norm of a layer, and the directions of tokens, applied to a stack that is there already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pattern_lens.errors import DimensionError, OutOfRangeError, RawWeightsError
from pattern_lens.names import COMPONENT, D_MODEL, POS, PROMPT
from pattern_lens.residual.directions import logit_directions
from pattern_lens.residual.inputs import Given, ModelFacts, Needs
from pattern_lens.residual.norm import Norm, norm_before
from pattern_lens.residual.places import choose_positions, positions_kept
from pattern_lens.residual.tokens import token_ids

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["apply_ln_to_stack", "check_folded", "logit_attrs"]


def apply_ln_to_stack(
    stack: xr.DataArray,
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    layer: int | None = None,
    *,
    mlp_input: bool = False,
    pos: Any = None,
    recompute_ln: bool = False,
) -> xr.DataArray:
    """A stack of components as a layer reads them through its norm.

    Parameters
    ----------
    stack
        Dims (component, ..., d_model); with or without positions.
    activations
        The stored scale: ``ln_final_scale``, ``ln1_scale``, or ``ln2_scale`` with `mlp_input`.
    weights
        The model's facts, and the gain and bias of the final norm where they are not folded.
    layer
        The layer that reads; None and -1 are the unembedding.
    mlp_input
        Whether its MLP reads, not its attention.
    pos
        Positions of the stack, where it has no coordinate `pos`.
    recompute_ln
        In front of the unembedding: statistics of each component itself, and the norm's gain and bias; for the logit
        lens. Elsewhere it changes nothing, as in TransformerLens.

    Returns
    -------
    Dims of `stack`. LayerNorm takes the mean off and divides by the stored scale, RMSNorm divides.

    Raises
    ------
    UnknownActivationError, WeightsMissingError, OutOfRangeError, DimensionError
        The scale is not there, or not for these positions.
    """
    facts = ModelFacts.of(weights)
    norm = norm_before(facts, layer, mlp_input=mlp_input, recompute=recompute_ln)
    return normalised(stack, norm, activations, weights, pos)


def normalised(
    stack: xr.DataArray,
    norm: Norm,
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    pos: Any = None,
) -> xr.DataArray:
    """A stack after a norm; dims and labels stay."""
    if D_MODEL not in stack.dims:
        raise DimensionError(f"cannot normalise dims {stack.dims}: expected {D_MODEL!r} among them")
    result: xr.DataArray = stack.astype(np.result_type(stack.dtype, np.float32), keep_attrs=True)
    if norm.facts.centres:
        result = result - result.mean(dim=D_MODEL)
    if norm.needs:
        result = result / scale_of(stack, norm, activations, weights, pos)
    elif norm.recompute:
        squares = (result**2).mean(dim=D_MODEL)
        result = result / (squares + norm.facts.eps) ** 0.5
        for name in ("ln_final_w", "ln_final_b"):
            if name in weights:
                own = xr.DataArray(weights[name].values, dims=D_MODEL)
                result = result * own if name == "ln_final_w" else result + own
    result.attrs, result.name = stack.attrs, stack.name
    return result.transpose(*stack.dims)


def scale_of(
    stack: xr.DataArray,
    norm: Norm,
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    pos: Any,
) -> xr.DataArray:
    """The stored scale at the positions of a stack: dims (pos), or of a block (prompt, pos)."""
    needs: Needs = norm.needs
    (name,) = needs
    given = Given(activations, weights, needs, "apply_ln_to_stack")
    values = norm.scale(given)
    scale = xr.DataArray(values, dims=(*(PROMPT,) * given.n_lead, POS))
    kept, drops = _positions(stack, pos, scale.sizes[POS], name)
    scale = choose_positions(scale, kept)
    return scale.isel({POS: 0}) if drops else scale


def _positions(stack: xr.DataArray, pos: Any, n_pos: int, name: str) -> tuple[Any, bool]:
    """Positions that a stack has: those that are given, those it says, or all."""
    if pos is not None:
        return positions_kept(pos)
    if POS in stack.coords:
        own = np.atleast_1d(stack[POS].values)
        if own.size and (own.min() < 0 or own.max() >= n_pos):
            raise OutOfRangeError(f"the stack has positions up to {own.max()}, and {name} {n_pos}")
        return own, POS not in stack.dims
    if stack.sizes.get(POS) != n_pos:
        raise DimensionError(
            f"the stack does not say which positions it has: expected a coordinate {POS!r}, or pos="
        )
    return None, False


def logit_attrs(
    stack: xr.DataArray,
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    tokens: Any,
    incorrect_tokens: Any = None,
    *,
    pos: Any = None,
) -> xr.DataArray:
    """How much each component of a stack adds to the logit of a token, or to the difference of two.

    Parameters
    ----------
    stack
        Dims (component, pos, d_model), not yet normalised.
    activations
        ``ln_final_scale``.
    weights
        With ``W_U``; in compatibility mode.
    tokens, incorrect_tokens
        A token id, or one for each position; a string where `weights` has the coordinate `token_text`. With
        `incorrect_tokens` the result is the logit of `tokens` minus theirs.
    pos
        As for `apply_ln_to_stack`.

    Returns
    -------
    Dims of `stack` without d_model; logits, before a soft cap. Their sum over a whole stream is the logit minus what
    the unembedding's bias adds.

    Raises
    ------
    RawWeightsError
        The weights are raw.
    AnswerTokenError, UnknownActivationError, WeightsMissingError
        There is no such token, or something needed is missing.
    """
    facts = ModelFacts.of(weights)
    check_folded(facts, "logit_attrs")
    norm = norm_before(facts, None, mlp_input=False)
    direction = _token_direction(stack, weights, tokens, incorrect_tokens)
    read = normalised(stack, norm, activations, weights, pos)
    result: xr.DataArray = xr.dot(read, direction, dim=D_MODEL)
    result.name = "logit_attrs"
    result.attrs = stack.attrs | {"units": "logit", "long_name": _long_name(facts)}
    lead = [dim for dim in (PROMPT, COMPONENT) if dim in result.dims]
    return result.transpose(*lead, ...)


def _long_name(facts: ModelFacts) -> str:
    return "attributed logit" + (", before the soft cap" if facts.softcap else "")


def _token_direction(
    stack: xr.DataArray, weights: xr.Dataset, tokens: Any, incorrect: Any
) -> xr.DataArray:
    """Dims (d_model), or with (prompt) or (pos) where each prompt of a block, or each position, has its own token."""
    ids = token_ids(tokens, weights)
    wrong = None if incorrect is None else token_ids(incorrect, weights)
    if wrong is not None and wrong.shape != ids.shape:
        raise DimensionError(
            f"tokens have shape {ids.shape}, and incorrect_tokens {wrong.shape}: expected one for each"
        )
    dim = PROMPT if PROMPT in stack.dims else POS
    n = stack.sizes.get(dim, 0)
    if ids.shape not in ((), (n,)):
        raise DimensionError(
            f"expected one token, or one for each of {n} along {dim!r}, got shape {ids.shape}"
        )
    vectors, _ = logit_directions(
        weights, np.atleast_1d(ids), None if wrong is None else np.atleast_1d(wrong), "logit_attrs"
    )
    return xr.DataArray(vectors if ids.ndim else vectors[0], dims=(*(dim,) * ids.ndim, D_MODEL))


def check_folded(facts: ModelFacts, who: str) -> None:
    """Raise unless the final norm's gain is folded into the unembedding, or known to be.

    Raises
    ------
    RawWeightsError
        The weights are raw.
    """
    if facts.mode != "compatibility":
        raise RawWeightsError(
            f"{who} needs weights='compatibility', and the file has {facts.mode or 'unknown'!r} weights: there the final "
            "norm's gain is not part of the unembedding, and what components write is not centred, so that their shares "
            "of a logit depend on offsets that the model itself ignores; capture with "
            "capture(..., weights='compatibility', names='residual')"
        )
