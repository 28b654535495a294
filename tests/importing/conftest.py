"""A data folder in the predecessor's layout, written by numpy alone."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pattern_lens.prompts import prompt_hash

TOKENS = ["Ġthe", "Ġcat", "Ċ", "ĠÃŁ", "Ġon", "!"]
CONFIG = {
    "n_layers": 3,
    "n_heads": 2,
    "d_model": 8,
    "n_ctx": 12,
    "dtype": "torch.float32",
    "default_prepend_bos": True,
    "original_architecture": "GPT2LMHeadModel",
}


def patterns(n: int, *, layers=(0, 1, 2), n_heads=2, dtype="float32", seed=0) -> dict[str, Any]:
    """Causal patterns under their keys, (1, n_heads, n, n), no two alike."""
    rng = np.random.default_rng([seed, n])
    arrays = {}
    for layer in layers:
        values = np.tril(rng.random((1, n_heads, n, n)) + 0.01)
        values = (values / values.sum(-1, keepdims=True)).astype(dtype)
        arrays[f"blocks.{layer}.attn.hook_pattern"] = values
    return arrays


@dataclass
class OldFolder:
    """A data folder, and the patterns of each prompt in it by model and hash."""

    path: Path
    held: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    patterns = staticmethod(patterns)

    def model(self, name: str, **config: Any) -> Path:
        folder = self.path / name
        folder.mkdir(parents=True)
        (folder / "model_cfg.json").write_text(json.dumps({**CONFIG, "model_name": name, **config}))
        self.held[name] = {}
        return folder

    def prompt(self, model: str, text: str, n: int, *, arrays=None, n_bos=1, **row: Any) -> Path:
        """A prompt of `n` positions; its tokens are as many, less a BOS."""
        tokens = [TOKENS[i % len(TOKENS)] for i in range(n - n_bos)]
        hash_ = row.pop("hash", prompt_hash(text))
        row = {"text": text, "meta": {"pile_set_name": "Pile-CC"}, **row}
        row = {"tokens": tokens, "n_tokens": n - n_bos, "source_fname": "p.jsonl", **row}
        folder = self.path / model / "prompts" / hash_
        folder.mkdir(parents=True)
        (folder / "prompt.json").write_text(json.dumps({**row, "hash": hash_}))
        arrays = patterns(n, seed=len(self.held[model])) if arrays is None else arrays
        np.savez_compressed(folder / "activations.npz", **arrays)
        self.held[model][hash_] = arrays
        return folder

    def figure(self, prompt: Path, name: str, data: bytes, *, layer=0, head=0) -> Path:
        folder = prompt / f"L{layer}" / f"H{head}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        return folder / name

    def describe(self, *rows: dict[str, Any]) -> None:
        (self.path / "figures.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture
def old(tmp_path: Path) -> OldFolder:
    """One model, three prompts of 5, 3 and 8 positions."""
    folder = OldFolder(tmp_path / "attn_data")
    folder.model("tiny")
    for text, n in (("the cat", 5), ("on", 3), ("a longer text", 8)):
        folder.prompt("tiny", text, n)
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> OldFolder:
    """A model without prompts."""
    folder = OldFolder(tmp_path / "attn_data")
    folder.model("tiny")
    return folder


@pytest.fixture
def assert_same_bits() -> Callable[..., None]:
    """A check that a file holds exactly these patterns."""

    def check(path: Path, held: dict[str, dict[str, Any]]) -> None:
        from pattern_lens import open_patterns

        with open_patterns(path) as found:
            assert sorted(found) == sorted(held)
            for name, arrays in held.items():
                stored = found[name].values
                expected = np.concatenate(list(arrays.values()))
                assert stored.dtype == expected.dtype
                assert stored.tobytes() == expected.tobytes()

    return check
