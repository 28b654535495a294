"""Latents of prompts, and data of features -> what one commit takes.

The rule: entries of a prompt are sorted by position, then feature; a prompt in which nothing is active has none. Data of
a feature has the sizes that it has of every other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from pattern_lens.errors import DimensionError, FeaturesMismatchError
from pattern_lens.names import FEATURE
from pattern_lens.patterns.computed import check_name
from pattern_lens.store.block import Block
from pattern_lens.store.bundles import held_by_all, lacking
from pattern_lens.store.features import FEATURE as NUMBER
from pattern_lens.store.features import POSITION, PROMPT_UNITS, VALUE
from pattern_lens.store.layout import DATA, FEATURES, LATENTS, ArrayLayout
from pattern_lens.tracing.writing import variable_layouts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pattern_lens.store.chunks import Array
    from pattern_lens.store.reader import StoreReader

    Entries = tuple[Array, Array, Array]

ENTRY: Final = "entry"
"""The dim along which a prompt's latents lie."""

PROMPT_NUMBERS: Final = frozenset({"sequence_prompt"})
"""Variables of feature data whose values are positions in the prompt table."""

_SHORT_LENGTH: Final = 1 << 16
_VALUE_DTYPES: Final = ("float32", "float16")


def latent_layouts(
    name: str,
    *,
    n_features: int,
    n_ctx: int | None,
    dtype: str = "float32",
    origin: Mapping[str, Any] | None = None,
) -> list[ArrayLayout]:
    """How the latents of an autoencoder lie in the file.

    Parameters
    ----------
    name
        Name of the autoencoder.
    n_features
        Its features.
    n_ctx
        Most tokens of a prompt, if there is such a number: the model's context.
    dtype
        Of the values: ``float32`` or ``float16``.
    origin
        JSON-able record of how the values came about.

    Returns
    -------
    Those of ``position``, ``feature`` and ``value``; `ArrayLayout.key` is what a commit calls them.

    Raises
    ------
    FeaturesMismatchError
        The values cannot be stored in this type.
    ResultMismatchError
        Nothing can be stored under this name.
    """
    check_name(name)
    if dtype not in _VALUE_DTYPES:
        raise FeaturesMismatchError(
            f"cannot store latents of {name!r} as {dtype!r}: expected one of {', '.join(_VALUE_DTYPES)}"
        )
    dtypes = {
        POSITION: "uint16" if n_ctx is not None and n_ctx <= _SHORT_LENGTH else "int32",
        NUMBER: "uint16" if n_features <= _SHORT_LENGTH else "int32",
        VALUE: dtype,
    }
    return [
        ArrayLayout(
            name=f"{name}/{LATENTS}/{variable}",
            dims=(ENTRY,),
            sizes={},
            packing="line",
            dtype=stored,
            origin=origin or {},
            section=FEATURES,
            ragged_dims=(ENTRY,),
        )
        for variable, stored in dtypes.items()
    ]


def latents_block(layouts: Sequence[ArrayLayout], prompts: Sequence[Entries]) -> dict[str, Block]:
    """Latents of the prompts of one commit, in their order.

    Parameters
    ----------
    layouts
        What `latent_layouts` gave.
    prompts
        Positions, features and values of each prompt's entries, sorted by position, then feature; any whole-number
        dtypes. Of a prompt in which nothing is active three empty arrays.

    Returns
    -------
    Blocks by `ArrayLayout.key`.

    Raises
    ------
    DimensionError
        Entries are not sorted, not one for each place, or do not fit the stored types.
    """
    by_variable = {_variable(layout): layout for layout in layouts}
    sizes = [len(values) for _, _, values in prompts]
    columns: dict[str, Array] = {}
    for variable, column in zip((POSITION, NUMBER, VALUE), range(3), strict=True):
        parts = [np.asarray(one[column]).ravel() for one in prompts]
        if [len(part) for part in parts] != sizes:
            raise DimensionError(
                f"cannot store {by_variable[variable].name!r}: expected as many entries as there are values, {sizes}, "
                f"got {[len(part) for part in parts]}"
            )
        columns[variable] = np.concatenate(
            [*parts, np.empty(0, by_variable[variable].stored_dtype)]
        )
    _check_sorted(by_variable[POSITION], columns, sizes)
    each = [(size, 1) for size in sizes]
    return {
        layout.key: Block(each, _as_stored(layout, columns[variable]))
        for variable, layout in by_variable.items()
    }


def _check_sorted(layout: ArrayLayout, columns: Mapping[str, Array], sizes: Sequence[int]) -> None:
    position, feature = (columns[name].astype(np.int64) for name in (POSITION, NUMBER))
    rises = (np.diff(position) > 0) | ((np.diff(position) == 0) & (np.diff(feature) > 0))
    starts = np.cumsum(sizes)[:-1]
    rises[starts[(starts > 0) & (starts < len(position))] - 1] = True  # another prompt begins
    if not rises.all():
        at = int(np.flatnonzero(~rises)[0])
        pairs = [(int(position[i]), int(feature[i])) for i in (at, at + 1)]
        raise DimensionError(
            f"cannot store {layout.name!r}: expected entries sorted by position, then feature, each once, "
            f"got (position, feature) {pairs[0]} and then {pairs[1]}"
        )


