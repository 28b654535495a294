"""Choosing heads by label, among what a collection has left."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.heads import parse_heads
from pattern_lens.names import HEAD

if TYPE_CHECKING:
    from pattern_lens.patterns.chosen import Chosen

_ONE_HEAD: Final = re.compile(r"\s*L[0-9]+H[0-9]+\s*", re.IGNORECASE)
_WILD: Final = re.compile(r"[xX*]|(?:^|[,~\s])[hH]")


def choose_heads(chosen: Chosen, selection: Any) -> Chosen:
    """Heads by label, among what was chosen."""
    single = isinstance(selection, str) and _ONE_HEAD.fullmatch(selection) is not None
    numbers = chosen.layer_numbers
    heads = parse_heads(
        selection, n_layers=max(numbers, default=-1) + 1, n_heads=chosen.layout.sizes[HEAD]
    )
    if isinstance(selection, str) and _WILD.search(selection):
        heads = [head for head in heads if head[0] in numbers]
    return chosen.pair(heads, single=single or _is_pair(selection))


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) for v in value)


def are_labels(value: Any) -> bool:
    """Whether heads are named with their layers: labels or (layer, head) tuples."""
    if isinstance(value, str) or _is_pair(value):
        return True
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(isinstance(v, str) or _is_pair(v) for v in value)
