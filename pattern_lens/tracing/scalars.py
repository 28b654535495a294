"""Derived scalars by name: those that come with the package, those of a user, and activations as they are.

Rule: whatever `scalar_names` gives, `scalar` knows. A name is a kind of node (``head``: all that is measured of heads),
a scalar (``head_direct_effect``), a glob over scalars (``*_direct_effect``), an activation (``pattern``, ``post_grad``)
or ``default``; a kind comes before an activation of the same name.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from pattern_lens.errors import UnknownScalarError

# isort: off
# in the order in which they are listed
from pattern_lens.tracing.definitions import heads, pairs, neurons, layers, latents, edges

# isort: on
from pattern_lens.tracing.definitions.sites import SITE_NAMES, site_name, site_scalar
from pattern_lens.tracing.registry import SCALARS, At, Scalar, close_to, register_scalar

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

__all__ = [
    "DEFAULT",
    "SCALARS",
    "At",
    "Scalar",
    "register_scalar",
    "scalar",
    "scalar_names",
    "scalar_table",
]

_REGISTERED_BY: Final = (heads, pairs, neurons, layers, latents, edges)
_GLOB: Final = frozenset("*?[")
_DEFAULT_KINDS: Final = ("head", "mlp", "embed", "attn_bias", "mlp_bias")

DEFAULT: Final = tuple(name for name, known in SCALARS.items() if known.kind in _DEFAULT_KINDS)
"""What a trace derives unless told otherwise: heads, MLPs and the embedding, and the biases that complete the sum."""


def scalar(name: str) -> Scalar:
    """A scalar by its name.

    Parameters
    ----------
    name
        Name of a scalar, or an activation's short name, alias or hook, with ``_grad`` for its gradient.

    Raises
    ------
    UnknownScalarError
        There is none; the message has the nearest names.

    Examples
    --------
    >>> scalar("head_direct_effect").dims, scalar("post_grad").needs
    (('layer', 'head', 'query'), ('post_grad',))
    """
    found = SCALARS.get(name) or site_scalar(site_name(name))
    if found is None:
        raise _unknown(name)
    return found


def scalar_names(asked: str | Iterable[str]) -> tuple[str, ...]:
    """Names of scalars that were asked for, each once, in the order of asking.

    Parameters
    ----------
    asked
        A name, or several: scalars, kinds of node, globs over scalars, activations, ``default``.

    Raises
    ------
    UnknownScalarError
        Something is none of these; the message has the nearest names.

    Examples
    --------
    >>> scalar_names(["embed", "pattern", "m*_direct_effect"])
    ('embed_write_magnitude', 'embed_estimated_total_effect', 'embed_direct_effect', 'pattern', 'mlp_direct_effect', 'mlp_bias_direct_effect')
    """
    names = [asked] if isinstance(asked, str) else list(asked)
    return tuple(dict.fromkeys(name for one in names for name in _expanded(one)))


def scalar_table() -> pd.DataFrame:
    """Every scalar that has a definition, one a row.

    Returns
    -------
    Columns name, dims, needs and definition, in the order of registration. Any activation and its gradient are scalars
    besides these.
    """
    import pandas as pd

    rows = [
        (known.name, ", ".join(known.dims), ", ".join(known.needs), known.definition)
        for known in SCALARS.values()
    ]
    return pd.DataFrame(rows, columns=["name", "dims", "needs", "definition"])


def _expanded(asked: str) -> tuple[str, ...]:
    if not isinstance(asked, str):
        raise UnknownScalarError(
            f"no scalar {asked!r}: expected a name, and got {type(asked).__name__}"
        )
    if asked == "default":
        return DEFAULT
    if asked in SCALARS:
        return (asked,)
    if _GLOB & set(asked):
        found = tuple(name for name in SCALARS if fnmatchcase(name, asked))
    else:
        found = tuple(
            name for name, known in SCALARS.items() if known.measure and known.kind == asked
        )
    return found or (scalar(asked).name,)


def _unknown(name: str) -> UnknownScalarError:
    kinds = dict.fromkeys(known.kind for known in SCALARS.values())
    hint = close_to(name, dict.fromkeys((*SCALARS, *kinds, *SITE_NAMES)))
    return UnknownScalarError(
        f"no scalar {name!r}: expected a kind ({', '.join(kinds)}), a scalar of scalar_table(), a glob over them, "
        f"an activation such as 'pattern', or its gradient, 'pattern_grad'{hint}"
    )
