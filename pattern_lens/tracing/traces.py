"""The node whose causes are asked for, and the path through which.

Rule: a `Trace` says what is meant and knows no model.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from pattern_lens.errors import SpecificationError
from pattern_lens.names import D_MODEL, FEATURE, HEAD, KEY, NEURON, POS, QUERY

if TYPE_CHECKING:
    from collections.abc import Mapping

AttentionPath = Literal["Q", "K", "QK", "V"]

PATHS: Final = ("Q", "K", "QK", "V")
ATTENTION: Final = ("pattern", "attn_scores")
"""Sites that name an attention node; both mean the same one."""

NEURONS: Final = ("post", "pre")
STREAMS: Final = ("resid_pre", "resid_mid", "resid_post")

_INDICES: Final = (HEAD, QUERY, KEY, POS, NEURON, D_MODEL, FEATURE)


@dataclass(frozen=True, init=False)
class Trace:
    """A node, as the end of what is traced upstream.

    Parameters
    ----------
    site
        ``pattern`` for an attention node, ``post`` for a neuron, ``resid_pre``, ``resid_mid`` or ``resid_post`` for a
        residual channel, or the name of a spliced autoencoder for a latent.
    layer
        Its layer; None for a latent.
    head, query, key
        Of an attention node, all three.
    pos
        Position of anything else; negative from the prompt's end, as are `query` and `key`.
    neuron, d_model, feature
        Number of the neuron, of the residual channel, or of the latent.
    path
        Of an attention node: ``"Q"``, ``"K"`` or ``"QK"`` trace its score before the softmax, through the query, the key
        or both; ``"V"`` traces what the attended-to value writes into the direction that `downstream` reads.
    downstream
        With ``path="V"``: the node that reads; by default the objective.

    Raises
    ------
    SpecificationError
        Something is missing, or does not belong to such a node.
    """

    site: str
    layer: int | None
    indices: Mapping[str, int]
    path: AttentionPath | None
    downstream: Trace | None

    def __init__(
        self,
        site: str,
        layer: int | None = None,
        *,
        head: int | None = None,
        query: int | None = None,
        key: int | None = None,
        pos: int | None = None,
        neuron: int | None = None,
        d_model: int | None = None,
        feature: int | None = None,
        path: AttentionPath | None = None,
        downstream: Trace | None = None,
    ) -> None:
        given = dict(zip(_INDICES, (head, query, key, pos, neuron, d_model, feature), strict=True))
        indices = {dim: operator.index(i) for dim, i in given.items() if i is not None}
        site = "pattern" if site in ATTENTION else "post" if site in NEURONS else site
        self._check(site, layer, indices, path, downstream)
        for name, one in (
            ("site", site),
            ("layer", None if layer is None else operator.index(layer)),
            ("indices", indices),
            ("path", path),
            ("downstream", downstream),
        ):
            object.__setattr__(self, name, one)

    def __hash__(self) -> int:
        return hash((self.site, self.layer, tuple(self.indices.items()), self.path))

    @staticmethod
    def _check(
        site: str, layer: int | None, indices: Mapping[str, int], path: Any, downstream: Any
    ) -> None:
        wanted = _wanted(site)
        if {*indices} != {*wanted}:
            raise SpecificationError(
                f"a trace of {site!r} needs {', '.join(wanted)}, got {', '.join(indices) or 'none of them'}"
            )
        if layer is None and wanted[-1] != FEATURE:
            raise SpecificationError(f"a trace of {site!r} needs its layer")
        if site == "pattern" and path not in PATHS:
            raise SpecificationError(
                f"a trace of an attention node needs its path: expected one of {', '.join(PATHS)}, got {path!r}"
            )
        if site != "pattern" and path is not None:
            raise SpecificationError(f"path={path!r} belongs to attention nodes, not to {site!r}")
        if downstream is not None and path != "V":
            raise SpecificationError(
                "downstream= belongs to path='V': of the other paths the node itself is what is traced"
            )
        if downstream is not None and not isinstance(downstream, Trace):
            raise SpecificationError(
                f"downstream is a {type(downstream).__name__}, expected a Trace"
            )

    @property
    def label(self) -> str:
        """How it is written on the command line: ``L3H5@7,4:K``."""
        i = self.indices
        if self.site == "pattern":
            own = f"L{self.layer}H{i[HEAD]}@{i[QUERY]},{i[KEY]}:{self.path}"
            return own if self.downstream is None else f"{own}>{self.downstream.label}"
        if self.site == "post":
            return f"L{self.layer}N{i[NEURON]}@{i[POS]}"
        if self.site in STREAMS:
            return f"{self.layer}_{self.site.removeprefix('resid_')}C{i[D_MODEL]}@{i[POS]}"
        return f"{self.site}F{i[FEATURE]}@{i[POS]}"

    def to_json(self) -> dict[str, Any]:
        """What is said of it in a file."""
        said: dict[str, Any] = {"site": self.site, "layer": self.layer, **self.indices}
        if self.path is not None:
            said["path"] = self.path
        if self.downstream is not None:
            said["downstream"] = self.downstream.to_json()
        return said

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Trace:
        """The trace of which `to_json` gave this."""
        known = dict(said)
        downstream = known.pop("downstream", None)
        return cls(
            known.pop("site"),
            known.pop("layer"),
            downstream=None if downstream is None else cls.from_json(downstream),
            **known,
        )


def _wanted(site: str) -> tuple[str, ...]:
    """Indices that name one node of a site."""
    if site == "pattern":
        return HEAD, QUERY, KEY
    if site == "post":
        return POS, NEURON
    return (POS, D_MODEL) if site in STREAMS else (POS, FEATURE)


_HEAD: Final = re.compile(r"L(\d+)H(\d+)@(-?\d+),(-?\d+):(QK|Q|K|V)(?:>(.+))?")
_NEURON: Final = re.compile(r"L(\d+)N(\d+)@(-?\d+)")
_CHANNEL: Final = re.compile(r"(\d+)_(pre|mid|post)C(\d+)@(-?\d+)")
_LATENT: Final = re.compile(r"(.+)F(\d+)@(-?\d+)")
GRAMMAR: Final = (
    "L3H5@7,4:K (head, query, key; then the path, Q, K, QK or V, and behind V, if not the objective, >NODE that reads), "
    "L3N17@5 (a neuron at a position) or 3_postC12@5 (a residual channel)"
)


def parse_trace(text: str) -> Trace:
    """A node as it is written on the command line and in an address.

    Examples
    --------
    >>> parse_trace("L3H5@7,4:K").to_json()
    {'site': 'pattern', 'layer': 3, 'head': 5, 'query': 7, 'key': 4, 'path': 'K'}
    >>> parse_trace("L1H0@4,3:V>L3H5@7,4:K").label
    'L1H0@4,3:V>L3H5@7,4:K'

    Raises
    ------
    SpecificationError
        It says nothing of the kind; the message shows what can be said.
    """
    text = text.strip()
    if match := _HEAD.fullmatch(text):
        layer, head, query, key, path, reader = match.groups()
        return Trace(
            "pattern",
            int(layer),
            head=int(head),
            query=int(query),
            key=int(key),
            path=path,  # type: ignore[arg-type]
            downstream=None if reader is None else parse_trace(reader),
        )
    if match := _NEURON.fullmatch(text):
        return Trace("post", int(match[1]), neuron=int(match[2]), pos=int(match[3]))
    if match := _CHANNEL.fullmatch(text):
        site = f"resid_{match[2]}"
        return Trace(site, int(match[1]), d_model=int(match[3]), pos=int(match[4]))
    if match := _LATENT.fullmatch(text):
        return Trace(match[1], feature=int(match[2]), pos=int(match[3]))
    raise SpecificationError(f"cannot read the node {text!r}: expected {GRAMMAR}")
