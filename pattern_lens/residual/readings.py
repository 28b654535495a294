"""What the analyses of logits hand out: numbers with labels, and how far they are from the model's own."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from pattern_lens.names import COMPONENT

if TYPE_CHECKING:
    from typing import Self

    from pattern_lens.residual.inputs import ModelFacts


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each part adds to a logit, or to the difference of two.

    Attributes
    ----------
    scores
        Dims (component) of one prompt, (prompt, component) of several; in logits, before a soft cap. With more than
        one position there is a dim `pos`, too.
    logit
        What all parts and `unembed_bias` sum to; dims of `scores` without component.
    unembed_bias
        What the unembedding's bias adds, which no part writes.
    closure_error
        How far `logit` is from the logit that the model gave, before a soft cap; NaN where the file does not hold it:
        it holds those of the last position.
    unit
        What the parts are.
    """

    scores: xr.DataArray
    logit: xr.DataArray
    unembed_bias: xr.DataArray
    closure_error: xr.DataArray
    unit: str
    softcap: float = 0.0

    @classmethod
    def of_rows(cls, rows: xr.DataArray, added: xr.DataArray, unit: str, facts: ModelFacts) -> Self:
        """From components and, behind them, what they sum to and what the model gave."""
        bare = rows.drop_vars([n for n, c in rows.coords.items() if c.dims == (COMPONENT,)])
        ours, true = bare.isel({COMPONENT: -2}), bare.isel({COMPONENT: -1})
        cap = ", before the soft cap" if facts.softcap else ""
        scores = components_of(rows)
        return cls(
            _called(scores, "attribution", f"direct logit attribution{cap}"),
            _called(ours, "logit", f"logit from parts{cap}"),
            _called(added, "unembed_bias", "logit that no part writes"),
            _called(abs(ours - true), "closure_error", "sum of parts against the model's logit"),
            unit,
            facts.softcap,
        )

    def top(self, k: int = 5, *, absolute: bool = False) -> pd.DataFrame:
        """The parts that add most, on the mean over prompts and positions.

        Parameters
        ----------
        k
            How many.
        absolute
            Whether a part that takes away counts as much as one that adds.

        Returns
        -------
        Indexed by component, largest first: `attribution`, the mean; `std`, over prompts and positions; `layer`, and
        `head` or `neuron` where there are any, -1 for none.
        """
        over = [dim for dim in self.scores.dims if dim != COMPONENT]
        mean = self.scores.mean(over)
        values = np.asarray(mean.values, np.float64)
        order = np.argsort(-np.abs(values) if absolute else -values, kind="stable")[:k]
        columns: dict[str, Any] = {
            "attribution": values[order],
            "std": np.asarray(self.scores.std(over).values)[order],
        }
        for name, coordinate in self.scores.coords.items():
            if coordinate.dims == (COMPONENT,) and name != COMPONENT:
                columns[str(name)] = coordinate.values[order]
        index = pd.Index(self.scores[COMPONENT].values[order], name=COMPONENT)
        return pd.DataFrame(columns, index=index)

    def to_dataset(self) -> xr.Dataset:
        """Everything as one Dataset."""
        parts = (self.scores, self.logit, self.unembed_bias, self.closure_error)
        return xr.Dataset(
            {str(part.name): part for part in parts},
            attrs={"unit": self.unit, "logit_softcap": self.softcap},
        )

    def _title(self) -> str:
        sizes = ", ".join(f"{dim} {n}" for dim, n in self.scores.sizes.items())
        cap = f", before the soft cap at {self.softcap:g}" if self.softcap else ""
        worst = float(self.closure_error.max()) if self.closure_error.size else np.nan
        closure = "not known" if np.isnan(worst) else f"at most {worst:.1e}"
        return f"Attribution by {self.unit} · ({sizes}) logits{cap} · closure error {closure}"

    def __repr__(self) -> str:
        return f"<{self._title()}>\n{self.top().to_string()}"

    def _repr_html_(self) -> str:
        return f"<div><b>{escape(self._title())}</b>{self.top().to_html()}</div>"


def components_of(rows: xr.DataArray) -> xr.DataArray:
    """Rows without the sums behind them, and labels no longer than theirs."""
    alone = rows.isel({COMPONENT: slice(0, -2)})
    labels = np.array(alone[COMPONENT].values.tolist(), dtype="U")
    return alone.assign_coords({COMPONENT: labels})


def _called(array: xr.DataArray, name: str, long_name: str) -> xr.DataArray:
    attrs = {**array.attrs, "units": "logit", "long_name": long_name}
    return array.rename(name).assign_attrs(attrs)
