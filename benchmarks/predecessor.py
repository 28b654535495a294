"""A whole capture against pattern-lens 0.6.0, which runs in an environment and a process of its own.

Both sides have random weights of one shape, the same texts and as many torch threads. The other side is called, never
copied: `predecessor_process.py` knows its public functions only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks import data
from benchmarks.capture import capture_new, n_threads
from benchmarks.measure import Row, alternate, compare, peaks
from benchmarks.peer import Peer, build_peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME: Final = "predecessor"
QUESTION: Final = "How much faster is a whole capture than with pattern-lens 0.6.0?"


@dataclass(frozen=True)
class Size:
    """Layers of the model, prompts, about how many tokens each, prompts a batch, torch's threads (0: one a core), samples."""

    n_layers: int
    n_prompts: int
    n_tokens: int
    batch_size: int
    n_threads: int
    n_samples: int


SIZES: Final = {
    "smoke": Size(2, 4, 24, 2, 1, 1),
    "small": Size(4, 32, 128, 8, 0, 3),
    "full": Size(12, 128, 128, 16, 0, 5),
}


def run(size: Size, folder: Path) -> list[Row]:
    build_peer()
    peak = peaks(NAME, size, folder, "capture")[0]
    with Peer("predecessor_process.py", _task(size, folder)) as peer:
        first = peer.sample({})
        ours = sides(size, folder)["capture"]
        seconds = alternate(
            {"capture": ours, "pattern-lens 0.6.0": lambda: peer.sample({})["seconds"]},
            size.n_samples,
        )
    what = (
        f"capture {size.n_prompts} prompts of about {size.n_tokens} tokens, {size.n_layers} layers, "
        f"{n_threads(size)} torch threads"
    )
    return [
        compare(what, seconds, at_least=1.7, peak_ours=peak, peak_other=int(first["peak_bytes"]))
    ]


def sides(size: Size, folder: Path) -> dict[str, Callable[[], float]]:
    """Our side only: the other one cannot be imported here."""
    import torch

    torch.set_num_threads(n_threads(size))
    model = data.gpt2_model(size.n_layers)
    texts = data.texts(size.n_prompts, size.n_tokens)
    path = folder / "capture.h5"
    return {"capture": lambda: capture_new(model, texts, path, size.batch_size)}


def _task(size: Size, folder: Path) -> dict[str, object]:
    tokenizer = folder / "tokenizer"
    data.long_tokenizer().save_pretrained(tokenizer)
    return {
        "tokenizer": str(tokenizer),
        "save_path": str(folder / "predecessor"),
        "texts": data.texts(size.n_prompts, size.n_tokens),
        "n_layers": size.n_layers,
        "n_heads": data.N_HEADS,
        "d_model": data.D_MODEL,
        "n_ctx": data.N_POSITIONS,
        "spread": data.SPREAD,
        "batch_size": size.batch_size,
        "n_threads": n_threads(size),
    }
