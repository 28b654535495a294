"""What a user wrote for `layer` and `head`, and the figures that it means.

The rule: every number and every term of the grammar has to name at least one figure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import OutOfRangeError
from pattern_lens.figures.places import cells_of, heads_of, known, layers_of
from pattern_lens.heads import parse_heads
from pattern_lens.patterns.cuts import as_cut

if TYPE_CHECKING:
    from pattern_lens.figures.places import Numbers

_ONE_HEAD: Final = re.compile(r"\s*L[0-9]+H[0-9]+\s*", re.IGNORECASE)
_SEPARATORS: Final = re.compile(r"[,~\s]+")


def choose_numbers(
    dim: str, value: Any, numbers: Numbers, *, by_label: bool
) -> tuple[Numbers, bool]:
    """Layers or heads that are meant, ascending, and whether they can be one only.

    Raises
    ------
    OutOfRangeError
        One that has no figure.
    """
    labels = np.array(known(numbers), np.int64)
    pick = as_cut(dim, value, by_label=by_label).apply(labels, dim)
    chosen = np.unique(labels[np.atleast_1d(np.asarray(pick, np.intp))]).astype(np.uint64)
    return chosen, isinstance(pick, int)


def choose_cells(selection: Any, cells: Numbers, size: tuple[int, int]) -> tuple[Numbers, bool]:
    """Layers and heads that labels mean, ascending, and whether they can be one only.

    Parameters
    ----------
    size
        How many layers, and heads of each, the model has.

    Raises
    ------
    HeadSelectionError, OutOfRangeError
        A term that the grammar does not know, or of which there is no figure.
    """
    found = [cells[:0]]
    for term in _terms(selection):
        pairs = parse_heads(term, n_layers=size[0], n_heads=size[1])
        named = cells_of(*zip(*pairs, strict=True))
        there = named[np.isin(named, cells)]
        if not len(there):
            layers, heads = (_listed(known(part(cells))) for part in (layers_of, heads_of))
            raise OutOfRangeError(
                f"no figure of {term!r}: there are figures of layers {layers} and heads {heads}"
            )
        found.append(there)
    return np.unique(np.concatenate(found)), _is_one_head(selection)


def _terms(selection: Any) -> list[Any]:
    if isinstance(selection, str):
        return [term for term in _SEPARATORS.split(selection) if term] or [selection]
    return [selection] if _is_pair(selection) else [t for item in selection for t in _terms(item)]


def _is_one_head(selection: Any) -> bool:
    if isinstance(selection, str):
        return _ONE_HEAD.fullmatch(selection) is not None
    return _is_pair(selection)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) for v in value)


def _listed(numbers: list[int]) -> str:
    if len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers)) or "none"