def _as_stored(layout: ArrayLayout, column: Array) -> Array:
    """The column in the dtype of its layout, if it is the same there."""
    dtype = layout.stored_dtype
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        fits = not len(column) or (column.min() >= limits.min and column.max() <= limits.max)
        fits = bool(fits) and (column.dtype.kind in "iu" or not len(column))
    else:
        with np.errstate(over="ignore"):
            fits = bool((np.isfinite(column.astype(dtype)) | ~np.isfinite(column)).all())
    if not fits:
        raise DimensionError(
            f"cannot store {layout.name!r}: values {column.min()} to {column.max()} ({column.dtype}) do not fit {dtype}"
        )
    return np.ascontiguousarray(column.astype(dtype, copy=False))


def feature_data_layouts(
    name: str, examples: Mapping[str, xr.DataArray], origin: Mapping[str, Any] | None = None
) -> list[ArrayLayout]:
    """How the data of an autoencoder's features lies in the file.

    Parameters
    ----------
    name
        Name of the autoencoder.
    examples
        One feature's values of each variable, without dim `feature`; labels are kept. Every feature has values of these
        sizes and dtypes.
    origin
        JSON-able record of how the values came about.

    Returns
    -------
    One layout a variable, in the order of `examples`; `ArrayLayout.key` is what a commit calls it.

    Raises
    ------
    ResultMismatchError
        A name cannot be stored.
    DimensionError
        A dim is one that differs in size from prompt to prompt.
    """
    check_name(name)
    bare = {v: example.drop_vars(FEATURE, errors="ignore") for v, example in examples.items()}
    for variable, example in bare.items():
        if variable in PROMPT_NUMBERS:
            bare[variable] = example.assign_attrs(units=PROMPT_UNITS)
    found = variable_layouts(FEATURES, f"{name}/{DATA}", bare, origin or {})
    for layout in found:
        if layout.packing != "single" or FEATURE in layout.dims:
            raise DimensionError(
                f"cannot store {layout.name!r}: dims {layout.dims} are not those of one feature; "
                "give dims whose size is the same for each other names"
            )
    return found


def feature_rows_block(
    layouts: Iterable[ArrayLayout], values: Mapping[Any, Array | xr.DataArray]
) -> dict[str, Block]:
    """Data of the features of one commit, in their order.

    Parameters
    ----------
    layouts
        What `feature_data_layouts` gave.
    values
        Each variable of all features of the commit: labelled with dim `feature` and those of its layout, or plain with the
        feature first. A Dataset is such a mapping.

    Returns
    -------
    Blocks by `ArrayLayout.key`, for ``commit_computed(features, blocks)``.

    Raises
    ------
    DimensionError
        When the block is committed: sizes or dtype are not those of the layout.
    """
    return {layout.key: _rows(layout, values[_variable(layout)]) for layout in layouts}


def _rows(layout: ArrayLayout, values: Array | xr.DataArray) -> Block:
    bare = (
        values.transpose(FEATURE, *layout.dims).values
        if isinstance(values, xr.DataArray)
        else np.asarray(values)
    )
    if np.can_cast(bare.dtype, layout.stored_dtype, "same_kind"):
        bare = bare.astype(layout.stored_dtype, copy=False)
    return Block([(1, 1)] * len(bare), np.ascontiguousarray(bare))


def _variable(layout: ArrayLayout) -> str:
    return layout.name.rpartition("/")[2]


# --- what is there already -----------------------------------------------------------------------


def pending_latents(reader: StoreReader, name: str, positions: Sequence[int]) -> list[int]:
    """Those of the prompts that have no latents of an autoencoder, in their order.

    Parameters
    ----------
    reader
        As fresh as the answer has to be: `refresh` it after a commit.
    positions
        Positions in the prompt table.
    """
    is_there = name in reader.feature_sets()
    return lacking(reader.with_latents(name) if is_there else np.empty(0, np.intp), positions)


def pending_features(
    reader: StoreReader, name: str, variables: Iterable[str], features: Sequence[int]
) -> list[int]:
    """Those of the features that lack any variable of the feature data, in their order.

    Parameters
    ----------
    reader
        As fresh as the answer has to be: `refresh` it after a commit.
    variables
        Names of variables that the feature data has, or will have.
    """
    wanted = {*variables}
    is_there = name in reader.feature_sets() and wanted <= {*reader.feature_variables(name)}
    if not is_there:
        return [int(feature) for feature in features]
    return lacking(held_by_all([reader.feature_array(name, v) for v in wanted]), features)
