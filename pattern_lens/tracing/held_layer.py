"""One stored layer of one prompt, as NumPy arrays that scalars take for a batch of one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.names import LAYER
from pattern_lens.tracing.registry import RESID_FINAL_GRAD

if TYPE_CHECKING:
    from pattern_lens.tracing.held import Held

    Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class HeldLayer:
    """One layer of one prompt; an `At` of `pattern_lens.tracing.registry`.

    Parameters
    ----------
    layer
        None for scalars without layers.
    sae
        Name of the autoencoder that a scalar is about.
    """

    held: Held
    prompt: str
    layer: int | None = None
    sae: str = ""

    @property
    def n_heads(self) -> int:
        """Heads of a layer."""
        return self.held.n_heads

    @cached_property
    def _read(self) -> dict[str, Array]:
        return {}

    def __getitem__(self, name: str) -> Array:
        if name not in self._read:
            array = self.held.array(name, self.prompt, self.sae)
            if LAYER in array.dims:
                layers = [int(n) for n in array[LAYER].values]
                array = array.isel({LAYER: layers.index(self.layer or 0)})
            values = array.values
            self._read[name] = values.astype(np.result_type(values.dtype, np.float32), copy=False)[
                None
            ]
        return self._read[name]

    def weight(self, name: str) -> Array:
        """A weight at this layer."""
        return self.held.weight(name, self.layer or 0)

    @cached_property
    def _few(self) -> Array:
        return np.flatnonzero((self[RESID_FINAL_GRAD][0] != 0).any(-1))

    def direction(self, _writer: str) -> Array:
        """What is read at the end of the model, of which everything is upstream."""
        return self.there(self[RESID_FINAL_GRAD])

    def there(self, values: Array) -> Array:
        """Values at the few positions."""
        return values[:, self._few]

    def spread(self, values: Array) -> Array:
        """Values back at their positions."""
        n = self[RESID_FINAL_GRAD].shape[1]
        whole = np.zeros((1, n, *values.shape[2:]), values.dtype)
        whole[:, self._few] = values
        return whole
