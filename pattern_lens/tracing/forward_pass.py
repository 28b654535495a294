"""One forward pass with ablations and autoencoders in it, whose graph is kept for gradients.

Rule: ablations are applied before anything is kept; parameters take no part in the graph, and a run leaves no hook, no
setting and no flag of the model behind.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.activations.forward import evaluating, logits_at, pad_right, switched_on
from pattern_lens.errors import NoGradientError
from pattern_lens.names import ACTIVATIONS
from pattern_lens.tracing import attention
from pattern_lens.tracing.ends import ON_LOGITS, Live, ends_of
from pattern_lens.tracing.objectives import Objective
from pattern_lens.tracing.traces import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from torch import Tensor

    from pattern_lens.models import CaptureModel
    from pattern_lens.tracing.attention import LiveHooks
    from pattern_lens.tracing.batch import Batch
    from pattern_lens.tracing.edits import Edits, Place
    from pattern_lens.tracing.norms import Norms
    from pattern_lens.tracing.sites import Sites
    from pattern_lens.tracing.splice import Spliced

EMBED: Final[Place] = ("embed", None)
ERROR: Final = "error"
"""Ending of the site of what an autoencoder does not reconstruct."""

MLP_READ: Final = "mlp_in"
"""The stream as the MLP reads it, apart from the stream itself."""


class _AllSeenError(Exception):
    """Leaves the forward pass from within its last hook."""


@dataclass(frozen=True)
class Surroundings:
    """A model, and what was found out about it.

    Attributes
    ----------
    live_hooks
        Which attention hooks can be used.
    """

    model: CaptureModel
    sites: Sites
    norms: Norms
    live_hooks: LiveHooks


def error_site(name: str) -> str:
    """The site of what an autoencoder does not reconstruct."""
    return f"{name}.{ERROR}"


@dataclass(eq=False)
class ForwardPass:
    """What a batch computes, with its graph.

    Parameters
    ----------
    wants
        Sites and layers that are kept.
    held
        Norms whose divisor is a constant, with the rows of which it is.
    """

    around: Surroundings
    batch: Batch
    edits: Edits
    wants: Collection[Place]
    held: Mapping[tuple[str, int | None], Tensor]
    with_gradients: bool = True

    def run(self) -> Live:
        """Run the model; ends as soon as everything that is wanted was seen."""
        self._tensors: dict[Place, Tensor] = {}
        self._visited: set[Place] = set()
        self._waiting = {*self.wants}
        self._logits: list[Tensor] = []
        model = self.around.model
        tokens, mask = pad_right([one.ids for one in self.batch.prompts], masked=not model.causal)
        options = {} if mask is None else {"attention_mask": mask.to(model.device)}
        logits = None
        with ExitStack() as stack:
            stack.enter_context(evaluating(model.model))
            stack.enter_context(frozen(model.model))
            stack.enter_context(switched_on(model, [hook for hook, _ in self._hooks]))
            stack.enter_context(_grad_mode(on=self.with_gradients))
            stack.enter_context(suppress(_AllSeenError))
            stack.enter_context(self.around.norms.detached(self.held))
            stack.enter_context(attention.watched(model, self._watchers()))
            stack.enter_context(self._mlp_reads())
            if self._needs_logits:
                stack.enter_context(logits_at(model, self._positions, self._logits.append))
            logits = model.model.run_with_hooks(
                tokens.to(model.device),
                return_type="logits" if self._needs_logits else None,
                fwd_hooks=self._hooks,
                **options,
            )
        self._check_seen()
        return Live(
            self._tensors,
            frozenset(layer for site, layer in self.edits.places if site == "resid_mid"),
            self._logits[0] if self._logits else None,
            logits[:, -1] if logits is not None and self._needs_logits else None,
        )

    # --- what is hooked -----------------------------------------------------------------------

    @cached_property
    def _needs_logits(self) -> bool:
        ends = [end for asked in self.batch.asked for end in ends_of(asked)]
        return any(isinstance(end, Objective) and end.kind in ON_LOGITS for end in ends)

    @property
    def _positions(self) -> list[int]:
        """Where each prompt's logits are wanted."""
        found = []
        for row, asked in enumerate(self.batch.asked):
            objective = asked.objective
            on_logits = objective is not None and objective.kind in ON_LOGITS
            own = objective.position if objective is not None and on_logits else -1
            found.append(self.batch.place(row, own))
        return found

    @cached_property
    def _places(self) -> set[Place]:
        """Where something is seen or changed."""
        spliced = self.around.sites.spliced
        own = {*self.wants, *self.edits.places, EMBED, *self._cuts}
        bases: set[Place] = {(one.site, one.layer) for one in spliced.values()}
        middles = {place for place in own if place[0] == "resid_mid"}
        bases |= {(site, layer) for _, layer in middles for site in ("resid_pre", "attn_out")}
        return {place for place in own | bases - middles if place[0] in ACTIVATIONS} - middles

    @cached_property
    def _hooks(self) -> list[tuple[str, Callable[..., Any]]]:
        watched = {*attention.SITES} - self.around.live_hooks.live
        return [
            (self.around.sites.hook(*place), self._hook(place))
            for place in sorted(self._places, key=str)
            if place[0] not in watched
        ]

    def _hook(self, place: Place) -> Callable[..., Any]:
        def hook(value: Tensor, **_: Any) -> Tensor | None:
            return self._visit(place, value)

        return hook

    def _watchers(self) -> dict[int, dict[str, Callable[[Tensor], Tensor | None]]]:
        found: dict[int, dict[str, Callable[[Tensor], Tensor | None]]] = {}
        for site, layer in self._places:
            if site in attention.SITES and site not in self.around.live_hooks.live:
                found.setdefault(int(layer or 0), {})[site] = self._hook((site, layer))
        return found

    @contextmanager
    def _mlp_reads(self) -> Iterator[None]:
        """Keep the stream as the norms before the MLPs are given it."""
        layers = [int(layer or 0) for site, layer in self.wants if site == MLP_READ]
        handles = []
        try:
            for layer in layers:
                module = self.around.norms.module("ln2", layer)
                handles.append(module.register_forward_pre_hook(self._mlp_read(layer)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _mlp_read(self, layer: int) -> Callable[..., Any]:
        def keep(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            own = inputs[0].view(
                len(self.batch), -1, inputs[0].shape[-1]
            )  # some models read it flat
            self._keep((MLP_READ, layer), own)
            return (own.view(inputs[0].shape), *inputs[1:])

        return keep

    # --- what happens there -------------------------------------------------------------------

    def _visit(self, place: Place, value: Tensor) -> Tensor | None:
        if place in self._visited:  # a bridge calls back once for each of two names of a hook
            return None
        self._visited.add(place)
        own = self.edits.changed(place, value)
        if place == EMBED and self.with_gradients:
            own = own.detach().requires_grad_()
        self._keep(place, own)
        given = self.edits.with_changed_gradient(place, own)
        for one in self.around.sites.spliced.values():
            if (one.site, one.layer) == place:
                given = self._through(one, given)
        given = self._cut(place, given)
        if place[0] == "attn_out":
            given = self._with_middle(place[1], given)
        if not self._waiting and not self._needs_logits:
            raise _AllSeenError
        # Given back even if nothing was changed: of some hooks this is a view, and the model goes on with what it is of.
        # A norm goes on with its own values, and takes whatever is given back for a change.
        return None if given is value and place[0].startswith("ln") else given

    def _keep(self, place: Place, value: Tensor) -> None:
        # What is needed for something else is kept too: it costs no copy.
        self._tensors[place] = value
        self._waiting.discard(place)

    def _with_middle(self, layer: int | None, attn_out: Tensor) -> Tensor:
        """What attention writes, such that the stream behind it is as ablated."""
        middle: Place = ("resid_mid", layer)
        if middle not in self.edits.places:
            self._keep(middle, attn_out)  # has the gradient of the stream that it is added to
            return attn_out
        before = self._tensors["resid_pre", layer]
        stream = self.edits.changed(middle, before + attn_out)
        self._keep(middle, stream)
        return self.edits.with_changed_gradient(middle, stream) - before

    def _through(self, one: Spliced, value: Tensor) -> Tensor:
        """A value taken apart by an autoencoder and put together again."""
        latents = one.encode(value)
        error = value.flatten(2) - one.decode(latents)
        place: Place = (one.name, None)
        # a tensor of its own: what flows back through the error is not a latent's gradient
        own = self.edits.changed(place, latents.view_as(latents))
        self._keep(place, own)
        self._keep((error_site(one.name), None), error)
        again = one.decode(self.edits.with_changed_gradient(place, own)) + error
        return again.view_as(value)

    @cached_property
    def _cuts(self) -> dict[Place, list[int]]:
        """Queries or keys that gradients of some rows do not go through."""
        found: dict[Place, list[int]] = {}
        for row, asked in enumerate(self.batch.asked):
            for end in ends_of(asked):
                if isinstance(end, Trace) and end.path in ("Q", "K"):
                    other = "k" if end.path == "Q" else "q"
                    found.setdefault((other, end.layer), []).append(row)
        return found

    def _cut(self, place: Place, value: Tensor) -> Tensor:
        rows = self._cuts.get(place) if place[0] in ("q", "k") else None
        if not rows:
            return value
        import torch

        chosen = torch.zeros(len(value), dtype=torch.bool, device=value.device)
        chosen[rows] = True
        return torch.where(chosen.view(-1, *[1] * (value.ndim - 1)), value.detach(), value)

    def _check_seen(self) -> None:
        if self._waiting:
            silent = sorted(f"{site} of layer {layer}" for site, layer in self._waiting)
            raise NoGradientError(
                f"hooks of model {self.around.model.name!r} that never fired: {', '.join(silent)}; this architecture has "
                "them by name only, and nothing of them can be traced"
            )


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Keep parameters out of the graph for a while: nothing here asks for their gradients."""
    learning = [one for one in model.parameters() if one.requires_grad]
    for one in learning:
        one.requires_grad_(requires_grad=False)
    try:
        yield
    finally:
        for one in learning:
            one.requires_grad_(requires_grad=True)


@contextmanager
def _grad_mode(*, on: bool) -> Iterator[None]:
    import torch

    with torch.enable_grad() if on else torch.no_grad():
        yield
