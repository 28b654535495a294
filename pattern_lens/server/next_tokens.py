"""What a model says next, as it is and with ablations: the logits that the page shows beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.server.answers import rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pattern_lens.models import CaptureModel
    from pattern_lens.server.live_question import Question
    from pattern_lens.server.view import View

_SHOWN: Final = 8
_EXACT: Final = 9


class NextTokens:
    """Logits of every token of the vocabulary, by id.

    Parameters
    ----------
    ablate
        Labels of ablations.
    """

    def __init__(
        self, model: CaptureModel, question: Question, ablate: tuple[str, ...] = ()
    ) -> None:
        from pattern_lens.tracing.top_tokens import next_tokens

        found = next_tokens(
            model,
            [question.text],
            ablate=list(ablate),
            k=int(model.model.cfg.d_vocab),
            position=question.place,
        )
        ids = found["token_id"].values[0]
        self.best: list[int] = ids[:_SHOWN].tolist()
        self.logits = self._by_id(ids, found["logit"].values[0])
        self.probabilities = self._by_id(ids, found["probability"].values[0])

    @staticmethod
    def _by_id(ids: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]:
        out = np.full(int(ids.max()) + 1, np.nan)
        out[ids] = values
        return out

    def objective(self, question: Question) -> float:
        """Logit of the target less that of the distractor, or less the mean."""
        if question.distractor is None:
            return float(self.logits[question.target] - np.nanmean(self.logits))
        return float(self.logits[question.target] - self.logits[question.distractor])


def changed(
    before: NextTokens, after: NextTokens, question: Question, view: View
) -> dict[str, Any]:
    """The likeliest tokens of both, with those that are asked about: logits before and after.

    Returns
    -------
    ``tokens``, those first that were likelier before, and ``objective``, each with ``before`` and ``after``.
    """
    roles = {question.target: "target", question.distractor: "distractor"}
    shown = {*before.best, *after.best, *(one for one in roles if one is not None)}
    order = sorted(shown, key=lambda token: -before.logits[token])
    table = [before.logits, after.logits, before.probabilities, after.probabilities]
    columns = rounded(np.array([one[order] for one in table]), _EXACT)
    tokens = [
        {
            **view.token(token),
            "role": roles.get(token),
            "before": logit,
            "after": now,
            "probability": probability,
            "probability_after": probability_now,
        }
        for token, logit, now, probability, probability_now in zip(order, *columns, strict=True)
    ]
    values = rounded(np.array([one.objective(question) for one in (before, after)]), _EXACT)
    return {"tokens": tokens, "objective": dict(zip(("before", "after"), values, strict=True))}
