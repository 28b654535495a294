"""Names of scalars -> what is computed of a model, and what has to be kept for it.

Rule: what this model does not have is an error here, before it runs; MLPs of a model without any are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pattern_lens.errors import SpecificationError
from pattern_lens.names import ACTIVATIONS
from pattern_lens.tracing.definitions.edges import edge_needs
from pattern_lens.tracing.recorded import places_needed
from pattern_lens.tracing.registry import DIRECTION, GRAD, W_DEC, W_WRITE
from pattern_lens.tracing.scalars import scalar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pattern_lens.tracing.edits import Place
    from pattern_lens.tracing.forward_pass import Surroundings
    from pattern_lens.tracing.registry import Scalar
    from pattern_lens.tracing.splice import Spliced

EDGES: Final = "edges"

_WEIGHTS: Final = ("W_", "b_")
_OF_MLP: Final = frozenset({"mlp_out", "post", "pre", "b_out", "W_out"})


@dataclass(frozen=True)
class Job:
    """A scalar to compute: once, once a layer, or once for an autoencoder."""

    name: str
    scalar: Scalar
    layers: tuple[int | None, ...]
    spliced: Spliced | None = None


@dataclass(frozen=True, eq=False)
class Jobs:
    """The scalars of one trace, for one model.

    Parameters
    ----------
    names
        Names of scalars, from `scalar_names`.
    """

    around: Surroundings
    names: Sequence[str]

    @cached_property
    def all(self) -> list[Job]:
        """Scalars, in order; those of autoencoders once for each.

        Raises
        ------
        SpecificationError
            A scalar of something that the model does not have.
        """
        return [job for name in self.names for job in self._jobs(name)]

    @cached_property
    def triangles(self) -> list[str]:
        """Variables that are zero above the diagonal."""
        causal = self.around.model.causal
        return [
            job.name
            for job in self.all
            if causal and job.scalar.dims[-2:] == ("query", "key") and "attn_scores" not in job.name
        ]

    @cached_property
    def places(self) -> tuple[set[Place], set[Place]]:
        """Tensors that are kept, and those of which the gradient is."""
        kept: set[Place] = set()
        gradients: set[Place] = set()
        n_layers = self.around.sites.n_layers
        for job in self.all:
            layers = range(n_layers) if job.name == EDGES else [layer or 0 for layer in job.layers]
            for need in self._needs(job):
                if need in (DIRECTION, W_DEC, W_WRITE) or need.startswith(_WEIGHTS):
                    continue
                for layer in layers:
                    own, back = places_needed(need, layer, n_layers, job.spliced)
                    kept |= own
                    gradients |= back
        return kept | self._parts, gradients

    @cached_property
    def _parts(self) -> set[Place]:
        """What adds up to the stream."""
        sites = self.around.sites
        layers = range(sites.n_layers)
        found: set[Place] = {("resid_pre", 0)}
        found |= {("attn_out", layer) for layer in layers}
        return found | ({("mlp_out", layer) for layer in layers} if sites.has_mlps else set())

    def _jobs(self, name: str) -> Iterator[Job]:
        own, sites = scalar(name), self.around.sites
        if own.is_of_sae:
            if not sites.spliced:
                raise SpecificationError(
                    f"the scalar {name!r} is of a sparse autoencoder, and none is spliced in: give sae="
                )
            for one in sites.spliced.values():
                yield Job(f"{one.name}.{name.removeprefix('sae_')}", own, (None,), one)
            return
        if name == EDGES:
            self._check_edges()
        elif not self._has(own):
            return
        else:
            self._check_sites(own)
        layers: tuple[int | None, ...] = (*range(sites.n_layers),) if own.has_layers else (None,)
        yield Job(name, own, layers)

    def _check_edges(self) -> None:
        sites = self.around.sites
        if sites.has_mlps and self.around.norms.module("ln2", 0) is None:
            raise SpecificationError(
                f"no edges of model {self.around.model.name!r}: its MLPs read the stream through the norm of attention, so that "
                "the two cannot be told apart; leave out 'edges'"
            )

    def _check_sites(self, own: Scalar) -> None:
        """Raise where the model has no hook of something that a scalar needs, or one without gradients."""
        for need in own.needs:
            name = need.removesuffix(GRAD)
            if name.startswith("ln") and name != need:
                raise SpecificationError(
                    f"no gradient of {name!r}: a norm is one function here, and of many models it shows copies of what is in it; "
                    "take the gradient of the stream that it reads"
                )
            if name in ACTIVATIONS:
                self.around.sites.check_hook(name)

    def _has(self, own: Scalar) -> bool:
        """Whether the model has what a scalar needs; MLPs are left out where there are none."""
        return self.around.sites.has_mlps or _OF_MLP.isdisjoint(
            need.removesuffix(GRAD) for need in own.needs
        )

    def _needs(self, job: Job) -> Sequence[str]:
        if job.name != EDGES:
            return job.scalar.needs
        sites = self.around.sites
        return edge_needs(has_mlp=sites.has_mlps, is_parallel=sites.is_parallel)
