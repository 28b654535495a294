"""What is differentiated: one number of each prompt.

Rule: an objective says what is meant and knows no model; `pattern_lens.tracing.specification` finds its tokens.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.errors import SpecificationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Token = str | int
"""A token as its text, with its leading space, or as its id."""

KINDS: Final = ("logit_diff", "logit_minus_mean", "probs", "zero", "direction", "node")
LINEAR: Final = ("logit_diff", "logit_minus_mean", "zero", "direction")
"""Objectives that are sums over what is written into the stream, once the scale of the norm is held constant."""


@dataclass(frozen=True)
class Objective:
    """One number of each prompt; made by `logit_diff` and the other functions of this module.

    Attributes
    ----------
    kind
        One of `KINDS`.
    target, distractor
        Tokens.
    position
        Where in the prompt; negative from its end.
    site, layer, indices
        Of a node: where it is. Of a direction: the stream that is projected.
    vector
        Of a direction: what the stream is projected on, dims (d_model).
    """

    kind: str
    target: tuple[Token, ...] = ()
    distractor: tuple[Token, ...] = ()
    position: int = -1
    site: str | None = None
    layer: int | None = None
    indices: Mapping[str, int] = field(default_factory=dict)
    vector: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpecificationError(
                f"no objective {self.kind!r}: expected one of {', '.join(KINDS)}"
            )
        try:
            operator.index(self.position)
        except TypeError:
            raise SpecificationError(
                f"position={self.position!r} of an objective: expected a whole number"
            ) from None

    @property
    def is_linear(self) -> bool:
        """Whether it is a sum over components once the scale of the norm is held constant."""
        return self.kind in LINEAR

    def to_json(self) -> dict[str, Any]:
        """What is said of it in a file: only what it has."""
        said: dict[str, Any] = {"kind": self.kind}
        if self.target:
            said["target"] = list(self.target)
        if self.distractor:
            said["distractor"] = list(self.distractor)
        if self.kind not in {"zero", "node"}:
            said["position"] = self.position
        if self.site is not None:
            said |= {"site": self.site, "layer": self.layer}
        if self.indices:
            said["indices"] = dict(self.indices)
        if self.vector is not None:
            said["vector"] = list(self.vector)
        return said

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Objective:
        """The objective of which `to_json` gave this."""
        known = dict(said)
        for name in ("target", "distractor", "vector"):
            if name in known:
                known[name] = tuple(known[name])
        return cls(**known)


def logit_diff(
    target: Token | Iterable[Token], distractor: Token | Iterable[Token], *, position: int = -1
) -> Objective:
    """Logit of the target less that of the distractor; means where there are several of them.

    Parameters
    ----------
    target, distractor
        A token or several, as text (`" Mary"`) or id.
    position
        Of the logits; negative from the prompt's end.

    Examples
    --------
    >>> logit_diff(" Mary", " John").to_json()
    {'kind': 'logit_diff', 'target': [' Mary'], 'distractor': [' John'], 'position': -1}
    """
    return Objective("logit_diff", _tokens(target), _tokens(distractor), position)


def logit_minus_mean(target: Token | Iterable[Token], *, position: int = -1) -> Objective:
    """Logit of the target, or the mean of several, less the mean over the whole vocabulary."""
    return Objective("logit_minus_mean", _tokens(target), position=position)


def probs(target: Token | Iterable[Token], *, position: int = -1) -> Objective:
    """Probability of the target: summed where there are several. Range [0, 1]."""
    return Objective("probs", _tokens(target), position=position)


def zero() -> Objective:
    """Zero times the logits: every gradient is zero, but upstream of one that an ablation sets."""
    return Objective("zero")


def direction(
    vector: ArrayLike, *, site: str = "resid_post", layer: int = -1, position: int = -1
) -> Objective:
    """Product of the residual stream with a vector, such as a probe or a steering vector.

    Parameters
    ----------
    vector
        Dims (d_model).
    site, layer
        The stream: ``resid_pre``, ``resid_mid`` or ``resid_post`` of a layer; negative from the last.
    """
    import numpy as np

    values = np.asarray(vector, np.float64)
    if values.ndim != 1:
        raise SpecificationError(
            f"a direction is one vector: expected dims (d_model), got shape {values.shape}"
        )
    return Objective(
        "direction", position=position, site=site, layer=layer, vector=tuple(values.tolist())
    )


def node(site: str, layer: int, **indices: int) -> Objective:
    """Activation of one node: ``node("post", 3, pos=-1, neuron=17)``.

    Parameters
    ----------
    site
        Short name of an activation.
    indices
        One number for each of its dims but the layer; positions may be negative, from the prompt's end.
    """
    return Objective("node", site=site, layer=layer, indices=indices)


def _tokens(tokens: Token | Iterable[Token]) -> tuple[Token, ...]:
    several = (tokens,) if isinstance(tokens, str) or not isinstance(tokens, Iterable) else tokens
    found = tuple(token if isinstance(token, str) else int(token) for token in several)
    if not found:
        raise SpecificationError("no token is given: expected one, or several, as text or id")
    return found
