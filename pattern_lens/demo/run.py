"""The demo: capture the bundled model, and find two kinds of heads in what was stored.

Rule: the bundled model goes the same way as any other folder, and every number is read back from
the file.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.activations.capture import capture
from pattern_lens.demo import model_path, prompts_path
from pattern_lens.names import head_label
from pattern_lens.store.info import describe
from pattern_lens.store.reader import StoreReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pattern_lens.activations.capture import CaptureReport

Array = np.ndarray[Any, np.dtype[Any]]

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
    report
        What the capture did.
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
    n_prompts: int
    n_tokens: int
    dense_bytes: int
    stored_bytes: int
    previous_token: tuple[HeadScore, ...]
    induction: tuple[HeadScore, ...]
    next_steps: tuple[str, ...]


def run_demo(path: str | Path, *, progress: bool = True) -> DemoResult:
    """Capture the bundled model on the bundled prompts, and score its heads.

    Parameters
    ----------
    path
        The file; what it holds already is not computed again.
    progress
        Whether to show progress bars.
    """
    report = capture(model_path(), prompts_path(), path, progress=progress)
    held = describe(report.path)
    stored = list(_stored(report.path))
    return DemoResult(
        report=report,
        n_prompts=held["prompts"]["n_prompts"],
        n_tokens=held["prompts"]["n_tokens"],
        dense_bytes=held["activations"][PATTERN]["dense_bytes"],
        stored_bytes=held["activations"][PATTERN]["stored_bytes"],
        previous_token=strongest(previous_token_scores(pattern) for pattern, _, _ in stored),
        induction=strongest(
            induction_scores(pattern, ids) for pattern, ids, kind in stored if kind == REPETITION
        ),
        next_steps=next_steps(report.path.name),
    )


def _stored(path: Path) -> Iterator[tuple[Array, Array, str]]:
    """Pattern, token ids and kind of each stored prompt."""
    reader = StoreReader(path)
    try:
        array = reader.array(PATTERN)
        positions = array.rows["prompt"].astype(np.intp).tolist()
        kinds = [meta.get("kind", "") for meta in reader.prompts.metas(positions)]
        for row, (position, kind) in enumerate(zip(positions, kinds, strict=True)):
            yield array.read(row), reader.prompts.token_ids(position), kind
    finally:
        reader.close()


def previous_token_scores(pattern: Array) -> Array:
    """Mean attention from each query but the first to the token before it.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., query, key).

    Returns
    -------
    Dims (...); range [0, 1].

    Examples
    --------
    >>> pattern = np.array([[1.0, 0, 0], [0.75, 0.25, 0], [0.5, 0.25, 0.25]])
    >>> float(previous_token_scores(pattern))
    0.5
    """
    return np.asarray(np.diagonal(pattern, -1, -2, -1).mean(-1))


def induction_scores(pattern: Array, token_ids: Array) -> Array:
    """Mean attention from each token that was there before to what followed it last time.

    Parameters
    ----------
    pattern
        Attention probabilities, dims (..., query, key).
    token_ids
        One a query; some token comes twice, with another one between.

    Returns
    -------
    Dims (...); range [0, 1].

    Raises
    ------
    ValueError
        No token comes again.

    Examples
    --------
    >>> pattern = np.array([[1.0, 0, 0], [0.75, 0.25, 0], [0.5, 0.375, 0.125]])
    >>> float(induction_scores(pattern, np.array([7, 4, 7])))
    0.375
    """
    last_seen: dict[int, int] = {}
    pairs = []
    for query, token in enumerate(token_ids.tolist()):
        if token in last_seen and last_seen[token] + 1 < query:
            pairs.append((query, last_seen[token] + 1))
        last_seen[token] = query
    if not pairs:
        raise ValueError("no token comes twice: expected token ids that repeat themselves")
    queries, keys = np.transpose(pairs)
    return np.asarray(pattern[..., queries, keys].mean(-1))


def strongest(scores: Iterable[Array], *, n: int = 3) -> tuple[HeadScore, ...]:
    """The heads with the highest means over prompts, the highest first.

    Parameters
    ----------
    scores
        One array a prompt, dims (layer, head).
    n
        How many heads; all of them if there are fewer.

    Examples
    --------
    >>> [found.head for found in strongest([np.array([[0.1, 0.5], [0.75, 0.0]])], n=2)]
    ['L1H0', 'L0H1']
    """
    mean = np.mean(list(scores), axis=0)
    order = np.argsort(-mean, axis=None, kind="stable")[:n]
    layers, heads = np.unravel_index(order, mean.shape)
    return tuple(
        HeadScore(head_label(layer, head), float(mean[layer, head]))
        for layer, head in zip(layers.tolist(), heads.tolist(), strict=True)
    )


def next_steps(file_name: str) -> tuple[str, ...]:
    """Shell commands that work in the folder of the file; the first makes `pattern-lens` known where it is not."""
    name = shlex.quote(file_name)
    opened = f"import pattern_lens as pl; patterns = pl.open_patterns({file_name!r})"
    snippets = (
        f"{opened}; print(patterns)",
        f"{opened}; print(patterns.sel(layer=1, key=0).mean('query').mean('prompt').values.round(2))",
    )
    model, prompts = (shlex.quote(str(path)) for path in (model_path(), prompts_path()))
    activate = Path(sys.prefix, "bin", "activate")
    unknown = shutil.which("pattern-lens") is None and activate.exists()
    return (
        *([f". {shlex.quote(str(activate))}"] if unknown else []),
        f"pattern-lens info {name}",
        f"pattern-lens verify {name}",
        *(f'python -c "{snippet}"' for snippet in snippets),
        f"pattern-lens capture -m {model} -p {prompts} -o {name} --names resid_post,z",
    )
