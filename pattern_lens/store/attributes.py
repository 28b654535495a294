"""Text attributes, stored where HDF5's own checksums cover them.

Strings of variable length lie in a heap that carries no checksum: a flipped bit there would change a size or a
fill value unnoticed. Strings of fixed length lie in the object header, which HDF5 checks whenever it reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


def write_text(attrs: h5py.AttributeManager, name: str, text: str) -> None:
    """Store `text` as a fixed-length UTF-8 string."""
    raw = text.encode()
    attrs.create(name, np.bytes_(raw), dtype=h5py.string_dtype("utf-8", max(len(raw), 1)))


def read_text(attrs: Mapping[str, Any], name: str) -> str:
    """A string attribute, of fixed or of variable length.

    Raises
    ------
    KeyError
        There is none of this name.
    """
    return str(as_text(attrs[name]))


def as_text(value: Any) -> Any:
    """The value of an attribute, with bytes as the text that they stand for."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
