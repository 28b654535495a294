"""Attention scores and probabilities that can be changed and differentiated, on every architecture.

Of some architectures a hook on the pattern shows a copy, or what was made afterwards: an edit is lost, and no gradient
arrives. There the softmax of the attention itself is watched. Rule: which of the two a model needs is found by trying.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.activations.forward import evaluating
from pattern_lens.activations.hooks import legacy_names
from pattern_lens.names import ACTIVATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from pattern_lens.models import CaptureModel

Edit = "Callable[[Tensor], Tensor | None]"

PATTERN: Final = "pattern"
SCORES: Final = "attn_scores"
SITES: Final = (SCORES, PATTERN)

_N_PROBED: Final = 4
_FAR: Final = 3.0


@dataclass(frozen=True)
class LiveHooks:
    """Which of a model's attention hooks are in the way that values take.

    Attributes
    ----------
    live
        Those of `SITES` whose hook can be used; of the others the softmax is watched.
    """

    live: frozenset[str]


def find_live_hooks(model: CaptureModel) -> LiveHooks:
    """Try, on a few tokens, whether edits of scores and patterns arrive in what is computed from them."""
    import torch

    tokens = torch.arange(_N_PROBED, device=model.device)[None] % int(model.model.cfg.d_vocab)
    names = set(legacy_names(model).values())
    pattern, scores = (ACTIVATIONS[site].hook(0) for site in (PATTERN, SCORES))
    z = ACTIVATIONS["z"].hook(0)
    if z not in names:
        return LiveHooks(frozenset())
    plain = _seen(model, tokens, {}, z)
    live = set()
    if pattern in names:
        halved = _seen(model, tokens, {pattern: lambda x: x / 2}, z)
        if _is_close(halved, plain / 2):
            live.add(PATTERN)
    if scores in names:
        uniform = _seen(model, tokens, {scores: _towards_first}, z)
        if not _is_close(uniform, plain):
            live.add(SCORES)
    return LiveHooks(frozenset(live))


def _towards_first(scores: Tensor) -> Tensor:
    changed = scores.clone()
    changed[..., 0] += _FAR
    return changed


def _is_close(one: Tensor, other: Tensor) -> bool:
    scale = float(other.abs().max().clamp_min(1e-6))
    return float((one - other).abs().max()) < 1e-2 * scale


def _seen(model: CaptureModel, tokens: Tensor, edits: Mapping[str, Any], name: str) -> Tensor:
    import torch

    found: list[Tensor] = []

    def keep(value: Tensor, **_: Any) -> None:
        found.append(value.detach().float().clone())

    hooks: list[Any] = [(hook, lambda x, f=edit, **_: f(x)) for hook, edit in edits.items()]
    with evaluating(model.model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an edit is lost is what is looked for
        model.model.run_with_hooks(tokens, return_type=None, fwd_hooks=[*hooks, (name, keep)])
    return found[0]


@contextmanager
def watched(
    model: CaptureModel, edits: Mapping[int, Mapping[str, Callable[[Tensor], Tensor | None]]]
) -> Iterator[None]:
    """Let functions see, and change, what goes into and comes out of the softmax of attention layers.

    Parameters
    ----------
    edits
        By layer, then by ``attn_scores`` (before the softmax, masked) or ``pattern`` (after it); dims (batch, head, query, key).
        What a function returns takes the value's place.
    """
    changed: list[tuple[Any, Any]] = []
    try:
        for layer, functions in edits.items():
            module = model.model.blocks[layer].attn
            forward = module.forward
            wrapped = _watching(forward, functions, int(model.model.cfg.n_heads))
            object.__setattr__(module, "forward", wrapped)
            changed.append((module, forward))
        yield
    finally:
        for module, _ in changed:
            module.__dict__.pop("forward", None)


def _watching(
    forward: Callable[..., Any], functions: Mapping[str, Any], n_heads: int
) -> Callable[..., Any]:
    mode = _softmax_mode(functions, n_heads)

    def watched_forward(*args: Any, **kwargs: Any) -> Any:
        with mode():
            return forward(*args, **kwargs)

    return watched_forward


def _softmax_mode(functions: Mapping[str, Any], n_heads: int) -> Any:
    import torch
    from torch.overrides import TorchFunctionMode

    softmaxes = (torch.nn.functional.softmax, torch.softmax, torch.Tensor.softmax)

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            is_attention = (
                function in softmaxes and args and args[0].ndim == 4 and args[0].shape[1] == n_heads
            )
            if not is_attention:
                return function(*args, **kwargs)
            scores = _edited(functions.get(SCORES), args[0])
            pattern = function(scores, *args[1:], **kwargs)
            return _edited(functions.get(PATTERN), pattern)

    return Watch


def _edited(function: Any, value: Tensor) -> Tensor:
    changed = None if function is None else function(value)
    return value if changed is None else changed
