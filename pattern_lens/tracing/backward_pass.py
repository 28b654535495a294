"""From the live graph to gradients: what each prompt's end is, and what flows back from it.

Rule: a gradient that should have arrived and did not is an error; zeros never stand in for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pattern_lens.errors import NoGradientError
from pattern_lens.names import QUERY
from pattern_lens.tracing.ends import Ends, ends_of, reading_of, stream_place
from pattern_lens.tracing.objectives import Objective
from pattern_lens.tracing.traces import Trace

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor

    from pattern_lens.tracing.batch import Batch
    from pattern_lens.tracing.edits import Place
    from pattern_lens.tracing.ends import Live
    from pattern_lens.tracing.forward_pass import Surroundings


@dataclass(frozen=True, eq=False)
class Gradients:
    """What came back.

    Attributes
    ----------
    values
        The number that gradients start from, of each prompt.
    objective
        The objective of each prompt; None where there is none.
    gradients
        By site and layer; None where nothing is upstream.
    directions, reading_places
        As in `Recorded`.
    """

    values: Tensor
    objective: list[Tensor | None]
    gradients: Mapping[Place, Tensor | None]
    directions: Tensor
    reading_places: Tensor


@dataclass(frozen=True, eq=False)
class BackwardPass:
    """Gradients of a batch whose forward pass is done."""

    around: Surroundings
    batch: Batch
    live: Live

    def run(self, wants: Collection[Place]) -> Gradients:
        """Gradients with respect to some tensors, and of the streams that are read.

        Raises
        ------
        NoGradientError
            None arrived where one had to.
        """
        import torch

        ends = [ends_of(asked) for asked in self.batch.asked]
        finder = Ends(self.batch, self.around.sites, self.live)
        directions: dict[int, Tensor] = {}
        last: dict[int, Tensor] = {}
        objective: list[Tensor | None] = [None] * len(ends)
        for stage in range(max(map(len, ends))):
            own = {row: each[stage] for row, each in enumerate(ends) if len(each) > stage}
            values = finder.values(own, directions)
            for row, end in own.items():
                if isinstance(end, Objective):
                    objective[row] = values[row].detach()
            later = {row: end for row, end in own.items() if len(ends[row]) > stage + 1}
            last |= {row: values[row] for row in own if row not in later}
            if later:
                directions |= self._directions(later, {row: values[row] for row in later})
        tails = [each[-1] for each in ends]
        found = torch.stack([last[row] for row in range(len(ends))])
        return self._final(found, tails, objective, wants)

    def _directions(
        self, ends: Mapping[int, Any], values: Mapping[int, Tensor]
    ) -> dict[int, Tensor]:
        """Gradients of streams that later ends need; the graph is kept."""
        places = {row: self._stream(end) for row, end in ends.items()}
        unique = list(dict.fromkeys(places.values()))
        gradients = self._grad(sum(values.values()), unique, keep=True)
        by_place = dict(zip(unique, gradients, strict=True))
        self._check_arrived({row: by_place[place] for row, place in places.items()}, ends)
        return {row: by_place[place][row] for row, place in places.items()}  # type: ignore[index]

    def _final(
        self,
        values: Tensor,
        ends: Sequence[Any],
        objective: list[Tensor | None],
        wants: Collection[Place],
    ) -> Gradients:
        import torch

        streams = [self._stream(end) for end in ends]
        unique = list(dict.fromkeys([*wants, *streams]))
        gradients = dict(zip(unique, self._grad(values.sum(), unique, keep=False), strict=True))
        self._check_arrived(
            {row: gradients[place] for row, place in enumerate(streams)}, dict(enumerate(ends))
        )
        directions = torch.stack([gradients[place][row] for row, place in enumerate(streams)])  # type: ignore[index]
        readings = [reading_of(end, self.around.sites).place for end in ends]
        self._check_upstream(gradients, max(readings))
        return Gradients(
            values.detach(),
            objective,
            gradients,
            directions.float(),
            torch.tensor(readings, device=directions.device),
        )

    def _stream(self, end: Any) -> Place:
        return stream_place(reading_of(end, self.around.sites), self.around.sites)

    def _grad(self, value: Any, places: Sequence[Place], *, keep: bool) -> list[Tensor | None]:
        import torch

        tensors = [self.live.tensors[place] for place in places]
        loose = [p for p, t in zip(places, tensors, strict=True) if not t.requires_grad]
        if loose or not value.requires_grad:
            raise NoGradientError(self._message(loose[0] if loose else None))
        found = torch.autograd.grad(value, tensors, retain_graph=keep, allow_unused=True)
        return [None if one is None else one.detach() for one in found]

    def _message(self, place: Place | None) -> str:
        what = "its end" if place is None else self._where(place)
        return (
            f"no gradient can flow through model {self.around.model.name!r}: {what} does not depend on the token embeddings "
            "there; the hooks of this architecture, or of this wrapper, do not carry gradients"
        )

    def _where(self, place: Place) -> str:
        site, layer = place
        return f"{site!r}" + ("" if layer is None else f" of layer {layer}")

    def _check_arrived(self, found: Mapping[int, Tensor | None], ends: Mapping[int, Any]) -> None:
        for row, gradient in found.items():
            end, asked = ends[row], self.batch.asked[row]
            is_zero = isinstance(end, Objective) and end.kind == "zero"
            changed = any(one.pass_ == "backward" for one in asked.ablate)  # noqa: S105 - a pass of the model
            if is_zero or changed:
                continue
            if gradient is None or not bool(gradient[row].any()):
                who = end.kind if isinstance(end, Objective) else end.label
                raise NoGradientError(
                    f"no gradient arrived from {who!r} of prompt {self.batch.prompts[row].prompt.hash!r} at the stream that it reads: "
                    f"it does not depend on it there ({self._hint(end)}an ablation between the two, or hooks that carry none)"
                )

    @staticmethod
    def _hint(end: Any) -> str:
        if isinstance(end, Trace) and end.path == "V":
            return f"it writes at query {end.indices[QUERY]}, and what is downstream may read other positions; or "
        return "a node that is not active, "

    def _check_upstream(self, gradients: Mapping[Place, Tensor | None], place: float) -> None:
        """Raise where nothing came back to what has to be upstream."""
        for (site, layer), gradient in gradients.items():
            if gradient is None and layer is not None and self._is_upstream(site, layer, place):
                raise NoGradientError(
                    f"no gradient arrived at {self._where((site, layer))} of model {self.around.model.name!r}: its hook shows a copy of what is "
                    "computed, not the value itself; leave out the scalars that need it"
                )

    def _is_upstream(self, site: str, layer: int, place: float) -> bool:
        if site.startswith("ln") or site in ("rot_q", "rot_k"):
            return False  # held norms have no gradient, and not every model rotates
        offset = 0.5 if site in ("pre", "post", "mlp_out", "mlp_in", "ln2_normalized") else 0.0
        return layer + offset + (1.0 if site == "resid_post" else 0.0) < place
