"""A batch of prompts -> one forward and one backward pass -> the scalars of each prompt.

Rule: the graph of a batch is gone before the next one begins; what is kept of a prompt is what was asked for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from pattern_lens.errors import SpecificationError
from pattern_lens.names import ACTIVATIONS, SOURCE, TARGET
from pattern_lens.tracing.backward_pass import BackwardPass
from pattern_lens.tracing.batch import POSITIONS, Batch
from pattern_lens.tracing.definitions.edges import edge_needs
from pattern_lens.tracing.edges import edge_labels
from pattern_lens.tracing.edits import Edits
from pattern_lens.tracing.ends import ends_of, needed_places, reading_of
from pattern_lens.tracing.forward_pass import ForwardPass, Surroundings
from pattern_lens.tracing.objectives import Objective
from pattern_lens.tracing.recorded import Recorded, WeightsOf, places_needed
from pattern_lens.tracing.registry import DIRECTION, GRAD, W_DEC, W_WRITE, Scalar
from pattern_lens.tracing.scalars import scalar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from pattern_lens.tracing.ablations import Ablation
    from pattern_lens.tracing.backward_pass import Gradients
    from pattern_lens.tracing.baselines import Baselines
    from pattern_lens.tracing.edits import Place
    from pattern_lens.tracing.ends import Live
    from pattern_lens.tracing.splice import Spliced

    Values = dict[str, NDArray[Any]]

OBJECTIVE: Final = "objective"
NODE_VALUE: Final = "node_value"
CONSTANT: Final = "constant"
CLOSURE_ERROR: Final = "closure_error"
SECONDS: Final = "seconds"
MEMORY: Final = "memory_bytes"

_WEIGHTS: Final = ("W_", "b_", "ln")
EDGES: Final = "edges"


@dataclass(frozen=True)
class Job:
    """A scalar to compute: once, once a layer, or once for an autoencoder."""

    name: str
    scalar: Scalar
    layers: tuple[int | None, ...]
    spliced: Spliced | None = None


@dataclass(frozen=True, eq=False)
class Tracer:
    """What is computed of every batch.

    Parameters
    ----------
    names
        Names of scalars, from `scalar_names`.
    detach_norm
        Whether the divisor of the norm through which an end reads the stream is a constant.
    has_nodes
        Whether nodes of some prompts are traced.
    """

    around: Surroundings
    names: Sequence[str]
    detach_norm: bool
    baselines: Baselines
    has_nodes: bool

    # --- what is computed ---------------------------------------------------------------------

    @cached_property
    def jobs(self) -> list[Job]:
        """Scalars, in order; those of autoencoders once for each.

        Raises
        ------
        SpecificationError
            A scalar of autoencoders, and none is spliced in; or of MLPs, and there are none.
        """
        return [job for name in self.names for job in self._jobs(name)]

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
        of_mlp = {"mlp_out", "post", "pre", "b_out", "W_out"}
        return self.around.sites.has_mlps or of_mlp.isdisjoint(
            need.removesuffix(GRAD) for need in own.needs
        )

    def _needs(self, job: Job) -> Sequence[str]:
        if job.name != EDGES:
            return job.scalar.needs
        sites = self.around.sites
        return edge_needs(has_mlp=sites.has_mlps, is_parallel=sites.is_parallel)

    @cached_property
    def _places(self) -> tuple[set[Place], set[Place]]:
        """Tensors that are kept, and those of which the gradient is."""
        kept: set[Place] = set()
        gradients: set[Place] = set()
        n_layers = self.around.sites.n_layers
        for job in self.jobs:
            layers = range(n_layers) if job.name == EDGES else [layer or 0 for layer in job.layers]
            for need in self._needs(job):
                if need in (DIRECTION, W_DEC, W_WRITE) or need.startswith(_WEIGHTS[:2]):
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

    # --- one batch ----------------------------------------------------------------------------

    def run(self, batch: Batch) -> list[Values]:
        """Values of each prompt of a batch, without padding.

        Raises
        ------
        NoGradientError
            No gradient arrived where one had to.
        """
        started = time.perf_counter()
        live, found = self._passes(batch)
        recorded = self._recorded(batch, live, found)
        seconds = (time.perf_counter() - started) / len(batch)
        values: list[Values] = [{} for _ in range(len(batch))]
        for job in self.jobs:
            for own, value in zip(values, self._computed(job, recorded), strict=True):
                own[job.name] = value
        for row, own in enumerate(values):
            own.update(self._numbers(row, found, recorded))
            own[SECONDS] = np.float64(seconds)  # type: ignore[assignment]
            own[MEMORY] = np.float64(memory_bytes(self.around))  # type: ignore[assignment]
        return values

    def _passes(self, batch: Batch) -> tuple[Live, Gradients]:
        kept, gradients = self._places
        sites = self.around.sites
        ends = [end for asked in batch.asked for end in ends_of(asked)]
        kept = kept.union(*(needed_places(end, sites) for end in ends))
        edits = Edits.of(batch, sites, self.baselines.values_for(batch))
        forward = ForwardPass(self.around, batch, edits, kept, self._held(batch))
        live = forward.run()
        return live, BackwardPass(self.around, batch, live).run(
            [place for place in gradients if place in live.tensors]
        )

    def _held(self, batch: Batch) -> dict[tuple[str, int | None], Tensor]:
        """Norms whose divisor is constant, with the rows of the batch."""
        import torch

        found: dict[tuple[str, int | None], Tensor] = {}
        if not self.detach_norm:
            return found
        for row, asked in enumerate(batch.asked):
            for end in ends_of(asked):
                norm = self._norm_there(reading_of(end, self.around.sites).norm)
                if norm is not None:
                    device = self.around.model.device
                    none = torch.zeros(len(batch), dtype=torch.bool, device=device)
                    found.setdefault(norm, none)[row] = True
        return found

    def _norm_there(self, norm: tuple[str, int | None] | None) -> tuple[str, int | None] | None:
        """The norm, or the one that attention and MLP share where the block has no other."""
        if norm is not None and norm[0] == "ln2" and self.around.norms.module(*norm) is None:
            return "ln1", norm[1]
        return norm

    def _recorded(self, batch: Batch, live: Live, found: Gradients) -> Recorded:
        tensors = {place: value.detach() for place, value in live.tensors.items()}
        return Recorded(
            self.around,
            batch,
            tensors,
            found.gradients,
            live.middles,
            found.directions,
            found.reading_places,
            self.detach_norm,
            self.weights,
        )

    @cached_property
    def weights(self) -> WeightsOf:
        """Weights of the model, each taken once."""
        return WeightsOf(self.around)

    # --- values of each prompt ----------------------------------------------------------------

    def _computed(self, job: Job, recorded: Recorded) -> list[NDArray[Any]]:
        import torch

        with torch.no_grad():
            parts = [
                job.scalar.function(recorded.at(layer, job.spliced)).float() for layer in job.layers
            ]
            whole = torch.stack(parts, dim=1) if job.scalar.has_layers else parts[0]
            if job.name in self.triangles:  # what is masked has a gradient too, and no meaning
                whole = whole.tril()
            array = whole.cpu().numpy()
        return [self._trimmed(job, array[row], n) for row, n in enumerate(recorded.batch.lengths)]

    def _trimmed(self, job: Job, value: NDArray[Any], n: int) -> NDArray[Any]:
        cut = tuple(slice(n) if dim in POSITIONS else slice(None) for dim in job.scalar.dims)
        return np.ascontiguousarray(value[cut])

    def _numbers(self, row: int, found: Gradients, recorded: Recorded) -> dict[str, Any]:
        """Objective, value of the node, constant and closure error of one prompt."""
        asked = recorded.batch.asked[row]
        value = float(found.values[row])
        objective = found.objective[row]
        parts = float(self._sum_of_parts(recorded)[row])
        end = ends_of(asked)[-1]
        numbers = {
            OBJECTIVE: np.float64("nan" if objective is None else float(objective)),
            CONSTANT: np.float64(value - parts),
            CLOSURE_ERROR: np.float64("nan"),
        }
        if self.has_nodes:
            numbers[NODE_VALUE] = np.float64(value if asked.trace is not None else "nan")
        if isinstance(end, Objective) and end.is_linear and self.detach_norm:
            constant = self._constant(row, recorded.batch, end)
            numbers[CONSTANT] = np.float64(constant)
            if not any(map(_breaks_sum, asked.ablate)):
                numbers[CLOSURE_ERROR] = np.float64(abs(value - constant - parts))
        return numbers

    def _sum_of_parts(self, recorded: Recorded) -> Tensor:
        """Direct effects of the embedding, of attention and of MLPs, together: dims (prompt)."""
        if "sum" not in self._kept_of(recorded):
            sites = self.around.sites
            at = recorded.at(None)
            total = (recorded.there(at["resid_pre"]) * at.direction("embed")).sum((1, 2))
            for layer in range(sites.n_layers):
                here = recorded.at(layer)
                for name, writer in (("attn_out", "attn"), ("mlp_out", "mlp")):
                    if (name, layer) in recorded.tensors:
                        own = recorded.there(here[name]).float()
                        total = total + (own * here.direction(writer)).sum((1, 2))
            self._kept_of(recorded)["sum"] = total
        return self._kept_of(recorded)["sum"]

    @staticmethod
    def _kept_of(recorded: Recorded) -> dict[Any, Tensor]:
        return recorded._masked  # noqa: SLF001 - what is kept as long as the batch

    def _constant(self, row: int, batch: Batch, end: Objective) -> float:
        """The part of a linear objective that no component writes: biases behind the stream."""
        if end.kind in ("zero", "direction"):
            return 0.0
        asked = batch.asked[row]
        biases = self._logit_biases
        total = sum(float(biases[i]) for i in asked.target_ids) / len(asked.target_ids)
        if asked.distractor_ids:
            total -= sum(float(biases[i]) for i in asked.distractor_ids) / len(asked.distractor_ids)
        return total - (float(biases.mean()) if end.kind == "logit_minus_mean" else 0.0)

    @cached_property
    def _logit_biases(self) -> Any:
        """Logits of a stream that is zero: dims (token)."""
        offset = self.around.norms.offset("ln_final", None).float()
        found = offset @ self.weights.at("W_U", None) + self.weights.at("b_U", None)
        return found.double().cpu().numpy()

    # --- labels -------------------------------------------------------------------------------

    def labelled(self, name: str, value: NDArray[Any]) -> xr.DataArray:
        """One prompt's value with its dims and labels."""
        job = next((job for job in self.jobs if job.name == name), None)
        if job is None:
            return xr.DataArray(value)
        dims = job.scalar.dims
        counted = [
            (dim, n) for dim, n in zip(dims, value.shape, strict=True) if dim not in POSITIONS
        ]
        coords: dict[str, Any] = {dim: np.arange(n) for dim, n in counted}
        if name == EDGES:
            sites = self.around.sites
            sources, targets = edge_labels(
                sites.n_layers,
                sites.n_heads,
                sites.sizes["kv_head"],
                has_mlp=sites.has_mlps,
            )
            coords = {SOURCE: list(sources), TARGET: list(targets)}
        attrs = {"long_name": job.scalar.definition}
        return xr.DataArray(value, dims=dims, coords=coords, attrs=attrs)

    @cached_property
    def triangles(self) -> list[str]:
        """Variables that are zero above the diagonal."""
        causal = self.around.model.causal
        return [
            job.name
            for job in self.jobs
            if causal and job.scalar.dims[-2:] == ("query", "key") and "attn_scores" not in job.name
        ]


def _breaks_sum(one: Ablation) -> bool:
    """Whether what was written before is no longer in the stream, or the gradient is not that of the objective."""
    is_later = one.site in ("resid_mid", "resid_post") or (
        one.site == "resid_pre" and bool(one.layer)
    )
    return is_later or one.pass_ == "backward"  # noqa: S105 - a pass of the model


def memory_bytes(around: Surroundings) -> int:
    """Memory in use: most of an accelerator's since the last look, or that of this process."""
    if around.model.device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(around.model.device))
    import psutil

    return int(psutil.Process().memory_info().rss)
