"""What the data of features needs of a model besides running it: from the file if it holds that, else from the live model.

Rule: what neither has is None, and what needs it is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.features.parts.logits import Readout
from pattern_lens.names import LAYER
from pattern_lens.patterns.weights import weights_of

if TYPE_CHECKING:
    from pattern_lens.features.parts.histograms import Array
    from pattern_lens.models import CaptureModel
    from pattern_lens.store.reader import StoreReader

_WRITERS: Final = {"post": "W_out", "z": "W_O"}
_IN_STREAM: Final = frozenset(
    {"embed", "pos_embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"}
)


@dataclass(frozen=True, eq=False)
class ModelParts:
    """Weights of a model.

    Parameters
    ----------
    model
        The live one, or None.
    """

    reader: StoreReader
    model: CaptureModel | None

    def readout(self, site: str, layer: int | None) -> Readout | None:
        """From directions at a hook to logits; None where the hook does not write into the stream, or weights are missing."""
        unembedding = self.weight("W_U")
        writer = _WRITERS.get(site)
        if unembedding is None or (writer is None and site not in _IN_STREAM):
            return None
        writing = None
        if writer is not None:
            writing = self.weight(writer, layer)
            if writing is None:
                return None
            writing = writing.reshape(-1, writing.shape[-1])
        return Readout(unembedding, self.weight("ln_final_w"), self._centres, writing)

    def weight(self, name: str, layer: int | None = None) -> Array | None:
        """A weight, of one layer if it has layers, float32."""
        if name in self.reader.weight_names():
            held = weights_of(self.reader)[name]
            chosen = held.sel({LAYER: layer}) if LAYER in held.dims else held
            return np.asarray(chosen.values, np.float32)
        is_idle = name.startswith("ln") and "W_U" in self.reader.weight_names()
        if self.model is None or is_idle:
            return None  # of norms a file holds those that do something
        from pattern_lens.activations.model_weights import ModelWeights

        found: Any = ModelWeights(self.model, neurons=True).at(name, layer)
        return None if found is None else np.asarray(found.float().cpu().numpy())

    @property
    def _centres(self) -> bool:
        """Whether the final norm takes the mean off."""
        if self.reader.facts:
            return self.reader.facts.get("normalization") == "LN"
        kind = getattr(self.model.model.cfg, "normalization_type", None) if self.model else None
        return str(kind).startswith("LN")
