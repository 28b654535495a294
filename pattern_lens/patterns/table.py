"""Prompts as a pandas table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pandas as pd

if TYPE_CHECKING:
    from pattern_lens.patterns.source import Positions
    from pattern_lens.store.prompt_table import PromptTable

COLUMNS: Final = ("text", "n_tokens", "n_ctx", "truncated")


def prompt_table(prompts: PromptTable, positions: Positions) -> pd.DataFrame:
    """One row for each prompt, by hash.

    Parameters
    ----------
    positions
        Positions in the prompt table, in the order of the rows.

    Returns
    -------
    Columns `text`, `n_tokens` (without the BOS token that the model was given), `n_ctx` (with it),
    `truncated`, and one for each key of the metadata; a key that is one of these names, or `hash`, gets the
    prefix ``meta_``.
    """
    n_ctx = prompts.n_ctx(positions)
    columns: dict[str, Any] = {
        "text": prompts.texts(positions),
        "n_tokens": n_ctx - prompts.bos(positions),
        "n_ctx": n_ctx,
        "truncated": prompts.truncated(positions),
    }
    index = pd.Index(prompts.hashes(positions), name="hash", dtype=object)
    metas = prompts.metas(positions)
    keys = list(dict.fromkeys(key for meta in metas for key in meta))
    for key in keys:
        name = f"meta_{key}" if key in (*COLUMNS, "hash") else key
        while name in columns:
            name = f"meta_{name}"
        columns[name] = [meta.get(key) for meta in metas]
    return pd.DataFrame(columns, index=index)
