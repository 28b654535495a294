"""An analysis over many prompts: a collection of its results, computed when they are asked for.

The rule: what is done to a collection of stored activations is done to one of results, because both are one: the
analysis is a step behind the activations that it reads, and prompts of one length go through it together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.errors import UnknownPromptError
from pattern_lens.names import COMPONENT, LAYER, POS, PROMPT
from pattern_lens.patterns.base import Base
from pattern_lens.patterns.collection import Activations
from pattern_lens.patterns.steps import Input, PerPrompt, Step
from pattern_lens.residual.inputs import check_needs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    import xarray as xr

    from pattern_lens.patterns.collection import Chunks
    from pattern_lens.patterns.source import Positions
    from pattern_lens.residual.inputs import Needs
    from pattern_lens.residual.stored import WeightsOfFile


@dataclass(frozen=True, eq=False)
class Sized(Base):
    """A base that counts what an analysis makes of its values, so that blocks stay small enough.

    Parameters
    ----------
    result_bytes
        Bytes of the result at one position.
    n_kept
        How many positions of each prompt were chosen; None for all.
    """

    result_bytes: int = 0
    n_kept: int | None = None

    def dense_bytes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Bytes of each prompt's values and of the result."""
        n_pos = self.sizes()[:, 0] if self.n_kept is None else self.n_kept
        return np.asarray(super().dense_bytes() + n_pos * self.result_bytes)


@dataclass(frozen=True, eq=False)
class Analysis:
    """What is done to the activations of a prompt, or of a block of prompts of one length.

    Parameters
    ----------
    function
        Takes activations by name and the weights; importable, or a partial of such a function.
    names
        Of the activations, in the order in which they come.
    per_prompt
        Names of the function's options that each prompt has its own of; they come behind the activations.
    said
        What tells this analysis from others, as text.
    """

    function: Callable[..., xr.DataArray]
    names: tuple[str, ...]
    weights: WeightsOfFile
    per_prompt: tuple[str, ...] = ()
    said: str = ""

    @property
    def name(self) -> str:
        """As it stands in the record of stored results."""
        return self.said

    def __dask_tokenize__(self) -> object:
        return self.said, self.weights.__dask_tokenize__()

    def __call__(self, *arrays: xr.DataArray) -> xr.DataArray:
        """The result, dims (prompt of a block, ...)."""
        n = len(self.names)
        activations = dict(zip(self.names, arrays[:n], strict=True))
        own = {key: a.values for key, a in zip(self.per_prompt, arrays[n:], strict=True)}
        result = self.function(activations, self.weights.dataset, **own)
        # positions of prompts of a block may differ: only a prompt alone says which one it is
        is_block = any(PROMPT in array.dims for array in arrays[:n])
        lost = [name for name, c in result.coords.items() if is_block and not c.dims]
        return result.drop_vars(lost)


