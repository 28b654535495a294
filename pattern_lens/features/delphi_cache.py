"""A module of delphi's cache, looked through: its rows of tokens, and the entries of each, whatever file they are in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import FeatureCacheError
from pattern_lens.features.delphi_target import hash_of_ids
from pattern_lens.features.loading import load_autoencoder
from pattern_lens.names import short_name, split_hook

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pattern_lens.features.delphi_files import Index
    from pattern_lens.features.delphi_modules import Module

    Array = NDArray[Any]
    Entries = tuple[Array, Array, Array]

_THRESHOLD: Final = 1e-5  # delphi leaves out what is not larger in size
_MOST_ENTRIES: Final = 1 << 22


@dataclass(frozen=True, eq=False)
class Cache:
    """A module, looked through.

    Parameters
    ----------
    tokens
        Dims (row, pos).
    hashes
        Of the prompt that each row is.
    indexes
        Of its files.
    identity
        What the file will say of its autoencoder.
    """

    module: Module
    tokens: NDArray[np.int32]
    hashes: tuple[str, ...]
    indexes: tuple[Index, ...]
    identity: dict[str, Any]

    @cached_property
    def rows(self) -> list[int]:
        """Numbers of the rows that differ from those before them."""
        first: dict[str, int] = {}
        for number, own in enumerate(self.hashes):
            first.setdefault(own, number)
        return list(first.values())

    def entries(self, first: int, last: int) -> list[Entries]:
        """Position, feature and value of the entries of rows first..last (not included)."""
        parts = [index.entries(first, last) for index in self.indexes]
        places = np.concatenate([places for places, _ in parts])
        values = np.concatenate([values for _, values in parts])
        order = np.lexsort((places[:, 2], places[:, 1], places[:, 0]))
        places, values = places[order], values[order]
        twice = np.flatnonzero((np.diff(places, axis=0) == 0).all(axis=1))
        if len(twice):
            row, position, feature = places[twice[0]].tolist()
            raise FeatureCacheError(
                f"module {self.module.name!r} says feature {feature} twice at position {position} of row {row}: "
                "files of several runs lie in one folder; import those of one run"
            )
        odd = np.flatnonzero(~np.isfinite(values))
        if len(odd):
            row, position, feature = places[odd[0]].tolist()
            raise FeatureCacheError(
                f"feature {feature} of module {self.module.name!r} is {values[odd[0]]} at position {position} of row {row}"
            )
        cuts = np.searchsorted(places[:, 0], np.arange(first, last + 1)).tolist()
        return [(places[a:b, 1], places[a:b, 2], values[a:b]) for a, b in pairwise(cuts)]

    def blocks(self, numbers: Sequence[int], most: int) -> Iterator[list[int]]:
        """Rows that are neighbours, of those with these numbers, as many as go into one commit."""
        sizes = np.sum([index.counts for index in self.indexes], axis=0)
        block: list[int] = []
        for number in numbers:
            n_entries = int(sizes[block[0] : number + 1].sum()) if block else 0
            if block and (number - block[0] >= most or n_entries > _MOST_ENTRIES):
                yield block
                block = []
            block.append(int(number))
        if block:
            yield block


def cache_of(module: Module, tokens: Any, autoencoder: Any, hook: str | None) -> Cache:
    """A module, looked through.

    Raises
    ------
    FeatureCacheError
        Its files, its tokens and its autoencoder contradict each other.
    """
    found = module.tokens(tokens)
    ids = found.astype(np.int32)
    if (ids != found).any() or ids.min() < 0:
        raise FeatureCacheError(
            f"tokens of module {module.name!r} are {found.min()} to {found.max()}, expected ids of a tokenizer"
        )
    loaded = (
        None if autoencoder is None else load_autoencoder(autoencoder, hook=hook, name=module.name)
    )
    n_features = None if loaded is None else loaded.n_features
    shape = (int(ids.shape[0]), int(ids.shape[1]))
    indexes = tuple(split.check(shape, n_features) for split in module.splits)
    said = indexes[-1].n_features
    if n_features is not None and said != n_features:
        raise FeatureCacheError(
            f"module {module.name!r} has {said} features, and its autoencoder {n_features}: a file is missing, or it is of another"
        )
    own = _unknown(module.name, hook, said) if loaded is None else loaded.identity()
    told = {"threshold": _THRESHOLD, "source": {"tool": "delphi", **module.config}}
    hashes = tuple(hash_of_ids(row) for row in ids)
    return Cache(module, ids, hashes, indexes, {**own, **told})


def _unknown(name: str, hook: str | None, n_features: int) -> dict[str, Any]:
    """Identity of an autoencoder of which there are latents only."""
    template, layer = split_hook(hook) if hook else ("", None)
    return {
        "name": name,
        "hook": hook,
        "site": short_name(template) if hook else None,
        "layer": layer,
        "kind": "unknown",
        "n_features": n_features,
        "d_in": None,
        "hash": None,
    }
