"""Kinds of nodes: what a variable's name and dims say of it.

The rule: a variable ``{kind}_{measure}`` with the dims of that kind is a measure of its nodes; of an autoencoder,
``{sae}.latent_{measure}`` and ``{sae}.error_{measure}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, NamedTuple

from pattern_lens.errors import UnknownPromptError, UnknownTraceError
from pattern_lens.names import FEATURE, HEAD, KEY, LAYER, NEURON, POS, PROMPT, QUERY

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import xarray as xr

EDGES: Final = "edges"
"""The variable that holds edges, dims (source, target)."""

N_CTX: Final = "n_ctx"
"""The coordinate that says how many tokens a prompt has."""

CAUSAL: Final = "causal"
"""The attribute of a variable that has no nodes above the diagonal."""

MEASURES: Final = (
    "activation",
    "gradient",
    "write_magnitude",
    "estimated_total_effect",
    "direct_effect",
)
"""Measures of nodes that this package defines; a trace may have others."""

INDICES: Final = (LAYER, HEAD, QUERY, KEY, POS, NEURON, FEATURE)
"""Columns of a node table that say where a node is."""


@dataclass(frozen=True)
class Kind:
    """A kind of node.

    Parameters
    ----------
    dims
        Of one prompt.
    label
        How one is called; filled in with its indices, and ``sae``.
    """

    dims: tuple[str, ...]
    label: str


KINDS: Final = {
    "pair": Kind((LAYER, HEAD, QUERY, KEY), "L{layer}H{head}"),
    "head": Kind((LAYER, HEAD, QUERY), "L{layer}H{head}"),
    "neuron": Kind((LAYER, POS, NEURON), "L{layer}N{neuron}"),
    "mlp": Kind((LAYER, POS), "{layer}_mlp_out"),
    "attn": Kind((LAYER, POS), "{layer}_attn_out"),
    "embed": Kind((POS,), "embed"),
    "latent": Kind((POS, FEATURE), "{sae}F{feature}"),
    "sae_error": Kind((POS,), "{sae}.error"),
}
_OF_AN_SAE: Final = {"latent": "latent", "error": "sae_error"}
_COARSER: Final = {"pair": ("head", "attn"), "head": ("attn",), "neuron": ("mlp",)}


class Nodes(NamedTuple):
    """What a trace has of one kind: variables by measure. `sae` names the autoencoder, if the kind is of one."""

    kind: str
    sae: str
    variables: dict[str, str]


def nodes_of(dataset: xr.Dataset) -> list[Nodes]:
    """The kinds of nodes of a trace, with their measures."""
    found: dict[tuple[str, str], Nodes] = {}
    for name in map(str, dataset.data_vars):
        sae, _, own = name.rpartition(".")
        word, _, measure = own.partition("_")
        kind = _OF_AN_SAE.get(word, "") if sae else word
        if kind not in KINDS or not measure or (not sae and kind in _OF_AN_SAE.values()):
            continue
        if all(axis_of(dataset[name], dim) is not None for dim in KINDS[kind].dims):
            found.setdefault((kind, sae), Nodes(kind, sae, {})).variables[measure] = name
    order = [*KINDS]
    return sorted(found.values(), key=lambda nodes: (order.index(nodes.kind), nodes.sae))


def axis_of(array: xr.DataArray, dim: str) -> Hashable | None:
    """What a dim of a kind is called here: dims with labels of their own have an ending; one index may be chosen."""
    names = [*array.dims, *(name for name in array.coords if array.coords[name].ndim == 0)]
    return next((n for n in names if n == dim or str(n).startswith(f"{dim}_of_")), None)


def chosen_nodes(dataset: xr.Dataset, by: str, kinds: Sequence[str] | None) -> list[Nodes]:
    """Which nodes a table is of: the finest by default, each part of the model once.

    Raises
    ------
    UnknownTraceError
        No such kind, or none with this measure.
    """
    found = nodes_of(dataset)
    wanted = None if kinds is None else {kinds} if isinstance(kinds, str) else {*kinds}
    unknown = (wanted or set()) - {nodes.kind for nodes in found}
    if unknown:
        held = ", ".join(dict.fromkeys(nodes.kind for nodes in found)) or "none"
        raise UnknownTraceError(
            f"no {' and no '.join(sorted(unknown))} nodes in {name_of(dataset)}: it has {held}; "
            "trace again with scalars of that kind"
        )
    have = [nodes for nodes in found if by in nodes.variables]
    if wanted is None:
        coarse = {kind for nodes in have for kind in _COARSER.get(nodes.kind, ())}
        chosen = [nodes for nodes in have if nodes.kind not in coarse]
    else:
        chosen = [nodes for nodes in have if nodes.kind in wanted]
    if not chosen:
        measures = dict.fromkeys(measure for nodes in found for measure in nodes.variables)
        of = f" of {', '.join(sorted(wanted))}" if wanted else ""
        raise UnknownTraceError(
            f"no {by!r}{of} in {name_of(dataset)}: its measures are {', '.join(measures) or 'none'}; give one as by="
        )
    return chosen


def of_prompt(dataset: xr.Dataset, prompt: str | int | None) -> xr.Dataset:
    """The dataset with the prompts that are asked for; `prompt` stays a dim.

    Raises
    ------
    UnknownPromptError
        It has no such prompt.
    """
    if PROMPT not in dataset.dims:
        dataset = dataset.expand_dims(PROMPT)
    if prompt is None:
        return dataset
    hashes = dataset[PROMPT].values.tolist()
    if isinstance(prompt, str) and prompt in hashes:
        return dataset.isel({PROMPT: [hashes.index(prompt)]})
    if not isinstance(prompt, str) and -len(hashes) <= prompt < len(hashes):
        return dataset.isel({PROMPT: [prompt]})
    near = get_close_matches(prompt, hashes) if isinstance(prompt, str) else []
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise UnknownPromptError(
        f"no prompt {prompt!r} in {name_of(dataset)}, which is of {len(hashes)}{hint}; its coordinate prompt has the hashes"
    )


def name_of(dataset: xr.Dataset) -> str:
    """What a message calls a trace."""
    return f"trace {dataset.attrs.get('trace') or '?'!r}"