class Results(Activations):
    """What an analysis gives of every prompt: `results[hash]` is computed when it is asked for."""

    def __init__(
        self,
        base: Base,
        *,
        steps: tuple[Step, ...] = (),
        chunks: Chunks = None,
        title: str = "",
    ) -> None:
        super().__init__(base, steps=steps, chunks=chunks)
        self.title = title

    def derived(self, base: Base, steps: tuple[Step, ...] | None = None) -> Self:
        """Another base, or other steps, with the same options."""
        steps = self.steps if steps is None else steps
        return type(self)(base, steps=steps, chunks=self.chunks, title=self.title)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "title": self.title}

    @property
    def name(self) -> str:
        """Name of the analysis."""
        return self.title

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the layers, where there is a dim of them."""
        return tuple(self.template[LAYER].values.tolist()) if LAYER in self.dims else ()

    def _commutes(self, *dims: str) -> bool:  # noqa: ARG002 - the base has other dims
        return False

    def cut(self, dim: str, value: Any, *, by_label: bool) -> Self:
        """Choose along one dim; labels of components as text."""
        if dim == COMPONENT and by_label and dim in self.dims:
            labels = self.template[COMPONENT].values.tolist()
            value, by_label = places_of(value, labels), False
        return super().cut(dim, value, by_label=by_label)

    def attributes(self) -> dict[str, Any]:
        """What every array says of its origin."""
        kept = {key: a for key, a in self.template.attrs.items() if key in ("units", "long_name")}
        return {"model": self.base.source.model_name, **kept}

    def whole(self) -> Self | xr.DataArray:
        """The collection itself or, without ragged dims, one array: computed now, or on dask."""
        from pattern_lens.patterns.whole import dense

        return self if self.ragged else dense(self)


def places_of(value: Any, labels: Sequence[str]) -> Any:
    """Places of component labels."""
    from pattern_lens.errors import OutOfRangeError

    wanted = [value] if isinstance(value, str) else [str(label) for label in value]
    missing = [label for label in wanted if label not in labels]
    if missing:
        few = ", ".join(labels[:8]) + (", …" if len(labels) > 8 else "")
        raise OutOfRangeError(f"no component {missing[0]!r}: expected some of {few}")
    places = [labels.index(label) for label in wanted]
    return places[0] if isinstance(value, str) else places


@dataclass(frozen=True, eq=False)
class Reading:
    """The activations that an analysis reads, of some prompts at some positions.

    Parameters
    ----------
    stored
        All activations of the file.
    needs
        What is read, and of which layers.
    optional
        What is read, too, if it is there.
    positions
        Places of the prompts in the prompt table; None for all that have everything.
    kept
        What is chosen along `pos`; the dim stays.
    """

    stored: Mapping[str, Activations]
    needs: Needs
    who: str
    optional: tuple[str, ...] = ()
    kept: Any = None
    positions: Positions | None = None
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        held = {name: self._layers(name) for name in self.stored}
        check_needs(self.needs, held, self.who)
        extra = [name for name in self.optional if name in held and name not in self.needs]
        object.__setattr__(self, "names", (*self.needs, *extra))

    def _layers(self, name: str) -> tuple[int, ...] | None:
        collection = self.stored[name]
        return collection.layers if LAYER in collection.dims else None

    def prompts(self) -> Positions | None:
        """Those that have everything that is needed; None for all of the first activation."""
        own = [self.stored[name].base.positions() for name in self.names]
        if self.positions is not None:
            self._check_held(own)
            return self.positions
        if all(np.array_equal(own[0], other) for other in own[1:]):
            return None
        return own[0][np.all([np.isin(own[0], other) for other in own], axis=0)]

    def _check_held(self, own: list[Positions]) -> None:
        assert self.positions is not None  # noqa: S101 - see `prompts`
        for name, held in zip(self.names, own, strict=True):
            lost = self.positions[~np.isin(self.positions, held)]
            if lost.size:
                source = self.stored[name].base.source
                raise UnknownPromptError(
                    f"{self.who} needs {name!r} of prompt {source.prompt(int(lost[0])).hash!r}, and the file has it of "
                    "other prompts only; capture this prompt again with names='residual'"
                )

    def collections(self) -> list[Activations]:
        """One for each of `names`, of the same prompts in the same order."""
        positions = self.prompts()
        return [self._collection(name, positions) for name in self.names]

    def _collection(self, name: str, positions: Positions | None) -> Activations:
        found = self.stored[name]
        base = found.base if positions is None else found.base.with_prompts(positions)
        found = found.derived(base)
        layers = self.needs.get(name)
        if layers is not None and found.layers != layers:
            found = found.sel(layer=list(layers))
        if self.kept is not None and POS in found.dims:
            found = found.isel(pos=self.kept)
        return found


def results_of(
    reading: Reading,
    analysis: Analysis,
    *,
    title: str,
    result_bytes: int,
    per_prompt: Sequence[xr.DataArray] = (),
) -> Results:
    """The lazy collection of an analysis.

    Parameters
    ----------
    result_bytes
        Bytes of the result at one position.
    per_prompt
        Arrays with a dim `prompt`, for the analysis' own `per_prompt`.
    """
    first, *others = reading.collections()
    kept = reading.kept
    n_kept = len(np.atleast_1d(kept)) if kept is not None and not isinstance(kept, slice) else None
    base = first.base
    sized = Sized(
        base.source, base.chosen, base.chosen_prompts, result_bytes=result_bytes, n_kept=n_kept
    )
    inputs = (Input.THIS, *others, *map(PerPrompt, per_prompt))
    step = Step(analysis, inputs, is_simple=False)
    return Results(sized, steps=(step,), chunks=first.chunks, title=title)


def then(
    results: Results,
    reading: Reading | None,
    analysis: Analysis,
    *,
    title: str,
    per_prompt: Sequence[xr.DataArray] = (),
) -> Results:
    """A further analysis of results, with activations beside them."""
    beside = reading.collections() if reading else []
    step = Step(analysis, (Input.THIS, *beside, *map(PerPrompt, per_prompt)), is_simple=False)
    after = results.derived(results.base, (*results.steps, step))
    after.title = title
    return after
