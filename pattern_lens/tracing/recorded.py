"""What one batch computed and the gradients that came back, as scalars ask for it.

Rule: what has no gradient because it is not upstream gives zeros; that a gradient should have come and did not is an
error long before (`pattern_lens.tracing.backward_pass`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.activations.model_weights import ModelWeights
from pattern_lens.errors import SpecificationError
from pattern_lens.names import ACTIVATIONS, WEIGHTS
from pattern_lens.tracing.edges import ReadNorm
from pattern_lens.tracing.forward_pass import MLP_READ, error_site
from pattern_lens.tracing.registry import (
    GRAD,
    LATENT,
    MLP_IN_GRAD,
    SAE_ERROR,
    SAE_ERROR_WRITE,
    W_DEC,
    W_WRITE,
)
from pattern_lens.tracing.splice import SITES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from pattern_lens.tracing.batch import Batch
    from pattern_lens.tracing.edits import Place
    from pattern_lens.tracing.forward_pass import Surroundings
    from pattern_lens.tracing.splice import Spliced

_MOST_FEW: Final = 0.5  # of all positions; above it a gather costs more than it saves


@dataclass(frozen=True, eq=False)
class Recorded:
    """One batch, all layers.

    Attributes
    ----------
    tensors, gradients
        By site and layer, dims (prompt, *dims of the site); without graph.
    middles
        Layers whose ``resid_mid`` is the stream itself (`pattern_lens.tracing.ends.Live`).
    directions
        Gradient of the stream that each prompt's end reads: dims (prompt, pos, d_model).
    reading_places
        Where each end reads the stream: dims (prompt).
    detach_norm
        Whether divisors of norms were held constant.
    """

    around: Surroundings
    batch: Batch
    tensors: Mapping[Place, Tensor]
    gradients: Mapping[Place, Tensor | None]
    middles: frozenset[int | None]
    directions: Tensor
    reading_places: Tensor
    detach_norm: bool
    weights: WeightsOf
    _masked: dict[Any, Tensor] = field(default_factory=dict)

    @property
    def n_layers(self) -> int:
        """Blocks of the model."""
        return self.around.sites.n_layers

    @property
    def n_heads(self) -> int:
        """Heads of a layer."""
        return self.around.sites.n_heads

    @property
    def is_parallel(self) -> bool:
        """Whether attention and MLP read the same stream."""
        return self.around.sites.is_parallel

    @property
    def has_mlp(self) -> bool:
        """Whether blocks have an MLP."""
        return self.around.sites.has_mlps

    def at(self, layer: int | None, spliced: Spliced | None = None) -> RecordedLayer:
        """One layer, or one autoencoder."""
        return RecordedLayer(self, layer, spliced)

    def read_norm(self, layer: int) -> ReadNorm:
        """The norm in front of a layer's attention."""
        norms = self.around.norms
        return ReadNorm(norms.kind, norms.eps, norms.factor("ln1", layer))

    @cached_property
    def few(self) -> Tensor | None:
        """Positions at which some prompt's direction is not zero: dims (prompt, few); None for all."""
        there = self.directions.abs().amax(-1) > 0
        n_few = max(int(there.sum(-1).max()), 1)
        if n_few > _MOST_FEW * there.shape[-1]:
            return None
        return there.float().topk(n_few, dim=-1).indices.sort(-1).values

    def there(self, values: Tensor) -> Tensor:
        """Values at the few positions."""
        if self.few is None:
            return values
        index = self.few.view(*self.few.shape, *[1] * (values.ndim - 2))
        return values.gather(1, index.expand(-1, -1, *values.shape[2:]))

    def spread(self, values: Tensor) -> Tensor:
        """Values back at their positions, zeros elsewhere."""
        if self.few is None:
            return values
        n_pos = self.directions.shape[1]
        whole = values.new_zeros(values.shape[0], n_pos, *values.shape[2:])
        index = self.few.view(*self.few.shape, *[1] * (values.ndim - 2)).expand_as(values)
        return whole.scatter(1, index, values)

    def direction(self, place: float) -> Tensor:
        """The direction at the few positions, zero for prompts that read the stream before `place`."""
        if place not in self._masked:
            upstream = self.reading_places > place
            own = self.there(self.directions)
            self._masked[place] = own * upstream.view(-1, 1, 1).to(own)
        return self._masked[place]


