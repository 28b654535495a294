"""Capturing with the names of pattern-lens 0.6, over ``{save_path}/{model}.h5``.

The rule: everything here calls `capture` and reads the file; a prompt is where `capture` puts it, under the name by
which the model was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pattern_lens.activations.capture import capture
from pattern_lens.activations.prompt_dicts import (
    capture_dicts,
    hooks_of,
    matcher,
    read_values,
    returned,
    tell,
)
from pattern_lens.consts import ATTN_PATTERN_REGEX, DATA_DIR, model_file
from pattern_lens.errors import PromptError
from pattern_lens.load_activations import (
    ActivationsMissingError,
    InvalidPromptError,
    activations_exist,
    augment_prompt_with_hash,
    load_activations,
)
from pattern_lens.models import CaptureModel, load_model
from pattern_lens.prompts import Prompt, PromptSet, read_prompts
from pattern_lens.store.reader import StoreReader

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Sequence
    from os import PathLike
    from pathlib import Path

    from pattern_lens.activations.report import CaptureReport
    from pattern_lens.consts import ReturnCache

__all__ = [
    "activations_main",
    "compute_activations",
    "compute_activations_batched",
    "default_device",
    "get_activations",
]

MIN_CHARS: Final = 100
MAX_CHARS: Final = 1000


def default_device() -> str:
    """The device that a model is loaded on: ``cuda`` where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def compute_activations(
    prompt: dict[str, Any],
    model: Any = None,
    save_path: str | PathLike[str] = DATA_DIR,
    names_filter: Callable[[str], bool] | re.Pattern[str] = ATTN_PATTERN_REGEX,
    return_cache: ReturnCache = "torch",
    stack_heads: bool = False,  # noqa: FBT001, FBT002 - the predecessor's signature
) -> tuple[Path, Any]:
    """Capture one prompt, whether or not it is stored already.

    Parameters
    ----------
    prompt
        With a ``text``; gets ``hash``, ``n_tokens`` and ``tokens`` (without the BOS) where it lacks them.
    model
        A live model, or what `load_model` returned.
    save_path
        Folder of the model's file.
    names_filter
        Which hooks: a regular expression that a name begins with, or a function of the name.
    return_cache
        ``torch``, ``numpy``, or None for no values.
    stack_heads
        Whether the values are one array, dims (1, layer, head, query, key); patterns only.

    Returns
    -------
    The file, and the values by hook name, dims (1, …).
    """
    _check_return_cache(return_cache)
    loaded = _live(model)
    hooks = hooks_of(names_filter, loaded)
    if stack_heads and not all(map(ATTN_PATTERN_REGEX.fullmatch, hooks)):
        raise ValueError(f"cannot stack {hooks}: expected attention patterns only")
    path = _file(save_path, loaded.name)
    capture_dicts([prompt], loaded, path, names_filter, batch_size=1)
    cache = read_values(path, prompt, hooks)
    tell(path, prompt)
    return path, returned(cache, return_cache, stack_heads=stack_heads)


def compute_activations_batched(
    prompts: Sequence[dict[str, Any]],
    model: Any,
    save_path: str | PathLike[str] = DATA_DIR,
    names_filter: Callable[[str], bool] | re.Pattern[str] = ATTN_PATTERN_REGEX,
    seq_lens: Sequence[int] | None = None,
    compress_level: int | None = None,  # noqa: ARG001 - compression has no levels here
) -> list[Path]:
    """Capture prompts, whether or not they are stored already.

    Parameters
    ----------
    prompts
        As of `compute_activations`.
    model, save_path, names_filter
        As of `compute_activations`.
    seq_lens
        As many as prompts; lengths are found anew.
    compress_level
        Accepted and not used.

    Returns
    -------
    The file, once for each prompt.
    """
    loaded = _live(model)
    if not prompts:
        raise InvalidPromptError("prompts must not be empty")
    if seq_lens is not None and len(seq_lens) != len(prompts):
        raise ValueError(f"seq_lens length mismatch: {len(seq_lens)} != {len(prompts)}")
    path = _file(save_path, loaded.name)
    capture_dicts(prompts, loaded, path, names_filter, batch_size=len(prompts))
    for prompt in prompts:
        tell(path, prompt)
    return [path] * len(prompts)


