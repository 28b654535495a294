"""One figure function on one head's pattern.

The rule: a function's mistake is a `Failure`, never an exception; only KeyboardInterrupt and SystemExit
pass. It cannot change what the next function gets, leave files or pyplot figures behind, or hand over
more bytes than allowed.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import DimensionError, FigureTooLargeError, NoFigureError
from pattern_lens.figures.failures import failure
from pattern_lens.figures.folder import pictures, private_folder, written
from pattern_lens.figures.pyplot_use import alone_with_pyplot, uses_pyplot
from pattern_lens.figures.registry import FIGURE_FORMAT, figure_function
from pattern_lens.figures.returned import returned
from pattern_lens.figures.saver import saver_of
from pattern_lens.names import KEY, QUERY

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import xarray as xr
    from numpy.typing import NDArray

    from pattern_lens.figures.products import Failure, Picture, Product, Values
    from pattern_lens.figures.registry import FigureFunction

SIZE_LIMIT_BYTES: Final = 64 << 20
"""Most that one function may make of one head, unless told otherwise."""


def produce(
    function: Callable[..., Any] | FigureFunction,
    pattern: xr.DataArray | NDArray[Any],
    *,
    size_limit_bytes: int = SIZE_LIMIT_BYTES,
) -> tuple[Product, ...]:
    """What a figure function makes of one head.

    Parameters
    ----------
    function
        A figure function, or its registry entry.
    pattern
        Attention of one head, dims (query, key), in memory or lazy. Coordinates `layer` and `head`,
        `query_token` and `key_token`, and the attribute `hash` are handed to functions of the labelled
        kind as they are, with values that cannot be written to; the others get a copy of the values.
    size_limit_bytes
        Bytes above which a function has failed.

    Returns
    -------
    At least one product, each with a name of its own that begins with the function's. Where an entry
    has `only`, exactly those. A function that raised has a failure for each figure it is known to draw.

    Raises
    ------
    FigureFunctionError
        `function` cannot be a figure function.
    DimensionError
        `pattern` has other dims.

    Examples
    --------
    >>> def most(pattern):
    ...     return float(pattern.max())
    >>> produce(most, np.array([[1.0, 0.0], [0.25, 0.75]]))[0].values.item()
    1.0
    """
    entry = figure_function(function)
    _check_dims(pattern)
    matrix = np.asarray(pattern)
    try:
        made = _made(entry, pattern, matrix, size_limit_bytes)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a user's function raises
        return tuple(failure(name, error) for name in entry.wanted_names)
    return _complete(entry, made)


def _check_dims(pattern: xr.DataArray | NDArray[Any]) -> None:
    dims = getattr(pattern, "dims", (QUERY, KEY) if np.ndim(pattern) == 2 else np.shape(pattern))
    if dims != (QUERY, KEY):
        raise DimensionError(
            f"cannot draw a pattern with dims {dims}: expected {(QUERY, KEY)}; choose one layer and head"
        )


def _made(
    entry: FigureFunction,
    pattern: xr.DataArray | NDArray[Any],
    matrix: NDArray[Any],
    limit: int,
) -> list[Picture | Values]:
    if entry.kind == "labelled":
        with _shielded(entry):
            value = entry.function(_labelled(pattern, matrix))
            made = returned(entry.name, value, entry.format or FIGURE_FORMAT)
        _check_size(entry, sum(product.size_bytes for product in made), limit)
        return made
    saver = saver_of(entry.function)
    if saver is None:
        return list(_from_folder(entry, _own(matrix), limit))
    files = saver.draw(_own(matrix))
    _check_size(entry, sum(len(data) for _, data in files), limit)
    return list(pictures(entry.name, files))


def _from_folder(entry: FigureFunction, matrix: NDArray[Any], limit: int) -> list[Picture]:
    with private_folder() as folder:
        with alone_with_pyplot():
            entry.function(matrix, folder)
        files = written(folder)
        _check_size(entry, sum(size for _, _, size in files), limit)
        return pictures(entry.name, ((name, path.read_bytes()) for name, path, _ in files))


def _own(matrix: NDArray[Any]) -> NDArray[Any]:
    """A copy to keep; float32 where the predecessor, which knew nothing else, would have had it."""
    return np.array(matrix, dtype=np.float32 if matrix.dtype == np.float16 else None)


def _labelled(pattern: xr.DataArray | NDArray[Any], matrix: NDArray[Any]) -> xr.DataArray:
    import xarray as xr

    view = matrix.view()
    view.flags.writeable = False
    if isinstance(pattern, xr.DataArray):
        return pattern.copy(deep=False, data=view)
    return xr.DataArray(view, dims=(QUERY, KEY), name="pattern")


def _shielded(entry: FigureFunction) -> AbstractContextManager[None]:
    return alone_with_pyplot() if uses_pyplot(entry.function) else nullcontext()


def _check_size(entry: FigureFunction, size_bytes: int, limit: int) -> None:
    if size_bytes > limit:
        raise FigureTooLargeError(
            f"figure function {entry.name!r} made {size_bytes:,} bytes of one head, more than the limit of {limit:,}; "
            "draw less, or raise size_limit_bytes"
        )


def _complete(entry: FigureFunction, made: list[Picture | Values]) -> tuple[Product, ...]:
    """What was made and is wanted, and a failure for each figure that should be there and is not."""
    there = {product.name for product in made}
    wanted = [p for p in made if entry.only is None or p.name in entry.only]
    is_named = entry.is_multiple or entry.only is not None
    missing = [n for n in entry.wanted_names if n not in there] if is_named or not made else []
    return (*wanted, *(_missing(entry, name, there) for name in missing))


def _missing(entry: FigureFunction, name: str, there: set[str]) -> Failure:
    what = "wrote" if entry.kind == "files" else "returned"
    found = f"only {', '.join(map(repr, sorted(there)))}" if there else "nothing"
    error = NoFigureError(f"figure function {entry.name!r} {what} {found}, not figure {name!r}")
    return failure(name, error)
