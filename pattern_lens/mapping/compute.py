"""A function on the items of one batch.

The rule: an item's mistake is an `ItemFailure`, never an exception; only KeyboardInterrupt and SystemExit pass.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.mapping.outcomes import item_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_NOTHING: Final = object()


def computed(
    function: Callable[[Sequence[Any]], Iterable[Any]], items: Sequence[Any]
) -> Iterator[Any]:
    """A result or an `ItemFailure` for each item, in order, as soon as it is there.

    A function that raised has ended, so it is called again with the items that are left. It has closed what it opened
    before the last result is handed over, because the process may end then.
    """
    results: Iterator[Any] | None = None
    for i in range(len(items)):
        try:
            if results is None:
                results = iter(function(items[i:]))
            result = next(results, _NOTHING)
            if result is _NOTHING:
                _ended_early(len(items) - i)
        except Exception as error:  # noqa: BLE001 - whatever a user's function raises
            result, results = item_failure(error), None
        if i == len(items) - 1:
            with suppress(Exception):
                getattr(results, "close", int)()
        yield result


def _ended_early(n_left: int) -> None:
    raise RuntimeError(
        f"the function ended with {n_left} of its items left: expected one result for each item"
    )
