"""Drawing with the names of pattern-lens 0.6, over ``{save_path}/{model}.h5``.

The rule: what is given a file's prompts calls `map_figures`; what is given a matrix and a folder calls `produce`, and
writes what it made there.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pattern_lens.consts import ATTN_PATTERN_REGEX, DATA_DIR, model_file, sanitize_name_str
from pattern_lens.errors import FigureFailedError, MapWarning
from pattern_lens.figures import pixels
from pattern_lens.figures.head_files import has_files, write_files
from pattern_lens.figures.produce import produce
from pattern_lens.figures.registry import FigureFunction, figure_function
from pattern_lens.figures.run import map_figures
from pattern_lens.figures.select import select_figure_functions
from pattern_lens.load_activations import ActivationsMissingError, load_activations
from pattern_lens.names import HEAD, KEY, LAYER, QUERY, head_label
from pattern_lens.patterns.opening import open_patterns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from os import PathLike

    from pattern_lens.figures.products import Failure
    from pattern_lens.figures.report import FigureReport
    from pattern_lens.figures.select import Select

__all__ = [
    "HTConfigMock",
    "compute_and_save_figures",
    "figures_main",
    "process_prompt",
    "process_single_head",
    "select_attn_figure_funcs",
]


class HTConfigMock:
    """What was in a ``model_cfg.json``, as attributes.

    Examples
    --------
    >>> config = HTConfigMock.load({"model_name": "google/gemma-2b", "n_layers": 18})
    >>> config.n_layers, config.model_name_sanitized
    (18, 'google-gemma-2b')
    """

    def __init__(self, **kwargs: Any) -> None:
        self.__dict__.update(kwargs)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the configuration has no {name!r}, only {', '.join(self.__dict__)}")

    @property
    def model_name_sanitized(self) -> str:
        """The model's name as that of a folder."""
        return sanitize_name_str(self.model_name)

    def serialize(self) -> dict[str, Any]:
        """What `load` takes."""
        return dict(self.__dict__)

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> HTConfigMock:
        """The configuration that was read from JSON."""
        return cls(**data)


# --- choosing functions --------------------------------------------------------------------------


def select_attn_figure_funcs(
    figure_funcs_select: Select = None,
) -> list[Callable[..., Any] | FigureFunction]:
    """Figure functions that are asked for, each once.

    Parameters
    ----------
    figure_funcs_select
        A name or a glob, of functions or of single figures, or several in a set, list or tuple. None for `raw` and
        all that users registered.

    Returns
    -------
    The functions; where only some figures of one were named, its entry in the registry, which says which.

    Raises
    ------
    UnknownFigureError
        A name or glob that matches nothing.
    """
    entries = [_as_before(entry) for entry in _selected(figure_funcs_select)]
    return [entry.function if entry.only is None else entry for entry in entries]


def _selected(select: Select) -> list[FigureFunction]:
    entries = select_figure_functions(select)
    if select is not None:
        return list(entries)
    return [one for one in entries if not one.is_standard or one.name == pixels.raw.__name__]


def _as_before(function: Callable[..., Any] | FigureFunction) -> FigureFunction:
    """A function's entry; for the registered `raw`, that of the one which draws pixels."""
    entry = figure_function(function)
    is_raw = entry.is_standard and entry.name == pixels.raw.__name__
    return figure_function(pixels.raw) if is_raw else entry


# --- over a file ---------------------------------------------------------------------------------


def figures_main(
    model_name: str,
    save_path: str | PathLike[str] = DATA_DIR,
    n_samples: int | None = None,
    force: bool = False,  # noqa: FBT001, FBT002 - the predecessor's signature
    figure_funcs_select: Select = None,
    parallel: bool | int = True,  # noqa: FBT001, FBT002
    *,
    progress: bool = True,
) -> FigureReport:
    """Draw figures of every head of the stored prompts, and store them in the model's file.

    Parameters
    ----------
    model_name
        As it was given when the patterns were captured.
    save_path
        Folder of the model's file.
    n_samples
        So many prompts, in the order in which they were given; all if None.
    force
        Draw again what is there.
    figure_funcs_select
        As of `select_attn_figure_funcs`. `raw` is drawn when somebody looks, not stored.
    parallel
        True for as many processes as pay, a number for so many; False, 0 or 1 for this one.
    progress
        Whether to show a progress bar.

    Returns
    -------
    What was done.

    Raises
    ------
    UnknownFigureError
        A name or glob that matches nothing; nothing was drawn.
    ActivationsMissingError
        There is no file of this model.

    Warns
    -----
    MapWarning
        Some calls failed.
    """
    entries = _selected(figure_funcs_select)
    path = _file(save_path, model_name)
    with open_patterns(path) as patterns:
        prompts = list(patterns)[:n_samples]
    return map_figures(
        path,
        entries,
        n_workers=_n_workers(parallel),
        force=force,
        prompts=prompts,
        progress=progress,
    )


def process_prompt(
    prompt: dict[str, Any],
    model_cfg: Any,
    save_path: str | PathLike[str],
    figure_funcs: Select,
    force_overwrite: bool = False,  # noqa: FBT001, FBT002 - the predecessor's signature
) -> FigureReport:
    """Draw figures of every head of one prompt, and store them in the model's file.

    One process can write to a file at a time: for many prompts call `figures_main`, which draws in parallel.

    Parameters
    ----------
    prompt
        With a ``text``, a ``hash`` or both; the hash is added.
    model_cfg
        A configuration with the ``model_name``.
    save_path
        Folder of the model's file.
    figure_funcs
        Figure functions.
    force_overwrite
        Draw again what is there.

    Returns
    -------
    What was done.

    Raises
    ------
    ActivationsMissingError, ActivationsMismatchError
        The file does not hold the prompt, or another one under its hash.
    """
    path, _ = load_activations(model_cfg.model_name, prompt, save_path, "numpy")
    return map_figures(
        path,
        figure_funcs,
        n_workers=0,
        force=force_overwrite,
        prompts=[prompt["hash"]],
        progress=False,
    )


