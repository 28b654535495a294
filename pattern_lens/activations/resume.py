"""What of a capture is in the file already: whole, with its checksum right, not merely there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tqdm import tqdm

from pattern_lens.errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pattern_lens.prompts import Prompt
    from pattern_lens.store.reader import StoreReader


def missing_names(
    reader: StoreReader, prompts: Sequence[Prompt], names: Sequence[str], *, progress: bool
) -> list[tuple[str, ...]]:
    """For each prompt the activations that are not in the file, or not whole.

    Parameters
    ----------
    reader
        The file as it is now.
    prompts
        What is wanted of it.
    names
        Activations wanted of each prompt.
    progress
        Whether to show a bar: every checksum is read and compared.
    """
    held = set(reader.names())
    arrays = {name: reader.array(name) for name in names if name in held}
    positions = [reader.prompts.find(prompt.hash) for prompt in prompts]
    missing = []
    for position in tqdm(
        positions, "checking what is stored", unit="prompt", disable=not progress, leave=False
    ):
        rows = (
            {name: array.row_of(position) for name, array in arrays.items()}
            if position is not None
            else {}
        )
        whole = {
            name for name, row in rows.items() if row is not None and arrays[name].is_intact(row)
        }
        missing.append(tuple(name for name in names if name not in whole))
    return missing


def check_texts(reader: StoreReader, prompts: Sequence[Prompt]) -> None:
    """Raise unless the prompts that the file holds have the texts that it holds.

    Raises
    ------
    PromptError
        The file holds another text under the hash of one of the prompts.
    """
    positions = [reader.prompts.find(prompt.hash) for prompt in prompts]
    known = [(prompt, at) for prompt, at in zip(prompts, positions, strict=True) if at is not None]
    texts = reader.prompts.texts([at for _, at in known])
    for (prompt, _), text in zip(known, texts, strict=True):
        if prompt.text != text:
            raise PromptError(
                f"prompt {prompt.hash!r} is {text[:40]!r} in {reader.path}, and {prompt.text[:40]!r} here; "
                "give one of them another hash, or none"
            )
