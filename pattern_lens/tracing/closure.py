"""One number of each prompt, and how far the parts of the stream are from it.

Rule: nothing is taken for a sum that is not one: an objective that is not linear, a scale that is not held, a stream that
is cut have no closure error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.tracing.ends import ends_of
from pattern_lens.tracing.objectives import Objective

if TYPE_CHECKING:
    from pattern_lens.tracing.ablations import Ablation
    from pattern_lens.tracing.backward_pass import Gradients
    from pattern_lens.tracing.forward_pass import Surroundings
    from pattern_lens.tracing.recorded import Recorded, WeightsOf

OBJECTIVE: Final = "objective"
NODE_VALUE: Final = "node_value"
CONSTANT: Final = "constant"
CLOSURE_ERROR: Final = "closure_error"

_WRITERS: Final = (("attn_out", "attn"), ("mlp_out", "mlp"))


@dataclass(frozen=True, eq=False)
class LogitBiases:
    """Logits of a stream that is zero: what no component writes."""

    around: Surroundings
    weights: WeightsOf

    @cached_property
    def all(self) -> Any:
        """Dims (token)."""
        offset = self.around.norms.offset("ln_final", None).float()
        found = offset @ self.weights.at("W_U", None) + self.weights.at("b_U", None)
        return found.double().cpu().numpy()

    def of(self, end: Objective, target: tuple[int, ...], distractor: tuple[int, ...]) -> float:
        """The part of a linear objective that they are."""
        if end.kind in ("zero", "direction"):
            return 0.0
        total = sum(float(self.all[i]) for i in target) / len(target)
        if distractor:
            total -= sum(float(self.all[i]) for i in distractor) / len(distractor)
        return total - (float(self.all.mean()) if end.kind == "logit_minus_mean" else 0.0)


@dataclass(frozen=True, eq=False)
class Closure:
    """The numbers of the prompts of a batch.

    Parameters
    ----------
    has_nodes
        Whether nodes of some prompts of the run are traced.
    """

    recorded: Recorded
    found: Gradients
    biases: LogitBiases
    has_nodes: bool

    def of(self, row: int) -> dict[str, Any]:
        """Objective, value of the node, constant and closure error of one prompt."""
        asked = self.recorded.batch.asked[row]
        value, parts = float(self.found.values[row]), float(self._parts[row])
        objective = self.found.objective[row]
        end = ends_of(asked)[-1]
        numbers = {
            OBJECTIVE: np.float64("nan" if objective is None else float(objective)),
            CONSTANT: np.float64(value - parts),
            CLOSURE_ERROR: np.float64("nan"),
        }
        if self.has_nodes:
            numbers[NODE_VALUE] = np.float64(value if asked.trace is not None else "nan")
        if isinstance(end, Objective) and end.is_linear and self.recorded.detach_norm:
            constant = self.biases.of(end, asked.target_ids, asked.distractor_ids)
            numbers[CONSTANT] = np.float64(constant)
            if not any(map(_breaks_sum, asked.ablate)):
                numbers[CLOSURE_ERROR] = np.float64(abs(value - constant - parts))
        return numbers

    @cached_property
    def _parts(self) -> Any:
        """Direct effects of the embedding, of attention and of MLPs, together: dims (prompt)."""
        recorded = self.recorded
        at = recorded.at(None)
        total = (recorded.there(at["resid_pre"]) * at.direction("embed")).sum((1, 2))
        for layer in range(recorded.n_layers):
            here = recorded.at(layer)
            for name, writer in _WRITERS:
                if (name, layer) in recorded.tensors:
                    own = recorded.there(here[name])
                    total = total + (own * here.direction(writer)).sum((1, 2))
        return total


def _breaks_sum(one: Ablation) -> bool:
    """Whether what was written before is no longer in the stream, or the gradient is not that of the objective."""
    if one.pass_ == "backward":  # noqa: S105 - a pass of the model
        return True
    is_later = one.site == "resid_pre" and bool(one.layer)
    return is_later or one.site in ("resid_mid", "resid_post")
