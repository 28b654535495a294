"""The figure functions that are known, each once by its name.

`ATTENTION_MATRIX_FIGURE_FUNCS` is the registry: a live list of functions, which may be iterated over and
appended to. What is known of a function is read from it when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from pattern_lens.errors import FigureFunctionError
from pattern_lens.figures.saver import saver_of
from pattern_lens.figures.signature import check_figure_names, kind_of, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pattern_lens.figures.signature import Kind

F = TypeVar("F", bound="Callable[..., Any]")

FIGURE_NAMES_KEY: Final = "_figure_names"
STORED_KEY: Final = "_figure_stored"
_AVERAGE_KEY: Final = "_figure_average"
_FORMAT_KEY: Final = "figure_save_fmt"

FIGURE_FORMAT: Final = "svgz"
"""Format of the matplotlib figures that functions return, unless registered with another."""

ATTENTION_MATRIX_FIGURE_FUNCS: Final[list[Callable[..., Any]]] = []
"""Registered functions, in order; where two have one name, the later one counts."""


@dataclass(frozen=True, eq=False)
class FigureFunction:
    """A function that draws figures, and what is known of it.

    Parameters
    ----------
    function
        What was registered.
    name
        Its name.
    figure_names
        Names of the figures it draws: its own, or ``name.sub`` for each it was registered with.
    kind
        ``files`` if it writes files into a folder, ``labelled`` if it returns what it made.
    format
        Ending of its files, where that is known before it runs.
    is_stored
        Whether its figures are kept; if not, they are drawn whenever somebody looks.
    is_average
        Whether it is called once for each head, with the mean over prompts.
    only
        Figures that are wanted of it; None for all that it draws.
    """

    function: Callable[..., Any]
    name: str
    figure_names: tuple[str, ...]
    kind: Kind
    format: str | None
    is_stored: bool
    is_average: bool = False
    only: frozenset[str] | None = None

    @property
    def wanted_names(self) -> tuple[str, ...]:
        """Figure names, without those that are not wanted."""
        only = self.only
        return tuple(n for n in self.figure_names if only is None or n in only)

    @property
    def is_multiple(self) -> bool:
        """Whether it was registered with the names of several figures."""
        return self.figure_names != (self.name,)

    @property
    def is_standard(self) -> bool:
        """Whether it is of the set that comes with this package."""
        return self.function.__module__.startswith("pattern_lens.figures.standard")

    @property
    def options(self) -> Mapping[str, Any]:
        """What its saver was told, if one of this package's made it."""
        saver = saver_of(self.function)
        return saver.options if saver else {}


@overload
def register_attn_figure_func(func: F) -> F: ...
@overload
def register_attn_figure_func(
    func: None = None, *, fmt: str | None = None, stored: bool = True, average: bool = False
) -> Callable[[F], F]: ...
def register_attn_figure_func(
    func: F | None = None, *, fmt: str | None = None, stored: bool = True, average: bool = False
) -> F | Callable[[F], F]:
    """Register a figure function; one of the same name is replaced.

    Parameters
    ----------
    func
        ``f(attn_matrix, path)``, which writes files, or ``f(pattern)``, which returns a number, a labelled
        array, an image array, a matplotlib figure, an `Image`, or a dict of these.
    fmt
        Format of a matplotlib figure that it returns; ``svgz`` if not given.
    stored
        Whether its figures are kept, or drawn from the data whenever somebody looks.
    average
        Whether it is given the mean over prompts of each head's pattern, once, instead of every prompt's; at each
        query the mean over the prompts that reach it, whose number is the coordinate ``n_prompts``.

    Returns
    -------
    The function itself; or a decorator, if `func` is left out.

    Raises
    ------
    FigureFunctionError
        It has no name, or takes other arguments.
    """
    if func is None:
        return lambda function: _register(
            function, (name_of(function),), fmt, stored=stored, average=average
        )
    return _register(func, (name_of(func),), fmt, stored=stored, average=average)


def register_attn_figure_multifunc(
    names: Sequence[str], *, fmt: str | None = None, stored: bool = True
) -> Callable[[F], F]:
    """Register a function that draws several figures, ``{func}.{name}`` for each name.

    Parameters
    ----------
    names
        Names of the figures, without the function's. One that it does not draw is a failure.
    fmt, stored
        As in `register_attn_figure_func`.

    Raises
    ------
    FigureFunctionError
        Names that no file could have, or a function that cannot be registered.
    """
    names = check_figure_names(names)

    def register(function: F) -> F:
        own = name_of(function)
        return _register(function, tuple(f"{own}.{n}" for n in names), fmt, stored=stored)

    return register


def _register(
    function: F,
    figure_names: tuple[str, ...],
    fmt: str | None,
    *,
    stored: bool,
    average: bool = False,
) -> F:
    kind_of(function)
    facts = {FIGURE_NAMES_KEY: figure_names, STORED_KEY: stored, _AVERAGE_KEY: average}
    if fmt is not None:
        facts[_FORMAT_KEY] = fmt
    try:
        for key, value in facts.items():
            setattr(function, key, value)
    except AttributeError as error:
        raise FigureFunctionError(
            f"cannot register {function!r}: it takes no attributes; wrap it in a function with def"
        ) from error
    name = name_of(function)
    places = [i for i, f in enumerate(ATTENTION_MATRIX_FIGURE_FUNCS) if name_of(f) == name]
    for i in reversed(places[1:]):
        del ATTENTION_MATRIX_FIGURE_FUNCS[i]
    if places:
        ATTENTION_MATRIX_FIGURE_FUNCS[places[0]] = function
    else:
        ATTENTION_MATRIX_FIGURE_FUNCS.append(function)
    return function


def figure_function(function: Callable[..., Any] | FigureFunction) -> FigureFunction:
    """What is known of a function, registered or not.

    Raises
    ------
    FigureFunctionError
        It cannot be a figure function.
    """
    if isinstance(function, FigureFunction):
        return function
    name = name_of(function)
    names = getattr(function, FIGURE_NAMES_KEY, (name,))
    if any(n != name and not n.startswith(f"{name}.") for n in names):
        names = (name,)  # copied by functools.wraps from a function that is called otherwise
    kind = kind_of(function)
    default = FIGURE_FORMAT if kind == "labelled" else None
    return FigureFunction(
        function=function,
        name=name,
        figure_names=tuple(names),
        kind=kind,
        format=getattr(function, _FORMAT_KEY, default),
        is_stored=getattr(function, STORED_KEY, True),
        is_average=getattr(function, _AVERAGE_KEY, False),
    )


def figure_functions() -> dict[str, FigureFunction]:
    """Registered functions by name, in order."""
    return {name_of(f): figure_function(f) for f in ATTENTION_MATRIX_FIGURE_FUNCS}


def get_all_figure_names() -> set[str]:
    """Names of all figures that registered functions draw."""
    return {name for entry in figure_functions().values() for name in entry.figure_names}
