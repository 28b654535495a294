"""What an address answers: bytes that are made when they are asked for, and a tag that is known before.

The rule: a tag comes from what the file knows already (checksums and numbers of rows) or from few bytes, so that it
costs nothing to say that an answer has not changed.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xxhash

from pattern_lens import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

JSON: Final = "application/json"
NPY: Final = "application/x-npy"
BYTES: Final = "application/octet-stream"
_DIGITS: Final = 6


@dataclass(frozen=True)
class Answer:
    """One answer.

    Parameters
    ----------
    make
        Gives the bytes.
    tag
        Another one means other bytes; ASCII letters and digits.
    encoding
        ``gzip`` where the bytes are a compressed form of what `media_type` says.
    is_foreign
        Whether somebody else made the bytes (stored figures): browsers must not let them run.
    is_compressible
        Whether compression makes the bytes fewer by enough to be worth its time.
    """

    make: Callable[[], bytes]
    media_type: str
    tag: str
    encoding: str | None = None
    is_foreign: bool = False
    is_compressible: bool = False


def tag_of(*parts: object) -> str:
    """A tag from what makes an answer what it is; of this version of the package."""
    text = "\0".join(part if isinstance(part, str) else repr(part) for part in parts)
    return xxhash.xxh3_64_hexdigest(f"{__version__}\0{text}".encode("utf-8", "surrogatepass"))


def rows_tag(rows: NDArray[Any]) -> str:
    """A tag of index rows: they hold the checksums of what they are of."""
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(rows).view(np.uint8).data)


def json_answer(value: Any) -> Answer:
    """An object whose bytes are few; its tag is that of the bytes."""
    data = json_bytes(value)
    return Answer(lambda: data, JSON, xxhash.xxh3_64_hexdigest(data), is_compressible=True)


def late_json(make: Callable[[], Any], tag: str) -> Answer:
    """An object that takes time to make."""
    return Answer(lambda: json_bytes(make()), JSON, tag, is_compressible=True)


def npy_answer(make: Callable[[], NDArray[Any]], tag: str, *, compressible: bool = False) -> Answer:
    """An array in numpy's format."""
    return Answer(lambda: npy_bytes(make()), NPY, tag, is_compressible=compressible)


def npy_bytes(array: NDArray[Any]) -> bytes:
    """An array in numpy's format, little-endian, C order."""
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(little), allow_pickle=False)
    return buffer.getvalue()


def json_bytes(value: Any) -> bytes:
    """JSON in UTF-8; what is not finite is ``null``."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can say it, UTF-8 cannot
        return json.dumps(json.loads(text), separators=(",", ":")).encode()


def finite(value: Any) -> Any:
    """The same object with None for what is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value


def numbers(array: NDArray[Any]) -> Any:
    """An array as nested lists, with None for what is not finite."""
    values = np.asarray(array)
    if values.dtype.kind != "f":
        return values.tolist()
    out = values.astype(object)
    out[~np.isfinite(values)] = None
    return out.tolist()


def rounded(values: NDArray[Any], digits: int = _DIGITS) -> Any:
    """Nested lists of numbers with so many digits, which JSON says shortly."""
    values = np.asarray(values, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.floor(np.log10(np.abs(values)))
    places = np.where(np.isfinite(size), digits - 1 - size, 0)
    factor = 10.0 ** np.minimum(places, 300)
    return numbers(np.where(np.isfinite(values), np.round(values * factor) / factor, values))
