"""Inputs of the benchmarks: patterns that compress like real ones, files with many prompts, a model.

Softmax over normal scores of spread 2 compresses 1.17 times, packed; the bundled demo model's patterns 1.14 to 1.17.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.names import HEAD, KEY, LAYER, QUERY
from pattern_lens.store.header import Header
from pattern_lens.store.layout import ArrayLayout
from pattern_lens.store.packing import triangle_length, unpack_rows
from pattern_lens.store.prompt_table import PromptRecord
from pattern_lens.store.writer import Block, StoreWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pattern_lens.models import CaptureModel

Array = np.ndarray[Any, np.dtype[Any]]

N_LAYERS: Final = 12
N_HEADS: Final = 12
D_MODEL: Final = 768
N_POSITIONS: Final = 1024
SPREAD: Final = 2.0
_MOST_PER_COMMIT: Final = 10_000


def pattern_layout(n_layers: int = N_LAYERS, n_heads: int = N_HEADS) -> ArrayLayout:
    """Attention patterns of a causal float32 model, GPT-2 small unless said otherwise."""
    return ArrayLayout(
        name="pattern",
        dims=(LAYER, HEAD, QUERY, KEY),
        sizes={LAYER: n_layers, HEAD: n_heads},
        packing="triangle",
        dtype="float32",
        layers=tuple(range(n_layers)),
        hooks=tuple(f"blocks.{layer}.attn.hook_pattern" for layer in range(n_layers)),
        units="probability",
    )


def header(layout: ArrayLayout) -> Header:
    """Provenance of a model that does not exist."""
    n_layers, n_heads = layout.sizes[LAYER], layout.sizes[HEAD]
    model = {"name": "benchmark", "n_layers": n_layers, "n_heads": n_heads, "dtype": "float32"}
    words = [f"word{i}" for i in range(1000)]
    return Header(model, {"token": words, "text": words})


def random_patterns(layout: ArrayLayout, n_prompts: int, n_tokens: int, *, seed: int = 0) -> Array:
    """Causal softmax of random scores in stored layout, dims (layer, head, element)."""
    rng = np.random.default_rng(seed)
    size = triangle_length(n_tokens)
    out = np.empty(layout.stored_shape(n_prompts * size), np.float32)
    lengths = np.arange(1, n_tokens + 1)
    for i in range(n_prompts):
        weights = np.exp(SPREAD * rng.standard_normal(layout.stored_shape(size), np.float32))
        sums = np.add.reduceat(weights, np.cumsum(lengths) - lengths, axis=-1)
        np.divide(
            weights, np.repeat(sums, lengths, axis=-1), out=out[..., i * size : (i + 1) * size]
        )
    return out


def as_arrays(packed: Array, prompt: int, n_tokens: int) -> dict[str, Array]:
    """One prompt as pattern-lens 0.6 holds it: by hook name, dims (1, head, query, key)."""
    size = triangle_length(n_tokens)
    mine = packed[..., prompt * size : (prompt + 1) * size]
    return {
        f"blocks.{layer}.attn.hook_pattern": unpack_rows(values, 0, n_tokens, n_tokens, 0.0)[None]
        for layer, values in enumerate(mine)
    }


def prompt_hash(number: int) -> str:
    """A hash as long as those of texts are."""
    return f"prompt-{number:015d}"


def records(numbers: Sequence[int], n_tokens: int) -> list[PromptRecord]:
    """Prompts with these numbers."""
    ids = np.arange(n_tokens, dtype=np.int32) % 1000
    return [PromptRecord(prompt_hash(number), f"text {number}", ids) for number in numbers]


def write_file(
    path: Path,
    n_prompts: int,
    n_tokens: int,
    *,
    layout: ArrayLayout | None = None,
    batch: int = 8,
    is_same: bool = False,
) -> Path:
    """A file with random patterns, unless it is there; its layout is that of GPT-2 small by default.

    `is_same`: every batch has the patterns of the first one, which takes less time.
    """
    layout = layout or pattern_layout()
    if path.exists():
        return path
    data = random_patterns(layout, min(batch, n_prompts), n_tokens)
    with StoreWriter(path, header(layout), [layout]) as writer:
        for first in range(0, n_prompts, batch):
            numbers = range(first, min(first + batch, n_prompts))
            if first and not (is_same and len(numbers) == batch):
                data = random_patterns(layout, len(numbers), n_tokens, seed=first)
            block = Block([(n_tokens, n_tokens)] * len(numbers), data)
            writer.commit(records(numbers, n_tokens), {layout.name: block})
    return path


def write_many(path: Path, n_prompts: int) -> Path:
    """A file with very many very small prompts (2 tokens, 1 layer, 1 head), unless it is there."""
    return write_file(path, n_prompts, 2, layout=pattern_layout(1, 1), batch=_MOST_PER_COMMIT)


def gpt2_model(
    n_layers: int, *, d_model: int = D_MODEL, n_vocab: int | None = None
) -> CaptureModel:
    """A model of GPT-2 small's shape with random weights, whose attention is as uneven as a trained one's.

    Its vocabulary is as small as the tests' tokenizer's unless `n_vocab` says otherwise.
    """
    import torch
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import GPT2Config, GPT2LMHeadModel

    from pattern_lens.models import load_model

    tokenizer = long_tokenizer()
    config = GPT2Config(
        n_layer=n_layers,
        n_head=N_HEADS,
        n_embd=d_model,
        n_positions=N_POSITIONS,
        vocab_size=n_vocab or len(tokenizer),
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config).eval()
        for block in model.transformer.h:
            block.attn.c_attn.weight[:, : 2 * d_model] *= SPREAD
    model.config.architectures = ["GPT2LMHeadModel"]
    bridge = TransformerBridge.boot_transformers(
        "benchmark", hf_model=model, tokenizer=tokenizer, device="cpu", dtype=torch.float32
    )
    bridge.eval()
    return load_model(bridge)


def long_tokenizer() -> Any:
    """The tests' tokenizer, for texts as long as GPT-2 takes."""
    from pattern_lens.testing import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = N_POSITIONS
    return tokenizer


def texts(n_prompts: int, n_tokens: int, *, seed: int = 0) -> list[str]:
    """Random words of about `n_tokens` tokens each: from 15 % fewer to 15 % more."""
    rng = np.random.default_rng(seed)
    tokenizer = long_tokenizer()
    letters = np.array(list("abcdefghijklmnop"))
    found = []
    for _ in range(n_prompts):
        wanted = int(n_tokens * rng.uniform(0.85, 1.15))
        words = ["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(wanted)]
        ids = tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
        found.append(tokenizer.decode(ids[: wanted - 1]))
    return found