def get_activations(
    prompt: dict[str, Any],
    model: Any,
    save_path: str | PathLike[str] = DATA_DIR,
    allow_disk_cache: bool = True,  # noqa: FBT001, FBT002 - the predecessor's signature
    return_cache: ReturnCache = "numpy",
) -> tuple[Path, dict[str, Any] | None]:
    """The patterns of one prompt: from the file, or captured into it.

    Parameters
    ----------
    prompt
        With a ``text``; the hash is added.
    model
        A live model, or a name, which is loaded if there is something to compute.
    save_path
        Folder of the model's file.
    allow_disk_cache
        Whether stored patterns will do.
    return_cache
        ``numpy``, ``torch``, or None for no values.

    Returns
    -------
    The file, and the patterns by hook name, dims (1, head, query, key).

    Raises
    ------
    ActivationsMismatchError
        The file holds another text under this hash.
    """
    _check_return_cache(return_cache)
    augment_prompt_with_hash(prompt)
    name = model if isinstance(model, str) else _live(model).name
    if allow_disk_cache:
        if return_cache is None and activations_exist(name, prompt, save_path):
            return model_file(save_path, name), None
        try:
            path, cache = load_activations(name, prompt, save_path, return_cache or "numpy")
        except ActivationsMissingError:
            pass
        else:
            return path, cache if return_cache else None
    path = _file(save_path, name)
    capture_dicts([prompt], load_model(model), path, ATTN_PATTERN_REGEX, batch_size=1)
    path, cache = load_activations(name, prompt, save_path, return_cache or "numpy")
    return path, cache if return_cache else None


def activations_main(
    model_name: str,
    save_path: str | PathLike[str] = DATA_DIR,
    prompts_path: str | PathLike[str] | None = None,
    raw_prompts: bool = False,  # noqa: FBT001, FBT002, ARG001 - the predecessor's signature
    min_chars: int | None = MIN_CHARS,
    max_chars: int | None = MAX_CHARS,
    force: bool = False,  # noqa: FBT001, FBT002
    n_samples: int | None = None,
    no_index_html: bool = True,  # noqa: FBT001, FBT002, ARG001
    shuffle: bool = False,  # noqa: FBT001, FBT002
    stacked_heads: bool = False,  # noqa: FBT001, FBT002, ARG001
    device: Any = None,
    batch_size: int = 32,
    compress_level: int | None = None,  # noqa: ARG001
    *,
    progress: bool = True,
) -> CaptureReport:
    """Capture the patterns of a model for a file of prompts.

    Parameters
    ----------
    model_name
        Hub name or local folder.
    save_path
        Folder of the model's file; it is created.
    prompts_path
        A file of prompts. Without one, the prompts that the model's file holds.
    min_chars, max_chars, shuffle, n_samples
        As in `read_prompts`; of `prompts_path` only.
    force
        Compute again what is stored.
    device
        Where the model runs; CUDA where there is one.
    batch_size
        Most prompts at a time.
    raw_prompts, no_index_html, stacked_heads, compress_level
        Accepted and not needed: `prompts_path` counts in any case, nothing but the file is written, all heads lie in
        one array there, and its compression has no levels.
    progress
        Whether to show progress bars.

    Returns
    -------
    What was done.
    """
    _check_device(device)
    path = _file(save_path, model_name)
    if prompts_path is None:
        prompts = _stored_prompts(path)
    else:
        prompts = read_prompts(
            prompts_path,
            min_chars=min_chars,
            max_chars=max_chars,
            shuffle=shuffle,
            n_samples=n_samples,
        )
    loaded = load_model(model_name, device=device)
    names = matcher(ATTN_PATTERN_REGEX)
    return capture(
        loaded, prompts, path, names=names, batch_size=batch_size, force=force, progress=progress
    )


# --- prompts and models --------------------------------------------------------------------------


def _stored_prompts(path: Path) -> PromptSet:
    if not path.exists():
        raise PromptError(f"no prompts: {path} does not exist; name a file of prompts")
    reader = StoreReader(path)
    table = reader.prompts
    columns = (table.texts, table.hashes, table.metas)
    rows = zip(*(column(table.positions) for column in columns), strict=True)
    prompts = tuple(Prompt(text, hash=name, meta=meta) for text, name, meta in rows)
    reader.close()
    return PromptSet(prompts, n_rows=len(prompts))


def _live(model: Any) -> CaptureModel:
    if model is None or isinstance(model, str):
        raise ValueError(f"model must be passed, got {model!r}; load one with load_model")
    return load_model(model)


def _check_device(device: Any) -> None:
    if device is None or isinstance(device, str):
        return
    import torch

    if not isinstance(device, torch.device):
        raise TypeError(f"invalid device: {device!r}, expected a name or a torch.device")


def _check_return_cache(return_cache: Any) -> None:
    if return_cache not in ("numpy", "torch", None):
        raise ValueError(f"invalid return_cache: {return_cache = }, expected 'numpy' or 'torch'")


def _file(save_path: str | PathLike[str], model_name: str) -> Path:
    path = model_file(save_path, model_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
