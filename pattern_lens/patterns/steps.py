"""What is done to every prompt of a collection, kept until values are asked for.

A step works on one prompt's DataArray as on a block of them that has a leading dim `prompt`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from pattern_lens.names import PROMPT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import xarray as xr

    from pattern_lens.patterns.cuts import Cut


class Input(Enum):
    """Marks the place of the collection itself among the inputs of a step."""

    THIS = "this"


@dataclass(frozen=True, eq=False)
class PerPrompt:
    """An array with one entry of dim `prompt` for each prompt of the collection, in its order."""

    array: xr.DataArray


@dataclass(frozen=True)
class Method:
    """A method of xarray.DataArray as a function."""

    name: str

    def __call__(self, array: xr.DataArray, *args: Any, **options: Any) -> Any:
        """Call it."""
        return getattr(array, self.name)(*args, **options)


@dataclass(frozen=True)
class Transpose:
    """Dims in another order; the dim `prompt` stays in front."""

    dims: tuple[str, ...]

    def __call__(self, array: xr.DataArray) -> xr.DataArray:
        """Call it."""
        lead = (PROMPT,) if PROMPT in array.dims else ()
        return array.transpose(*lead, *self.dims)


@dataclass(frozen=True, eq=False)
class Choose:
    """A `sel` or `isel` that cannot be done before the steps in front of it."""

    dim: str
    cut: Cut

    def __call__(self, array: xr.DataArray) -> xr.DataArray:
        """Call it."""
        labels = array[self.dim].values
        return array.isel({self.dim: self.cut.apply(labels, self.dim)})


@dataclass(frozen=True, eq=False)
class Step:
    """One function call.

    Parameters
    ----------
    function
        What is called; importable, so that it can be sent to workers.
    inputs, options
        Its arguments: `Input.THIS`, collections and `PerPrompt` are replaced by arrays.
    mixes
        Dims along which the result at one place depends on other places, or that are renamed.
    is_simple
        Whether choosing along any other dim may be done before the step.
    """

    function: Callable[..., Any]
    inputs: tuple[Any, ...] = (Input.THIS,)
    options: Mapping[str, Any] = field(default_factory=dict)
    mixes: frozenset[str] = frozenset()
    is_simple: bool = True

    def apply(self, array: xr.DataArray, resolve: Callable[[Any], Any]) -> xr.DataArray:
        """The result on one prompt, or on a block of prompts."""
        inputs = [array if item is Input.THIS else resolve(item) for item in self.inputs]
        options = {key: resolve(value) for key, value in self.options.items()}
        result: xr.DataArray = self.function(*inputs, **options)
        if PROMPT in result.dims and result.dims[0] != PROMPT:
            result = result.transpose(PROMPT, ...)
        return result

    def mapped(self, function: Callable[[Any], Any]) -> Step:
        """The same step with other operands."""
        inputs = tuple(function(item) for item in self.inputs)
        return replace(
            self, inputs=inputs, options={k: function(v) for k, v in self.options.items()}
        )

    @property
    def operands(self) -> tuple[Any, ...]:
        """Everything that `resolve` may have to replace."""
        return (*self.inputs, *self.options.values())
