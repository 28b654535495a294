"""What autoencoders are called, and the hash that tells one from another.

Rule: the hash is of numbers, names and shapes only: the type and device that weights are held in make no difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import xxhash

from pattern_lens.errors import AutoencoderError
from pattern_lens.names import short_name, split_hook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_SHORT: Final = {"post": "mlp"}


def default_name(hook: str) -> str:
    """What an autoencoder at a hook is called.

    Examples
    --------
    >>> default_name("blocks.0.mlp.hook_post"), default_name("blocks.3.hook_resid_post")
    ('mlp.0', 'resid_post.3')
    """
    template, layer = split_hook(hook)
    site = short_name(template).replace("/", "_")
    return _SHORT.get(site, site) if layer is None else f"{_SHORT.get(site, site)}.{layer}"


def check_name(name: str) -> str:
    """The name, if a file can hold it.

    Raises
    ------
    AutoencoderError
        It cannot be a name of an HDF5 group.
    """
    if not isinstance(name, str) or not name.strip(". ") or "/" in name or "\0" in name:
        raise AutoencoderError(
            f"an autoencoder cannot be called {name!r}: expected letters without '/', such as 'mlp.0'"
        )
    return name


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Hash of weights in the order given, with their names and shapes; the same for the same numbers of any type."""
    found = xxhash.xxh3_128()
    for key, value in weights.items():
        found.update(f"{key} {tuple(value.shape)} ".encode())
        found.update(value.detach().float().cpu().contiguous().numpy().data)
    return found.hexdigest()
