"""What a file says about the model it was captured from, and whether another capture may be added."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import ModelMismatchError
from pattern_lens.store.attributes import read_text, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import h5py

_IDENTITY: Final = (
    "weights_hash",
    "weights",
    "tokenizer_hash",
    "prepend_bos",
    "dtype",
    "n_layers",
    "n_heads",
)
_VOCAB_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Header:
    """Provenance of a file, written once when it is created.

    Parameters
    ----------
    model
        The JSON object of ``/model`` (docs/format.md).
    vocab
        ``{"token": [...], "text": [...]}`` of the tokenizer, by token id.
    """

    model: Mapping[str, Any]
    vocab: Mapping[str, list[str]] = field(default_factory=lambda: {"token": [], "text": []})

    def write(self, file: h5py.File) -> None:
        """Store it in a file that is being created."""
        model = json.dumps(dict(self.model), sort_keys=True)
        write_text(file.create_group("model").attrs, "json", model)
        raw = json.dumps(dict(self.vocab), ensure_ascii=False).encode()
        file.create_dataset(
            "tokenizer/vocab",
            data=np.frombuffer(raw, np.uint8),
            chunks=(min(len(raw), _VOCAB_CHUNK_BYTES),),
            fletcher32=True,  # nothing else would notice a flipped bit
        )


def read_model(file: h5py.File) -> dict[str, Any]:
    """The JSON object of ``/model``."""
    model: dict[str, Any] = json.loads(read_text(file["model"], "json"))
    return model


def read_vocab(file: h5py.File) -> dict[str, list[str]]:
    """Token strings and texts by token id."""
    vocab: dict[str, list[str]] = json.loads(file["tokenizer/vocab"][()].tobytes())
    return vocab


def check_same_model(path: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise unless both describe one model, in one weights mode, with one tokenizer.

    Raises
    ------
    ModelMismatchError
        Names both models and everything in which they differ.
    """
    differing = [key for key in _IDENTITY if stored.get(key) != given.get(key)]
    if not differing:
        return
    details = "; ".join(
        f"{key} {stored.get(key)!r} in the file, {given.get(key)!r} now" for key in differing
    )
    raise ModelMismatchError(
        f"cannot add to {path}: it was captured from model {stored.get('name')!r}, and this is {given.get('name')!r} ({details}); "
        "capture into another file"
    )
