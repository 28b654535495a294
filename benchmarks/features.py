"""Capturing latents against the forward pass and the encoder alone, and feature data against computing it in the usual way.

The model has GPT-2 small's shape, vocabulary included, and random weights; the autoencoder stands at the neurons of the last layer, also random, with
biases that leave about 64 features of a token active, some often, some rarely. At the last layer a feature is ablated without running anything
else, on both sides. Both sides get the same token ids and the same batches, and their numbers are compared first.
"""

from __future__ import annotations

import gc
import shutil
import time
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks import data
from benchmarks.capture import n_threads
from benchmarks.measure import Row, compare, peaks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pattern_lens.features.autoencoder import SparseAutoencoder

NAME: Final = "features"
QUESTION: Final = "What do capturing latents and computing feature data cost, against the bare passes and the usual way?"
CAPTURE, BARE = "capture_features", "forward pass and encoder"
COMPUTE, USUAL = "compute_features", "a forward pass for each batch"
SKIPPING = "that, and logits only where a feature fires"
FEWER, WITH_CAPTURE = "compute_features, fewer tokens", "capture_features and compute_features"
_MEMORY_BUDGET: Final = 4_000_000_000
_ACTIVE: Final = 64
_SPREAD: Final = 0.5
_N_CHECKED: Final = 6
_N_CALIBRATED: Final = 1024
_ROWS_AT_ONCE: Final = 256


@dataclass(frozen=True)
class Size:
    """Layers and vocabulary of the model, features, tokens in all and a prompt, features computed, features and prompts a batch, torch's threads (0: one a core), samples."""

    n_layers: int
    n_vocab: int
    n_features: int
    n_tokens: int
    n_tokens_each: int
    n_computed: int
    batch_features: int
    batch_size: int
    n_threads: int
    n_samples: int


SIZES: Final = {
    "smoke": Size(2, 300, 256, 256, 32, 8, 4, 2, 1, 1),
    "small": Size(12, 50_257, 24_576, 2_048, 128, 512, 256, 8, 0, 1),
    "full": Size(12, 50_257, 24_576, 100_000, 128, 1_000, 256, 8, 0, 1),
}


def run(size: Size, folder: Path) -> list[Row]:
    found = sides(size, folder)
    _check_alike(size, folder)  # which warms both sides up
    peak = dict(zip(found, peaks(NAME, size, folder, *found), strict=True))
    seconds = _samples(
        {name: side for name, side in found.items() if name != FEWER}, size.n_samples
    )
    both = zip(seconds[CAPTURE], seconds[COMPUTE], strict=True)
    seconds[WITH_CAPTURE], peak[WITH_CAPTURE] = [sum(pair) for pair in both], peak[CAPTURE]

    def row(what: str, ours: str, other: str, **options: Any) -> Row:
        of = {"peak_ours": peak[ours], "peak_other": peak[other]}
        return compare(what, {one: seconds[one] for one in (ours, other)}, **of, **options)

    where = f"{size.n_features:,} features over {size.n_tokens:,} tokens"
    how = f"{size.n_layers} layers, {n_threads(size)} torch threads"
    computed = f"data of {size.n_computed:,} of {where}"
    held, held_of_few = (f"{peak[one] / 1e6:.0f} MB" for one in (COMPUTE, FEWER))
    of = {"peak_ours": peak[COMPUTE], "peak_other": peak[FEWER]}
    few = f"{size.n_tokens // 4:,} tokens"
    of_few, of_budget = peak[COMPUTE] / max(peak[FEWER], 1), peak[COMPUTE] / _MEMORY_BUDGET
    ratio, stored, plain = _bytes(_captured(size, size.n_tokens, folder))
    in_plain = "latents in the file / position, feature, value as int32, uint16, float32"
    return [
        row(f"capture {where}, {how}", CAPTURE, BARE, at_most=1.3),
        row(f"{computed}, {how}", COMPUTE, USUAL, at_least=5.0),
        row("the same, against one that skips more", COMPUTE, SKIPPING),
        row("the same, with the capture, which serves all features", WITH_CAPTURE, USUAL),
        Row(f"memory of {computed} / 4 GB", held, "4 GB allowed", of_budget, at_most=1.0, **of),
        Row(f"memory of {computed} / over {few}", held, held_of_few, of_few, at_most=1.1, **of),
        Row(in_plain, stored, plain, ratio, at_most=1.2, **of),
    ]


