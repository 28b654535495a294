"""Names of activations -> the hooks of one model, resolved once.

Rule: a hook point has one name here, the legacy one of TransformerLens; short names, aliases, names
native to the bridge, globs, regular expressions and functions all lead to it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from pattern_lens.errors import NoResidualStreamError, UnknownHookError
from pattern_lens.names import (
    ACTIVATIONS,
    ALIASES,
    RESIDUAL,
    RESIDUAL_STREAM,
    known_dims,
    short_name,
    split_hook,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pattern_lens.models import CaptureModel

NameFilter = str | re.Pattern[str] | Callable[[str], bool]
"""A name, a glob, a regular expression that is searched for, or a function of the hook name."""

FINAL_LOGITS: Final = ACTIVATIONS["final_logits"].template
"""Stands for the hook that final logits would have."""

_GLOB: Final = re.compile(r"[*?\[]")
_NATIVE_ENDS: Final = (".hook_in", ".hook_out")
_SETTINGS: Final = {
    "attn.hook_result": "use_attn_result",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
    "mlp_in": "use_hook_mlp_in",
    "attn_in": "use_attn_in",
}
"""Setting of TransformerLens without which a hook never fires, by the end of the hook's name."""


@dataclass(frozen=True)
class HookGroup:
    """One activation of one model: the same hook at some layers.

    Parameters
    ----------
    name
        Short name, unique among the groups of a model.
    template
        Legacy hook name, with ``{layer}`` where the layer index stands.
    layers
        Layers in rising order; empty if the activation has no layer.
    hooks
        Legacy hook names, in the order of `layers`.
    dims
        Dims for one prompt and one layer, or None if only a run can tell.
    named
        Whether it was asked for by its name, and not only matched by a filter.
    """

    name: str
    template: str
    layers: tuple[int, ...]
    hooks: tuple[str, ...]
    dims: tuple[str, ...] | None
    named: bool


def resolve_names(names: NameFilter | Iterable[NameFilter], model: CaptureModel) -> list[HookGroup]:
    """Activations that are meant, in the order in which they were asked for.

    Parameters
    ----------
    names
        Short names (``pattern``), ``residual`` for all that the residual stream's analyses need, hook names, legacy or native (``blocks.0.attn.o.hook_in``), globs
        over both, regular expressions and functions over hook names, or several of these. What a
        filter matches without naming it leaves out the hooks that need a setting of the model,
        unless it matches nothing else.

    Raises
    ------
    UnknownHookError
        One of `names` matches nothing on this model.
    NoResidualStreamError
        ``residual`` of a model that has none, or several.
    """
    legacy = legacy_names(model)
    chosen: dict[str, bool] = {}
    for one in each_name(names):
        if one == RESIDUAL:
            chosen |= _of_residual_stream(legacy, model)
            continue
        named = isinstance(one, str) and _GLOB.search(one) is None
        hooks = _named(str(one), legacy) if named else _matched(one, legacy, model)
        if not hooks:
            raise UnknownHookError(_nothing_found(one, legacy, model))
        for hook in hooks:
            chosen[hook] = chosen.get(hook, False) or named
    return _grouped(chosen)


def _of_residual_stream(legacy: Mapping[str, str], model: CaptureModel) -> dict[str, bool]:
    """Hooks of all that the analyses need; whether the model must fire them."""
    cfg = model.model.cfg
    optional = {"pos_embed", "ln1_scale", "resid_mid", "ln2_scale"}
    if getattr(cfg, "attn_only", False):
        optional |= {"mlp_out"}
    if getattr(cfg, "normalization_type", None) is None:
        optional |= {"ln_final_scale"}
    found: dict[str, bool] = {}
    for name in RESIDUAL_STREAM:
        hooks = _named(name, legacy)
        if not hooks and name not in optional:
            raise NoResidualStreamError(
                f"model {model.name!r} has no {name!r}, which taking its residual stream apart needs: only decoders with "
                "one stream can be; capture single activations by their names"
            )
        if name == "resid_post":  # of the others the next layer's resid_pre is a copy
            hooks = [hook for hook in hooks if split_hook(hook)[1] == cfg.n_layers - 1]
        found |= dict.fromkeys(hooks, name not in optional)
    return found


