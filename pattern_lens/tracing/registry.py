"""What a derived scalar is, and the one list of those that are known by name.

Rule: a scalar's function sees one layer of one batch, through `At`, and uses nothing but operators and einops: torch
tensors while a model runs and NumPy arrays from a file give the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from pattern_lens.errors import DimensionError, SpecificationError
from pattern_lens.names import (
    ACTIVATIONS,
    D_HEAD,
    D_MODEL,
    FEATURE,
    HEAD,
    KEY,
    KV_HEAD,
    LAYER,
    NEURON,
    POS,
    QUERY,
    SOURCE,
    TARGET,
    TOKEN,
    WEIGHTS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GRAD: Final = "_grad"
"""Ending of the gradient of the objective, or of the traced node, with respect to an activation."""

DIRECTION: Final = "direction"
RESID_FINAL_GRAD: Final = "resid_final_grad"
MLP_IN_GRAD: Final = "mlp_in_grad"
LATENT: Final = "latent"
SAE_ERROR: Final = "sae_error"
SAE_ERROR_WRITE: Final = "sae_error_write"
W_DEC: Final = "W_dec"
W_WRITE: Final = "W_write"

ACTIVATION: Final = "activation"
GRADIENT: Final = "gradient"
WRITE_MAGNITUDE: Final = "write_magnitude"
ESTIMATED_TOTAL_EFFECT: Final = "estimated_total_effect"
DIRECT_EFFECT: Final = "direct_effect"

MEASURES: Final = (ACTIVATION, GRADIENT, WRITE_MAGNITUDE, ESTIMATED_TOTAL_EFFECT, DIRECT_EFFECT)
"""What is measured of a node; a scalar of a node is called ``{kind}_{measure}``."""

STREAM_GRADIENTS: Final = {
    RESID_FINAL_GRAD: ((POS, D_MODEL), "gradient of the stream after the last block"),
    MLP_IN_GRAD: (
        (LAYER, POS, D_MODEL),
        "gradient of the stream, of the part that flows back through what the MLP reads",
    ),
}
"""Gradients that belong to no activation: dims of one prompt, and what they are."""

_DIMS: Final = (
    *(LAYER, HEAD, KV_HEAD, QUERY, KEY, POS),
    *(D_MODEL, D_HEAD, NEURON, FEATURE, TOKEN, SOURCE, TARGET),
)
_OF_SAE: Final = frozenset(
    {*(LATENT, LATENT + GRAD, SAE_ERROR, SAE_ERROR + GRAD), *(SAE_ERROR_WRITE, W_DEC, W_WRITE)}
)
_SUPPLIED: Final = frozenset(
    {
        *ACTIVATIONS,
        *(name + GRAD for name in ACTIVATIONS),
        *WEIGHTS,
        *("W_Q", "W_K", "W_V", "b_Q", "b_K", "b_V", "W_in", "b_in", "W_gate"),
        *STREAM_GRADIENTS,
        DIRECTION,
        *_OF_SAE,
    }
)


class At(Protocol):
    """One layer of one batch of prompts: what a scalar is computed from.

    Arrays are torch tensors or NumPy arrays, all of one kind; each has the batch as its first dim, ``prompt``.

    Attributes
    ----------
    layer
        Number of the layer; None for a scalar without layers, and then what has layers is that of layer 0.
    n_heads
        Heads of attention, of which several may share a key and a value.
    """

    layer: int | None
    n_heads: int

    def __getitem__(self, name: str) -> Any:
        """An activation (``z``) or its gradient (``z_grad``): dims (prompt, *dims of `ACTIVATIONS`)."""
        ...

    def weight(self, name: str) -> Any:
        """A weight at this layer: ``W_O`` (head, d_head, d_model), ``W_out`` (neuron, d_model), ``b_O`` (d_model).

        ``W_write`` (feature, d_model) is what a latent adds to the stream for each unit of its activation: the
        autoencoder's ``W_dec``, times W_out if it stands at the neurons.
        """
        ...

    def direction(self, writer: str) -> Any:
        """Gradient of the stream that the objective, or the traced node, reads: dims (prompt, few, d_model).

        At the few positions where it is not zero, and zero for prompts to which this layer's writer, ``attn``,
        ``mlp``, ``embed`` or ``sae``, is not upstream.
        """
        ...

    def there(self, values: Any) -> Any:
        """Values at those positions: (prompt, pos, ...) -> (prompt, few, ...)."""
        ...

    def spread(self, values: Any) -> Any:
        """Values back at their positions, zeros elsewhere: (prompt, few, ...) -> (prompt, pos, ...)."""
        ...


@dataclass(frozen=True)
class Scalar:
    """A number, or an array of them, derived from a traced prompt.

    Parameters
    ----------
    name
        Under which it is asked for and stored.
    dims
        Of one prompt, `LAYER` first.
    needs
        Activations, gradients (``z_grad``), weights and ``direction``, by name.
    definition
        One sentence, with the formula and its source.
    function
        From `At` to an array (prompt, *dims without the layer), called once a layer if there are layers.
    """

    name: str
    dims: tuple[str, ...]
    needs: tuple[str, ...]
    definition: str
    function: Callable[[Any], Any]

    @property
    def measure(self) -> str:
        """What is measured of a node; empty if it is no measure of a node."""
        return next((measure for measure in MEASURES if self.name.endswith(f"_{measure}")), "")

    @property
    def kind(self) -> str:
        """Kind of node (``head``), or the whole name if it is no measure of a node."""
        return self.name.removesuffix(f"_{self.measure}") if self.measure else self.name

    @property
    def has_layers(self) -> bool:
        """Whether its function is called once a layer."""
        return LAYER in self.dims

    @property
    def has_gradients(self) -> bool:
        """Whether a backward pass is needed."""
        return any(need == DIRECTION or need.endswith(GRAD) for need in self.needs)

    @property
    def is_of_sae(self) -> bool:
        """Whether it is about a sparse autoencoder, and computed once for each."""
        return not _OF_SAE.isdisjoint(self.needs)


SCALARS: Final[dict[str, Scalar]] = {}
"""Scalars by name, in order; raw activations are not listed, `pattern_lens.tracing.scalars.scalar` knows them."""

F = TypeVar("F", bound="Callable[..., Any]")


def register_scalar(
    name: str, *, dims: Iterable[str], needs: Iterable[str], definition: str
) -> Callable[[F], F]:
    """Make a function a scalar that traces know by name.

    Parameters
    ----------
    name
        A Python identifier that no other scalar and no activation has.
    dims
        Dims of one prompt's value, in order, `LAYER` first if it is there.
    needs
        What the function takes from `At`: ``z``, ``z_grad``, ``W_O``, ``direction`` and so on.
    definition
        One sentence: the formula and where it is from.

    Returns
    -------
    A decorator, which gives the function back.

    Raises
    ------
    SpecificationError
        The name is taken or no identifier, or nothing supplies what is needed.
    DimensionError
        A dim that no value of a prompt has, one that is there twice, or the layer not in front.

    Examples
    --------
    >>> @register_scalar("mlp_mean", dims=("layer", "pos"), needs=("mlp_out",), definition="mean of mlp_out")
    ... def mlp_mean(at):
    ...     return at["mlp_out"].mean(-1)
    >>> SCALARS.pop("mlp_mean").dims
    ('layer', 'pos')
    """
    dims, needs = tuple(dims), tuple(needs)
    _check_name(name)
    _check_dims(name, dims)
    _check_needs(name, needs)

    def register(function: F) -> F:
        _check_name(name)
        SCALARS[name] = Scalar(name, dims, needs, definition, function)
        return function

    return register


def _check_name(name: str) -> None:
    if not name.isidentifier():
        raise SpecificationError(
            f"cannot register the scalar {name!r}: expected a Python identifier"
        )
    if name in SCALARS or name.removesuffix(GRAD) in ACTIVATIONS or name in STREAM_GRADIENTS:
        what = "a scalar" if name in SCALARS else "an activation or its gradient"
        way = f", or drop that one first: del SCALARS[{name!r}]" if name in SCALARS else ""
        raise SpecificationError(
            f"cannot register the scalar {name!r}: {what} is called so; choose another name{way}"
        )


def _check_dims(name: str, dims: tuple[str, ...]) -> None:
    if unknown := [dim for dim in dims if dim not in _DIMS]:
        raise DimensionError(
            f"cannot register the scalar {name!r} with dims {dims}: no dim {unknown[0]!r}, "
            f"expected some of {', '.join(_DIMS)}"
        )
    if len(set(dims)) < len(dims) or LAYER in dims[1:]:
        raise DimensionError(
            f"cannot register the scalar {name!r} with dims {dims}: expected each once, and {LAYER!r} first"
        )


def _check_needs(name: str, needs: tuple[str, ...]) -> None:
    if unknown := [need for need in needs if need not in _SUPPLIED]:
        raise SpecificationError(
            f"cannot register the scalar {name!r}: nothing supplies {unknown[0]!r}, expected activations, "
            f"their gradients ({GRAD}), weights or {DIRECTION!r}{close_to(unknown[0], sorted(_SUPPLIED))}"
        )


def close_to(name: str, names: Iterable[str]) -> str:
    """A hint with the nearest of some names, empty if none is near."""
    near = get_close_matches(name, list(names), n=3)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
