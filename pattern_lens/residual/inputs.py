"""What an analysis is given: stored activations by short name, and the weights it needs.

The rule: every name of an activation or weight that this room uses is written here, and what is missing is
an error that says which, and the capture call that adds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from pattern_lens.errors import DimensionError, UnknownActivationError, WeightsMissingError
from pattern_lens.names import ALIASES, LAYER, POS, PROMPT, RESIDUAL, RESIDUAL_STREAM

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

Needs: TypeAlias = Mapping[str, tuple[int, ...] | None]
"""Activations by short name, with the layers that are needed; None where it has no layers."""

RESID_PRE: Final = "resid_pre"
RESID_MID: Final = "resid_mid"
RESID_POST: Final = "resid_post"
ATTN_OUT: Final = "attn_out"
MLP_OUT: Final = "mlp_out"
EMBED: Final = "embed"
POS_EMBED: Final = "pos_embed"
Z: Final = "z"
NEURONS: Final = "post"
LN1_SCALE: Final = "ln1_scale"
LN2_SCALE: Final = "ln2_scale"
LN_FINAL_SCALE: Final = "ln_final_scale"
FINAL_LOGITS: Final = "final_logits"

_CALL: Final = "capture(model, prompts, path, names={}) adds {}"


@dataclass(frozen=True)
class ModelFacts:
    """What the analyses have to know of a model; the attributes of its `weights`.

    Parameters
    ----------
    mode
        ``raw`` or ``compatibility``: how TransformerLens processed the weights.
    normalization
        ``LN`` centres and scales, ``RMS`` scales, ``none`` leaves the stream as it is; empty if unknown.
    softcap
        Limit of the model's tanh on its logits; 0 for none.
    logit_scale
        What the output of the unembedding is multiplied by before it is capped.
    """

    n_layers: int
    n_heads: int
    mode: str = ""
    normalization: str = ""
    eps: float = 1e-5
    softcap: float = 0.0
    logit_scale: float = 1.0
    attn_only: bool = False
    parallel: bool = False

    @classmethod
    def of(cls, weights: xr.Dataset) -> ModelFacts:
        """Facts that a Dataset of weights states in its attributes."""
        said = weights.attrs
        return cls(
            n_layers=int(said["n_layers"]),
            n_heads=int(said["n_heads"]),
            mode=str(said.get("weights", "")),
            normalization=str(said.get("normalization", "")),
            eps=float(said.get("eps", 1e-5)),
            softcap=max(float(said.get("logit_softcap", 0.0)), 0.0),
            logit_scale=float(said.get("logit_scale", 1.0)),
            attn_only=bool(said.get("attn_only", False)),
            parallel=bool(said.get("parallel_attn_mlp", False)),
        )

    @cached_property
    def centres(self) -> bool:
        """Whether the norms take the mean off."""
        return self.normalization == "LN"


class Given:
    """Activations as plain arrays, dims (lead..., layer, pos, ...), in at least float32.

    Parameters
    ----------
    activations
        By short name or alias, of one prompt or of a block of prompts of one length.
    weights
        As `pattern_lens.residual` describes it.
    who
        The analysis, for messages.
    """

    def __init__(
        self, activations: Mapping[str, xr.DataArray], weights: xr.Dataset, needs: Needs, who: str
    ) -> None:
        self.who, self._weights = who, weights
        self._labelled = {ALIASES.get(name, name): array for name, array in activations.items()}
        check_needs(needs, {name: layers_of(a) for name, a in self._labelled.items()}, who)
        self.first = self._labelled[next(iter(needs))]
        self.n_lead = int(PROMPT in self.first.dims)
        self._arrays: dict[str, Any] = {}

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            labelled = self._labelled[name]
            lead = (PROMPT,) if PROMPT in labelled.dims else ()
            inner = [str(dim) for dim in labelled.dims if dim not in (PROMPT, LAYER, POS)]
            own = [dim for dim in (LAYER, POS) if dim in labelled.dims]
            data = labelled.transpose(*lead, *own, *inner).data
            wide = np.result_type(data.dtype, np.float32)
            self._arrays[name] = data if data.dtype == wide else data.astype(wide)
        return self._arrays[name]

    def whole(self, name: str) -> Any:
        """An activation without layers."""
        return self._array(name)

    def at(self, name: str, layer: int) -> Any:
        """An activation at one layer: dims (lead..., pos, ...)."""
        place = self._places(name, (layer,))[0]
        return self._array(name)[(slice(None),) * self.n_lead + (place,)]

    def over(self, name: str, layers: Sequence[int]) -> Any:
        """An activation at some layers: dims (lead..., layer, pos, ...)."""
        places = self._places(name, layers)
        values = self._array(name)
        if places == list(range(values.shape[self.n_lead])):
            return values
        first, last = places[0], places[-1] + 1
        run = slice(first, last) if places == list(range(first, last)) else places
        return values[(slice(None),) * self.n_lead + (run,)]

    def _places(self, name: str, layers: Sequence[int]) -> list[int]:
        held = list(layers_of(self._labelled[name]) or ())
        return [held.index(layer) for layer in layers]

    def has_weight(self, name: str) -> bool:
        """Whether there is such a weight."""
        return name in self._weights

    def weight(self, name: str) -> Array:
        """A weight, in at least float32.

        Raises
        ------
        WeightsMissingError
            There is none.
        """
        return weight_of(self._weights, name, self.who)


def weight_of(
    weights: xr.Dataset, name: str, who: str, chosen: Mapping[str, Any] | None = None
) -> Array:
    """A weight, in at least float32, or the error that says how to get it.

    Parameters
    ----------
    chosen
        Positions along some dims; nothing else is read then.
    """
    if name not in weights:
        raise WeightsMissingError(
            f"{who} needs the model's weights {name!r}, and there are {_listed(weights)}; "
            + capture_call([RESIDUAL, *(["mlp_post"] if name == "W_out" else [])], "them")
        )
    variable = weights.variables[name]
    # what is read whole is kept: the next block of prompts needs it again
    values = variable.isel(chosen).values if chosen else variable.load().values
    return np.asarray(values, np.result_type(values.dtype, np.float32))


def layers_of(array: xr.DataArray) -> tuple[int, ...] | None:
    """Numbers of the layers that an activation holds; None if it has no layers."""
    if LAYER not in array.dims:
        return None
    return tuple(int(n) for n in array.coords.get(LAYER, np.arange(array.sizes[LAYER])))


def check_needs(needs: Needs, held: Mapping[str, tuple[int, ...] | None], who: str) -> None:
    """Raise unless every needed activation is held at every needed layer.

    Raises
    ------
    UnknownActivationError
        Something is missing; the message names it and the capture call that adds it.
    DimensionError
        An activation came without its layers.
    """
    missing = [name for name in needs if name not in held]
    if missing:
        raise UnknownActivationError(
            f"{who} needs {_names(missing)}, and there are {_names(held) or 'none'}; "
            + capture_call(_to_capture(missing), "them")
        )
    for name, layers in needs.items():
        has = held[name]
        if layers and has is None:
            raise DimensionError(f"{who} needs {name!r} with its dim {LAYER!r}, which was cut away")
        lost = [layer for layer in layers or () if layer not in (has or ())]
        if lost:
            raise UnknownActivationError(
                f"{who} needs {name!r} of layers {_listed(lost)}, and there are layers {_listed(has or ())}; "
                + capture_call([name] if name == RESID_POST else _to_capture([name]), "them")
            )


def _to_capture(missing: Sequence[str]) -> list[str]:
    """Names for `capture`: one word where it stands for them."""
    found = [RESIDUAL] if {NEURONS, *RESIDUAL_STREAM} & set(missing) else []
    others = [name for name in missing if name not in RESIDUAL_STREAM]
    return found + ["mlp_post" if name == NEURONS else name for name in others]


def capture_call(names: Sequence[str], what: str) -> str:
    """The call that adds activations to a file."""
    return _CALL.format(repr(names[0]) if len(names) == 1 else repr(tuple(names)), what)


def _names(names: Any) -> str:
    return ", ".join(map(repr, names))


def _listed(items: Any) -> str:
    return ", ".join(map(str, items)) or "none"
