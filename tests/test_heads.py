from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pattern_lens.errors import HeadSelectionError, OutOfRangeError
from pattern_lens.heads import format_heads, is_head_selection, parse_heads

N_LAYERS, N_HEADS = 5, 3
EVERY = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]


def parse(selection: Any) -> list[tuple[int, int]]:
    return parse_heads(selection, n_layers=N_LAYERS, n_heads=N_HEADS)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("L3H2", [(3, 2)]),
        ("l03h02", [(3, 2)]),
        ("L3", [(3, 0), (3, 1), (3, 2)]),
        ("L3Hx", [(3, 0), (3, 1), (3, 2)]),
        ("L3H*", [(3, 0), (3, 1), (3, 2)]),
        ("H2", [(0, 2), (1, 2), (2, 2), (3, 2), (4, 2)]),
        ("LxH2", [(0, 2), (1, 2), (2, 2), (3, 2), (4, 2)]),
        ("L0-3H2", [(0, 2), (1, 2), (2, 2), (3, 2)]),
        ("L3-4H0-1", [(3, 0), (3, 1), (4, 0), (4, 1)]),
        ("L2-2H1", [(2, 1)]),
        ("H1-2", [(layer, head) for layer in range(N_LAYERS) for head in (1, 2)]),
        ("L0000000000000000000000000004H0", [(4, 0)]),
        ("x", EVERY),
        ("*", EVERY),
        ("L*H*", EVERY),
        ("LXHX", EVERY),
        ("L4H1,L0H2", [(4, 1), (0, 2)]),
        (" L4H1 ,~ L0H2\tL1H0, ", [(4, 1), (0, 2), (1, 0)]),
        ("L4H1~LxH1", [(4, 1), (0, 1), (1, 1), (2, 1), (3, 1)]),
        ((3, 1), [(3, 1)]),
        ((-1, -3), [(4, 0)]),
        ((np.int64(3), np.int64(1)), [(3, 1)]),
        ([(3, 1), "L0H2, L3H1", (4, -1)], [(3, 1), (0, 2), (4, 2)]),
        (("L3H1", "L0H2"), [(3, 1), (0, 2)]),
        ((head for head in [(1, 0), (0, 1)]), [(1, 0), (0, 1)]),
    ],
)
def test_selection(selection: Any, expected: list[tuple[int, int]]) -> None:
    found = parse(selection)
    assert found == expected
    assert all(type(n) is int for head in found for n in head)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("L3H1, Q2", r"'Q2' \(term 2 of 2\) is not a head; expected .* for example 'L3H5"),
        ("H1L3", r"'H1L3' \(term 1 of 1\) is not a head"),
        ("L-1H0", r"'L-1H0' \(term 1 of 1\) is not a head"),
        ("L1-", "'L1-' .* is not a head"),
        ("Lx-2", "'Lx-2' .* is not a head"),
        ("L", "'L' .* is not a head"),
        ("3", "'3' .* is not a head"),
        ("L٣H1", "'L٣H1' .* is not a head"),
        ("L1.5", "'L1.5' .* is not a head"),
        ([(0, 1), 3], r"3 \(term 2 of 2\) is not a string or a \(layer, head\) tuple of integers"),
        ((0, 1, 2), r"0 \(term 1 of 3\) is not a string or a .* tuple"),
        ([(0, 1, 2)], r"\(0, 1, 2\) \(term 1 of 1\) is not a string or a .* tuple"),
        ([(0, 1.0)], r"\(0, 1.0\) .* is not a string or a .* tuple"),
        ([(0, True)], r"\(0, True\) .* is not a string or a .* tuple"),
        (7, r"7 \(term 1 of 1\) is not a string or a .* tuple"),
        (None, r"None \(term 1 of 1\) is not a string or a .* tuple"),
        ("L3-1H0", r"range 3-1 of 'L3-1H0' \(term 1 of 1\) is reversed; write the smaller"),
        ("L0, H2-1", r"range 2-1 of 'H2-1' \(term 2 of 2\) is reversed"),
        ("", "selection '' names no head; expected L<layer>H<head>"),
        (" ,~", "selection ' ,~' names no head"),
        ([], r"selection \[\] names no head"),
    ],
)
def test_not_in_the_grammar(selection: Any, message: str) -> None:
    with pytest.raises(HeadSelectionError, match=message):
        parse(selection)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("L0H0, L5H0", r"'L5H0' \(term 2 of 2\) is out of range: the model has layers 0-4"),
        ("L4H3", r"'L4H3' \(term 1 of 1\) is out of range: the model has heads 0-2"),
        ("L2-5H0", "'L2-5H0' .* layers 0-4"),
        ("L0-999999999H0", "layers 0-4"),
        (f"L{'9' * 6000}", "layers 0-4"),
        ((5, 0), r"\(5, 0\) \(term 1 of 1\) is out of range: the model has layers 0-4"),
        ((-6, 0), r"\(-6, 0\) .* layers 0-4"),
        ((0, -4), r"\(0, -4\) .* heads 0-2"),
    ],
)
def test_not_in_the_model(selection: Any, message: str) -> None:
    with pytest.raises(OutOfRangeError, match=message):
        parse(selection)


def test_says_what_a_small_model_has() -> None:
    with pytest.raises(OutOfRangeError, match=r"the model has layer 0 alone$"):
        parse_heads("L1", n_layers=1, n_heads=4)
    with pytest.raises(OutOfRangeError, match=r"the model has no heads$"):
        parse_heads("L0H0", n_layers=1, n_heads=0)
    with pytest.raises(HeadSelectionError, match="selection 'x' names no head"):
        parse_heads("x", n_layers=1, n_heads=0)


def test_format() -> None:
    assert format_heads([(3, 5), (0, 2)]) == "L3H5, L0H2"
    with pytest.raises(HeadSelectionError, match=r"head \(-1, 2\) has no label: expected a layer"):
        format_heads([(-1, 2)])


@given(st.lists(st.sampled_from(EVERY), min_size=1, unique=True))
def test_format_is_the_inverse_of_parse(heads: list[tuple[int, int]]) -> None:
    assert parse(format_heads(heads)) == heads == parse(heads)


SOUP = st.text(st.sampled_from("LlHhXx*0123456789-,~ ٣ſ\n"), max_size=12)


@given(st.one_of(st.text(max_size=20), SOUP))
def test_any_string_is_heads_or_our_error(selection: str) -> None:
    try:
        found = parse(selection)
    except (HeadSelectionError, OutOfRangeError):
        return
    assert found
    assert set(found) <= set(EVERY)
    assert len(set(found)) == len(found)


@given(SOUP)
def test_what_is_a_selection_is_in_the_grammar(value: str) -> None:
    try:
        parse(value)
    except OutOfRangeError:
        return
    except HeadSelectionError as error:
        is_in_grammar = "is reversed" in str(error)
    else:
        is_in_grammar = True
    assert is_in_grammar or not is_head_selection(value)


@pytest.mark.parametrize("value", ["L3H5", "h2", "L0-3H1, x", "lxh0~L9999", "L4"])
def test_is_selection(value: str) -> None:
    assert is_head_selection(value)


@pytest.mark.parametrize("value", ["", "x", "*", "mean", "L3H5 mean", "3", "Left", 3, (3, 5), None])
def test_is_not_selection(value: object) -> None:
    assert not is_head_selection(value)
