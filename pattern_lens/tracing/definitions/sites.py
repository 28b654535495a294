"""Activations and their gradients as they are, as scalars: built when they are asked for."""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from pattern_lens.names import ACTIVATIONS, ALIASES, LAYER, short_name, split_hook
from pattern_lens.tracing.registry import GRAD, STREAM_GRADIENTS, Scalar

SITE_NAMES: Final = (*ACTIVATIONS, *(name + GRAD for name in ACTIVATIONS), *STREAM_GRADIENTS)
"""Everything that `site_scalar` knows by its short name."""


def site_name(asked: str) -> str:
    """Short name of an activation or a gradient that was named by an alias or a hook.

    Examples
    --------
    >>> site_name("mlp_post_grad"), site_name("blocks.3.attn.hook_z")
    ('post_grad', 'z')
    """
    bare = asked.removesuffix(GRAD)
    if bare.startswith("hook_") or ".hook_" in bare:
        bare = short_name(split_hook(bare)[0])
    return ALIASES.get(bare, bare) + asked[len(asked.removesuffix(GRAD)) :]


def site_scalar(name: str) -> Scalar | None:
    """The scalar of an activation (``z``) or of its gradient (``z_grad``), or None if there is no such activation.

    Parameters
    ----------
    name
        Short name.

    Returns
    -------
    Dims of `ACTIVATIONS`, the layer first; in the activation's own units, or those of the objective for each of these.
    """
    if name in STREAM_GRADIENTS:
        dims, prose = STREAM_GRADIENTS[name]
        return Scalar(name, dims, (name,), f"{prose} (definition)", itemgetter(name))
    spec = ACTIVATIONS.get(name.removesuffix(GRAD))
    if spec is None:
        return None
    dims = (LAYER, *spec.dims) if spec.has_layers else spec.dims
    what = "gradient with respect to " if name.endswith(GRAD) else ""
    return Scalar(name, dims, (name,), f"{what}{spec.prose} (definition)", itemgetter(name))
