"""The features of one autoencoder in a file: where they are active, and what was computed of them.

The rule: data is of features that have all of it; what it was computed from is compared with what is there now.
"""

from __future__ import annotations

from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import UnknownFeaturesError
from pattern_lens.features.feature_data import feature_dataset
from pattern_lens.features.stored_latents import StoredLatents
from pattern_lens.features.table import feature_table, statistics
from pattern_lens.names import FEATURE
from pattern_lens.patterns import display
from pattern_lens.store.features import digest_of_prompts, is_stale
from pattern_lens.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import xarray as xr

    from pattern_lens.store.prompt_table import Positions

COLUMNS: Final = ("name", "hook", "kind", "features", "prompts", "entries", "with data", "stale")


class FeatureSet(StoredLatents):
    """The features of one autoencoder in an open file: their latents, and the data computed of them.

    As `StoredLatents`.
    """

    @cached_property
    def data(self) -> xr.Dataset:
        """What was computed of features, lazily: dims (feature, …), one row for each feature that has all of it.

        A dim that has another size, or other labels, in a later variable (in alphabetical order) is called
        ``{dim}_{size}`` there, such as ``rank_5``.
        """
        return feature_dataset(self._reader, self.name, {"hook": self.hook})

    @property
    def spec(self) -> dict[str, Any]:
        """How the data was computed; empty where there is none."""
        return self._reader.feature_data_spec(self.name)

    @property
    def computed(self) -> Positions:
        """Numbers of the features that have data, ascending."""
        return self._reader.with_feature_data(self.name)

    @property
    def is_stale(self) -> bool:
        """Whether the data is of other prompts than those that have latents now: more were captured, or some deleted."""
        return is_stale(self._reader, self.name)

    def prompts_digest(self) -> dict[str, Any]:
        """What the specification of data that is computed now has to say, for `is_stale`: ``n_prompts``, ``prompts_digest``."""
        return digest_of_prompts(self._reader.prompts, self.positions)

    def sel(self, feature: int | Sequence[int]) -> xr.Dataset:
        """Data of a feature, or of several, by number.

        Raises
        ------
        UnknownFeaturesError
            There is no such feature, or no data of it.
        """
        numbers = self._numbers(feature)
        computed = self.computed
        lacking = numbers[~np.isin(numbers, computed)]
        if lacking.size:
            raise UnknownFeaturesError(
                f"no data of feature {int(lacking.ravel()[0])} of {self.name!r} in {self.path} ({len(computed)} features have "
                "some); compute_features computes it"
            )
        return self.data.isel({FEATURE: np.searchsorted(computed, numbers)})

    def isel(self, feature: Any) -> xr.Dataset:
        """Data of features by their places among those that have data."""
        return self.data.isel({FEATURE: feature})

    @cached_property
    def statistics(self) -> xr.Dataset:
        """Of every feature, from the latents: ``n_active``, ``density``, ``max_activation``, ``mean_activation``, dims (feature).

        All entries are read, once. NaN is the activation of a feature that is never active; density is the share of tokens.
        """
        return statistics(self.blocks(), self.n_features, self.n_tokens)

    def table(
        self, sort_by: str = "density", k: int | None = None, *, ascending: bool = False
    ) -> pd.DataFrame:
        """All features of the autoencoder, sorted; NaN last.

        Parameters
        ----------
        sort_by
            A column.
        k
            How many; all by default.
        ascending
            Whether the smallest come first.

        Returns
        -------
        Columns ``feature``, ``density``, ``n_active``, ``max_activation``, ``mean_activation``; and of the first rank of what
        was computed: ``top_logit_token`` (text), ``top_logit``, ``bottom_logit_token``, ``bottom_logit``, ``neuron``,
        ``neuron_alignment``, ``correlated_neuron``, ``neuron_pearson``, ``correlated_feature``, ``feature_pearson``,
        ``second_feature``, ``second_pearson``.

        Raises
        ------
        UnknownFeaturesError
            There is no such column.
        """
        return feature_table(self, sort_by, k, ascending=ascending)

    def row(self) -> tuple[Any, ...]:
        """What a table of several says of it, by `COLUMNS`."""
        kind = str(self.identity.get("kind") or "?")
        counts = (self.n_features, self.n_prompts, self.n_entries, len(self.computed))
        stale = "stale" if self.is_stale else ""
        return (self.name, self.hook, kind, *(f"{count:,}" for count in counts), stale)

    def headline(self) -> str:
        """One line."""
        data = f" · data of {counted(len(self.computed), 'feature')}" if len(self.computed) else ""
        return (
            f"{self.name} at {self.hook} · {counted(self.n_features, 'feature')} · {counted(self.n_prompts, 'prompt')} · "
            f"{self.n_entries:,} active{data}{' (of other prompts)' if self.is_stale else ''}"
        )

    def __repr__(self) -> str:
        if self._reader.handle.closed:
            return f"<FeatureSet {self.name} · closed · {self.path}>"
        return f"<FeatureSet {self.headline()} · {self.path.name}>"

    def _repr_html_(self) -> str:
        if self._reader.handle.closed:
            return f"<div>{escape(repr(self))}</div>"
        return f"<div><b>FeatureSet {escape(self.path.name)}</b>{display.table(COLUMNS, [self.row()])}</div>"
