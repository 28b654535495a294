"""The grammar for choosing heads: ``L3H5``, ``L0-3H2``, ``LxH0``, ``L3``, ``x``.

A selection always means the same heads of the same model, in the order written; whatever is not
in the grammar, or not in the model, is an error that names the term.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from pattern_lens.errors import HeadSelectionError, OutOfRangeError
from pattern_lens.names import head_label

Head: TypeAlias = tuple[int, int]
"""(layer, head), both from 0."""

HeadSelection: TypeAlias = str | Head | Iterable[str | Head]
"""What `parse_heads` takes."""

GRAMMAR: Final = (
    "L<layer>H<head>, each a number, a range such as 0-3, or x for every one; L or H may be left "
    "out; x alone is every head; terms stand between commas, for example 'L3H5, L0-3H2, LxH0'"
)
"""What a selection may say, in words; for error messages and help texts."""

_PART: Final = r"([0-9]+(?:-[0-9]+)?|[x*])"
_TERM: Final = re.compile(rf"(?:L{_PART})?(?:H{_PART})?|[x*]", re.IGNORECASE | re.ASCII)
_SEPARATORS: Final = re.compile(r"[,~\s]+")
_SURELY_OUT_OF_RANGE: Final = 18


def parse_heads(selection: HeadSelection, *, n_layers: int, n_heads: int) -> list[Head]:
    """Heads that a selection names, in the order written, each once.

    Parameters
    ----------
    selection
        A string of the grammar above (upper or lower case; terms between commas, ``~`` or blanks),
        a ``(layer, head)`` tuple, or an iterable of these. Numbers in a tuple may be negative:
        they count from the end.
    n_layers, n_heads
        What the model has.

    Returns
    -------
    (layer, head) tuples from 0; at least one.

    Raises
    ------
    HeadSelectionError
        A term is not in the grammar, a range is reversed, or no head is named.
    OutOfRangeError
        A term names a layer or head that the model does not have.

    Examples
    --------
    >>> parse_heads("L1H2, L0-1H0", n_layers=2, n_heads=3)
    [(1, 2), (0, 0), (1, 0)]
    >>> parse_heads([(-1, 0), "L0"], n_layers=2, n_heads=3)
    [(1, 0), (0, 0), (0, 1), (0, 2)]
    """
    terms = list(_terms(selection))
    found: dict[Head, None] = {}
    for number, term in enumerate(terms, start=1):
        name = f"{term!r} (term {number} of {len(terms)})"
        layers, heads = _parts(term, name)
        found |= dict.fromkeys(
            (layer, head)
            for layer in _within(layers, "layer", n_layers, name)
            for head in _within(heads, "head", n_heads, name)
        )
    if not found:
        raise HeadSelectionError(f"selection {selection!r} names no head; expected {GRAMMAR}")
    return list(found)


def format_heads(heads: Iterable[Head]) -> str:
    """Label of each head, in order: a selection that `parse_heads` turns back into these heads.

    Examples
    --------
    >>> format_heads([(0, 2), (3, 5)])
    'L0H2, L3H5'
    """
    labels = []
    for layer, head in heads:
        if layer < 0 or head < 0:
            raise HeadSelectionError(
                f"head {(layer, head)} has no label: expected a layer and a head counted from 0"
            )
        labels.append(head_label(layer, head))
    return ", ".join(labels)


def is_head_selection(value: object) -> bool:
    """Whether a value is a string of the grammar that names a layer or a head.

    Examples
    --------
    >>> is_head_selection("l0-3h2"), is_head_selection("mean"), is_head_selection("x")
    (True, False, False)
    """
    if not isinstance(value, str):
        return False
    terms = list(_terms(value))
    has_part = any(term[0] in "LlHh" for term in terms if isinstance(term, str))
    return has_part and all(isinstance(term, str) and _TERM.fullmatch(term) for term in terms)


def _terms(selection: object) -> Iterator[object]:
    """Terms of a selection: strings without separators, tuples, and whatever is neither."""
    if isinstance(selection, str):
        yield from filter(None, _SEPARATORS.split(selection))
    elif _is_head(selection) or not isinstance(selection, Iterable):
        yield selection
    else:
        for item in selection:
            yield from _terms(item) if isinstance(item, str) else (item,)


def _is_head(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_int, value))


def _is_int(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


Span: TypeAlias = tuple[int, int] | None
"""First and last number, both included; None is every one."""


def _parts(term: object, name: str) -> tuple[Span, Span]:
    if isinstance(term, tuple) and _is_head(term):
        layer, head = map(int, term)
        return (layer, layer), (head, head)
    match = _TERM.fullmatch(term) if isinstance(term, str) else None
    if match is None:
        kind = (
            "a head" if isinstance(term, str) else "a string or a (layer, head) tuple of integers"
        )
        raise HeadSelectionError(f"{name} is not {kind}; expected {GRAMMAR}")
    return _span(match[1], name), _span(match[2], name)


def _span(part: str | None, name: str) -> Span:
    if part is None or part in "xX*":
        return None
    numbers = [_number(digits) for digits in part.split("-")]
    if numbers[0] > numbers[-1]:
        raise HeadSelectionError(
            f"range {part} of {name} is reversed; write the smaller number first, for example 0-3"
        )
    return numbers[0], numbers[-1]


def _number(digits: str) -> int:
    # Python refuses to convert thousands of digits; so many are out of range however they go on.
    return int(digits.lstrip("0")[:_SURELY_OUT_OF_RANGE] or "0")


def _within(span: Span, what: str, n: int, name: str) -> range:
    """Numbers of a span, counted from 0; negative ones count from the end."""
    if span is None:
        return range(n)
    first, last = span
    if not -n <= first <= last < n:
        has = f"{what}s 0-{n - 1}" if n > 1 else f"{what} 0 alone" if n else f"no {what}s"
        raise OutOfRangeError(f"{name} is out of range: the model has {has}")
    return range(first % n, last % n + 1)
