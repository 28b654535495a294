"""The methods and operators that a collection shares with xarray.DataArray."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import xarray as xr

from pattern_lens.errors import DimensionError
from pattern_lens.names import PROMPT
from pattern_lens.patterns.cuts import no_such_dim
from pattern_lens.patterns.steps import Input, Method, Step, Transpose

if TYPE_CHECKING:
    from collections.abc import Callable


def _reduction(name: str) -> Callable[..., Any]:
    def method(self: Operations, dim: Any = None, *args: Any, **options: Any) -> Any:
        return self._reduce(name, dim, args, options)

    method.__name__ = name
    method.__doc__ = (
        f"`xarray.DataArray.{name}` of every prompt; without `dim`, over every dim but the prompt."
    )
    return method


def _quantile(self: Operations, q: Any, dim: Any = None, **options: Any) -> Any:
    """`xarray.DataArray.quantile` of every prompt; without `dim`, over every dim but the prompt."""
    return self._reduce("quantile", dim, (), {"q": q, **options})


def _elementwise(name: str) -> Callable[..., Any]:
    def method(self: Operations, *args: Any, **options: Any) -> Any:
        return self._call(Method(name), (Input.THIS, *args), options)

    method.__name__ = name
    method.__doc__ = f"`xarray.DataArray.{name}` of every prompt."
    return method


def _binary(function: Callable[..., Any], *, reflected: bool = False) -> Callable[..., Any]:
    def method(self: Operations, other: Any) -> Any:
        if not _is_operand(other):
            return NotImplemented
        inputs = (other, Input.THIS) if reflected else (Input.THIS, other)
        return self._call(function, inputs, {})

    return method


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Operations) -> Any:
        return self._call(function, (Input.THIS,), {})

    return method


def _is_operand(value: object) -> bool:
    if isinstance(value, Operations | xr.DataArray | int | float | complex):
        return True
    return hasattr(value, "dtype") and getattr(value, "ndim", None) == 0


class Operations:
    """Every method records a step; a collection says what becomes of it.

    The arrays that are operands are labelled or single numbers: a bare array has no dims to match.
    """

    mean = _reduction("mean")
    sum = _reduction("sum")
    max = _reduction("max")
    min = _reduction("min")
    std = _reduction("std")
    var = _reduction("var")
    median = _reduction("median")
    prod = _reduction("prod")
    count = _reduction("count")
    any = _reduction("any")
    all = _reduction("all")
    argmax = _reduction("argmax")
    argmin = _reduction("argmin")
    quantile = _quantile

    where = _elementwise("where")
    clip = _elementwise("clip")
    isnull = _elementwise("isnull")
    notnull = _elementwise("notnull")
    fillna = _elementwise("fillna")
    round = _elementwise("round")
    astype = _elementwise("astype")

    __add__, __radd__ = _binary(operator.add), _binary(operator.add, reflected=True)
    __sub__, __rsub__ = _binary(operator.sub), _binary(operator.sub, reflected=True)
    __mul__, __rmul__ = _binary(operator.mul), _binary(operator.mul, reflected=True)
    __truediv__ = _binary(operator.truediv)
    __rtruediv__ = _binary(operator.truediv, reflected=True)
    __floordiv__ = _binary(operator.floordiv)
    __rfloordiv__ = _binary(operator.floordiv, reflected=True)
    __mod__, __rmod__ = _binary(operator.mod), _binary(operator.mod, reflected=True)
    __pow__, __rpow__ = _binary(operator.pow), _binary(operator.pow, reflected=True)
    __and__, __rand__ = _binary(operator.and_), _binary(operator.and_, reflected=True)
    __or__, __ror__ = _binary(operator.or_), _binary(operator.or_, reflected=True)
    __xor__, __rxor__ = _binary(operator.xor), _binary(operator.xor, reflected=True)
    __lt__, __le__ = _binary(operator.lt), _binary(operator.le)
    __gt__, __ge__ = _binary(operator.gt), _binary(operator.ge)
    __eq__, __ne__ = _binary(operator.eq), _binary(operator.ne)
    __hash__ = None  # type: ignore[assignment]
    __neg__, __pos__ = _unary(operator.neg), _unary(operator.pos)
    __abs__, __invert__ = _unary(operator.abs), _unary(operator.invert)

    __array_priority__ = 100

    @property
    def dims(self) -> tuple[str, ...]:
        """Dims of every prompt's array."""
        raise NotImplementedError

    def _then(self, step: Step) -> Any:
        raise NotImplementedError

    def _call(
        self, function: Callable[..., Any], inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        raise NotImplementedError

    def _check_reducible(self) -> None:
        raise NotImplementedError

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or "out" in options:
            return NotImplemented
        if not all(map(_is_operand, inputs)):
            # xarray strips the labels of `array - collection` before it asks
            raise TypeError(
                f"cannot {ufunc.__name__} an array without labels and a collection: expected a DataArray or a number; "
                f"where a DataArray stands first, write np.{ufunc.__name__}(array, collection)"
            )
        marked = tuple(Input.THIS if item is self else item for item in inputs)
        return self._call(ufunc, marked, options)

    def _reduce(
        self,
        name: str,
        dim: Any,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        dims = self._reduced_dims(dim)
        if name.startswith("arg") and len(dims) != 1:
            raise DimensionError(
                f"{name} takes one dim, got {dims or 'none'}: expected one of {self.dims}"
            )
        over: Any = dims[0] if name.startswith("arg") else dims
        return self._then(
            Step(Method(name), options={**options, "dim": over}, mixes=frozenset(dims))
            if not args
            else Step(Method(name), (Input.THIS, over, *args), options, frozenset(dims))
        )

    def _reduced_dims(self, dim: Any) -> list[str]:
        if dim is None or dim is ...:
            return list(self.dims)
        dims = [dim] if isinstance(dim, str) else list(dim)
        if PROMPT in dims:
            self._check_reducible()
        for name in dims:
            if name not in self.dims:
                raise DimensionError(f"cannot reduce: {no_such_dim(name, self.dims)}")
        return dims

    def transpose(self, *dims: Any) -> Any:
        """Dims in another order, or reversed; `...` stands for those that are not named."""
        names = [name for name in dims if name is not ...]
        for name in names:
            if name not in self.dims:
                raise DimensionError(f"cannot transpose: {no_such_dim(name, self.dims)}")
        rest = [name for name in self.dims if name not in names]
        order = list(dims) if dims else list(reversed(self.dims))
        if ... in order:
            at = order.index(...)
            order[at : at + 1] = rest
        if sorted(order) != sorted(self.dims):
            raise DimensionError(f"cannot transpose to {tuple(order)}: expected all of {self.dims}")
        return self._then(Step(Transpose(tuple(order)), is_simple=False))
