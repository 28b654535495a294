"""Model, autoencoders and prompts to latents in a file: only what is active, in one pass with other activations.

A batch is one commit, of all autoencoders and activations together. Whatever ends a run, what was committed stays, and
the next run goes on from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pattern_lens.activations.asked import check_options, first_ids, writable_target
from pattern_lens.activations.hooks import each_name, resolve_names
from pattern_lens.activations.resume import with_stored_layers
from pattern_lens.features.buffer import Sparsely
from pattern_lens.features.encoders import encoders_of
from pattern_lens.features.feature_run import FeatureRun
from pattern_lens.features.steps import FeatureReport, Steps
from pattern_lens.models import load_model
from pattern_lens.names import RESIDUAL
from pattern_lens.prompts import PromptSet, read_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from os import PathLike

    from pattern_lens.activations.estimate import Estimate
    from pattern_lens.prompts import Prompt


def capture_features(
    model: Any,
    sae: Any,
    prompts: str | PathLike[str] | PromptSet | Iterable[str | Mapping[str, Any] | Prompt],
    path: str | PathLike[str],
    *,
    names: Any = (),
    batch_size: int = 32,
    dtype: Literal["float32", "float16"] = "float32",
    threshold: float = 0.0,
    progress: bool = True,
    force: bool = False,
    device: Any = None,
    weights: Any = None,
    prepend_bos: bool | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    on_estimate: Callable[[Estimate], None] | None = None,
) -> FeatureReport:
    """Run prompts through a model and store which features of sparse autoencoders are active where, in one file.

    Can be stopped at any time and run again: what is in the file, whole and with the right checksum, is not computed
    again. Further prompts, autoencoders and activations go into the same file.

    Parameters
    ----------
    model
        As in `capture`.
    sae
        One autoencoder or a list of them: what `load_autoencoder` returned, or a folder or file that it takes. Or a mapping
        from hook to one of these, or to any object with ``encode`` and ``decode``, or to a pair of a name and one.
    prompts, path
        As in `capture`; prompts that the file holds are used as they are.
    names
        Activations to store from the same pass, as in `capture`, in the type that the model computes.
    batch_size
        Most prompts in one forward pass and one commit; fewer where memory asks for it.
    dtype
        Type in which values of latents are stored.
    threshold
        Latents that are not larger in size than this count as not active.
    progress, force, device, weights, prepend_bos
        As in `capture`.
    on_error
        What to do with a prompt that cannot be used, or that gives values that are not numbers: ``raise``, or ``skip`` it and
        say so in the report.
    on_estimate
        Called once with the size and the time of what will be stored, after the first batch has run and before anything is
        stored.

    Returns
    -------
    Counts, failures, and what each step took: `FeatureReport.table`.

    Raises
    ------
    AutoencoderError
        Something that is no autoencoder, or does not fit its hook; or values that are not numbers.
    FeaturesMismatchError
        The file holds features of another autoencoder under this name, or with another threshold or dtype.
    PromptError, ModelNotFoundError, UnknownHookError, HookSilentError, ModelMismatchError, WriterActiveError, FileNotWritableError, DiskFullError
        As in `capture`; what was stored before stays.

    Examples
    --------
    >>> import pattern_lens as pl
    >>> from pattern_lens.demo import autoencoder_path, model_path
    >>> report = pl.capture_features(
    ...     model_path(), autoencoder_path(), ["one two one two"], "doc.h5", progress=False
    ... )  # doctest: +SKIP
    """
    target = writable_target(path)
    check_options(batch_size, dtype, ("float32", "float16"))
    _check_threshold(threshold)
    wanted = prompts if isinstance(prompts, PromptSet) else read_prompts(prompts, on_error=on_error)
    options = {"device": device, "weights": weights, "prepend_bos": prepend_bos}
    loaded = load_model(
        model, **{key: value for key, value in options.items() if value is not None}
    )
    encoders = encoders_of(loaded, sae, first_ids(loaded, wanted))
    each = each_name(names)
    provenance = loaded.provenance()
    run = FeatureRun(
        model=loaded,
        provenance=provenance,
        groups=with_stored_layers(target, provenance, resolve_names(each, loaded)),
        takes_apart=RESIDUAL in each,
        path=target,
        dtype=None,
        batch_size=batch_size,
        progress=progress,
        on_estimate=on_estimate,
        encoders=encoders,
        options=Sparsely(float(threshold), on_error == "skip", Steps()),
        latent_dtype=dtype,
    )
    done = run.capture(wanted, force=force, on_error=on_error)
    assert isinstance(done, FeatureReport)  # noqa: S101 - what FeatureRun.report returns
    return done


def _check_threshold(threshold: float) -> None:
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold < float("inf"):
        raise ValueError(f"threshold is {threshold!r}, expected a number of at least 0")
