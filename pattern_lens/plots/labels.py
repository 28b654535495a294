"""What is written beside a position: its index and its token, ``12: the``.

The rules: nothing in a token stays invisible or changes what stands beside it; a label is text, never markup.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.names import HEAD, LAYER, TOKEN_COORDS, head_label
from pattern_lens.wording import visible

if TYPE_CHECKING:
    import xarray as xr

_RIGHT_TO_LEFT: Final = frozenset(("R", "AL"))
_ISOLATE: Final = "\u2068{}\u2069"
_LONGEST: Final = 16
_LONGEST_TEXT: Final = 60


def isolated(text: str) -> str:
    """Text that leaves the order of what stands beside it alone, even if it is read from right to left."""
    if any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in text):
        return _ISOLATE.format(text)
    return text


def short(text: str, width: int = _LONGEST) -> str:
    """The beginning of a text."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def labels_along(array: xr.DataArray, dim: str) -> list[str]:
    """Label of each position along a dim: the index, and the token where it is known.

    Examples
    --------
    >>> import xarray as xr
    >>> labels_along(xr.DataArray([0.5, 0.5], {"key": [0, 7], "key_token": ("key", ["a", " b"])}, "key"), "key")
    ['0: a', '7: ␣b']
    """
    numbers = array[dim].values
    tokens = tokens_along(array, dim)
    if tokens is None:
        return [str(number) for number in numbers]
    shown = (isolated(short(visible(token))) for token in tokens)
    return [f"{number}: {token}" for number, token in zip(numbers, shown, strict=True)]


def tokens_along(array: xr.DataArray, dim: str) -> list[str] | None:
    """Text of each token along a dim; None where the array does not say."""
    name = TOKEN_COORDS.get(dim, "")
    if name not in array.coords or array.coords[name].dims != (dim,):
        return None
    return [str(token) for token in array.coords[name].values]


def head_of(array: xr.DataArray) -> str:
    """Label of the head that an array is of, ``L3H5``; empty where it does not say."""
    values = [array.coords[d].item() for d in (LAYER, HEAD) if _is_one(array, d)]
    return head_label(*values) if len(values) == 2 else ""


def _is_one(array: xr.DataArray, name: str) -> bool:
    return name in array.coords and array.coords[name].size == 1


def text_of(array: xr.DataArray) -> str:
    """The prompt's text on one line; empty where the array does not say it."""
    return visible(" ".join(str(array.attrs.get("text", "")).split())).replace("␣", " ")


def title_of(array: xr.DataArray, *more: str) -> str:
    """Head, model and the beginning of the prompt's text, as far as the array says them."""
    attrs: dict[Any, Any] = array.attrs
    text = short(text_of(array), _LONGEST_TEXT)
    parts = [head_of(array), str(attrs.get("model", "")), *more, isolated(text)]
    return plain(" · ".join(part for part in parts if part))


def plain(title: str) -> str:
    """A title that Bokeh does not take for a formula."""
    return title.replace("$$", "$\u200b$")
