"""What was computed of a batch of prompts -> what one commit takes.

The rule: a dim is ragged by its name (query, key, pos, byte), never because sizes happen to differ; so the layout of a
trace follows from one example of each variable.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from pattern_lens.names import PROMPT
from pattern_lens.patterns.computed import Fitted, block, check_name, plan
from pattern_lens.store.bundles import held_by_all, lacking
from pattern_lens.store.layout import TRACES
from pattern_lens.store.packing import pack_triangle, triangle_length

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pattern_lens.patterns.cuts import Array
    from pattern_lens.store.block import Block
    from pattern_lens.store.layout import ArrayLayout
    from pattern_lens.store.reader import StoreReader

BYTE: Final = "byte"
SPEC: Final = "spec"
"""The variable that holds what is particular to a prompt, as the bytes of a JSON object."""


def trace_layouts(
    trace_name: str,
    examples: Mapping[str, xr.DataArray],
    origin: Mapping[str, Any],
    *,
    triangles: Collection[str] = (),
) -> list[ArrayLayout]:
    """How the variables of a trace lie in the file.

    Parameters
    ----------
    trace_name
        Name of the trace.
    examples
        One prompt's values of each variable, with its name; labels along dims that are not ragged are kept. `SPEC` among
        them is of dims (byte).
    origin
        JSON-able record of how the values came about.
    triangles
        Names of the variables with dims (..., query, key) that are zero above the diagonal, because the model is causal: half is stored.

    Returns
    -------
    One layout a variable, in the order of `examples`; `ArrayLayout.key` is what a commit calls it.

    Raises
    ------
    ResultMismatchError
        A name or an array cannot be stored.
    """
    check_name(trace_name)
    found = variable_layouts(TRACES, trace_name, examples, origin)
    return [
        replace(layout, packing="triangle") if name in triangles else layout
        for name, layout in zip(examples, found, strict=True)
    ]


def variable_layouts(
    section: str, group: str, examples: Mapping[str, xr.DataArray], origin: Mapping[str, Any]
) -> list[ArrayLayout]:
    """How the variables of a group in some section lie in the file; as `trace_layouts`.

    Parameters
    ----------
    group
        Path of the group within the section.
    """
    found = []
    for name, example in examples.items():
        check_name(name)
        bare = example.drop_vars(PROMPT, errors="ignore")
        planned = plan(f"{group}/{name}", _examples(bare), origin)
        found.append(replace(planned, section=section))
    return found


def _examples(example: xr.DataArray) -> list[xr.DataArray]:
    """What says that bytes differ in number from prompt to prompt; other ragged dims are known by name."""
    return [example, example[{BYTE: slice(0)}]] if BYTE in example.dims else [example]


def spec_values(spec: Mapping[str, Any]) -> xr.DataArray:
    """What is particular to a prompt, as a value of the variable `SPEC`."""
    raw = json.dumps(dict(spec), ensure_ascii=False, sort_keys=True).encode()
    return xr.DataArray(np.frombuffer(raw, np.uint8), dims=(BYTE,))


def fitted(layout: ArrayLayout, array: xr.DataArray | Array) -> Fitted:
    """One prompt's values in stored layout; a view of them where that is possible.

    Parameters
    ----------
    array
        Labelled, in any order of dims; or plain, with the dims of `layout` in their order. A bare array is some ten
        times as fast.

    Raises
    ------
    DimensionError
        When the block is committed: sizes or dtype are not those of the layout.
    """
    values = (
        array.transpose(*layout.dims).values
        if isinstance(array, xr.DataArray)
        else np.asarray(array)
    )
    if np.can_cast(values.dtype, layout.stored_dtype, "same_kind"):
        values = values.astype(layout.stored_dtype, copy=False)
    axis, n_ragged = layout.axis, len(layout.ragged)
    ragged = (*values.shape[axis : axis + n_ragged], 1, 1)
    sizes = (int(ragged[0]), int(ragged[1]))
    if layout.packing == "triangle":
        return Fitted(sizes, _packed(values))
    before, after = values.shape[:axis], values.shape[axis + n_ragged :]
    return Fitted(sizes, values.reshape(*before, layout.length(*sizes), *after))


def _packed(square: Array) -> Array:
    """The lower triangles of dims (..., query, key)."""
    out = np.empty((*square.shape[:-2], triangle_length(square.shape[-1])), square.dtype)
    pack_triangle(square, out)
    return out


def block_of(layout: ArrayLayout, values: Sequence[Fitted]) -> Block:
    """The values of the prompts of one commit, in their order."""
    return block(layout, values)


def pending(
    reader: StoreReader, trace_name: str, variables: Collection[str], positions: Sequence[int]
) -> list[int]:
    """Those of the prompts that lack a value of any variable of a trace, in their order.

    Parameters
    ----------
    reader
        As fresh as the answer has to be: `refresh` it after a commit.
    variables
        Names of variables that the trace has, or will have.
    positions
        Positions in the prompt table.
    """
    is_there = trace_name in reader.trace_names()
    if not is_there or not {*variables} <= {*reader.trace_variables(trace_name)}:
        return [int(position) for position in positions]
    return lacking(held_by_all([reader.trace_array(trace_name, v) for v in variables]), positions)
