"""What is set to something else while a model runs, or while gradients flow back.

Rule: an ablation says what is meant and knows no model; an index that is not given means all of them.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from pattern_lens.errors import SpecificationError
from pattern_lens.names import D_MODEL, FEATURE, HEAD, KEY, NEURON, POS, QUERY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Pass = Literal["forward", "backward"]
Index = int | tuple[int, ...] | None
"""One of a dim, several, or all."""

INDEXED: Final = (HEAD, QUERY, KEY, POS, NEURON, FEATURE, D_MODEL)
"""Dims by which an ablation can be narrowed."""

MEAN: Final = "mean"
RESAMPLE: Final = "resample"


@dataclass(frozen=True, init=False)
class Ablation:
    """A part of one activation that is set to something else.

    Parameters
    ----------
    site
        ``pattern`` (attention probabilities), ``attn_scores``, ``q``, ``k``, ``v``, ``z``, ``post`` (neurons), ``attn_out``,
        ``mlp_out``, ``resid_pre``, ``resid_mid``, ``resid_post``, ``embed``, or the name of a spliced autoencoder for its latents.
    layer
        Of ``embed`` and of an autoencoder None.
    head, query, key, pos, neuron, feature, d_model
        Which, of each dim that the site has: a number, several, or all of them where nothing is given.
        Positions may be negative, from each prompt's own end. Of a pattern ``pos`` is no dim: use `query` and `key`.
    value
        A number; ``"mean"``: the mean over prompts and positions (over prompts at each query and key of a pattern);
        ``"resample"``: what the activation is of another prompt, at the same place; or an array that broadcasts to what is chosen.
    pass_
        ``"forward"``: the activation, before anything downstream reads it and before anything is kept.
        ``"backward"``: its gradient.

    Raises
    ------
    SpecificationError
        A value or an index that cannot be.
    """

    site: str
    layer: int | None
    indices: Mapping[str, Index]
    value: float | str | tuple[Any, ...]
    pass_: Pass

    def __init__(
        self,
        site: str,
        layer: int | None = None,
        *,
        head: Any = None,
        query: Any = None,
        key: Any = None,
        pos: Any = None,
        neuron: Any = None,
        feature: Any = None,
        d_model: Any = None,
        value: Any = 0.0,
        pass_: Pass = "forward",
    ) -> None:
        given = dict(zip(INDEXED, (head, query, key, pos, neuron, feature, d_model), strict=True))
        indices = {dim: _index(dim, one) for dim, one in given.items() if one is not None}
        if pass_ not in ("forward", "backward"):
            raise SpecificationError(
                f"an ablation's pass_ is {pass_!r}, expected 'forward' or 'backward'"
            )
        found = _value(value)
        if pass_ == "backward" and isinstance(found, str):
            raise SpecificationError(
                f"a gradient cannot be set to its {found!r}: give a number or an array for pass_='backward'"
            )
        for name, one in zip(
            ("site", "layer", "indices", "value", "pass_"),
            (site, None if layer is None else operator.index(layer), indices, found, pass_),
            strict=True,
        ):
            object.__setattr__(self, name, one)

    def __hash__(self) -> int:
        return hash((self.site, self.layer, tuple(self.indices.items()), self.value, self.pass_))

    @property
    def is_mean(self) -> bool:
        """Whether it needs a mean."""
        return self.value == MEAN

    @property
    def is_resample(self) -> bool:
        """Whether it needs another prompt."""
        return self.value == RESAMPLE

    @property
    def label(self) -> str:
        """How it is written on the command line, as far as that can say it."""
        return _label(self)

    def to_json(self) -> dict[str, Any]:
        """What is said of it in a file."""
        said: dict[str, Any] = {"site": self.site, "layer": self.layer}
        said |= {dim: list(i) if isinstance(i, tuple) else i for dim, i in self.indices.items()}
        return said | {"value": _listed(self.value), "pass": self.pass_}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Ablation:
        """The ablation of which `to_json` gave this."""
        known = dict(said)
        return cls(known.pop("site"), known.pop("layer"), pass_=known.pop("pass"), **known)


def _index(dim: str, given: Any) -> Index:
    try:
        if np.ndim(given) == 0:
            return operator.index(given)
        found = tuple(operator.index(one) for one in given)
    except TypeError:
        raise SpecificationError(
            f"{dim}={given!r} of an ablation: expected a whole number, several, or None for all"
        ) from None
    if not found:
        raise SpecificationError(f"{dim}={given!r} of an ablation names none: leave it out for all")
    return found


def _value(given: Any) -> float | str | tuple[Any, ...]:
    if isinstance(given, str):
        if given not in (MEAN, RESAMPLE):
            raise SpecificationError(
                f"an ablation's value is {given!r}, expected a number, an array, 'mean' or 'resample'"
            )
        return given
    try:
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise SpecificationError(
            f"an ablation's value is a {type(given).__name__}, expected a number, an array, 'mean' or 'resample'"
        ) from None
    if not np.isfinite(values).all():
        raise SpecificationError("an ablation's value holds NaN or infinity")
    return float(values) if values.ndim == 0 else _tupled(values.tolist())


def _tupled(values: Any) -> Any:
    return tuple(map(_tupled, values)) if isinstance(values, list) else values


def _listed(values: Any) -> Any:
    return [*map(_listed, values)] if isinstance(values, tuple) else values


# --- as text -------------------------------------------------------------------------------------

_HEAD: Final = re.compile(r"L(\d+)H(\d+)(?:@(-?\d+)(?:,(-?\d+))?)?")
_NEURON: Final = re.compile(r"L(\d+)N(\d+)(?:@(-?\d+))?")
_LAYER: Final = re.compile(r"(\d+)_(attn_out|mlp_out|pre|mid|post)(?:@(-?\d+))?")
_EMBED: Final = re.compile(r"embed(?:@(-?\d+))?")
_STREAMS: Final = {"pre": "resid_pre", "mid": "resid_mid", "post": "resid_post"}
GRAMMAR: Final = (
    "L3H5 (a head), L3H5@7 (at query 7), L3H5@7,4 (its attention from query 7 to key 4), L3N17 or L3N17@7 (a neuron), "
    "3_attn_out, 3_mlp_out, 3_pre, 3_mid, 3_post or embed, which is 0_pre (with @7: at position 7), then =mean, =resample or =0.5; "
    "backward: before it for the gradient"
)


def parse_ablation(text: str) -> Ablation:
    """An ablation as it is written on the command line and in an address.

    Examples
    --------
    >>> parse_ablation("L3H5@7,4=mean").to_json()
    {'site': 'pattern', 'layer': 3, 'head': 5, 'query': 7, 'key': 4, 'value': 'mean', 'pass': 'forward'}
    >>> parse_ablation("L1H0").label
    'L1H0'

    Raises
    ------
    SpecificationError
        It says nothing of the kind; the message shows what can be said.
    """
    place, _, value = text.strip().partition("=")
    backward = place.startswith("backward:")
    place = place.removeprefix("backward:")
    found = _place(place)
    if found is None:
        raise SpecificationError(f"cannot read the ablation {text!r}: expected {GRAMMAR}")
    site, layer, indices = found
    return Ablation(
        site,
        layer,
        value=_said(value, text),
        pass_="backward" if backward else "forward",
        **{dim: int(i) for dim, i in indices.items() if i is not None},
    )


def parse_ablations(texts: str | Iterable[str]) -> tuple[Ablation, ...]:
    """Several ablations; those of one text stand behind spaces or semicolons."""
    each = [texts] if isinstance(texts, str) else [*texts]
    return tuple(parse_ablation(word) for one in each for word in re.split(r"[\s;]+", one) if word)


def _place(text: str) -> tuple[str, int | None, dict[str, Any]] | None:
    if match := _HEAD.fullmatch(text):
        layer, head, query, key = match.groups()
        if key is not None:
            return "pattern", int(layer), {HEAD: head, QUERY: query, KEY: key}
        return "z", int(layer), {HEAD: head, POS: query}
    if match := _NEURON.fullmatch(text):
        return "post", int(match[1]), {NEURON: match[2], POS: match[3]}
    if match := _LAYER.fullmatch(text):
        return _STREAMS.get(match[2], match[2]), int(match[1]), {POS: match[3]}
    if match := _EMBED.fullmatch(text):
        return "resid_pre", 0, {POS: match[1]}  # the node: with the embedding of positions
    return None


def _said(value: str, text: str) -> float | str:
    if value in ("", MEAN, RESAMPLE):
        return value or 0.0
    try:
        return float(value)
    except ValueError:
        raise SpecificationError(
            f"cannot read the value {value!r} of the ablation {text!r}: expected mean, resample or a number"
        ) from None


def _label(one: Ablation) -> str:
    place = _label_of_place(one)
    value = one.value
    shown = "" if value == 0 else f"={value}" if isinstance(value, str | float) else "=array"
    return ("backward:" if one.pass_ == "backward" else "") + place + shown


def _label_of_place(one: Ablation) -> str:
    known = {dim: i for dim, i in one.indices.items() if isinstance(i, int)}
    pos = f"@{known[POS]}" if POS in known else ""
    if len(known) == len(one.indices):
        if one.site == "z" and {*known} <= {HEAD, POS} and HEAD in known:
            return f"L{one.layer}H{known[HEAD]}{pos}"
        if one.site == "pattern" and {*known} == {HEAD, QUERY, KEY}:
            return f"L{one.layer}H{known[HEAD]}@{known[QUERY]},{known[KEY]}"
        if one.site == "post" and {*known} <= {NEURON, POS} and NEURON in known:
            return f"L{one.layer}N{known[NEURON]}{pos}"
        if one.site in ("attn_out", "mlp_out") and {*known} <= {POS}:
            return f"{one.layer}_{one.site}{pos}"
        if one.site == "resid_pre" and one.layer == 0 and {*known} <= {POS}:
            return f"embed{pos}"
        if one.site.startswith("resid_") and {*known} <= {POS}:
            return f"{one.layer}_{one.site.removeprefix('resid_')}{pos}"
    chosen = ", ".join(f"{dim}={i}" for dim, i in one.indices.items())
    layer = "" if one.layer is None else f" of layer {one.layer}"
    return f"{one.site}{layer}" + (f" [{chosen}]" if chosen else "")
