"""Direct logit attribution: what each part of the stream adds to a token's logit at one position.

The rule: a direction is folded into the output weights first, so that an activation is read once and nothing is ever
expanded to d_model; beside the parts stands what they sum to, and the logit that the model gave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import xarray as xr

from pattern_lens.errors import DimensionError, ResidualError
from pattern_lens.names import POS
from pattern_lens.residual import plans
from pattern_lens.residual.attrs import check_folded
from pattern_lens.residual.directions import Direction, centred, logit_directions
from pattern_lens.residual.inputs import FINAL_LOGITS, POS_EMBED, Given, ModelFacts
from pattern_lens.residual.norm import norm_before
from pattern_lens.residual.places import Component, choose_positions, positions_kept
from pattern_lens.residual.readings import Attribution
from pattern_lens.residual.stack import labelled, n_neurons
from pattern_lens.residual.tokens import token_ids

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pattern_lens.residual.inputs import Array
    from pattern_lens.residual.plans import Plan

__all__ = ["Unit", "direct_logit_attribution"]

Unit = Literal["component", "layer", "head", "neuron"]
"""Embeddings and layers' outputs; streams after each of them; heads and the rest; neurons and the rest."""

NAME: Final = "direct_logit_attribution"
# rows behind the components
_SUM: Final = Component("= logit from parts")
_TRUE: Final = Component("= logit of the model")


def direct_logit_attribution(
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    answer_tokens: Any,
    incorrect_tokens: Any = None,
    *,
    unit: Unit = "component",
    pos: Any = -1,
) -> Attribution:
    """What each part of one prompt's stream adds to the logit of a token, or to the difference of two.

    Parameters
    ----------
    activations
        What the unit is made of (see `decompose_resid`, `accumulated_resid`, `stack_head_results`,
        `stack_neuron_results`), ``ln_final_scale`` and, for the closure error, ``final_logits``.
    weights
        In compatibility mode.
    answer_tokens, incorrect_tokens
        Token ids; with `incorrect_tokens` the logit of the answer minus theirs is attributed.
    unit
        ``component``: the embeddings and what each layer's attention and MLP wrote. ``layer``: the stream after each
        of these, which is cumulative. ``head``, ``neuron``: each of them, and the remainder.
    pos
        The position; by default the last, which predicts the next token.

    Returns
    -------
    `Attribution`, its scores with dims (component) or (component, pos), in logits before a soft cap.

    Raises
    ------
    RawWeightsError
        The weights are raw.
    AnswerTokenError, UnknownActivationError, WeightsMissingError, OutOfRangeError, ResidualError
        There is no such token, position or unit, or something needed is missing.

    Notes
    -----
    The component c of the stream adds ((c - mean(c)) / scale) @ (W_U[:, answer] - W_U[:, incorrect]) with the stored
    scale of the final LayerNorm; RMSNorm does not take the mean off. Elhage et al. 2021, A Mathematical Framework for
    Transformer Circuits; the units are those of TransformerLens.

    Examples
    --------
    >>> import xarray as xr
    >>> embed = xr.DataArray([[1.0, 2.0]], dims=("pos", "d_model"))
    >>> wrote = xr.DataArray([[[0.5, -3.0]]], dims=("layer", "pos", "d_model"))
    >>> scale = xr.DataArray([2.0], dims="pos")
    >>> facts = {"n_layers": 1, "n_heads": 2, "attn_only": True, "normalization": "RMS"}
    >>> unembed = (("d_model", "token"), [[1.0, 0.0, 5.0], [0.0, 4.0, 0.0]])
    >>> weights = xr.Dataset({"W_U": unembed}, attrs={**facts, "weights": "compatibility"})
    >>> held = {"embed": embed, "attn_out": wrote, "ln_final_scale": scale}
    >>> direct_logit_attribution(held, weights, 1).scores.values.tolist()
    [4.0, -6.0]
    """
    facts = ModelFacts.of(weights)
    plan = plan_of(facts, weights, unit, has_pos_embed=POS_EMBED in activations)
    ids = token_pair(answer_tokens, incorrect_tokens, weights)
    if ids.ndim > 1:
        raise DimensionError("expected one answer token for one prompt")
    kept, drops = positions_kept(pos)
    chosen = {name: choose_positions(array, kept) for name, array in activations.items()}
    direction = direction_of(facts, weights, ids[:, None])
    rows = attributed(plan, chosen, weights, direction, ids, place=last_place(pos), drops=drops)
    _, added = logit_directions(weights, *_split(ids[:, None]), NAME)
    return Attribution.of_rows(rows, xr.DataArray(added[0]), unit, facts)


