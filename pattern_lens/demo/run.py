"""The demo: capture the bundled model, find two kinds of heads in what was stored, and draw them.

Rule: the bundled model goes the same way as any other folder, and every number is read back from
the file.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from pattern_lens.activations.capture import capture
from pattern_lens.demo import model_path, prompts_path
from pattern_lens.figures.run import map_figures
from pattern_lens.measures import induction_score, previous_token_score
from pattern_lens.names import head_label
from pattern_lens.patterns.opening import open_patterns
from pattern_lens.store.info import describe

if TYPE_CHECKING:
    import xarray as xr

    from pattern_lens.activations.report import CaptureReport
    from pattern_lens.figures.report import FigureReport

FIGURES: Final = ("log_scale", "mean_over_prompts")
PATTERN: Final = "pattern"
REPETITION: Final = "repetition"
"""`meta["kind"]` of the bundled prompts that repeat themselves."""


@dataclass(frozen=True)
class HeadScore:
    """A head and what it scored."""

    head: str
    score: float


@dataclass(frozen=True)
class DemoResult:
    """What the demo stored and found.

    Attributes
    ----------
    report, drawn
        What the capture and the drawing did.
    n_prompts, n_tokens
        What the file holds.
    dense_bytes, stored_bytes
        Size of the attention patterns, as arrays and in the file.
    previous_token
        The heads that attend most to the token before, over all prompts; strongest first.
    induction
        The heads that attend most to what followed a token's previous occurrence, over prompts that
        repeat themselves; strongest first.
    next_steps
        Shell commands to try next, in the folder of the file.
    """

    report: CaptureReport
    drawn: FigureReport
    n_prompts: int
    n_tokens: int
    dense_bytes: int
    stored_bytes: int
    previous_token: tuple[HeadScore, ...]
    induction: tuple[HeadScore, ...]
    next_steps: tuple[str, ...]


def run_demo(path: str | Path, *, progress: bool = True) -> DemoResult:
    """Capture the bundled model on the bundled prompts, score its heads, and draw the strongest.

    Parameters
    ----------
    path
        The file; what it holds already is not computed again.
    progress
        Whether to show progress bars.
    """
    report = capture(model_path(), prompts_path(), path, progress=progress)
    with open_patterns(report.path) as patterns:
        is_repetition = patterns.prompts["kind"] == REPETITION
        previous = patterns.map(
            previous_token_score, name="previous_token_score", progress=progress
        )
        induction = patterns.map(induction_score, name="induction_score", progress=progress)
        found = strongest(previous), strongest(induction.sel(prompt=is_repetition.values))
    heads = ", ".join(kind[0].head for kind in found)
    drawn = map_figures(report.path, FIGURES, heads=heads, progress=progress)
    held = describe(report.path)
    return DemoResult(
        report=report,
        drawn=drawn,
        n_prompts=held["prompts"]["n_prompts"],
        n_tokens=held["prompts"]["n_tokens"],
        dense_bytes=held["activations"][PATTERN]["dense_bytes"],
        stored_bytes=held["activations"][PATTERN]["stored_bytes"],
        previous_token=found[0],
        induction=found[1],
        next_steps=next_steps(report.path.name),
    )


def strongest(scores: xr.DataArray, *, n: int = 3) -> tuple[HeadScore, ...]:
    """The heads with the highest means over prompts, the highest first.

    Parameters
    ----------
    scores
        Dims (prompt, layer, head).
    n
        How many heads; all of them if there are fewer.

    Examples
    --------
    >>> import xarray as xr
    >>> scores = xr.DataArray([[[0.1, 0.5], [0.75, 0.0]]], dims=("prompt", "layer", "head"))
    >>> [found.head for found in strongest(scores, n=2)]
    ['L1H0', 'L0H1']
    """
    mean = scores.mean("prompt").transpose("layer", "head").values
    order = np.argsort(-mean, axis=None, kind="stable")[:n]
    layers, heads = np.unravel_index(order, mean.shape)
    return tuple(
        HeadScore(head_label(layer, head), float(mean[layer, head]))
        for layer, head in zip(layers.tolist(), heads.tolist(), strict=True)
    )


def next_steps(file_name: str) -> tuple[str, ...]:
    """Shell commands that work in the folder of the file; the first makes `pattern-lens` known where it is not, the last runs until it is stopped."""
    name = shlex.quote(file_name)
    opened = f"import pattern_lens as pl; patterns = pl.open_patterns({file_name!r})"
    snippets = (
        f"{opened}; print(patterns)",
        f"{opened}; print(patterns.sel(layer=1, key=0).mean('query').mean('prompt').values.round(2))",
        f"import pattern_lens as pl; print(pl.open_results({file_name!r}).mean('prompt').induction_score.values.round(2))",
        f"import pattern_lens as pl; pl.open_figures({file_name!r})['mean_over_prompts'].sel(head='L1H0').save('mean.svg')",
    )
    model, prompts = (shlex.quote(str(path)) for path in (model_path(), prompts_path()))
    activate = Path(sys.prefix, "bin", "activate")
    unknown = shutil.which("pattern-lens") is None and activate.exists()
    return (
        *([f". {shlex.quote(str(activate))}"] if unknown else []),
        f"pattern-lens info {name}",
        f"pattern-lens verify {name}",
        *(f'python -c "{snippet}"' for snippet in snippets),
        f"pattern-lens figures {name} --figures query_entropy --heads L1H0",
        f"pattern-lens export-figures {name} -o attn_data",
        f"pattern-lens capture -m {model} -p {prompts} -o {name} --names resid_post,z",
        f"pattern-lens export-html {name} --heads L1 -o demo.html",
        f"pattern-lens serve {name}",
    )
