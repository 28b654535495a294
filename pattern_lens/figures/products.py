"""What a figure function makes of one head: pictures, numbers, or failures.

The rule: a product is plain data that can be sent between processes and kept in a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from pattern_lens.errors import FigureFormatError, FigureKindError

if TYPE_CHECKING:
    import xarray as xr

_FORMAT: Final = re.compile(r"[a-z0-9]{1,16}")


@dataclass(frozen=True)
class Image:
    """A finished image, for a figure function to return.

    Parameters
    ----------
    data
        The bytes of an image file.
    format
        What stands behind the dot of such a file's name: ``png``, ``svg``, ``gif``, …

    Examples
    --------
    >>> Image(b"<svg/>", "svg").format
    'svg'
    """

    data: bytes
    format: str

    def __post_init__(self) -> None:
        if not isinstance(self.data, bytes):
            raise FigureKindError(
                f"cannot make an image of {type(self.data).__name__}: expected bytes; encode text, read files"
            )
        if not _FORMAT.fullmatch(self.format):
            raise FigureFormatError(
                f"invalid format {self.format!r}: expected a file name's ending in lower case, such as 'png'"
            )


@dataclass(frozen=True)
class Picture:
    """One figure of one head.

    Parameters
    ----------
    name
        Figure name: ``func``, or ``func.sub`` where a function draws several.
    format
        Ending of the file that it would be: ``png``, ``svgz``, …; ``bin`` for one without.
    data
        Bytes of that file.
    """

    name: str
    format: str
    data: bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of the picture."""
        return len(self.data)


@dataclass(frozen=True, eq=False)
class Values:
    """Numbers of one head.

    Parameters
    ----------
    name
        Figure name, as of a picture.
    values
        Real numbers, in memory, of any dims but prompt, layer and head; a single number has none.
    """

    name: str
    values: xr.DataArray

    @property
    def size_bytes(self) -> int:
        """Bytes of the numbers."""
        return int(self.values.nbytes)


@dataclass(frozen=True)
class Failure:
    """Why a figure of one head is not there.

    Parameters
    ----------
    name
        Figure name.
    error
        Type of the exception: ``ValueError``, ``numpy.linalg.LinAlgError``, …
    message
        What the exception says.
    traceback
        Text of the traceback from the user's function on, as Python prints it.
    """

    name: str
    error: str
    message: str
    traceback: str


Product: TypeAlias = Picture | Values | Failure
