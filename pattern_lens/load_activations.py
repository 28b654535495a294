"""Import path of pattern-lens 0.6 for reading patterns of one prompt, over ``{save_path}/{model}.h5``.

The rule: a file is opened, read and closed in one call, so that any process or thread may call it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pattern_lens.consts import DATA_DIR, model_file
from pattern_lens.errors import PatternLensError
from pattern_lens.prompts import prompt_hash
from pattern_lens.store.reader import StoreReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike
    from pathlib import Path

    from pattern_lens.store.reader import StoredArray

__all__ = [
    "ActivationsMismatchError",
    "ActivationsMissingError",
    "GetActivationsError",
    "InvalidPromptError",
    "activations_exist",
    "augment_prompt_with_hash",
    "compare_prompt_to_loaded",
    "load_activations",
]

_PATTERN = "pattern"


class GetActivationsError(PatternLensError, ValueError):
    """Base of the errors of this module."""


class ActivationsMissingError(GetActivationsError, FileNotFoundError):
    """A prompt whose patterns are not in the file."""

    __new__ = FileNotFoundError.__new__  # type: ignore[assignment]  # ValueError's makes none: dask's pickling calls it by name


class ActivationsMismatchError(GetActivationsError):
    """A prompt that is another one than the file holds under its hash."""


class InvalidPromptError(GetActivationsError):
    """A prompt without a text and a hash."""


def augment_prompt_with_hash(prompt: dict[str, Any]) -> dict[str, Any]:
    """The same dict, with the hash of its text where it has none.

    Raises
    ------
    InvalidPromptError
        It has neither.

    Examples
    --------
    >>> augment_prompt_with_hash({"text": "test prompt"})["hash"]
    'C7p4x9-iwFxWSKCb8kbLfQ'
    """
    if "hash" not in prompt:
        if "text" not in prompt:
            raise InvalidPromptError(f"prompt has neither text nor hash: expected one: {prompt!r}")
        prompt["hash"] = prompt_hash(prompt["text"])
    return prompt


def compare_prompt_to_loaded(prompt: Mapping[str, Any], prompt_loaded: Mapping[str, Any]) -> None:
    """Raise unless two prompts have one text and one hash; what `prompt` lacks is not compared.

    Raises
    ------
    ActivationsMismatchError
        They differ.
    """
    for key in ("text", "hash"):
        if key in prompt and prompt[key] != prompt_loaded[key]:
            raise ActivationsMismatchError(
                f"Prompt file does not match prompt at key {key}:\n{prompt}\n{prompt_loaded}"
            )


def load_activations(
    model_name: str,
    prompt: dict[str, Any],
    save_path: str | PathLike[str] = DATA_DIR,
    return_fmt: Literal["torch", "numpy"] | None = "torch",
) -> tuple[Path, dict[str, Any]]:
    """The stored patterns of one prompt.

    Parameters
    ----------
    model_name
        As it was given when they were captured.
    prompt
        With a ``text``, a ``hash`` or both; the hash is added.
    save_path
        Folder of the model's file.
    return_fmt
        ``torch``, or ``numpy`` (None means the same).

    Returns
    -------
    The file, and by hook name (``blocks.0.attn.hook_pattern``) the pattern of each layer, dims (1, head, query, key).

    Raises
    ------
    ActivationsMissingError
        There is no such file, or it does not hold them.
    ActivationsMismatchError
        The file holds another text under this hash.
    """
    if return_fmt not in ("torch", "numpy", None):
        raise ValueError(f"Invalid return_fmt: {return_fmt!r}, expected 'torch' or 'numpy'")
    augment_prompt_with_hash(prompt)
    path = model_file(save_path, model_name)
    with _stored(path, prompt) as (reader, array, row):
        position = int(array.rows[row]["prompt"])
        text = reader.prompts.texts([position])[0]
        compare_prompt_to_loaded(prompt, {"text": text, "hash": prompt["hash"]})
        values = array.read(row)
        hooks = array.layout.hooks
    cache: dict[str, Any] = {hook: values[i : i + 1] for i, hook in enumerate(hooks)}
    if return_fmt == "torch":
        import torch

        cache = {hook: torch.from_numpy(value) for hook, value in cache.items()}
    return path, cache


def activations_exist(
    model_name: str, prompt: Mapping[str, Any], save_path: str | PathLike[str] = DATA_DIR
) -> bool:
    """Whether the patterns of a prompt are stored, whole and with their checksum.

    Raises
    ------
    InvalidPromptError
        It has no hash.
    """
    if "hash" not in prompt:
        raise InvalidPromptError(
            f"Prompt must have 'hash' key (call augment_prompt_with_hash first): {prompt!r}"
        )
    try:
        with _stored(model_file(save_path, model_name), prompt) as (_, array, row):
            return array.is_intact(row)
    except ActivationsMissingError:
        return False


@contextmanager
def _stored(
    path: Path, prompt: Mapping[str, Any]
) -> Iterator[tuple[StoreReader, StoredArray, int]]:
    """The open file, its patterns, and the row of a prompt."""
    what = f"activations of prompt {prompt['hash']!r}"
    try:
        reader = StoreReader(path)
    except FileNotFoundError as err:
        raise ActivationsMissingError(f"no {what}: file {path} does not exist") from err
    try:
        position = reader.prompts.find(prompt["hash"])
        array = reader.array(_PATTERN) if _PATTERN in reader.names() else None
        row = None if array is None or position is None else array.row_of(position)
        if array is None or row is None:
            raise ActivationsMissingError(f"no {what}: {path} does not hold them")
        yield reader, array, row
    finally:
        reader.close()
