"""Latents in a file -> the data of features, in the same file.

Rule: stored latents are streamed, never a model once for each batch of features; a batch is one commit, and what is
stored is not computed again.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.errors import AutoencoderError, UnknownFeaturesError
from pattern_lens.features.data_plan import DataPlan, Options
from pattern_lens.features.data_run import DataRun
from pattern_lens.features.loading import load_autoencoder
from pattern_lens.features.parts.sequences import Counts
from pattern_lens.features.stored import open_features
from pattern_lens.store.features import check_same
from pattern_lens.store.header import check_same_model
from pattern_lens.store.layout import FEATURES
from pattern_lens.store.reader import StoreReader
from pattern_lens.weights import COMPATIBILITY_FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

    from pattern_lens.features.autoencoder import SparseAutoencoder
    from pattern_lens.features.data_steps import DataEstimate, DataReport
    from pattern_lens.features.feature_set import FeatureSet
    from pattern_lens.features.parts.histograms import Array
    from pattern_lens.models import CaptureModel


def compute_features(
    path: str | PathLike[str],
    sae: Any,
    features: int | Sequence[int] | None = None,
    *,
    model: Any = None,
    second: str | None = None,
    sequences: bool = True,
    window: tuple[int, int] = (5, 5),
    n_intervals: int = 10,
    per_interval: int = 5,
    n_top: int = 20,
    batch_features: int = 256,
    seed: int = 0,
    force: bool = False,
    progress: bool = True,
    device: Any = None,
    on_estimate: Callable[[DataEstimate], None] | None = None,
    on_report: Callable[[DataReport], None] | None = None,
) -> FeatureSet:
    """Compute what is told of features, from their stored latents, and store it in the same file.

    Can be stopped at any time and run again: features whose data is there are not computed again. The model runs once over
    the prompts for correlations with neurons, where the file does not hold these, and for the effects of ablations, of the
    prompts that are shown.

    Parameters
    ----------
    path
        A file in which `capture_features` stored latents.
    sae
        The autoencoder: what `load_autoencoder` takes or returned. Or its name in the file: then what its weights say
        (logits, alignment, effects, sources) is left out.
    features
        Numbers of features; all by default.
    model
        The model of the file: what `load_model` takes or returned. Without it effects of ablations are left out, and
        logits and correlations with neurons where the file holds no weights (``names=["residual"]``) and no ``post``.
    second
        Name of another autoencoder of the file, with whose features these are correlated.
    sequences
        Whether tokens are chosen and shown, with effects.
    window
        Tokens before and after each token that is shown, as far as its prompt goes.
    n_intervals, per_interval, n_top
        Sequences with the largest activations; equal intervals of the range of activations, and sequences drawn from each;
        as many are shown with the smallest activations, and about tokens drawn from all.
    batch_features
        Features of one commit.
    seed
        Of what is drawn.
    force
        Compute again what is stored; data that was computed in another way is replaced.
    progress
        Whether to show a progress bar.
    device
        Where to load a model that is given by name or folder.
    on_estimate
        Called once with the time and size of everything, when the first batch is computed and before it is stored.
    on_report
        Called once with what was done, and the time of each step.

    Returns
    -------
    The features in the file, with their data.

    Raises
    ------
    UnknownFeaturesError
        The file holds no latents of this autoencoder, or of the second one, or there is no such feature.
    FeaturesMismatchError
        The file's latents are of another autoencoder, or it holds data computed in another way.
    AutoencoderError
        Something that is no autoencoder.
    ModelMismatchError
        The file was captured from another model.
    ValueError
        An option that makes no sense.
    WriterActiveError, FileNotWritableError, DiskFullError
        What was stored before stays.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> from pattern_lens.demo import autoencoder_path, model_path
    >>> found = pl.compute_features(
    ...     "doc.h5", autoencoder_path(), [7], model=model_path(), progress=False
    ... )  # doctest: +SKIP
    >>> found.sel(feature=7)["top_logit_token"]  # doctest: +SKIP
    """
    _check(window=window, n_intervals=n_intervals, per_interval=per_interval, n_top=n_top)
    _check(batch_features=batch_features)
    target = Path(path).expanduser().resolve()
    with open_features(target) as opened, closing(StoreReader(target)) as reader:
        name, autoencoder = _autoencoder(sae, opened)
        latents = opened[name]
        if autoencoder is not None:
            group = f"{FEATURES}/{name}"
            check_same(target, group, latents.identity, autoencoder.identity())
        options = Options(
            sequences, window, Counts(n_top, per_interval, n_intervals), seed, batch_features
        )
        live = None if model is None else _model(model, reader, target, device)
        other = None if second is None else opened[second]
        plan = DataPlan(reader, latents, autoencoder, live, other, options)
        run = DataRun(target, plan, progress, on_estimate)
        report = run.compute(_numbers(features, latents), force=force)
    if on_report is not None:
        on_report(report)
    return open_features(target)[name]


def _check(**options: Any) -> None:
    for name, value in options.items():
        least = 0 if name in ("window", "per_interval", "n_top") else 1
        each = value if isinstance(value, tuple) else (value,)
        is_whole = all(isinstance(one, int) and not isinstance(one, bool) for one in each)
        if not is_whole or min(each) < least or (name == "window" and len(each) != 2):
            what = "two whole numbers" if name == "window" else "a whole number"
            raise ValueError(f"{name} is {value!r}, expected {what} of at least {least}")


def _autoencoder(sae: Any, opened: Any) -> tuple[str, SparseAutoencoder | None]:
    """Name in the file, and the autoencoder unless only the name is given."""
    if isinstance(sae, str) and (sae in opened or not os.path.exists(sae)):  # noqa: PTH110 - a name is no path
        return sae, None
    if isinstance(sae, list | tuple):
        raise AutoencoderError(
            f"the data of features is computed for one autoencoder at a time, got {len(sae)}; call once for each"
        )
    loaded = load_autoencoder(sae)
    return loaded.name, loaded


def _model(model: Any, reader: StoreReader, path: Path, device: Any) -> CaptureModel:
    """The live model, which is the one of the file."""
    from pattern_lens.models import CaptureModel, load_model

    if isinstance(model, CaptureModel):
        loaded = model
    else:
        said = reader.model
        options: dict[str, Any] = {"prepend_bos": said.get("prepend_bos")}
        if isinstance(model, str | os.PathLike):
            mode = said.get("weights") or {}
            flags = {flag: on for flag, on in mode.items() if flag in COMPATIBILITY_FLAGS}
            is_raw = mode.get("mode") != "compatibility"
            options |= {"weights": "raw" if is_raw else flags, "dtype": said.get("dtype")}
            options |= {"device": device}
        loaded = load_model(model, **options)
    check_same_model(path, reader.model, loaded.provenance())
    return loaded


def _numbers(features: int | Sequence[int] | None, latents: FeatureSet) -> Array:
    """Numbers of features, ascending, each once."""
    if features is None:
        return np.arange(latents.n_features)
    return np.unique(_checked(np.atleast_1d(np.asarray(features)), latents))


def _checked(numbers: Array, latents: FeatureSet) -> Array:
    """Numbers, of which each is that of a feature."""
    is_whole = numbers.dtype.kind in "iu"
    if not is_whole or ((numbers < 0) | (numbers >= latents.n_features)).any():
        raise UnknownFeaturesError(
            f"no features {numbers.tolist()!r} of {latents.name!r}: expected whole numbers from 0 to {latents.n_features - 1}"
            if not is_whole
            else f"no feature {int(numbers[(numbers < 0) | (numbers >= latents.n_features)][0])} of {latents.name!r} in "
            f"{latents.path}: it has 0 to {latents.n_features - 1}"
        )
    return numbers
