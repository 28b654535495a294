"""Tokens + hooks -> values, by one forward pass that computes nothing it need not.

Rule: a run leaves no hook, no setting and no training mode behind. A hook that never fires is an
error, never a gap in the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.activations.hooks import FINAL_LOGITS, needed_settings
from pattern_lens.errors import HookSilentError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from pattern_lens.models import CaptureModel

Sink = Callable[[str, Any], None]
"""Takes a hook's name and its live tensor, dims (batch, …); it must copy what it keeps."""


class _AllSeenError(Exception):
    """Leaves the forward pass from within its last hook."""


def pad_right(rows: Sequence[NDArray[np.int32]], *, masked: bool) -> tuple[Tensor, Tensor | None]:
    """Token ids of several prompts as one batch, and its attention mask.

    Parameters
    ----------
    rows
        Token ids of each prompt, dims (pos).
    masked
        Whether a mask is needed: True unless the model is causal.

    Returns
    -------
    Ids with dims (batch, pos), zero after each prompt's end; ones and zeros in the same shape, or
    None.
    """
    import torch

    tokens = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.from_numpy(np.asarray(row, dtype=np.int64))
        mask[i, : len(row)] = 1
    return tokens, mask if masked else None


def run_hooks(
    model: CaptureModel,
    tokens: Tensor,
    hooks: Iterable[str],
    sink: Sink,
    *,
    attention_mask: Tensor | None = None,
    lengths: Sequence[int] | None = None,
) -> None:
    """Run the model on a batch and hand the value of each hook to `sink`, once.

    The pass ends at the last of `hooks`: later layers and the unembedding are not computed. A
    setting that a hook needs (``use_attn_result`` for ``hook_result``) is on during the run only.

    Parameters
    ----------
    model
        What `load_model` returned.
    tokens, attention_mask
        Dims (batch, pos), padded on the right; the mask is needed unless the model is causal.
    hooks
        Hook names of the model, and `FINAL_LOGITS`.
    lengths
        Token ids of each prompt, for `FINAL_LOGITS`; by default all that there are.
    sink
        Called as ``sink(hook_name, tensor)``, in the order in which the hooks fire.

    Raises
    ------
    HookSilentError
        A hook never fired, or needs a setting that this model cannot switch on.
    """
    silent = run_until_last(
        model, tokens, list(dict.fromkeys(hooks)), sink, attention_mask, lengths
    )
    if silent:
        raise HookSilentError(
            f"hooks of model {model.name!r} that never fired: {sorted(silent)}; "
            "this architecture has them by name only: leave them out"
        )


def run_until_last(
    model: CaptureModel,
    tokens: Tensor,
    names: Sequence[str],
    sink: Sink,
    attention_mask: Tensor | None = None,
    lengths: Sequence[int] | None = None,
) -> set[str]:
    """Do what `run_hooks` does, and return the hooks that never fired."""
    import torch

    if not names:
        return set()
    waiting = set(names)
    device = model.device
    options = {} if attention_mask is None else {"attention_mask": attention_mask.to(device)}
    recorders = {name: _recorder(name, waiting, sink, len(tokens)) for name in names}
    record_logits = recorders.pop(FINAL_LOGITS, None)
    with ExitStack() as stack:
        stack.enter_context(evaluating(model.model))
        stack.enter_context(switched_on(model, names))
        stack.enter_context(torch.no_grad())
        stack.enter_context(suppress(_AllSeenError))
        if record_logits is not None:
            last = [n - 1 for n in lengths or [tokens.shape[1]] * len(tokens)]
            whole = any("unembed" in name for name in recorders)
            stack.enter_context(logits_at(model, last, record_logits, whole=whole))
        model.model.run_with_hooks(
            tokens.to(device),
            return_type=None if record_logits is None else "logits",  # None may leave them out
            fwd_hooks=[*recorders.items()],
            **options,
        )
    return waiting


@contextmanager
def logits_at(
    model: CaptureModel, last: Sequence[int], record: Callable[..., None], *, whole: bool = False
) -> Iterator[None]:
    """Let the model unembed one position of each prompt only, unless other hooks want the `whole`."""

    def chosen(value: Any) -> Any:
        return value[range(len(last)), list(last)]

    def narrow(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (chosen(inputs[0])[:, None], *inputs[1:])

    def take(_: Any, __: Any, logits: Any) -> None:
        record(chosen(logits) if whole else logits[:, 0])

    unembed = model.model.unembed
    handles = [unembed.register_forward_hook(take)]
    if not whole:
        handles.append(unembed.register_forward_pre_hook(narrow))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _recorder(name: str, waiting: set[str], sink: Sink, n_batch: int) -> Callable[..., None]:
    # The name is bound here: inside the callback a bridge calls hooks by names of its own, and in
    # compatibility mode it can call back once for each of two names.
    def record(value: Any, **_: Any) -> None:
        if name not in waiting:
            return
        if n_batch > 1 and value.shape[:1] == (1,):  # position embeddings are made once for all
            value = value.expand(n_batch, *value.shape[1:])
        sink(name, value)
        waiting.discard(name)
        if not waiting:
            raise _AllSeenError

    return record


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Run in evaluation mode, and afterwards give each module the mode it was in."""
    parts = [*model.modules(), *getattr(getattr(model, "original_model", None), "modules", list)()]
    training = [part for part in parts if part.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def switched_on(model: CaptureModel, hooks: Iterable[str]) -> Iterator[None]:
    """Switch on, for a while, the settings without which some of `hooks` would never fire."""
    on: list[str] = []
    try:
        for hook, setting in needed_settings(model, hooks).items():
            if setting not in on:
                _switch_on(model, hook, setting)
                on.append(setting)
        yield
    finally:
        for setting in reversed(on):
            _set(model, setting, on=False)


def _switch_on(model: CaptureModel, hook: str, setting: str) -> None:
    try:
        _set(model, setting, on=True)
    except (NotImplementedError, ValueError) as error:
        raise HookSilentError(
            f"hook {hook!r} needs {setting}, which model {model.name!r} cannot switch on: {error}; "
            "leave the hook out, or record it in a run of its own"
        ) from error


def _set(model: CaptureModel, setting: str, *, on: bool) -> None:
    getattr(model.model, f"set_{setting}")(on)
