"""The analyses as methods of an open file: which activations they read, and what they hand out.

One prompt gives an array, several or all a lazy collection, or one array where no ragged dim is left.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from pattern_lens.errors import PromptError
from pattern_lens.names import D_MODEL, POS
from pattern_lens.patterns.operands import hashes_in
from pattern_lens.patterns.source import activation_name
from pattern_lens.residual.lazy import Analysis, Reading, Results, results_of
from pattern_lens.residual.places import positions_kept, stream_number
from pattern_lens.residual.stack import stacked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pattern_lens.patterns.collection import Activations
    from pattern_lens.patterns.source import Positions
    from pattern_lens.residual.inputs import ModelFacts, Needs
    from pattern_lens.residual.plans import Plan
    from pattern_lens.residual.stored import WeightsOfFile

_ITEM_BYTES: Final = 4


@dataclass(frozen=True, eq=False)
class Asked:
    """Of which prompts and positions an analysis was asked for.

    Parameters
    ----------
    activations
        All of the file, by short name.
    prompt
        A hash, several, or None for all.
    """

    activations: Mapping[str, Activations]
    weights: WeightsOfFile
    prompt: Any = None
    pos: Any = None
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_one(self) -> bool:
        """Whether one prompt was named."""
        return isinstance(self.prompt, str)

    def reading(self, needs: Needs, who: str, optional: tuple[str, ...] = ()) -> Reading:
        """The activations of these prompts at these positions."""
        kept, _ = positions_kept(self.pos)
        bare = Reading(self.activations, needs, who, optional, kept)
        return Reading(self.activations, needs, who, optional, kept, self._positions(bare))

    def _positions(self, reading: Reading) -> Positions | None:
        if self.prompt is None:
            return None
        hashes = [self.prompt] if self.is_one else hashes_in(self.prompt)
        again = next((h for h, n in Counter(hashes).items() if n > 1), None)
        if again is not None:
            raise PromptError(f"prompt {again!r} was named twice; expected each once")
        return self.activations[reading.names[0]].base.source.find_all(hashes)

    @property
    def drops(self) -> bool:
        """Whether one position was chosen, so that the dim goes."""
        return positions_kept(self.pos)[1]

    def given(self, results: Results) -> Any:
        """What the caller gets: stored under a name, of one prompt, lazy, or one array."""
        if self.name is not None:
            stored = results.map(storable, name=self.name, **self.options)
            return stored.isel(prompt=0) if self.is_one else stored
        if self.options:
            raise PromptError(f"{', '.join(self.options)} go with name=, which stores results")
        return results[self.prompt] if self.is_one else results.whole()


def storable(array: xr.DataArray) -> xr.DataArray:
    """A result without what a stored one has for all prompts together: positions and tokens."""
    own = [name for name, c in array.coords.items() if set(c.dims) <= {POS}]
    return array.drop_vars(own)


def stack_over(
    asked: Asked,
    plan: Plan,
    after: Callable[[xr.DataArray, Plan], xr.DataArray] | None = None,
) -> Any:
    """What a plan stacks, of every prompt.

    Parameters
    ----------
    after
        What is done to each stack; importable.
    """
    reading = asked.reading(plan.needs, plan.name)
    function = partial(_stack, plan=plan, drops=asked.drops, after=after)
    title = "compute_head_results" if after else plan.name
    said = f"{title}{plan.said[:-1]}, pos={asked.pos!r})"
    analysis = Analysis(function, reading.names, asked.weights, said=said)
    n_bytes = len(plan.components) * d_model_of(asked) * _ITEM_BYTES
    return asked.given(results_of(reading, analysis, title=title, result_bytes=n_bytes))


def _stack(
    activations: Mapping[str, xr.DataArray],
    weights: xr.Dataset,
    *,
    plan: Plan,
    drops: bool,
    after: Callable[[xr.DataArray, Plan], xr.DataArray] | None,
) -> xr.DataArray:
    """What is chosen along `pos` was chosen already."""
    stack = stacked(plan, activations, weights, 0 if drops else None)
    return stack if after is None else after(stack, plan)


def d_model_of(asked: Asked) -> int:
    """Size of the residual stream."""
    found = asked.weights.dataset.sizes.get(D_MODEL)
    if found is None:
        sizes = (asked.activations[name].base.chosen.layout.sizes for name in asked.activations)
        found = max((size.get(D_MODEL, 1) for size in sizes), default=1)
    return int(found)


def per_prompt(values: Any) -> xr.DataArray:
    """One entry for each prompt of a collection."""
    return xr.DataArray(np.asarray(values), dims="prompt")


def activation_over(asked: Asked, facts: ModelFacts, name: str, layer: int | None) -> Any:
    """`stack_activation` of every prompt."""
    name = activation_name(name)
    number = stream_number(layer, facts.n_layers, least=1)
    reading = asked.reading({name: tuple(range(number))}, "stack_activation")
    (collection,) = reading.collections()
    return collection[asked.prompt] if asked.is_one else collection