@dataclass(frozen=True, eq=False)
class RecordedLayer:
    """One layer of one batch; an `At` of `pattern_lens.tracing.registry`."""

    whole: Recorded
    layer: int | None
    spliced: Spliced | None = None

    @property
    def n_heads(self) -> int:
        """Heads of a layer."""
        return self.whole.n_heads

    @property
    def n_layers(self) -> int:
        """Blocks of the model."""
        return self.whole.n_layers

    @property
    def detach_norm(self) -> bool:
        """Whether divisors of norms were held constant."""
        return self.whole.detach_norm

    @property
    def is_parallel(self) -> bool:
        """Whether attention and MLP read the same stream."""
        return self.whole.is_parallel

    @property
    def has_mlp(self) -> bool:
        """Whether blocks have an MLP."""
        return self.whole.has_mlp

    def at(self, layer: int) -> RecordedLayer:
        """Another layer."""
        return self.whole.at(layer)

    def read_norm(self, layer: int) -> ReadNorm:
        """The norm in front of a layer's attention."""
        return self.whole.read_norm(layer)

    @property
    def _number(self) -> int:
        return self.layer or 0

    def __getitem__(self, name: str) -> Tensor:
        if name == SAE_ERROR_WRITE:
            return self._error_write()
        if name.endswith(GRAD):
            return self._gradient(name.removesuffix(GRAD))
        place = place_of(name, self._number, self.n_layers, self.spliced)
        if place[0] == "resid_mid" and place[1] not in self.whole.middles:
            before, added = (
                self.whole.tensors[one, place[1]] for one in ("resid_pre", "resid_mid")
            )
            return (before + added).float()
        return _bare(self.whole.tensors[place], name)

    def _gradient(self, name: str) -> Tensor:
        place = place_of(name, self._number, self.n_layers, self.spliced)
        found = self.whole.gradients[place]
        if found is None:  # not upstream of what was asked
            own = self.whole.tensors[place]
            found = own.new_zeros(()).expand_as(own)
        return _bare(found, name)

    def _error_write(self) -> Tensor:
        error = self[SAE_ERROR]
        return self._written(error)

    def _written(self, values: Tensor) -> Tensor:
        """What values of the site that an autoencoder stands at write to the stream: dims (..., d_model)."""
        assert self.spliced is not None  # noqa: S101 - only scalars of autoencoders ask
        through = SITES[self.spliced.site].through
        if through is None:
            return values
        weight = self.whole.weights.at(through, self.spliced.layer)
        return values @ weight.flatten(0, -2).to(values)  # heads side by side

    def weight(self, name: str) -> Tensor:
        """A weight at this layer."""
        if name in (W_DEC, W_WRITE):
            assert self.spliced is not None  # noqa: S101 - only scalars of autoencoders ask
            own = self.spliced.decoder.float()
            return own if name == W_DEC else self._written(own)
        return self.whole.weights.at(name, self._number)

    def direction(self, writer: str) -> Tensor:
        """What is read, at the few positions; zero for prompts to which `writer` of this layer is not upstream."""
        if writer == "embed":
            return self.whole.direction(-1.0)
        if writer == "sae" and self.spliced is not None:
            return self.whole.direction(self.spliced.layer + SITES[self.spliced.site].joins)
        return self.whole.direction(self._number + (0.5 if writer == "mlp" else 0.0))

    def there(self, values: Tensor) -> Tensor:
        """Values at the few positions."""
        return self.whole.there(values)

    def spread(self, values: Tensor) -> Tensor:
        """Values back at their positions."""
        return self.whole.spread(values)


@dataclass(frozen=True, eq=False)
class WeightsOf:
    """Weights of the live model as they act, in float32, each taken once."""

    around: Surroundings
    _kept: dict[tuple[str, int | None], Tensor] = field(default_factory=dict)

    def at(self, name: str, layer: int | None) -> Tensor:
        """One weight.

        Raises
        ------
        SpecificationError
            The model has none.
        """
        if (name, layer) not in self._kept:
            self._kept[name, layer] = self._found(name, layer).detach().float()
        return self._kept[name, layer]

    def _found(self, name: str, layer: int | None) -> Tensor:
        if name in WEIGHTS:
            found = ModelWeights(self.around.model, neurons=True).at(name, layer)
        else:
            found = self._of_attention(name, layer)
        if found is None:
            raise SpecificationError(
                f"model {self.around.model.name!r} has no {name!r} at layer {layer}: leave out the scalars that need it"
            )
        return found

    def _of_attention(self, name: str, layer: int | None) -> Any:
        """W_Q and its like; dims (head or kv_head, d_model, d_head), keys and values once for each that there is."""
        blocks = self.around.model.model.blocks
        home = blocks[layer].mlp if name in ("W_in", "b_in", "W_gate") else blocks[layer].attn
        found = getattr(home, name, None)
        n_kv = self.around.sites.sizes["kv_head"]
        if found is not None and name in ("W_K", "W_V", "b_K", "b_V") and len(found) != n_kv:
            return found[:: len(found) // n_kv]  # a HookedTransformer repeats them
        return found


def place_of(name: str, layer: int, n_layers: int, spliced: Spliced | None) -> Place:
    """The tensor that a scalar means by a name."""
    if name == LATENT and spliced is not None:
        return spliced.name, None
    if name == SAE_ERROR and spliced is not None:
        return error_site(spliced.name), None
    if name == "resid_final":
        return "resid_post", n_layers - 1
    if name == MLP_IN_GRAD.removesuffix(GRAD):
        return MLP_READ, layer
    return name, layer if ACTIVATIONS[name].has_layers else None


def places_needed(
    need: str, layer: int, n_layers: int, spliced: Spliced | None
) -> tuple[set[Place], set[Place]]:
    """Tensors, and tensors whose gradients, a scalar's need stands for."""
    if need == SAE_ERROR_WRITE and spliced is not None:
        return {(error_site(spliced.name), None)}, set()
    if need.endswith(GRAD):
        place = place_of(need.removesuffix(GRAD), layer, n_layers, spliced)
        return {place}, {place}
    place = place_of(need, layer, n_layers, spliced)
    if place[0] == "resid_mid":
        return {("resid_pre", place[1]), place}, set()
    return {place}, set()


_ONE: Final = frozenset({"ln1_scale", "ln2_scale", "ln_final_scale"})


def _bare(value: Tensor, name: str) -> Tensor:
    """A value with the dims of its name; a norm's divisor has one more of size 1."""
    value = value.float()  # products of half precision would lose what is small
    return value[..., 0] if name in _ONE else value
