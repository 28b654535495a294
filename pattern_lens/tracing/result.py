"""What a trace found: a dataset that knows the nodes in it.

The rule: dims are (prompt, ...); what is beyond a prompt's own size is NaN, and an empty text. The labels of a dim are
those of the first variable that has it; a variable with other ones has a dim of its own.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from xarray.core import indexing

from pattern_lens.names import FEATURE, HEAD, PROMPT, RAGGED_DIMS, SOURCE, TARGET, TOKEN_COORDS
from pattern_lens.patterns.arrays import ReadOnlyArray
from pattern_lens.tracing.nodes import N_CTX
from pattern_lens.tracing.tables import edge_table, node_table
from pattern_lens.tracing.writing import SPEC

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from pattern_lens.patterns.cuts import Array

_ANSWER_COORDS: Final = {"target": "target_token", "distractor": "distractor_token"}


class TraceResult(xr.Dataset):  # type: ignore[no-untyped-call]
    """Values of every node of every prompt of one trace, dims (prompt, ...).

    What xarray gives of it (`sel`, `isel`, a sum) is of this class too, and its methods go on working: also where one
    layer, head or prompt was chosen.
    """

    __slots__ = ()

    @property
    def spec(self) -> dict[str, Any]:
        """What was traced: the specification that all prompts have in common."""
        found: dict[str, Any] = json.loads(self.attrs.get("spec") or "{}")
        return found

    def nodes(
        self,
        by: str = "estimated_total_effect",
        k: int = 50,
        *,
        prompt: str | int | None = None,
        kinds: Sequence[str] | None = None,
        absolute: bool = True,
    ) -> pd.DataFrame:
        """The nodes with the largest values, the largest first, NaN last.

        Parameters
        ----------
        by
            The measure by which they are sorted: ``estimated_total_effect``, ``direct_effect``, ``write_magnitude``, …
        k
            How many, of all prompts together.
        prompt
            Hash or number of the one prompt whose nodes are wanted.
        kinds
            Of ``pair``, ``head``, ``neuron``, ``mlp``, ``attn``, ``embed``, ``latent``, ``sae_error``. By default the finest
            that have the measure: pairs or else heads or else attention, neurons or else MLPs, and the others.
        absolute
            Whether large means far from zero; otherwise it means positive.

        Returns
        -------
        Columns ``label``, ``kind``, ``prompt`` (hash), ``layer``, ``head``, ``query``, ``key``, ``pos``, ``neuron``, ``feature`` (missing
        where the kind has no such index), ``token`` and ``key_token`` (text), and each measure that is stored.

        Raises
        ------
        UnknownTraceError
            No node has the measure, or no such kind is stored.
        UnknownPromptError
            The prompt is not traced.
        """
        return node_table(self, by, k, prompt=prompt, kinds=kinds, absolute=absolute)

    def in_edges(
        self, target: str, k: int = 20, *, prompt: str | int | None = None
    ) -> pd.DataFrame:
        """The edges into a node that are farthest from zero.

        Parameters
        ----------
        target
            Label, as the coordinate `target` of the edges has it.
        k, prompt
            As for `nodes`.

        Returns
        -------
        Columns ``source``, ``target``, ``prompt``, ``direct_effect``.

        Raises
        ------
        UnknownTraceError
            There are no edges, or none into such a node.
        """
        return edge_table(self, TARGET, target, k, prompt=prompt)

    def out_edges(
        self, source: str, k: int = 20, *, prompt: str | int | None = None
    ) -> pd.DataFrame:
        """The edges out of a node that are farthest from zero; as `in_edges`."""
        return edge_table(self, SOURCE, source, k, prompt=prompt)


def trace_result(
    variables: Mapping[str, xr.DataArray],
    prompts: Sequence[str],
    *,
    n_ctx: Sequence[int] | Array,
    tokens: Callable[[int], Sequence[str]],
    own: Callable[[int], Mapping[str, Any]],
    text_of: Callable[[int], str],
    attrs: Mapping[str, Any],
) -> TraceResult:
    """Put variables together with the coordinates that all of them share.

    Parameters
    ----------
    variables
        Dims (prompt, ...), padded to the longest prompt; with labels along dims that are not ragged.
    prompts
        Hashes.
    n_ctx
        Tokens of each prompt.
    tokens, own
        Texts of a prompt's tokens, and what is particular to it (docs/format.md, "Traces"), by its place among `prompts`; called when
        they are asked for.
    text_of
        Text of a token id.
    attrs
        ``model``, ``path``, ``trace``, and ``spec`` as JSON.
    """
    data: dict[str, xr.Variable] = {}
    coords: dict[str, Any] = {}
    for name, array in variables.items():
        renamed = _own_dims(name, array, coords)
        data[name] = renamed.variable
        coords |= {str(c): v.variable for c, v in renamed.coords.items() if str(c) not in coords}
    n = len(prompts)
    coords[PROMPT] = np.array(prompts, dtype="U") if n else np.empty(0, "U1")
    coords[N_CTX] = (PROMPT, np.asarray(n_ctx, np.int64))
    sizes = {dim: size for one in data.values() for dim, size in one.sizes.items()}
    for dim, coord in TOKEN_COORDS.items():
        if dim in sizes:
            coords[dim] = np.arange(sizes[dim])
            coords[coord] = ((PROMPT, dim), _lazy(Texts(tokens, (n, sizes[dim]))))
    if HEAD in sizes and HEAD not in coords:
        coords[HEAD] = np.arange(sizes[HEAD])
    coords |= _answers(own, text_of, n)
    return TraceResult(data, coords, dict(attrs))


def _own_dims(name: str, array: xr.DataArray, known: Mapping[str, Any]) -> xr.DataArray:
    """The array with dims of other names where its labels are others than those of a variable before."""
    sae, _, own = name.rpartition(".")
    others = {}
    for dim in map(str, array.dims):
        if dim == PROMPT or dim in RAGGED_DIMS or dim not in known:
            continue
        if not np.array_equal(known[dim].values, array[dim].values):
            others[dim] = f"{dim}_of_{sae if sae and dim == FEATURE else own}"
    return array.rename(others) if others else array


def _answers(
    own: Callable[[int], Mapping[str, Any]], text_of: Callable[[int], str], n: int
) -> dict[str, Any]:
    """Coordinates of what each prompt was asked: its whole specification, and its tokens."""

    def answer(at: int, which: str) -> str:
        given = (own(at).get("tokens") or {}).get(which) or ()
        several = [given] if isinstance(given, int | str) else given
        return ",".join(one if isinstance(one, str) else text_of(one) for one in several)

    found: dict[str, Any] = {
        SPEC: Texts(lambda at: json.dumps(own(at), ensure_ascii=False, sort_keys=True), (n,))
    }
    named = (own(0).get("tokens") or {}) if n else {}
    for which, coord in _ANSWER_COORDS.items():
        if which in named:
            found[coord] = Texts(partial(answer, which=which), (n,))
    return {coord: (PROMPT, _lazy(texts)) for coord, texts in found.items()}


def _lazy(texts: Texts) -> indexing.LazilyIndexedArray:
    return indexing.LazilyIndexedArray(texts)


class Texts(ReadOnlyArray):
    """Texts of prompts, dims (prompt) or (prompt, position), padded with empty ones; asked for once.

    Parameters
    ----------
    of_prompt
        The text, or the texts, of a prompt by its number.
    """

    def __init__(self, of_prompt: Callable[[int], Any], shape: tuple[int, ...]) -> None:
        self.of_prompt = of_prompt
        self.shape = shape
        self.dtype = np.dtype(object)
        self._known: dict[int, Any] = {}

    def _read(self, key: tuple[Any, ...] | None) -> Any:
        key = key or (slice(None),) * len(self.shape)
        rows = np.atleast_1d(np.arange(self.shape[0])[key[0]])
        out = np.full((len(rows), *self.shape[1:]), "", object)
        for place, row in enumerate(rows.tolist()):
            if row not in self._known:
                self._known[row] = self.of_prompt(row)
            found = self._known[row]
            if len(self.shape) == 1:
                out[place] = found
            else:
                out[place, : len(found)] = found[: self.shape[1]]
        out = out[(slice(None), *key[1:])]
        return out[0] if isinstance(key[0], int | np.integer) else out
