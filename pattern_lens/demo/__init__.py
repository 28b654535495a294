"""The small model and the prompts that the package carries, so that examples need no download.

Rule: this package only answers where the files lie. It imports nothing but the standard library;
whoever wants the model loads the folder, whoever wants the prompts reads the lines. `train.py`
and `train_autoencoder.py` are the scripts that made the model and its autoencoder, and nothing imports them.
"""

from pathlib import Path

__all__ = ["autoencoder_path", "model_path", "prompts_path"]

_DEMO_PATH = Path(__file__).resolve().parent


def autoencoder_path() -> Path:
    """Folder of the bundled sparse autoencoder, in SAELens' format; it stands at ``blocks.0.mlp.hook_post``.

    Returns
    -------
    An existing folder with ``cfg.json`` and ``sae_weights.safetensors``.

    Examples
    --------
    >>> (autoencoder_path() / "cfg.json").is_file()
    True
    """
    return _DEMO_PATH / "demo-autoencoder"


def model_path() -> Path:
    """Folder of the bundled model, as Hugging Face's ``save_pretrained`` wrote it.

    Returns
    -------
    An existing folder with ``config.json``, ``model.safetensors`` and the tokenizer's files.

    Examples
    --------
    >>> (model_path() / "config.json").is_file()
    True
    """
    return _DEMO_PATH / "demo-gpt2"


def prompts_path() -> Path:
    """File of the bundled prompts: UTF-8, one JSON object with ``text`` and ``meta`` a line.

    Returns
    -------
    An existing ``.jsonl`` file.

    Examples
    --------
    >>> prompts_path().suffix
    '.jsonl'
    """
    return _DEMO_PATH / "prompts.jsonl"