def all_hooks(model: CaptureModel) -> list[HookGroup]:
    """Every activation that the model has hooks for, also those that it never fires."""
    return _grouped(dict.fromkeys(legacy_names(model).values(), False))


def legacy_names(model: CaptureModel) -> dict[str, str]:
    """Legacy name of the hook point behind each name that the model knows."""
    names_of: dict[int, list[str]] = {}
    for name, point in model.model.hook_dict.items():
        names_of.setdefault(id(point), []).append(name)
    return {name: min(names, key=_nativeness) for names in names_of.values() for name in names}


def needed_settings(model: CaptureModel, hooks: Iterable[str]) -> dict[str, str]:
    """By hook, the setting that is off and without which the hook never fires.

    TransformerLens goes by the hook point's own name, which one architecture gates and another,
    where the same name leads to another point, does not.
    """
    ends = {hook: end for hook in hooks for end in _SETTINGS if hook.endswith(end)}
    points = model.model.hook_dict if ends else {}
    return {
        hook: _SETTINGS[end]
        for hook, end in ends.items()
        if (getattr(points.get(hook), "name", None) or hook).endswith(end)
        and not getattr(model.model.cfg, _SETTINGS[end], True)
    }


def _nativeness(name: str) -> tuple[bool, int]:
    """Sort key that puts the legacy name of a hook point before the bridge's own names."""
    return name.endswith(_NATIVE_ENDS), len(name)


def each_name(names: NameFilter | Iterable[NameFilter]) -> list[NameFilter]:
    """One name or several, as a list.

    Raises
    ------
    TypeError
        One of them cannot name hooks.
    """
    several = [names] if isinstance(names, str | re.Pattern) or callable(names) else list(names)
    for one in several:
        if not (isinstance(one, str | re.Pattern) or callable(one)):
            raise TypeError(
                f"cannot choose hooks by {one!r}; expected a name, glob, regex or function"
            )
    return several


def _named(word: str, legacy: Mapping[str, str]) -> list[str]:
    if word in legacy:
        return [legacy[word]]
    short = ALIASES.get(word, word)
    if short == short_name(FINAL_LOGITS):
        return [FINAL_LOGITS]
    return [hook for name, hook in legacy.items() if short_name(split_hook(name)[0]) == short]


def _matched(one: NameFilter, legacy: Mapping[str, str], model: CaptureModel) -> list[str]:
    if isinstance(one, re.Pattern):
        found = [hook for name, hook in legacy.items() if one.search(name)]
    elif isinstance(one, str):
        found = [hook for name, hook in legacy.items() if _glob_fits(one, name)]
    else:
        found = [hook for name, hook in legacy.items() if one(name)]
    off = needed_settings(model, found)
    return [hook for hook in found if hook not in off] or found


def _glob_fits(glob: str, name: str) -> bool:
    return fnmatchcase(name, glob) or fnmatchcase(short_name(split_hook(name)[0]), glob)


def _grouped(chosen: Mapping[str, bool]) -> list[HookGroup]:
    """Hooks that share a template, as one group each, in order of first mention."""
    members: dict[str, list[tuple[int, str]]] = {}
    for hook in chosen:
        template, layer = split_hook(hook)
        members.setdefault(template, []).append((-1 if layer is None else layer, hook))
    groups = []
    for template, found in members.items():
        layers, hooks = zip(*sorted(found), strict=True)
        groups.append(
            HookGroup(
                name=short_name(template),
                template=template,
                layers=tuple(layer for layer in layers if layer >= 0),
                hooks=hooks,
                dims=known_dims(template),
                named=any(chosen[hook] for hook in hooks),
            )
        )
    return groups


def _nothing_found(one: NameFilter, legacy: Mapping[str, str], model: CaptureModel) -> str:
    asked = one if isinstance(one, str) else getattr(one, "pattern", repr(one))
    shorts = list(dict.fromkeys(short_name(split_hook(hook)[0]) for hook in legacy.values()))
    containing = [short for short in shorts if asked in short]
    near = difflib.get_close_matches(asked, [*shorts, *legacy], n=4, cutoff=0.5)
    nearest = ", ".join(dict.fromkeys([*containing[:4], *near])) or ", ".join(shorts[:8])
    return (
        f"no hook of model {model.name!r} is called or matched by {asked!r}; nearest: {nearest}; "
        "pattern_lens.activations.hooks.all_hooks(model) lists what there is"
    )
