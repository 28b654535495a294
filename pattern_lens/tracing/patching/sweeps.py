"""What the functions of `transformer_lens.patching` give, as labelled arrays.

Rule: what TransformerLens fills with zeros because it was not measured is NaN.
"""

from __future__ import annotations

import difflib
import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from pattern_lens.errors import DimensionError
from pattern_lens.models import CaptureModel
from pattern_lens.names import (
    COMPONENT,
    HEAD,
    KEY,
    KV_HEAD,
    LAYER,
    POS,
    PROMPT,
    QUERY,
    RAGGED_DIMS,
    SOURCE,
    TOKEN_COORDS,
    head_label,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Array = np.ndarray[Any, np.dtype[Any]]

_PREFIX: Final = "get_act_patch_"
_HEADS: Final = ("out", "q", "k", "v", "pattern")
_BLOCKS: Final = ("resid_pre", "attn_out", "mlp_out")
_STREAMS: Final = ("resid_pre", "resid_mid", "attn_out", "mlp_out")

PATCHING_DIMS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(_STREAMS, (LAYER, POS)),
    **{f"attn_head_{one}_by_pos": (LAYER, POS, HEAD) for one in _HEADS[:-1]},
    "attn_head_pattern_by_pos": (LAYER, HEAD, QUERY),
    "attn_head_pattern_dest_src_pos": (LAYER, HEAD, QUERY, KEY),
    **{f"attn_head_{one}_all_pos": (LAYER, HEAD) for one in _HEADS},
    "attn_head_all_pos_every": (COMPONENT, LAYER, HEAD),
    "attn_head_by_pos_every": (COMPONENT, LAYER, POS, HEAD),
    "block_every": (COMPONENT, LAYER, POS),
    "direct_path": (LAYER, HEAD),
    "direct_path_all_sources": (SOURCE, LAYER, HEAD),
}
"""Dims of what each function of `transformer_lens.patching` gives, by its name without ``get_act_patch_``."""


def label_patching(
    result: Any,
    function: str | Callable[..., Any],
    *,
    model: Any = None,
    tokens: Any = None,
    source: tuple[int, int] | None = None,
) -> xr.DataArray:
    """The result of one of TransformerLens' patching functions, labelled.

    Parameters
    ----------
    result
        What the function returned: a tensor, or a `PatchingResult` of one metric. With ``reduce="none"`` each prompt has
        values of its own.
    function
        The function, or its name, with or without ``get_act_patch_``: one of `PATCHING_DIMS`.
    model
        The model, to check sizes and to give tokens their text. Without it heads of grouped keys and values
        (``k``, ``v``) are taken for heads.
    tokens
        Of the prompt, as texts or, if `model` is given, as ids: a list, an array or a tensor, dims (pos) or (1, pos).
    source
        (layer, head) that was patched: for ``direct_path``, and only there.

    Returns
    -------
    Dims of `PATCHING_DIMS`, behind ``prompt`` if each has its own; ``head`` is ``kv_head`` where keys and values are
    grouped. ``query`` is TransformerLens' ``dest_pos``, ``key`` its ``src_pos``. Labels along ``component`` are
    TransformerLens', along ``source`` those of heads. Not measured, and so NaN: paths to a layer that does not come
    after the source, and heads that only fill up keys and values with fewer of them.

    Raises
    ------
    DimensionError
        A name that no patching function has, or a shape that its result cannot have.
    """
    kind = _kind(function)
    if (source is None) == (kind == "direct_path"):
        raise DimensionError(
            f"source={source!r} of {kind!r}: direct_path needs the (layer, head) that was patched, nothing else has one"
        )
    model = model.model if isinstance(model, CaptureModel) else model
    cfg = getattr(model, "cfg", None)
    dims, values = _dims(kind, cfg), _values(result)
    if kind == "direct_path_all_sources":
        values = _joined_sources(values)
    texts = token_texts(tokens, model)
    if values.ndim == len(dims) + 1:  # TransformerLens has the prompts last
        dims, values = (PROMPT, *dims), np.moveaxis(values, -1, 0)
    _check_shape(kind, dims, values.shape, cfg, texts)
    measured = _measured(kind, dims, values.shape, cfg, source)
    found = xr.DataArray(
        np.where(measured, values, np.nan).astype(values.dtype),
        dims=dims,
        coords=_coordinates(kind, dims, values.shape, texts),
        name=f"patch_{kind}",
        attrs={
            "long_name": f"metric with {kind} patched",
            "function": f"transformer_lens.patching.{_PREFIX}{kind}",
        },
    )
    return found if source is None else found.assign_attrs(source=head_label(*source))


def _kind(function: str | Callable[..., Any]) -> str:
    if isinstance(function, str):
        name = function
    else:  # most are partials without a name of their own
        theirs = vars(sys.modules.get("transformer_lens.patching", sys))
        name = next((n for n, one in theirs.items() if one is function), repr(function))
    kind = name.removeprefix(_PREFIX)
    if kind not in PATCHING_DIMS:
        near = difflib.get_close_matches(kind, PATCHING_DIMS, n=3)
        raise DimensionError(
            f"no patching function {name!r}: expected {', '.join(near or PATCHING_DIMS)}, with or without {_PREFIX!r}"
        )
    return kind


