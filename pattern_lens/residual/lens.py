"""Logit lens: what each stream would predict if the unembedding read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from pattern_lens.errors import ResidualError
from pattern_lens.names import COMPONENT, POS, RANK, READING, TOKEN
from pattern_lens.residual import plans
from pattern_lens.residual.attribution import last_place
from pattern_lens.residual.attrs import check_folded
from pattern_lens.residual.inputs import FINAL_LOGITS, Given, ModelFacts
from pattern_lens.residual.places import choose_positions, positions_kept
from pattern_lens.residual.stack import labelled
from pattern_lens.residual.tokens import token_id
from pattern_lens.residual.unembedding import ALWAYS, OF_ANSWER, Unembedding, reading_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pattern_lens.residual.inputs import Array
    from pattern_lens.residual.plans import Plan
    from pattern_lens.residual.tokens import Vocabulary

__all__ = ["logit_lens"]

NAME: Final = "logit_lens"
_PROSE: Final = {
    "top_id": ("ids of the most probable tokens", "1"),
    "top_probability": ("their probabilities", "probability"),
    "answer_rank": ("how many tokens are more probable than the answer", "1"),
    "answer_probability": ("probability of the answer", "probability"),
    "answer_logit": ("logit of the answer, before a soft cap", "logit"),
    "kl_to_final": ("divergence of the last stream's distribution from this one's", "bits"),
    "closure_error": ("largest difference of the last stream's logits to the model's", "logit"),
}


def logit_lens(
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    *,
    answer_token: Any = None,
    incl_mid: bool = False,
    pos: Any = None,
    k: int = 5,
    vocabulary: Vocabulary | None = None,
) -> xr.Dataset:
    """What the stream in front of every layer would predict: top tokens, an answer's rank, distance to the end.

    Parameters
    ----------
    activations
        ``resid_pre``, ``resid_post`` of the last layer, with `incl_mid` ``resid_mid``; for the closure error
        ``final_logits``.
    weights
        With ``W_U``; in compatibility mode.
    answer_token
        A token id, or its text where there is a `vocabulary`.
    incl_mid, pos
        As for `accumulated_resid`.
    k
        How many tokens to name.
    vocabulary
        Texts of tokens.

    Returns
    -------
    Dims (component, pos); with an additional dim `rank` (0 is the most probable) for `top_id`, `top_token` (text, with a
    vocabulary) and `top_probability`. `kl_to_final` is KL(last stream || this stream) in bits, 0 for ``final_post``.
    With an answer `answer_rank` (0: it is the most probable), `answer_probability` and `answer_logit`, which is before a
    soft cap; probabilities are after it. `closure_error`, dims (pos): the largest difference of the last stream's logits
    to those that the model gave; NaN where the file does not hold them.

    Raises
    ------
    RawWeightsError
        The weights are raw.
    AnswerTokenError, UnknownActivationError, WeightsMissingError, OutOfRangeError, ResidualError
        There is no such token or position, or something needed is missing.

    Notes
    -----
    Each stream goes through the final norm with statistics of its own. nostalgebraist 2020, interpreting GPT: the logit
    lens; the divergence as in Belrose et al. 2023, Eliciting Latent Predictions with the Tuned Lens.
    """
    plan = lens_plan(ModelFacts.of(weights), incl_mid=incl_mid)
    answer = None if answer_token is None else token_id(answer_token, weights, vocabulary)
    kept, drops = positions_kept(pos)
    chosen = {name: choose_positions(array, kept) for name, array in activations.items()}
    k, place = check_k(k, weights), last_place(pos)
    packed = read_lens(plan, chosen, weights, k=k, answer=answer, place=place, drops=drops)
    return unpacked(packed, vocabulary)


def lens_plan(facts: ModelFacts, *, incl_mid: bool) -> Plan:
    """The streams, each normalised with its own statistics."""
    check_folded(facts, NAME)
    return plans.accumulated(facts, incl_mid=incl_mid, apply_ln=True)


def check_k(k: int, weights: xr.Dataset) -> int:
    """How many tokens to name, if there are so many."""
    n_tokens = int(weights.sizes.get(TOKEN, 0))
    if not 1 <= k <= n_tokens:
        raise ResidualError(f"cannot name k={k} tokens: expected 1 to {n_tokens}")
    return k


def read_lens(
    plan: Plan,
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    *,
    k: int,
    answer: Any,
    place: int | None,
    drops: bool,
) -> xr.DataArray:
    """All readings in one array, so that they are made, and stored, together: dims (component, pos, reading).

    Parameters
    ----------
    answer
        A token id, of a block of prompts one for each or one for all; None for none.
    place, drops
        As for `attribution.attributed`.
    """
    given = Given(activations, weights, plan.needs, NAME)
    streams = np.stack([part.vectors(given, ())[..., 0, :, :] for part in plan.parts], given.n_lead)
    assert plan.norm is not None  # noqa: S101 - see `lens_plan`
    normalised = np.asarray(plan.norm.apply(streams, given))
    lead = normalised.shape[: given.n_lead]
    # positions of all prompts side by side: dims (component, prompt and pos, d_model)
    flat = np.moveaxis(normalised, given.n_lead, 0).reshape(len(plan.parts), -1, streams.shape[-1])
    n_pos = streams.shape[-2]
    answers = None
    if answer is not None:
        answers = np.repeat(np.broadcast_to(answer, lead or (1,)), n_pos)
    unembedding = Unembedding(plan.facts, weights, NAME)
    last = _true_rows(activations.get(FINAL_LOGITS), n_pos, place)
    rows = unembedding.read(flat, k, answers, last)
    out = np.moveaxis(rows.reshape(len(rows), *lead, n_pos, -1), 0, given.n_lead)
    packed = labelled(plan, given, out, (POS, READING), drops=drops)
    names = reading_names(k, answer=answer is not None)
    packed = packed.rename(NAME).assign_coords({READING: names})
    return packed if answer is None or lead else packed.assign_coords(answer_id=int(answer))


def _true_rows(logits: xr.DataArray | None, n_pos: int, place: int | None) -> dict[int, Array]:
    """The model's logits, by the place of each prompt's last position among all of the block."""
    if logits is None or place is None or not n_pos:
        return {}
    values = np.asarray(logits.values).reshape(-1, logits.shape[-1])
    return {i * n_pos + place % n_pos: own for i, own in enumerate(values)}


def unpacked(packed: xr.DataArray, vocabulary: Vocabulary | None = None) -> xr.Dataset:
    """The readings by name."""
    names = packed[READING].values.tolist()
    found: dict[str, xr.DataArray] = {}
    for kind in ("top_id", "top_probability"):
        rows = [i for i, name in enumerate(names) if name.startswith(f"{kind} ")]
        ranked = packed.isel({READING: rows}).drop_vars(READING).rename({READING: RANK})
        found[kind] = ranked.assign_coords({RANK: np.arange(len(rows))})
    found["top_id"] = found["top_id"].fillna(-1).astype(np.int64)
    for name in (*OF_ANSWER, *ALWAYS):
        if name in names:
            found[name] = packed.isel({READING: names.index(name)}).drop_vars(READING)
    found["closure_error"] = _of_last(found["closure_error"])
    if vocabulary is not None:
        found["top_token"] = _texts(found["top_id"], vocabulary)
    for name, (long_name, units) in _PROSE.items():
        if name in found:
            found[name].attrs = {"long_name": long_name, "units": units}
    return xr.Dataset(found, attrs=packed.attrs)


def _of_last(closure: xr.DataArray) -> xr.DataArray:
    last = closure.isel({COMPONENT: -1})
    return last.drop_vars([name for name in closure.coords if closure[name].dims == (COMPONENT,)])


def _texts(ids: xr.DataArray, vocabulary: Vocabulary) -> xr.DataArray:
    texts = [vocabulary.text(number) if number >= 0 else "" for number in ids.values.ravel()]
    values = np.array(texts, dtype=object).reshape(ids.shape)
    return ids.copy(data=values)
