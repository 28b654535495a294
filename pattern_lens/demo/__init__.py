"""The small model and the prompts that the package carries, so that examples need no download.

Rule: this package only answers where the files lie. It imports nothing but the standard library;
whoever wants the model loads the folder, whoever wants the prompts reads the lines. `train.py` is
the script that made the model, and nothing imports it.
"""

from pathlib import Path

__all__ = ["model_path", "prompts_path"]

_DEMO_PATH = Path(__file__).resolve().parent


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
