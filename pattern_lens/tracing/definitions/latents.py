"""What each latent of a sparse autoencoder does at each position, and what its reconstruction leaves over.

Rule: an autoencoder's latents and its error add up to the activation it stands at, so that the two kinds of node
together lose nothing. Computed once for each autoencoder, at the layer where it stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from einops import rearrange

from pattern_lens.names import FEATURE, POS
from pattern_lens.tracing.definitions.products import dot, norm
from pattern_lens.tracing.registry import (
    DIRECTION,
    GRAD,
    LATENT,
    SAE_ERROR,
    SAE_ERROR_WRITE,
    W_WRITE,
    register_scalar,
)

if TYPE_CHECKING:
    from pattern_lens.tracing.registry import At

_DIMS: Final = (POS, FEATURE)


@register_scalar(
    "latent_activation",
    dims=_DIMS,
    needs=(LATENT,),
    definition="the latent, after its nonlinearity (definition)",
)
def latent_activation(at: At) -> Any:
    """Activation of each latent.

    Parameters
    ----------
    at
        With ``latent``.

    Returns
    -------
    Dims (prompt, pos, feature); range [0, inf) for the usual autoencoders.
    """
    return at[LATENT]


@register_scalar(
    "latent_gradient",
    dims=_DIMS,
    needs=(LATENT + GRAD,),
    definition="gradient with respect to the latent, its error held where it is "
    "(Marks et al. 2024, Sparse Feature Circuits)",
)
def latent_gradient(at: At) -> Any:
    """Gradient with respect to each latent.

    Parameters
    ----------
    at
        With ``latent_grad``.

    Returns
    -------
    Dims (prompt, pos, feature); any sign, in units of the objective for each unit of the latent.
    """
    return at[LATENT + GRAD]


@register_scalar(
    "latent_write_magnitude",
    dims=_DIMS,
    needs=(LATENT, W_WRITE),
    definition="length of what the latent adds to the stream, |latent| * |W_dec row|, W_dec through W_out at neurons "
    "(Mossing et al. 2024, Transformer Debugger)",
)
def latent_write_magnitude(at: At) -> Any:
    """Length of what each latent adds to the stream.

    Parameters
    ----------
    at
        With ``latent`` and ``W_write``.

    Returns
    -------
    Dims (prompt, pos, feature); range [0, inf), in units of the stream.

    Notes
    -----
    |latent| * |W_write row|; the decoder's bias belongs to no latent. Mossing et al. 2024, Transformer Debugger.
    """
    return abs(at[LATENT]) * norm(at.weight(W_WRITE))


@register_scalar(
    "latent_estimated_total_effect",
    dims=_DIMS,
    needs=(LATENT, LATENT + GRAD),
    definition="activation x gradient of the latent, latent * dlatent (Marks et al. 2024, Sparse Feature Circuits)",
)
def latent_estimated_total_effect(at: At) -> Any:
    """First-order estimate of what the objective loses if a latent is 0 at a position.

    Parameters
    ----------
    at
        With ``latent`` and ``latent_grad``.

    Returns
    -------
    Dims (prompt, pos, feature); any sign, in units of the objective.

    Notes
    -----
    latent * latent_grad. Marks et al. 2024, Sparse Feature Circuits.
    """
    return at[LATENT] * at[LATENT + GRAD]


@register_scalar(
    "latent_direct_effect",
    dims=_DIMS,
    needs=(LATENT, W_WRITE, DIRECTION),
    definition="what the latent adds along the direction that is read, latent * (W_dec row . direction) "
    "(Elhage et al. 2021, A Mathematical Framework for Transformer Circuits)",
)
def latent_direct_effect(at: At) -> Any:
    """What each latent adds to the objective, or to the traced node, through no other component.

    Parameters
    ----------
    at
        With ``latent``, ``W_write`` and the direction.

    Returns
    -------
    Dims (prompt, pos, feature); any sign, in units of the objective. Zero where the direction is.

    Notes
    -----
    latent * (W_write row . direction), at the few positions that are read.
    """
    back = at.direction("sae") @ rearrange(at.weight(W_WRITE), "feature model -> model feature")
    return at.spread(at.there(at[LATENT]) * back)


@register_scalar(
    "sae_error_write_magnitude",
    dims=(POS,),
    needs=(SAE_ERROR_WRITE,),
    definition="length of what the autoencoder leaves over, as it reaches the stream, |error| (definition)",
)
def sae_error_write_magnitude(at: At) -> Any:
    """Length of what the reconstruction leaves over.

    Parameters
    ----------
    at
        With ``sae_error_write``: the error, through W_out if the autoencoder stands at the neurons.

    Returns
    -------
    Dims (prompt, pos); range [0, inf), in units of the stream.
    """
    return norm(at[SAE_ERROR_WRITE])


@register_scalar(
    "sae_error_estimated_total_effect",
    dims=(POS,),
    needs=(SAE_ERROR, SAE_ERROR + GRAD),
    definition="activation x gradient of what the autoencoder leaves over, error . derror "
    "(Marks et al. 2024, Sparse Feature Circuits)",
)
def sae_error_estimated_total_effect(at: At) -> Any:
    """First-order estimate of what the objective loses without the error of the reconstruction.

    Parameters
    ----------
    at
        With ``sae_error`` and ``sae_error_grad``.

    Returns
    -------
    Dims (prompt, pos); any sign, in units of the objective.

    Notes
    -----
    error . gradient of the activation at which the autoencoder stands. Marks et al. 2024, Sparse Feature Circuits.
    """
    return dot(at[SAE_ERROR], at[SAE_ERROR + GRAD])


@register_scalar(
    "sae_error_direct_effect",
    dims=(POS,),
    needs=(SAE_ERROR_WRITE, DIRECTION),
    definition="what the autoencoder leaves over, along the direction that is read, error . direction "
    "(Elhage et al. 2021, A Mathematical Framework for Transformer Circuits)",
)
def sae_error_direct_effect(at: At) -> Any:
    """What the error of the reconstruction adds to the objective through no other component.

    Parameters
    ----------
    at
        With ``sae_error_write`` and the direction.

    Returns
    -------
    Dims (prompt, pos); any sign, in units of the objective. Zero where the direction is.
    """
    return at.spread(dot(at.there(at[SAE_ERROR_WRITE]), at.direction("sae")))