def _is_grouped(cfg: Any) -> bool:
    return getattr(cfg, "n_key_value_heads", None) not in (None, getattr(cfg, "n_heads", None))


def _dims(kind: str, cfg: Any) -> tuple[str, ...]:
    dims = PATCHING_DIMS[kind]
    if kind.startswith(("attn_head_k_", "attn_head_v_")) and _is_grouped(cfg):
        return tuple(KV_HEAD if dim == HEAD else dim for dim in dims)
    return dims


def _values(result: Any) -> Array:
    if getattr(result, "has_metric_axis", False):
        names = ", ".join(map(repr, result.metric_names))
        raise DimensionError(f"the result holds several metrics, {names}: label one, result[name]")
    if getattr(result, "axis_names", None) == []:
        raise DimensionError(
            "the result is a list of chosen patches (index_df=): only whole sweeps can be labelled"
        )
    values = getattr(result, "values", result)
    values = result if callable(values) else values  # a tensor has a method of this name
    values = values.detach().float().cpu().numpy() if hasattr(values, "detach") else values
    found = np.asarray(values)
    if found.dtype.kind not in "iuf":
        raise DimensionError(
            f"the result is a {type(result).__name__}, expected numbers that a patching function returned"
        )
    return found if found.dtype.kind == "f" else found.astype(np.float64)


def _joined_sources(values: Array) -> Array:
    if values.ndim != 4 or values.shape[:2] != values.shape[2:]:
        raise DimensionError(
            f"direct_path_all_sources gives (layer, head, layer, head), got the shape {values.shape}"
        )
    return values.reshape(-1, *values.shape[2:])


def token_texts(tokens: Any, model: Any) -> list[str] | None:
    """Texts of one prompt's tokens, given as texts or as ids."""
    if tokens is None:
        return None
    given = np.asarray(tokens.cpu() if hasattr(tokens, "cpu") else tokens)
    if given.ndim == 2 and len(given) == 1:
        given = given[0]
    if given.ndim != 1:
        raise DimensionError(
            f"tokens have the shape {given.shape}: expected those of one prompt, dims (pos)"
        )
    if given.dtype.kind == "U":
        return [str(text) for text in given]
    if model is None:
        raise DimensionError("tokens are ids: give the model, too, or their texts")
    model = model.model if isinstance(model, CaptureModel) else model
    return [str(model.tokenizer.decode([int(one)])) for one in given]


def _check_shape(
    kind: str, dims: Sequence[str], shape: Sequence[int], cfg: Any, texts: list[str] | None
) -> None:
    wanted: dict[str, int | None] = {COMPONENT: len(_BLOCKS if kind == "block_every" else _HEADS)}
    if cfg is not None:
        n_heads = int(cfg.n_heads)
        n_kv_heads = int(getattr(cfg, "n_key_value_heads", None) or n_heads)
        wanted |= {LAYER: int(cfg.n_layers), HEAD: n_heads, KV_HEAD: n_kv_heads}
        wanted[SOURCE] = int(cfg.n_layers) * n_heads
    if texts is not None:
        wanted |= dict.fromkeys(RAGGED_DIMS, len(texts))
    elif {QUERY, KEY} <= {*dims} and len(shape) == len(dims):
        wanted[KEY] = shape[dims.index(QUERY)]
    fits = len(shape) == len(dims) and all(
        wanted.get(dim) in (None, size) for dim, size in zip(dims, shape, strict=True)
    )
    if not fits:
        said = ", ".join(f"{dim} {wanted[dim]}" if wanted.get(dim) else dim for dim in dims)
        raise DimensionError(
            f"cannot label a result of the shape {tuple(shape)} as {_PREFIX}{kind}: expected ({said}), "
            "or the same with prompts behind; is it of this function, model and prompt?"
        )


def _measured(
    kind: str,
    dims: Sequence[str],
    shape: Sequence[int],
    cfg: Any,
    source: tuple[int, int] | None,
) -> Array:
    """Which numbers were measured; dims of the result, or ones of size 1."""
    index = dict(zip(dims, np.ogrid[tuple(map(slice, shape))], strict=True))
    if source is not None:
        return np.asarray(index[LAYER] > source[0])
    if kind == "direct_path_all_sources":
        n_heads = shape[dims.index(HEAD)]
        return np.asarray(index[LAYER] > index[SOURCE] // n_heads)
    if kind.startswith("attn_head_") and kind.endswith("_every") and _is_grouped(cfg):
        shared = np.isin(index[COMPONENT], [_HEADS.index(one) for one in "kv"])
        return np.asarray(~shared | (index[HEAD] < cfg.n_key_value_heads))
    return np.ones((1,) * len(shape), np.bool_)


def _coordinates(
    kind: str, dims: Sequence[str], shape: Sequence[int], texts: list[str] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {dim: np.arange(n) for dim, n in zip(dims, shape, strict=True)}
    if COMPONENT in dims:
        found[COMPONENT] = [*(_BLOCKS if kind == "block_every" else _HEADS)]
    if SOURCE in dims:
        n_heads = shape[dims.index(HEAD)]
        found[SOURCE] = [head_label(*divmod(i, n_heads)) for i in found[SOURCE]]
    if texts is not None:
        found |= {TOKEN_COORDS[dim]: (dim, texts) for dim in dims if dim in TOKEN_COORDS}
    return found
