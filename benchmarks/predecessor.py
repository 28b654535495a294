"""A whole capture against pattern-lens 0.6.0, which runs in an environment and a process of its own.

Both sides have random weights of one shape, the same texts and as many torch threads. The other side is called, never
copied: `predecessor_process.py` knows its public functions only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import data
from benchmarks.capture import capture_new, n_threads
from benchmarks.measure import Row, alternate, compare, peaks

if TYPE_CHECKING:
    from collections.abc import Callable

NAME: Final = "predecessor"
QUESTION: Final = "How much faster is a whole capture than with pattern-lens 0.6.0?"
PEER_PATH: Final = Path(__file__).with_name(".work") / "peer"
_INSTALLED: Final = (("torch==2.13.0",), ("pattern-lens==0.6.0", "transformer-lens==3.9.0"))


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


def is_built() -> bool:
    """Whether the predecessor is installed, wholly."""
    return (PEER_PATH / "complete").exists()


def build_peer() -> None:
    """Install the predecessor into its own environment, unless it is there."""
    if is_built():
        return
    print(f"installing pattern-lens 0.6.0 into {PEER_PATH}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", PEER_PATH], check=True)
    for packages in _INSTALLED:  # torch first, as the build that this machine is set up for
        command = [_peer_python(), "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(command, check=True)
    (PEER_PATH / "complete").touch()


def _peer_python() -> Path:
    return PEER_PATH / "bin" / "python"


def run(size: Size, folder: Path) -> list[Row]:
    build_peer()
    peak = peaks(NAME, size, folder, "capture")[0]
    with _Peer(size, folder) as peer:
        first = peer.sample()
        ours = sides(size, folder)["capture"]
        seconds = alternate(
            {"capture": ours, "pattern-lens 0.6.0": lambda: peer.sample()["seconds"]},
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


class _Peer:
    """The predecessor's process: a line in, one capture, a line of JSON out."""

    def __init__(self, size: Size, folder: Path) -> None:
        tokenizer = folder / "tokenizer"
        data.long_tokenizer().save_pretrained(tokenizer)
        task = {
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
        script = Path(__file__).with_name("predecessor_process.py")
        self._process = subprocess.Popen(
            # isolated, or it would import this checkout's pattern_lens
            [str(_peer_python()), "-I", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        self._say(json.dumps(task))

    def _say(self, line: str) -> None:
        if self._process.stdin is None:
            raise RuntimeError("the predecessor's process has no standard input")
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def sample(self) -> dict[str, Any]:
        """One capture: seconds, and bytes of memory at its peak."""
        self._say("capture")
        for line in self._process.stdout or ():
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"the predecessor's process ended with {self._process.wait()}")

    def __enter__(self) -> _Peer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=60)
        if self._process.stdout is not None:
            self._process.stdout.close()
