"""Autoencoders written as SAELens writes them: ``cfg.json`` and ``sae_weights.safetensors``.

Rule: what is written is read back by `load_autoencoder` as the same autoencoder, and by SAELens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pattern_lens.errors import AutoencoderError
from pattern_lens.features.loading import CONFIG_FILE, WEIGHTS_FILE
from pattern_lens.features.variants import KEYS

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from pattern_lens.features.autoencoder import SparseAutoencoder


def write_autoencoder(
    path: str | os.PathLike[str],
    autoencoder: SparseAutoencoder,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write an autoencoder as a folder, in the type its weights are held in.

    Parameters
    ----------
    path
        A folder; made if it is not there.
    metadata
        What else is known of it, such as ``model_name``.

    Returns
    -------
    The folder.

    Raises
    ------
    AutoencoderError
        A direction, or a live object, of which the format says nothing.
    """
    from safetensors.torch import save_file

    if autoencoder.kind not in KEYS or set(autoencoder.weights) != set(KEYS[autoencoder.kind]):
        raise AutoencoderError(
            f"{autoencoder!r} cannot be written in SAELens' format: expected kind {', '.join(KEYS)}"
        )
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    own = {key: value.cpu().contiguous() for key, value in autoencoder.weights.items()}
    save_file(own, folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).chmod(0o644)  # it is written for its owner only, and a wheel keeps that
    text = json.dumps(_config(autoencoder, metadata or {}), indent=2) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    return folder


def _config(autoencoder: SparseAutoencoder, metadata: Mapping[str, Any]) -> dict[str, Any]:
    settings = autoencoder.settings
    return {
        "architecture": autoencoder.kind,
        "d_in": autoencoder.d_in,
        "d_sae": autoencoder.n_features,
        "dtype": str(autoencoder.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": settings.apply_b_dec_to_input,
        "normalize_activations": settings.normalize_activations,
        "reshape_activations": "hook_z" if autoencoder.site == "z" else "none",
        **({} if settings.k is None else {"k": settings.k}),
        "metadata": {"hook_name": autoencoder.hook, **metadata},
    }