def _n_workers(parallel: bool | int) -> int | None:  # noqa: FBT001
    if parallel is True:
        return None
    return 0 if parallel in (0, 1) else parallel


def _file(save_path: str | PathLike[str], model_name: str) -> Path:
    path = model_file(save_path, model_name)
    if path.exists():
        return path
    hint = "capture it first: python -m pattern_lens.activations"
    folders = (model_name, sanitize_name_str(model_name))
    if any((Path(save_path) / one / "model_cfg.json").is_file() for one in folders):
        hint = f"take the folder over first: pattern-lens import {save_path}"
    raise ActivationsMissingError(f"no activations of {model_name!r}: no file {path}; {hint}")


# --- into folders --------------------------------------------------------------------------------


def compute_and_save_figures(
    model_cfg: Any,  # noqa: ARG001 - the predecessor's signature
    activations_path: str | PathLike[str],
    cache: Any,
    figure_funcs: Iterable[Callable[..., Any] | FigureFunction],
    save_path: str | PathLike[str] = DATA_DIR,  # noqa: ARG001
    force_overwrite: bool = False,  # noqa: FBT001, FBT002
    track_results: bool = False,  # noqa: ARG001, FBT001, FBT002
) -> dict[tuple[int, int], dict[str, bool | Exception]]:
    """Draw figures of every head of a prompt as files, ``L{layer}/H{head}/{figure}.{format}``.

    Parameters
    ----------
    activations_path
        A path in the folder to write to, such as the ``activations.npz`` of pattern-lens 0.6.
    cache
        By hook name the pattern of each layer, dims (1, head, query, key); or one array (layer, head, query, key),
        with or without a first dim of 1.
    figure_funcs, force_overwrite
        As of `process_single_head`.
    model_cfg, save_path, track_results
        Accepted and not needed: layers and heads are those of `cache`.

    Returns
    -------
    By layer and head what `process_single_head` says.
    """
    folder = Path(activations_path).parent
    if Path(activations_path).suffix == ".h5":
        raise ValueError(
            f"cannot tell of which prompt of {activations_path} the figures are; call process_prompt, which stores "
            "them in it, or give a path in a folder of the prompt's own"
        )
    functions = list(figure_funcs)
    return {
        (layer, head): process_single_head(
            layer, head, pattern, folder / f"L{layer}" / f"H{head}", functions, force_overwrite
        )
        for layer, heads in _layers(cache)
        for head, pattern in enumerate(heads)
    }


def _layers(cache: Any) -> Iterator[tuple[int, Any]]:
    """Number of each layer, and the pattern of its heads."""
    if isinstance(cache, dict):
        found = {name: ATTN_PATTERN_REGEX.fullmatch(name) for name in cache}
        for name, match in found.items():
            if match is not None:
                yield int(match[1]), np.asarray(cache[name])[0]
        return
    values = np.asarray(cache)
    if values.ndim == 5 and len(values) == 1:
        values = values[0]
    if values.ndim != 4:
        raise TypeError(
            f"cache must be a dict or np.ndarray, got {type(cache).__name__} of {values.ndim} dims: expected (layer, "
            "head, query, key)"
        )
    yield from enumerate(values)


def process_single_head(
    layer_idx: int,
    head_idx: int,
    attn_pattern: Any,
    save_dir: str | PathLike[str],
    figure_funcs: Iterable[Callable[..., Any] | FigureFunction],
    force_overwrite: bool = False,  # noqa: FBT001, FBT002 - the predecessor's signature
) -> dict[str, bool | Exception]:
    """Draw figures of one head as files, ``{figure}.{format}``.

    What is there is not drawn again; what failed before is.

    Parameters
    ----------
    attn_pattern
        Dims (query, key).
    save_dir
        Where the files go; it is made. An error is kept there as ``{figure}.error.txt``.
    figure_funcs
        Figure functions, registered or not.
    force_overwrite
        Draw again what is there.

    Returns
    -------
    By name of the function True, or the error.

    Warns
    -----
    MapWarning
        A function failed.
    """
    if not isinstance(attn_pattern, xr.DataArray):
        coords = {LAYER: layer_idx, HEAD: head_idx}
        attn_pattern = xr.DataArray(np.asarray(attn_pattern), dims=(QUERY, KEY), coords=coords)
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, bool | Exception] = {}
    for entry in map(_as_before, figure_funcs):
        results[entry.name] = True
        if not force_overwrite and has_files(entry, folder):
            continue
        failed = write_files(entry, produce(entry, attn_pattern), folder)
        if failed is not None:
            results[entry.name] = _as_error(failed)
            warnings.warn(
                f"Error in {entry.name} for {head_label(layer_idx, head_idx)}: {results[entry.name]}",
                MapWarning,
                stacklevel=2,
            )
    return results


def _as_error(failed: Failure) -> Exception:
    error = FigureFailedError(f"{failed.error}: {failed.message}")
    error.add_note(failed.traceback)
    return error
