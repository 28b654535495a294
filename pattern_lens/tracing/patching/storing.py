"""A labelled patching result, stored with the prompt that it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from pattern_lens.errors import PromptError, ResultMismatchError
from pattern_lens.names import POS, PROMPT, RAGGED_DIMS, TOKEN_COORDS
from pattern_lens.patterns.computed import block, check_name, fit, plan
from pattern_lens.patterns.results import result_array
from pattern_lens.store.adding import drop_result
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.writer import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pattern_lens.store.layout import ArrayLayout

CORRUPTED: Final = "corrupted_token_id"
"""Behind the name of a stored result and a dot: token ids of the prompt that was patched, dims (prompt, pos)."""


def store_patching(
    path: str | Path,
    name: str,
    array: xr.DataArray,
    prompt: str | Sequence[str],
    *,
    corrupted: Any,
    metric: str,
    force: bool = False,
) -> xr.DataArray:
    """Store a labelled patching result with the prompt that it is about, as a result of the file.

    Parameters
    ----------
    path
        The file.
    name
        Of the result. More prompts can be stored under it one after another; of a prompt that comes again the newer values hold.
    array
        What `label_patching` gave, or a variable of `label_attribution_patching`.
    prompt
        Hash of the clean prompt, which the file holds; several if `array` has a dim ``prompt``, in their order.
    corrupted
        Token ids of the prompt that was patched, dims (pos); (prompt, pos) of several. They are stored as
        ``{name}.corrupted_token_id``.
    metric
        What the numbers are, such as ``"logit difference"``.
    force
        Replace what the file holds of another function or metric under this name.

    Returns
    -------
    The stored result of these prompts, dims (prompt, ...).

    Raises
    ------
    UnknownPromptError
        The file does not hold a prompt.
    PromptError
        There are not as many prompts as values, or a prompt has another number of tokens.
    ResultMismatchError
        The file holds something else under this name.
    """
    check_name(name)
    hashes = [prompt] if isinstance(prompt, str) else list(prompt)
    names = name, f"{name}.{CORRUPTED}"
    given = _one_each(array, hashes), _corrupted(corrupted, len(hashes))
    origin = _origin(array, metric)
    reader = StoreReader(path)
    try:
        positions = [reader.prompts.position(one) for one in hashes]
        _check_lengths(reader, hashes, positions, *given)
        stored = {one: reader.result(one).layout for one in names if one in reader.result_names()}
    finally:
        reader.close()
    if name in stored and _is_another(path, stored[name], origin, force=force):
        for one in stored:
            drop_result(path, one)
        stored = {}
    layouts = [
        stored.get(one) or plan(one, some, origin) for one, some in zip(names, given, strict=True)
    ]
    _write(path, positions, list(zip(layouts, given, strict=True)))
    return _read(path, name, positions)


def _one_each(array: xr.DataArray, hashes: Sequence[str]) -> list[xr.DataArray]:
    n = array.sizes.get(PROMPT, 1)
    if n != len(hashes):
        raise PromptError(
            f"cannot store {array.name!r}: it has values of {n} prompts, and {len(hashes)} were named"
        )
    one_each = [array.isel({PROMPT: i}) for i in range(n)] if PROMPT in array.dims else [array]
    gone = {PROMPT, *TOKEN_COORDS.values()}
    return [one.drop_vars(gone & {*map(str, one.coords)}) for one in one_each]


def _corrupted(given: Any, n: int) -> list[xr.DataArray]:
    ids = np.asarray(given.cpu() if hasattr(given, "cpu") else given)
    ids = ids[None] if ids.ndim == 1 else ids
    if ids.dtype.kind not in "iu" or ids.ndim != 2 or len(ids) != n:
        raise PromptError(
            f"corrupted= has the shape {ids.shape} and dtype {ids.dtype}: expected token ids of {n} prompts, dims (prompt, pos)"
        )
    return [xr.DataArray(row.astype(np.int32), dims=POS) for row in ids]


def _check_lengths(
    reader: StoreReader,
    hashes: Sequence[str],
    positions: Sequence[int],
    arrays: Sequence[xr.DataArray],
    ids: Sequence[xr.DataArray],
) -> None:
    for prompt, n, values, corrupted in zip(
        hashes, reader.prompts.n_ctx(positions).tolist(), arrays, ids, strict=True
    ):
        sizes = {
            corrupted.size,
            *(size for dim, size in values.sizes.items() if dim in RAGGED_DIMS),
        }
        if sizes != {n}:
            raise PromptError(
                f"cannot store a patching of prompt {prompt!r}: it has {n} tokens in {reader.path}, "
                f"and what was given has {', '.join(map(str, sorted(sizes - {n})))}"
            )


def _origin(array: xr.DataArray, metric: str) -> dict[str, Any]:
    known = {key: array.attrs[key] for key in ("function", "source") if key in array.attrs}
    return {"function": known.pop("function", str(array.name)), "metric": metric, **known}


def _is_another(
    path: str | Path, held: ArrayLayout, origin: Mapping[str, Any], *, force: bool
) -> bool:
    """Whether what the file holds under the name is something else, which is to go."""
    said = {key: held.origin[key] for key in ("function", "metric", "source") if key in held.origin}
    if said != origin and not force:
        raise ResultMismatchError(
            f"{path} holds results {held.name!r} of {said}, and this is of {dict(origin)}; "
            "use another name, or force=True to replace them"
        )
    return said != origin


def _write(
    path: str | Path,
    positions: Sequence[int],
    given: Sequence[tuple[ArrayLayout, list[xr.DataArray]]],
) -> None:
    blocks = {
        layout.key: block(layout, [fit(layout, one) for one in arrays]) for layout, arrays in given
    }
    with StoreWriter(path, None, [layout for layout, _ in given]) as writer:
        writer.commit_computed(positions, blocks)


def _read(path: str | Path, name: str, positions: Sequence[int]) -> xr.DataArray:
    reader = StoreReader(path)
    try:
        return result_array(reader, name, np.asarray(positions, np.intp)).load()
    finally:
        reader.close()