def plan_of(facts: ModelFacts, weights: xr.Dataset, unit: Unit, *, has_pos_embed: bool) -> Plan:
    """What a unit is made of.

    Raises
    ------
    RawWeightsError, ResidualError
        The weights are raw; there is no such unit, or the model has no such parts.
    """
    check_folded(facts, NAME)
    if unit == "component":
        return plans.decomposed(facts, has_pos_embed=has_pos_embed)
    if unit == "layer":
        return plans.accumulated(facts, incl_mid=not (facts.attn_only or facts.parallel))
    if unit == "head":
        return plans.heads(facts, incl_remainder=True)
    if unit == "neuron":
        n = n_neurons(weights, NAME)
        return plans.neurons_before(facts, None, neurons=None, n_neurons=n, incl_remainder=True)
    raise ResidualError(f"no unit {unit!r}: expected one of {', '.join(get_args(Unit))}")


def token_pair(answer: Any, incorrect: Any, weights: xr.Dataset, vocabulary: Any = None) -> Array:
    """Token ids: dims (answer and, where there is one, incorrect; ...)."""
    ids = token_ids(answer, weights, vocabulary)
    if incorrect is None:
        return ids[None]
    wrong = token_ids(incorrect, weights, vocabulary)
    if wrong.shape != ids.shape and wrong.ndim and ids.ndim:
        raise DimensionError(
            f"there are {ids.size} answer tokens and {wrong.size} incorrect ones: expected one for each prompt, or one"
        )
    return np.stack(np.broadcast_arrays(ids, wrong))


def _split(pairs: Array) -> tuple[Array, Array | None]:
    return pairs[0], (pairs[1] if len(pairs) == 2 else None)


def direction_of(facts: ModelFacts, weights: xr.Dataset, pairs: Array) -> Direction:
    """Directions of token pairs, dims (pair member, direction), for streams that are not centred."""
    vectors, _ = logit_directions(weights, *_split(pairs), NAME)
    return Direction(centred(vectors, facts))


def attributed(
    plan: Plan,
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    direction: Direction,
    ids: Array,
    *,
    place: int | None,
    drops: bool,
) -> xr.DataArray:
    """Products of a plan's parts with a direction, and behind them their sum and the model's logit.

    Parameters
    ----------
    direction
        For these prompts.
    ids
        Token ids, dims (pair member) for one prompt, (pair member, prompt) for a block.
    place
        See `last_place`.
    drops
        Whether there is one position, whose dim goes.

    Returns
    -------
    Dims (component, pos), or of a block (prompt, component, pos), without pos where one position was chosen. The sum
    includes what the unembedding's bias adds; the model's logit is NaN where the file does not hold it.
    """
    norm = norm_before(plan.facts, None, mlp_input=False)
    given = Given(activations, weights, {**plan.needs, **norm.needs}, NAME)
    before: list[Any] = []
    for part in plan.parts:
        before.append(part.dots(given, direction, before))
    values = before[0] if len(before) == 1 else np.concatenate(before, axis=given.n_lead)
    values = norm.divide(values, given)
    parts = values[(slice(None),) * given.n_lead + (slice(-1, None),)] if _is_sum(plan) else values
    added = _added(weights, ids)
    total = parts.sum(axis=given.n_lead, keepdims=True) + added[..., None, None]
    true = _true_logits(total, activations.get(FINAL_LOGITS), ids, place)
    rows = np.concatenate([values, total, true], axis=given.n_lead)
    return labelled(
        plan, given, rows, (POS,), drops=drops, components=[*plan.components, _SUM, _TRUE]
    ).assign_attrs(units="logit")


def _is_sum(plan: Plan) -> bool:
    """Whether the last component holds all that is before it."""
    return plan.name == "accumulated_resid"


def _added(weights: xr.Dataset, ids: Array) -> Array:
    """What no component writes, by prompt."""
    pairs = ids.reshape(len(ids), -1)
    unique, which = np.unique(pairs, axis=1, return_inverse=True)
    _, added = logit_directions(weights, *_split(unique), NAME)
    return np.asarray(added[which].reshape(ids.shape[1:]))


def last_place(pos: Any) -> int | None:
    """Where among the chosen positions the prompt's last one stands; None where that is not known.

    The file holds the model's logits of the last position alone.
    """
    kept, _ = positions_kept(pos)
    if kept is None or (isinstance(kept, slice) and kept.stop is None and kept.step in (None, 1)):
        return -1
    if isinstance(kept, list | np.ndarray) and -1 in kept:
        return list(kept).index(-1)
    return None


def _true_logits(total: Any, logits: xr.DataArray | None, ids: Array, place: int | None) -> Any:
    """The model's logit, or difference of logits, at the last position; NaN elsewhere."""
    true = np.full(total.shape, np.nan, total.dtype)
    if logits is None or place is None or not total.shape[-1]:
        return true
    values = np.asarray(logits.values, total.dtype)
    own = values[..., ids] if ids.ndim == 1 else np.take_along_axis(values, ids.T, axis=-1)
    signed = own[..., 0] - own[..., 1] if len(ids) == 2 else own[..., 0]
    true[..., 0, place] = signed
    return true
