"""The vocabulary: every dim, activation and hook name is written here once, with its meaning.

Nothing else in the package spells a dim or a hook name out. Activations are known by a short name
(`pattern`) and by the legacy hook names of TransformerLens (`blocks.3.attn.hook_pattern`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

PROMPT: Final = "prompt"
LAYER: Final = "layer"
HEAD: Final = "head"
KV_HEAD: Final = "kv_head"
QUERY: Final = "query"
KEY: Final = "key"
POS: Final = "pos"
D_MODEL: Final = "d_model"
D_HEAD: Final = "d_head"
NEURON: Final = "neuron"
COMPONENT: Final = "component"
COMPONENT_OTHER: Final = "component_other"
DISTANCE: Final = "distance"
SINGULAR_VALUE: Final = "singular_value"
RANK: Final = "rank"
READING: Final = "reading"
FEATURE: Final = "feature"
SOURCE: Final = "source"
TARGET: Final = "target"

QUERY_TOKEN: Final = "query_token"
KEY_TOKEN: Final = "key_token"
TOKEN: Final = "token"
"""Along `pos` a coordinate, the token's text; of what has an entry for each token of the vocabulary, a dim."""

TOKEN_ID: Final = "token_id"

RAGGED_DIMS: Final = frozenset({QUERY, KEY, POS})
"""Dims whose size differs from prompt to prompt."""

TOKEN_COORDS: Final = {QUERY: QUERY_TOKEN, KEY: KEY_TOKEN, POS: TOKEN}
"""The coordinate that carries the token text along each ragged dim."""


@dataclass(frozen=True)
class ActivationSpec:
    """What is known of one activation before a model has run.

    Parameters
    ----------
    name
        Short name, unique in a file.
    template
        Legacy hook name, with ``{layer}`` where the layer index stands, if it has one.
    dims
        Dims of the value for one prompt and one layer, in stored order.
    prose
        One sentence: what the numbers are.
    """

    name: str
    template: str
    dims: tuple[str, ...]
    prose: str

    @property
    def has_layers(self) -> bool:
        """Whether the activation exists once a layer."""
        return "{layer}" in self.template

    def hook(self, layer: int) -> str:
        """Legacy hook name at one layer."""
        return self.template.format(layer=layer)


_BLOCK = "blocks.{layer}."
_SQUARE = (HEAD, QUERY, KEY)
_STREAM = (POS, D_MODEL)
_HEADS = (POS, HEAD, D_HEAD)
_KV_HEADS = (POS, KV_HEAD, D_HEAD)

_SPECS: Final = (
    ActivationSpec("pattern", _BLOCK + "attn.hook_pattern", _SQUARE, "attention probabilities"),
    ActivationSpec(
        "attn_scores", _BLOCK + "attn.hook_attn_scores", _SQUARE, "attention scores before softmax"
    ),
    ActivationSpec("q", _BLOCK + "attn.hook_q", _HEADS, "query vectors"),
    ActivationSpec("k", _BLOCK + "attn.hook_k", _KV_HEADS, "key vectors"),
    ActivationSpec("v", _BLOCK + "attn.hook_v", _KV_HEADS, "value vectors"),
    ActivationSpec("rot_q", _BLOCK + "attn.hook_rot_q", _HEADS, "query vectors after rotation"),
    ActivationSpec("rot_k", _BLOCK + "attn.hook_rot_k", _KV_HEADS, "key vectors after rotation"),
    ActivationSpec("z", _BLOCK + "attn.hook_z", _HEADS, "values mixed by the pattern, per head"),
    ActivationSpec(
        "result", _BLOCK + "attn.hook_result", (POS, HEAD, D_MODEL), "what each head writes"
    ),
    ActivationSpec(
        "resid_pre", _BLOCK + "hook_resid_pre", _STREAM, "residual stream before a block"
    ),
    ActivationSpec(
        "resid_mid", _BLOCK + "hook_resid_mid", _STREAM, "residual stream after attention"
    ),
    ActivationSpec(
        "resid_post", _BLOCK + "hook_resid_post", _STREAM, "residual stream after a block"
    ),
    ActivationSpec("attn_out", _BLOCK + "hook_attn_out", _STREAM, "what attention writes"),
    ActivationSpec("mlp_out", _BLOCK + "hook_mlp_out", _STREAM, "what the MLP writes"),
    ActivationSpec(
        "pre", _BLOCK + "mlp.hook_pre", (POS, NEURON), "neurons before the nonlinearity"
    ),
    ActivationSpec(
        "post", _BLOCK + "mlp.hook_post", (POS, NEURON), "neurons after the nonlinearity"
    ),
    ActivationSpec("ln1_scale", _BLOCK + "ln1.hook_scale", (POS,), "divisor of the first norm"),
    ActivationSpec("ln2_scale", _BLOCK + "ln2.hook_scale", (POS,), "divisor of the second norm"),
    ActivationSpec(
        "ln1_normalized", _BLOCK + "ln1.hook_normalized", _STREAM, "output of the first norm"
    ),
    ActivationSpec(
        "ln2_normalized", _BLOCK + "ln2.hook_normalized", _STREAM, "output of the second norm"
    ),
    ActivationSpec("embed", "hook_embed", _STREAM, "token embeddings"),
    ActivationSpec("pos_embed", "hook_pos_embed", _STREAM, "position embeddings"),
    ActivationSpec("ln_final_scale", "ln_final.hook_scale", (POS,), "divisor of the final norm"),
    ActivationSpec(
        "ln_final_normalized", "ln_final.hook_normalized", _STREAM, "output of the final norm"
    ),
    ActivationSpec(
        "final_logits",
        "unembed.last",  # no hook of TransformerLens
        (TOKEN,),
        "output of the unembedding at the last position, before a soft cap",
    ),
)

