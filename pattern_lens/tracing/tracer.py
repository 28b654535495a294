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

from pattern_lens.names import SOURCE, TARGET
from pattern_lens.tracing.backward_pass import BackwardPass
from pattern_lens.tracing.batch import POSITIONS, Batch
from pattern_lens.tracing.closure import Closure, LogitBiases
from pattern_lens.tracing.edges import edge_labels
from pattern_lens.tracing.edits import Edits
from pattern_lens.tracing.ends import ends_of, needed_places, reading_of
from pattern_lens.tracing.forward_pass import ForwardPass, Surroundings
from pattern_lens.tracing.jobs import EDGES, Job, Jobs
from pattern_lens.tracing.recorded import Recorded, WeightsOf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from pattern_lens.tracing.backward_pass import Gradients
    from pattern_lens.tracing.baselines import Baselines
    from pattern_lens.tracing.ends import Live

    Values = dict[str, NDArray[Any]]

SECONDS: Final = "seconds"
MEMORY: Final = "memory_bytes"


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

    @cached_property
    def jobs(self) -> Jobs:
        """What is computed."""
        return Jobs(self.around, self.names)

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
        for job in self.jobs.all:
            for own, value in zip(values, self._computed(job, recorded), strict=True):
                own[job.name] = value
        closure = Closure(recorded, found, self._biases, self.has_nodes)
        in_use = memory_bytes(self.around)
        for row, own in enumerate(values):
            own.update(closure.of(row))
            own[SECONDS] = np.float64(seconds)  # type: ignore[assignment]
            own[MEMORY] = np.float64(in_use)  # type: ignore[assignment]
        return values

    def _passes(self, batch: Batch) -> tuple[Live, Gradients]:
        kept, gradients = self.jobs.places
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

    @cached_property
    def _biases(self) -> LogitBiases:
        return LogitBiases(self.around, self.weights)

    # --- values of each prompt ----------------------------------------------------------------

    def _computed(self, job: Job, recorded: Recorded) -> list[NDArray[Any]]:
        import torch

        with torch.no_grad():
            parts = [
                job.scalar.function(recorded.at(layer, job.spliced)).float() for layer in job.layers
            ]
            whole = torch.stack(parts, dim=1) if job.scalar.has_layers else parts[0]
            if job.name in self.jobs.triangles:  # what is masked has a gradient too, and no meaning
                whole = whole.tril()
            array = whole.cpu().numpy()
        return [self._trimmed(job, array[row], n) for row, n in enumerate(recorded.batch.lengths)]

    def _trimmed(self, job: Job, value: NDArray[Any], n: int) -> NDArray[Any]:
        cut = tuple(slice(n) if dim in POSITIONS else slice(None) for dim in job.scalar.dims)
        return np.ascontiguousarray(value[cut])

    # --- labels -------------------------------------------------------------------------------

    def labelled(self, name: str, value: NDArray[Any]) -> xr.DataArray:
        """One prompt's value with its dims and labels."""
        job = next((job for job in self.jobs.all if job.name == name), None)
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


def memory_bytes(around: Surroundings) -> int:
    """Memory in use: most of an accelerator's since the last look, or that of this process."""
    if around.model.device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(around.model.device))
    import psutil

    return int(psutil.Process().memory_info().rss)
