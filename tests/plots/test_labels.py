import numpy as np
import pytest
import xarray as xr

from pattern_lens.plots.labels import labels_along, title_of, tokens_along
from pattern_lens.wording import visible


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("the", "the"),
        (" the", "␣the"),
        ("a\tb\r\n", "a⇥b⏎⏎"),
        ("<BOS>", "<BOS>"),
        ("", ""),
        ("\x00", r"\x00"),
        ("\u200b", r"\u200b"),
        ("\ud83d", r"\ud83d"),
        ("\u202eabc", r"\u202eabc"),
        ("é漢", "é漢"),
    ],
)
def test_nothing_in_a_token_stays_invisible(token, shown):
    assert visible(token) == shown


def test_repeated_tokens_stay_apart(pattern):
    assert labels_along(pattern, "key") == [
        "0: <BOS>",
        "1: ␣the",
        "2: ⏎",
        "3: <script>alert(1…",
        "4: ␣the",
    ]


def test_the_label_is_the_index_after_a_choice(pattern):
    assert labels_along(pattern.isel(query=[4, 1]), "query") == ["4: ␣the", "1: ␣the"]


def test_without_tokens_the_index_alone():
    array = xr.DataArray(np.eye(2), dims=("query", "key"))
    assert labels_along(array, "key") == ["0", "1"]
    assert tokens_along(array, "key") is None


def test_right_to_left_text_is_isolated():
    array = xr.DataArray([1.0], {"key": [0], "key_token": ("key", ["שלום"])}, "key")
    assert labels_along(array, "key") == ["0: \u2068שלום\u2069"]  # noqa: RUF001


def test_a_title_says_head_model_and_text(pattern):
    assert title_of(pattern) == "L1H2 · tiny · <b>the</b> text"


def test_a_title_is_no_formula(pattern):
    assert "$$" not in title_of(pattern.assign_attrs(text="$$x$$"))