ACTIVATIONS: Final = {spec.name: spec for spec in _SPECS}
"""Known activations by short name."""

ALIASES: Final = {
    "attn": "pattern",
    "mlp_pre": "pre",
    "mlp_post": "post",
    "attn_pattern": "pattern",
}
"""Other words people use for a short name; resolved once, never stored."""

RESIDUAL: Final = "residual"
"""The word by which everything in `RESIDUAL_STREAM` is captured, and the weights with it."""

RESIDUAL_STREAM: Final = (
    "embed",
    "pos_embed",
    "resid_pre",
    "ln1_scale",
    "z",
    "attn_out",
    "resid_mid",
    "ln2_scale",
    "mlp_out",
    "resid_post",
    "ln_final_scale",
    "final_logits",
)
"""What the analyses of the residual stream need, in the order in which it comes about."""


@dataclass(frozen=True)
class WeightSpec:
    """Parameters of a model that a file can hold.

    Parameters
    ----------
    name
        As TransformerLens calls them, and as they are called in the file.
    dims
        In stored order.
    part
        Where they are in TransformerLens' models; with ``{layer}`` if each layer has its own.
    cut
        The dim along which they lie in chunks: the one of which few indexes are wanted.
    prose
        One sentence: what they do.
    """

    name: str
    dims: tuple[str, ...]
    part: str
    cut: str
    prose: str


_NORM: Final = (LAYER, D_MODEL)
_WEIGHT_SPECS: Final = (
    WeightSpec(
        "W_O",
        (LAYER, HEAD, D_HEAD, D_MODEL),
        _BLOCK + "attn.W_O",
        D_MODEL,
        "from a head's z to what it writes",
    ),
    WeightSpec(
        "b_O", _NORM, _BLOCK + "attn.b_O", D_MODEL, "what attention writes besides its heads"
    ),
    WeightSpec(
        "W_out",
        (LAYER, NEURON, D_MODEL),
        _BLOCK + "mlp.W_out",
        NEURON,
        "what a neuron writes for each unit of its activation",
    ),
    WeightSpec(
        "b_out", _NORM, _BLOCK + "mlp.b_out", D_MODEL, "what an MLP writes besides its neurons"
    ),
    WeightSpec("ln1_w", _NORM, _BLOCK + "ln1.w", D_MODEL, "factor of the first norm"),
    WeightSpec("ln1_b", _NORM, _BLOCK + "ln1.b", D_MODEL, "bias of the first norm"),
    WeightSpec("ln2_w", _NORM, _BLOCK + "ln2.w", D_MODEL, "factor of the second norm"),
    WeightSpec("ln2_b", _NORM, _BLOCK + "ln2.b", D_MODEL, "bias of the second norm"),
    WeightSpec("ln_final_w", (D_MODEL,), "ln_final.w", D_MODEL, "factor of the final norm"),
    WeightSpec("ln_final_b", (D_MODEL,), "ln_final.b", D_MODEL, "bias of the final norm"),
    WeightSpec(
        "W_U", (D_MODEL, TOKEN), "unembed.W_U", TOKEN, "from the normalised stream to logits"
    ),
    WeightSpec("b_U", (TOKEN,), "unembed.b_U", TOKEN, "what is added to the logits"),
)

WEIGHTS: Final = {spec.name: spec for spec in _WEIGHT_SPECS}
"""Weights that a file can hold, by name."""

_BY_TEMPLATE: Final = {spec.template: spec for spec in _SPECS}
_LAYER_INDEX: Final = re.compile(r"\.(\d+)\.")


def split_hook(hook: str) -> tuple[str, int | None]:
    """Template and layer of a hook name.

    Parameters
    ----------
    hook
        A full hook name, such as ``blocks.3.attn.hook_pattern`` or ``hook_embed``.

    Returns
    -------
    The template (``blocks.{layer}.attn.hook_pattern``) and the layer, or None where it has none.
    """
    match = _LAYER_INDEX.search(hook)
    if match is None:
        return hook, None
    return f"{hook[: match.start()]}.{{layer}}.{hook[match.end() :]}", int(match.group(1))


def short_name(template: str) -> str:
    """Short name of a template, known or derived from it.

    Examples
    --------
    >>> short_name("blocks.{layer}.attn.hook_pattern")
    'pattern'
    >>> short_name("encoder_blocks.{layer}.attn.hook_pattern")
    'encoder_blocks.attn.pattern'
    """
    if template in _BY_TEMPLATE:
        return _BY_TEMPLATE[template].name
    bare = template.removeprefix(_BLOCK).replace(".{layer}", "")
    return bare.replace("hook_", "")


def known_dims(template: str) -> tuple[str, ...] | None:
    """Dims of a template's value for one layer, or None if this package has no name for them.

    A pattern is known by its ending, wherever it stands, so that encoders and cross-attention have
    the dims of any other pattern.
    """
    if template in _BY_TEMPLATE:
        return _BY_TEMPLATE[template].dims
    if template.endswith((".hook_pattern", ".hook_attn_scores")):
        return _SQUARE
    return None


def head_label(layer: int, head: int) -> str:
    """Label of one head, as TransformerLens writes it: ``L3H5``."""
    return f"L{layer}H{head}"
