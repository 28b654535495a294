"""One computation of the data of features, from what is missing to its report."""

from __future__ import annotations

import shutil
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from tqdm import tqdm

import pattern_lens
from pattern_lens.errors import DiskSpaceWarning
from pattern_lens.features import data_steps
from pattern_lens.features.batch_data import BatchData
from pattern_lens.features.chosen import Chosen
from pattern_lens.features.data_steps import ONCE, DataEstimate, DataReport
from pattern_lens.features.passes import check_values, correlated_features, spread_of
from pattern_lens.features.steps import Steps
from pattern_lens.features.variables import VARIABLES
from pattern_lens.features.writing import feature_data_layouts, feature_rows_block
from pattern_lens.store.adding import drop_feature_data
from pattern_lens.store.bundles import lacking
from pattern_lens.store.features import check_same
from pattern_lens.store.layout import DATA, FEATURES
from pattern_lens.store.writer import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pattern_lens.features.data_plan import DataPlan
    from pattern_lens.features.parts.histograms import Array
    from pattern_lens.features.passes import Ranked

    Values = dict[str, Array]

_GATHERED: Final = 8 << 20
"""Entries that are gathered for windows in one pass."""


@dataclass(frozen=True, eq=False)
class DataRun:
    """One computation: its file, and what it is made with."""

    path: Path
    plan: DataPlan
    progress: bool
    on_estimate: Callable[[DataEstimate], None] | None

    def compute(self, numbers: Array, *, force: bool) -> DataReport:
        """Compute and store of the features what the file lacks."""
        started = time.monotonic()
        steps = Steps()
        pending = self._pending(numbers, force=force)
        told: dict[str, Any] = {}
        if len(pending):
            told = self._store(Chosen(self.plan.latents, pending, self._lengths), steps)
        return DataReport(
            path=self.path,
            name=self.plan.latents.name,
            n_stored=len(pending),
            n_present=len(numbers) - len(pending),
            total_bytes=told.get("total_bytes", 0),
            seconds=time.monotonic() - started,
            step_seconds=dict(steps.seconds),
            estimated_seconds=told.get("seconds", {}),
        )

    @cached_property
    def _lengths(self) -> Array:
        """Tokens of each prompt of the prompt table."""
        return np.asarray(self.plan.reader.prompts.rows["n_ctx"].astype(np.int64))

    # --- what is missing ---------------------------------------------------------------------------

    def _pending(self, numbers: Array, *, force: bool) -> Array:
        """Features of which data is missing; data computed in another way is an error, or dropped."""
        name, known = self.plan.latents.name, self.plan.latents.spec
        computed = self.plan.latents.computed
        if known:
            group = f"{FEATURES}/{name}/{DATA}"
            is_same = all(known.get(key) == value for key, value in self.plan.spec.items())
            if not is_same and (force or not len(computed)):
                drop_feature_data(self.path, name)
                self.plan.reader.refresh()
                return numbers
            check_same(self.path, group, known, self.plan.spec)
        if force:
            return numbers
        return np.array(lacking(computed, numbers.tolist()), np.int64)

    # --- passes, then batches ---------------------------------------------------------------------

    def _common(self, chosen: Chosen, steps: Steps) -> BatchData:
        """What batches have in common, after passes over all tokens."""
        options = self.plan.options
        with steps.timed(data_steps.PASSES):
            check_values(self.plan.latents)
            spread = spread_of(chosen, options.counts, options.seed)
            self.plan.tokens.read(self.plan.latents.positions)
        ranked: dict[tuple[str, str], Ranked] = {}
        with steps.timed(data_steps.FEATURES):
            own = correlated_features(chosen, self.plan.latents)
            ranked["correlated_feature", "feature"] = own
            if self.plan.second is not None:
                ranked["second_feature", "second"] = correlated_features(chosen, self.plan.second)
        if self.plan.neurons is not None:
            from pattern_lens.features.neuron_pass import correlated_neurons

            with steps.timed(data_steps.NEURONS):
                found = correlated_neurons(chosen, self.plan.neurons)
                ranked["correlated_neuron", "neuron"] = found
        return BatchData(
            chosen=chosen,
            spread=spread,
            counts=options.counts,
            window=options.window,
            seed=options.seed,
            tokens=self.plan.tokens,
            steps=steps,
            directions=self.plan.directions(chosen.numbers),
            readout=self.plan.readout,
            effects=self.plan.effects,
            sources=self.plan.sources(chosen.numbers),
            ranked=ranked,
            n_tokens=self.plan.latents.n_tokens,
        )

    def _batches(self, common: BatchData) -> Iterator[tuple[slice, Values]]:
        """Rows of the chosen features, and their values."""
        for group in self._groups(common):
            rows = slice(group[0].start, group[-1].stop)
            shown = firings = None
            if self.plan.options.sequences:
                with common.steps.timed(data_steps.GATHER):
                    shown = common.shown(rows)
                    firings = common.firings(shown)
            for batch in group:
                own = slice(batch.start - rows.start, batch.stop - rows.start)
                yield batch, common.values(batch, None if shown is None else shown.of(own), firings)

    def _groups(self, common: BatchData) -> Iterator[list[slice]]:
        """Batches, those together whose entries in the prompts of their windows are gathered in one pass."""
        n, step = len(common.chosen), self.plan.options.batch_features
        longest = int(self._lengths.max(initial=1))
        most = np.minimum(common.spread.sums.n_active, len(common.counts.groups) * longest)
        group: list[slice] = []
        total = 0
        for first in range(0, n, step):
            batch = slice(first, min(first + step, n))
            more = int(most[batch].sum())
            if group and total + more > _GATHERED:
                yield group
                group, total = [], 0
            group.append(batch)
            total += more
        if group:
            yield group

    # --- storing ----------------------------------------------------------------------------------

    def _store(self, chosen: Chosen, steps: Steps) -> dict[str, Any]:
        """Compute and store batch by batch; returns what was estimated."""
        common = self._common(chosen, steps)
        batches = self._batches(common)
        rows, values = next(batches)
        total_bytes = (
            sum(one.nbytes for one in values.values()) * len(chosen) // len(values["density"])
        )
        done = {data_steps.GATHER: self._n_gathered(common), **dict.fromkeys(ONCE, len(chosen))}
        estimated = self._tell(len(chosen), done, rows.stop - rows.start, total_bytes, steps)
        name = self.plan.latents.name
        layouts = feature_data_layouts(name, _examples(values), self._origin())
        said: dict[str, Any] = {
            "features": {name: self.plan.latents.identity},
            "feature_data": {name: {**self.plan.spec, "created_utc": _now()}},
        }
        with (
            StoreWriter(self.path, None, layouts, **said) as writer,
            tqdm(
                total=len(chosen),
                desc=f"features of {name}",
                unit="feature",
                disable=not self.progress,
            ) as bar,
        ):
            while True:
                with steps.timed(data_steps.WRITE):
                    numbers = chosen.numbers[rows].tolist()
                    writer.commit_computed(numbers, feature_rows_block(layouts, values))
                bar.update(len(numbers))
                following = next(batches, None)
                if following is None:
                    return {"total_bytes": total_bytes, "seconds": estimated}
                rows, values = following

    def _origin(self) -> dict[str, Any]:
        return {"computed_utc": _now(), "pattern_lens": pattern_lens.__version__}

    def _n_gathered(self, common: BatchData) -> int:
        """Features whose entries are gathered before the first batch."""
        return int(next(self._groups(common))[-1].stop)

    def _tell(
        self, n: int, done: Mapping[str, int], n_done: int, total_bytes: int, steps: Steps
    ) -> dict[str, float]:
        """Say how long everything will take; returns that by step.

        Parameters
        ----------
        done, n_done
            Of how many of the `n` features a step is done, by step; of the others.
        """
        seconds = {step: took * n / done.get(step, n_done) for step, took in steps.seconds.items()}
        free = shutil.disk_usage(self.path.parent).free
        found = DataEstimate(self.path, n, total_bytes, free, seconds)
        if self.on_estimate is not None:
            self.on_estimate(found)
        if found.warning:
            warnings.warn(found.warning, DiskSpaceWarning, stacklevel=5)
        return seconds


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _examples(values: Values) -> dict[str, xr.DataArray]:
    """One feature's values of each variable, with what they mean."""
    return {
        name: xr.DataArray(
            one[0], dims=VARIABLES[name].dims, attrs={"long_name": VARIABLES[name].prose}
        )
        for name, one in values.items()
    }
