"""What is computed of features, with what is given: the file, the autoencoder, the model.

Rule: what cannot be computed is left out of all features alike, and the specification of the data says what there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.errors import AutoencoderError
from pattern_lens.features.model_parts import ModelParts
from pattern_lens.features.source_pass import has_sources, sources_of
from pattern_lens.features.tokens import TokenTable

if TYPE_CHECKING:
    from pattern_lens.features.autoencoder import SparseAutoencoder
    from pattern_lens.features.feature_set import FeatureSet
    from pattern_lens.features.neuron_pass import Neurons
    from pattern_lens.features.parts.effects import Effects
    from pattern_lens.features.parts.histograms import Array
    from pattern_lens.features.parts.logits import Readout
    from pattern_lens.features.parts.sequences import Counts
    from pattern_lens.features.source_pass import Sources
    from pattern_lens.models import CaptureModel
    from pattern_lens.store.reader import StoreReader


@dataclass(frozen=True)
class Options:
    """What is computed of each feature, and in which batches."""

    sequences: bool
    window: tuple[int, int]
    counts: Counts
    seed: int
    batch_features: int


@dataclass(frozen=True, eq=False)
class DataPlan:
    """What the data of features is computed with.

    Parameters
    ----------
    reader
        Of the file.
    latents
        Of the autoencoder.
    autoencoder, model, second
        Its weights, the live model and another autoencoder's features, if they are given.
    """

    reader: StoreReader
    latents: FeatureSet
    autoencoder: SparseAutoencoder | None
    model: CaptureModel | None
    second: FeatureSet | None
    options: Options

    @cached_property
    def spec(self) -> dict[str, Any]:
        """How the data is computed."""
        options, counts = self.options, self.options.counts
        return {
            **self.latents.prompts_digest(),
            "autoencoder": self.latents.identity.get("hash"),
            "variables": sorted(self.computes),
            "window": list(options.window),
            "n_top": counts.n_top,
            "per_interval": counts.per_interval,
            "n_intervals": counts.n_intervals,
            "seed": options.seed,
            "second": None if self.second is None else self.second.name,
            "second_autoencoder": None if self.second is None else self.second.identity.get("hash"),
            "loss_effect_method": None if self.effects is None else self.effects.method,
            "changed": "log-probability without the ablation less that with it, in nats",
        }

    @property
    def computes(self) -> list[str]:
        """What can be computed with what is given."""
        return [
            "activations",
            *(["sequences"] if self.options.sequences else []),
            *(["weights"] if self.autoencoder is not None else []),
            *(["logits"] if self.readout is not None else []),
            *(["effects"] if self.effects is not None else []),
            *(["neurons"] if self.neurons is not None else []),
            *(["sources"] if self._has_sources else []),
        ]

    @cached_property
    def _parts(self) -> ModelParts:
        return ModelParts(self.reader, self.model)

    @cached_property
    def _hook(self) -> tuple[str, str, int | None]:
        """Hook of the autoencoder, its site and its layer."""
        said = self.latents.identity
        layer = said.get("layer")
        return self.latents.hook, str(said.get("site")), None if layer is None else int(layer)

    @cached_property
    def readout(self) -> Readout | None:
        """From decoder directions to logits."""
        _, site, layer = self._hook
        return None if self.autoencoder is None else self._parts.readout(site, layer)

    @cached_property
    def effects(self) -> Effects | None:
        """How features are ablated: in a live causal model."""
        own, model = self.autoencoder, self.model
        if own is None or model is None or not self.options.sequences or not model.causal:
            return None
        from pattern_lens.activations.hooks import legacy_names
        from pattern_lens.features.parts.effects import effects_at

        hook = legacy_names(model).get(own.hook, own.hook)
        return effects_at(model, hook, factor=_factor(own))

    @cached_property
    def tokens(self) -> TokenTable:
        """Token ids of the prompts."""
        return TokenTable(self.latents)

    @cached_property
    def neurons(self) -> Neurons | None:
        """The neurons of the layer, from the file or the model."""
        from pattern_lens.features.neuron_pass import live_neurons, stored_neurons

        _, _, layer = self._hook
        positions = self.latents.positions
        found = stored_neurons(self.reader, layer, positions)
        if found is not None or self.model is None:
            return found
        ablations = None if self.effects is None else self.effects.ablations
        directly = ablations if hasattr(ablations, "keep") else None
        return live_neurons(self.model, layer, positions, self.tokens.ids, directly)  # type: ignore[arg-type]

    def directions(self, numbers: Array) -> Array | None:
        """Decoder directions of some features, dims (feature, d_in)."""
        if self.autoencoder is None:
            return None
        return np.asarray(self.autoencoder.W_dec.detach()[numbers].float().cpu().numpy())

    @cached_property
    def _has_sources(self) -> bool:
        own = self.autoencoder
        return (
            own is not None
            and self.options.sequences
            and has_sources(self.latents, self._parts, own)
        )

    def sources(self, numbers: Array) -> Sources | None:
        """How some features are attributed to source positions."""
        if self.autoencoder is None or not self._has_sources:
            return None
        return sources_of(self._parts, self.autoencoder, numbers)


def _factor(autoencoder: SparseAutoencoder) -> Any:
    """What a unit of a feature is multiplied by, where inputs are normalised one by one."""
    if not autoencoder.scales_with_input:
        return None
    how = autoencoder.settings.normalize_activations
    if how == "none":
        raise AutoencoderError(
            f"autoencoder {autoencoder.name!r} normalises its inputs in a way that is not known here, so that what a feature "
            "writes cannot be taken off: load it from its folder, or leave model= out"
        )
    from pattern_lens.features.variants import normalised

    def factor(x: Any) -> Any:
        undo = normalised(x, how)[1]
        return 1.0 if undo is None else undo[0]

    return factor
