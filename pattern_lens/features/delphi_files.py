"""One file of delphi's cache of latents: entries as safetensors, and the tokens they are of.

Rule: a file is read in pieces, and everything that can be wrong with its places is found before anything is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import FeatureCacheError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

_FLOATS: Final = ("F16", "F32", "F64")
_INTEGERS: Final = ("U8", "I16", "U16", "I32", "U32", "I64", "U64")
_PIECE: Final = 1 << 21  # entries whose places are looked through at once


@dataclass(frozen=True, eq=False)
class Split:
    """One file of a module.

    Parameters
    ----------
    first
        Number of the feature that it counts from.
    n_features
        Features that it is of; None where its name does not say it.
    """

    path: Path
    first: int
    n_features: int | None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Part of one of its arrays."""
        with _opened(self.path) as file:
            piece = file.get_slice(name)
            n = piece.get_shape()[0]
            last = n if stop is None else min(stop, n)
            if start < last:
                return np.asarray(piece[start:last])
            return np.asarray(piece[0:1] if n else file.get_tensor(name))[:0]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of its arrays, by name.

        Raises
        ------
        FeatureCacheError
            One is missing, of another kind, or does not fit the others.
        """
        with _opened(self.path) as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            found = {name: tuple(one.get_shape()) for name, one in slices.items()}
            kinds = {name: one.get_dtype() for name, one in slices.items()}
        wanted = {
            "activations": (1, _FLOATS),
            "locations": (2, _INTEGERS),
            "tokens": (2, _INTEGERS),
        }
        for name, (n_dims, dtypes) in wanted.items():
            if name == "tokens" and name not in found:
                continue
            if name not in found:
                raise FeatureCacheError(
                    f"no {name!r} in {self.path}, expected activations and locations, got {', '.join(found) or 'nothing'}"
                )
            if len(found[name]) != n_dims or kinds[name] not in dtypes:
                raise FeatureCacheError(
                    f"{name!r} in {self.path} is {kinds[name]} of shape {found[name]}, expected {n_dims} "
                    f"dim{'s' * (n_dims > 1)} of {', '.join(dtypes)}"
                )
        n_entries = found["activations"][0]
        if found["locations"] != (n_entries, 3):
            raise FeatureCacheError(
                f"'locations' in {self.path} has shape {found['locations']}, expected ({n_entries}, 3): row, position and "
                "feature of each activation"
            )
        return found

    @property
    def is_half(self) -> bool:
        """Whether its activations are float16."""
        with _opened(self.path) as file:
            return bool(file.get_slice("activations").get_dtype() == "F16")

    def check(self, shape: tuple[int, int], n_features: int | None) -> Index:
        """Look through all places; where each row's entries are.

        Parameters
        ----------
        shape
            Rows and positions of the tokens.
        n_features
            Features of the module, if known.

        Raises
        ------
        FeatureCacheError
            A place is outside of these.
        """
        limit = self.n_features or (None if n_features is None else n_features - self.first)
        counts = np.zeros(shape[0], np.int64)
        last, most, is_sorted = -1, -1, True
        for start in range(0, self.shapes["activations"][0], _PIECE):
            places = self.read("locations", start, start + _PIECE).astype(np.int64)
            for column, (what, size) in enumerate(
                (("row", shape[0]), ("position", shape[1]), ("feature", limit))
            ):
                self._check_range(what, places[:, column], size)
            rows = places[:, 0]
            is_sorted &= bool(rows[0] >= last and (np.diff(rows) >= 0).all())
            last, most = int(rows[-1]), max(most, int(places[:, 2].max()))
            counts += np.bincount(rows, minlength=shape[0])
        return Index(self, counts, is_sorted=is_sorted, n_features=self.first + (limit or most + 1))

    def _check_range(self, what: str, numbers: NDArray[np.int64], size: int | None) -> None:
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or (size is not None and high >= size):
            raise FeatureCacheError(
                f"'locations' in {self.path} names {what} {low if low < 0 else high}, and there are {size}: the file is of other "
                "tokens or features than the rest, or damaged"
            )


@dataclass(frozen=True, eq=False)
class Index:
    """Where each row's entries are in a file.

    Parameters
    ----------
    counts
        Entries of each row.
    is_sorted
        Whether rows follow each other in the file, as delphi writes them.
    n_features
        One more than the last feature, as far as is known.
    """

    split: Split
    counts: NDArray[np.int64]
    is_sorted: bool
    n_features: int

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.counts)])

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self.split.read("locations")[:, 0], kind="stable")

    def entries(self, first: int, last: int) -> tuple[NDArray[np.int64], Array]:
        """Places, dims (entry, 3), and values of rows first..last (not included), in the file's order within a row."""
        start, stop = int(self._starts[first]), int(self._starts[last])
        if self.is_sorted:
            places = self.split.read("locations", start, stop)
            values = self.split.read("activations", start, stop)
        else:
            chosen = self._order[start:stop]
            places = self.split.read("locations")[chosen]
            values = self.split.read("activations")[chosen]
        return places.astype(np.int64) + np.array([0, 0, self.split.first]), values


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as err:
        raise FeatureCacheError(f"cannot read {path} as safetensors: {err}") from err
