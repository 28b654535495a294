"""What a capture of features takes, step by step: estimated from its first batch, and measured."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.activations.estimate import Estimate
from pattern_lens.activations.report import CaptureReport
from pattern_lens.wording import counted, human_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

READ: Final = "read"
FORWARD: Final = "forward"
ENCODE: Final = "encode"
SPARSE: Final = "sparse"
PACK: Final = "pack"
WRITE: Final = "write"
STEPS: Final = (READ, FORWARD, ENCODE, SPARSE, PACK, WRITE)
"""Reading what another tool stored; the model; the autoencoders; finding what is active; other activations; compressing and writing, meanwhile."""


class Steps:
    """Seconds spent in each step so far."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, name: str, device: Any = None) -> Iterator[None]:
        """Count the time within as a step's."""
        _wait_for(device)
        started = time.perf_counter()
        try:
            yield
        finally:
            _wait_for(device)
            self.seconds[name] += time.perf_counter() - started

    @contextmanager
    def around(self, name: str, *inner: str) -> Iterator[None]:
        """Count the time within as a step's, but not what `inner` steps take of it."""
        before = sum(self.seconds[one] for one in inner)
        started = time.perf_counter()
        try:
            yield
        finally:
            within = sum(self.seconds[one] for one in inner) - before
            self.seconds[name] += time.perf_counter() - started - within


def _wait_for(device: Any) -> None:
    """Let an accelerator finish what it was given, which it otherwise does later."""
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class FeatureEstimate(Estimate):
    """Bytes and seconds of what a capture of features will store, known from its first batch.

    Attributes
    ----------
    n_tokens
        Token ids of all prompts that lack something.
    seconds
        By step; the model and writing go on at once, so that the whole takes less than their sum.
    n_active
        Active features of a token, by autoencoder.
    """

    n_tokens: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    n_active: Mapping[str, float] = field(default_factory=dict)

    def summary(self) -> str:
        """A line for people, and one for each part."""
        seconds = sum(self.seconds.values())
        each = (
            ", ".join(f"{n:.1f} of {name}" for name, n in self.n_active.items()) or "none asked for"
        )
        return "\n".join(
            [
                super().summary(),
                f"{self.n_tokens:,} tokens, about {seconds:.0f} s; active features of a token: {each}",
            ]
        )


@dataclass(frozen=True)
class FeatureReport(CaptureReport):
    """What a capture of features did.

    Attributes
    ----------
    n_tokens
        Token ids of the prompts stored.
    n_entries
        Active latents stored, by autoencoder.
    step_seconds, step_bytes, estimated_seconds
        By step; writing goes on while the model runs. What nothing was estimated or written of is left out.
    """

    n_tokens: int = 0
    n_entries: Mapping[str, int] = field(default_factory=dict)
    step_seconds: Mapping[str, float] = field(default_factory=dict)
    step_bytes: Mapping[str, int] = field(default_factory=dict)
    estimated_seconds: Mapping[str, float] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """Steps with the seconds they took, their share, what was estimated, and the bytes that came out of them."""
        import pandas as pd

        steps = [step for step in STEPS if step in self.step_seconds]
        seconds = pd.Series({step: self.step_seconds[step] for step in steps}, dtype=float)
        found = pd.DataFrame(
            {
                "seconds": seconds,
                "share": seconds / max(seconds.sum(), 1e-12),
                "estimated_seconds": [self.estimated_seconds.get(step) for step in steps],
                "size_bytes": [self.step_bytes.get(step, 0) for step in steps],
            },
            index=pd.Index(steps, name="step"),
        )
        return found.astype({"estimated_seconds": float})

    def summary(self) -> str:
        """A line for people, and the table of steps where anything was stored."""
        lines = [super().summary()]
        lines += [
            f"  {name}: {counted(n, 'active latent')} of {counted(self.n_tokens, 'token')}"
            for name, n in self.n_entries.items()
            if self.n_tokens
        ]
        for step, row in self.table().iterrows() if self.n_tokens else ():
            told = "" if row.isna()["estimated_seconds"] else f", estimated {row.estimated_seconds:.1f} s"  # fmt: skip
            size = f", {human_size(int(row.size_bytes))}" if row.size_bytes else ""
            lines.append(f"  {step:8} {row.seconds:8.1f} s {row.share:4.0%}{told}{size}")
        return "\n".join(lines)
