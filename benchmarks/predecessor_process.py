"""Runs in the predecessor's environment: a capture by pattern-lens 0.6.0 for each line of standard input.

Rule: calls its public functions, imports nothing of this repository. The first line is the task as JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sys
import time
from pathlib import Path

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import PreTrainedTokenizerFast

from pattern_lens.activations import compute_activations_batched


def main() -> None:
    task = json.loads(sys.stdin.readline())
    torch.set_num_threads(task["n_threads"])
    model = load(task)
    texts = sorted(task["texts"], key=lambda text: -model.to_tokens(text).shape[1])
    for _ in sys.stdin:
        save_path = Path(task["save_path"])
        held = reset_peak()
        started = time.perf_counter()
        for i in range(0, len(texts), task["batch_size"]):
            prompts = [
                {"text": text, "hash": text_hash(text)}
                for text in texts[i : i + task["batch_size"]]
            ]
            compute_activations_batched(prompts=prompts, model=model, save_path=save_path)
        took = time.perf_counter() - started
        answer = {"seconds": took, "peak_bytes": status_bytes("VmHWM") - held}
        n_files = len(list(save_path.glob("*/prompts/*/activations.npz")))
        if n_files != len(texts):
            raise AssertionError(f"{n_files} of {len(texts)} prompts were stored")
        shutil.rmtree(save_path)
        print(json.dumps(answer), flush=True)


def load(task: dict) -> HookedTransformer:
    """A model of the asked shape, random weights, attention about as uneven as the other side's."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(task["tokenizer"])
    config = HookedTransformerConfig(
        n_layers=task["n_layers"],
        n_heads=task["n_heads"],
        d_model=task["d_model"],
        d_head=task["d_model"] // task["n_heads"],
        d_mlp=4 * task["d_model"],
        n_ctx=task["n_ctx"],
        d_vocab=len(tokenizer),
        act_fn="gelu_new",
        normalization_type="LN",
        initializer_range=0.02,
        model_name="benchmark",
        seed=0,
    )
    model = HookedTransformer(config, tokenizer=tokenizer)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_Q *= task["spread"]
            block.attn.W_K *= task["spread"]
    return model.eval()


def text_hash(text: str) -> str:
    """The name of a prompt's folder."""
    digest = hashlib.md5(text.encode(), usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def reset_peak() -> int:
    """Begin a new peak of memory; returns the bytes held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return status_bytes("VmRSS")


def status_bytes(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