def _samples(sides: dict[str, Callable[[], object]], n_samples: int) -> dict[str, list[float]]:
    """Seconds of each side, A B A B ...; the first pair counts, as a run takes minutes."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(n_samples):
        for name, side in sides.items():
            gc.collect()
            seconds[name].append(float(side()))  # type: ignore[arg-type]
    return seconds


def sides(size: Size, folder: Path) -> dict[str, Callable[[], object]]:
    """Each returns seconds."""
    import torch

    from benchmarks.features_usual import Usual

    torch.set_num_threads(n_threads(size))
    whole, fewer = (_captured(size, n, folder) for n in (size.n_tokens, size.n_tokens // 4))
    model, sae = _model(size.n_layers, size.n_vocab), _autoencoder(size)
    rows = [model.tokenize(text).ids for text in _texts(size, size.n_tokens)]
    usual, skipping = (
        Usual(model, sae, rows, size.batch_size, size.batch_features, skips=skips)
        for skips in (False, True)
    )
    return {
        CAPTURE: lambda: _capture(size, size.n_tokens, folder / "again.h5"),
        BARE: lambda: _seconds(lambda: _bare(size, rows)),
        COMPUTE: lambda: _compute(size, whole),
        USUAL: lambda: _seconds(lambda: usual(_chosen(size))),
        SKIPPING: lambda: _seconds(lambda: skipping(_chosen(size))),
        FEWER: lambda: _compute(size, fewer),
    }


def _seconds(side: Callable[[], object]) -> float:
    started = time.perf_counter()
    side()
    return time.perf_counter() - started


# --- inputs --------------------------------------------------------------------------------------


@cache
def _model(n_layers: int, n_vocab: int) -> Any:
    return data.gpt2_model(n_layers, n_vocab=n_vocab)


@cache
def _texts(size: Size, n_tokens: int) -> list[str]:
    """Random words, about `n_tokens` tokens in all."""
    return data.texts(max(n_tokens // size.n_tokens_each, 2), size.n_tokens_each)


@cache
def _autoencoder(size: Size) -> SparseAutoencoder:
    """Random directions, with biases that leave as many features active as a trained one has: some often, some rarely."""
    import torch

    from pattern_lens.features.loading import load_autoencoder

    hook, width = f"blocks.{size.n_layers - 1}.mlp.hook_post", 4 * data.D_MODEL
    generator = torch.Generator().manual_seed(0)
    w_dec = torch.randn(size.n_features, width, generator=generator) / width**0.5
    w_enc = w_dec.T.contiguous()
    share = 10 ** (_SPREAD * torch.randn(size.n_features, generator=generator))
    share = (share * _ACTIVE / share.sum()).clamp_max(0.5)
    given = _values(size, hook)[:_N_CALIBRATED] @ w_enc
    far = -torch.special.ndtri(share)  # of a normal distribution so much is above
    weights = {
        "W_enc": w_enc,
        "b_enc": -(given.mean(0) + far * given.std(0)),
        "W_dec": w_dec,
        "b_dec": torch.zeros(width),
    }
    return load_autoencoder(weights, hook=hook)


def _values(size: Size, hook: str) -> Any:
    """Values at a hook for a few prompts, dims (token, width)."""
    import torch

    from pattern_lens.activations.forward import pad_right, run_hooks

    seen: list[Any] = []
    ids = [
        _model(size.n_layers, size.n_vocab).tokenize(text).ids
        for text in data.texts(8, 128, seed=1)
    ]
    shortest = min(map(len, ids))
    tokens = pad_right([one[:shortest] for one in ids], masked=False)[0]
    run_hooks(
        _model(size.n_layers, size.n_vocab), tokens, [hook], lambda _, value: seen.append(value)
    )
    return torch.flatten(seen[0], 0, 1)


def _chosen(size: Size) -> range:
    """Every so many-th feature, so that all kinds are among them."""
    step = size.n_features // size.n_computed
    return range(0, step * size.n_computed, step)


# --- ours ----------------------------------------------------------------------------------------


def _captured(size: Size, n_tokens: int, folder: Path) -> Path:
    """A file of latents, unless it is there."""
    path = folder / f"latents_{n_tokens}.h5"
    if not path.exists():
        _capture(size, n_tokens, path, keep=True)
    return path


def _capture(size: Size, n_tokens: int, path: Path, *, keep: bool = False) -> float:
    from pattern_lens import capture_features

    model, sae = _model(size.n_layers, size.n_vocab), _autoencoder(size)
    texts = _texts(size, n_tokens)
    options = {"batch_size": size.batch_size, "progress": False}
    took = _seconds(lambda: capture_features(model, sae, texts, path, **options))
    if not keep:
        path.unlink()
    return took


def _compute(size: Size, stored: Path, features: Sequence[int] | None = None) -> float:
    path = stored.with_suffix(".copy.h5")
    shutil.copy(stored, path)
    try:
        return _seconds(lambda: _computed(size, path, features or _chosen(size)))
    finally:
        path.unlink()


def _computed(size: Size, path: Path, features: Sequence[int]) -> Any:
    from pattern_lens import compute_features

    return compute_features(
        path,
        _autoencoder(size),
        features,
        model=_model(size.n_layers, size.n_vocab),
        batch_features=size.batch_features,
        progress=False,
    )


def _bytes(path: Path) -> tuple[float, str, str]:
    """Bytes of latents in the file over those of the plain columns, and both in words."""
    import h5py

    with h5py.File(path) as file:
        stored: list[int] = []
        file["features"].visititems(
            lambda _, one: (
                stored.append(one.id.get_storage_size()) if isinstance(one, h5py.Dataset) else None
            )
        )
    from pattern_lens import open_features

    with open_features(path) as found:
        n_entries = sum(one.n_entries for one in found.values())
    plain = n_entries * (4 + 2 + 4)
    return sum(stored) / plain, f"{sum(stored) / 1e6:.1f} MB", f"{plain / 1e6:.1f} MB"


# --- the other sides -----------------------------------------------------------------------------


def _bare(size: Size, rows: list[Any]) -> None:
    """The batches that a capture makes, to the hook and through the encoder, with nothing looked at."""
    import torch

    from pattern_lens.activations.forward import pad_right, run_hooks

    model, sae = _model(size.n_layers, size.n_vocab), _autoencoder(size)

    rows = sorted(rows, key=len, reverse=True)  # as a capture does it: little is padded
    with torch.no_grad():
        for first in range(0, len(rows), size.batch_size):
            batch = rows[first : first + size.batch_size]
            encode = partial(_encode, sae, [len(ids) for ids in batch])
            run_hooks(model, pad_right(batch, masked=False)[0], [sae.hook], encode)


def _encode(sae: SparseAutoencoder, lengths: list[int], _: str, value: Any) -> None:
    """Latents of a batch, a few rows at a time, which is quickest, and without its padding."""
    from pattern_lens.features.sparse import rows_of

    for some in rows_of(value, lengths).split(_ROWS_AT_ONCE):
        sae.encode(some)


# --- that both do the same -----------------------------------------------------------------------

_COMPARED: Final = {
    "n_active": 0.0,
    "max_activation": 1e-3,
    "mean_activation": 1e-3,
    "top_logit": 1e-3,
    "bottom_logit": 1e-3,
    "neuron_alignment": 1e-3,
    "neuron_l1_share": 1e-3,
    "neuron_pearson": 1e-3,
    "neuron_cosine": 1e-3,
}
"""Variables, and how far apart they may be."""


def _check_alike(size: Size, folder: Path) -> None:
    """Raise unless both sides give the same numbers for some features of fewer tokens."""
    from benchmarks.features_usual import N_TOP, Usual

    n_tokens, features = size.n_tokens // 4, _chosen(size)[:_N_CHECKED]
    model, sae = _model(size.n_layers, size.n_vocab), _autoencoder(size)
    rows = [model.tokenize(text).ids for text in _texts(size, n_tokens)]
    theirs = Usual(model, sae, rows, size.batch_size, len(features))(features)
    path = folder / "alike.h5"
    shutil.copy(_captured(size, n_tokens, folder), path)
    ours = _computed(size, path, features).data
    for name, apart in _COMPARED.items():
        expected = np.nan_to_num(theirs[name])
        mine = np.nan_to_num(
            ours[name].values[:, : expected.shape[1]] if expected.ndim > 1 else ours[name].values
        )
        np.testing.assert_allclose(mine, expected, rtol=apart, atol=apart, err_msg=name)
    top = slice(N_TOP)
    is_there = theirs["peak_at"][:, top] >= 0
    for name in ("loss_effect", "sequence_activation"):
        both = (
            _at_peak(ours, name)[:, top],
            theirs[name][:, top, theirs[name].shape[2] // 2],
        )
        # sorted, as rounding decides the order of activations that are almost equal
        mine, expected = (np.sort(np.where(is_there, one, np.nan), axis=1) for one in both)
        np.testing.assert_allclose(mine, expected, rtol=1e-2, atol=1e-3, err_msg=name)
    path.unlink()


def _at_peak(found: Any, name: str) -> Any:
    """Values of a variable at the token that each sequence is about: dims (feature, sequence)."""
    peak = np.maximum(found["peak"].values, 0)[..., None].astype(int)
    return np.take_along_axis(found[name].values, peak, axis=2)[..., 0]
