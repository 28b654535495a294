"""What did not work, as a pandas table: failures of figures and results, as they are stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd

from pattern_lens.errors import DamagedFileError
from pattern_lens.names import HEAD, LAYER, PROMPT
from pattern_lens.store.rows import FAILED, NO_PROMPT, NONE

if TYPE_CHECKING:
    from pattern_lens.store.figures import FigureTable
    from pattern_lens.store.reader import StoreReader
    from pattern_lens.store.rows import Rows

_SAID: Final = ("error", "message", "traceback")


class FailureFacts(NamedTuple):
    """Why something is not there."""

    error: str
    message: str
    traceback: str


def parse_failure(raw: bytes) -> FailureFacts:
    """What is kept of a failure.

    Raises
    ------
    DamagedFileError
        It is not the JSON object that it should be.
    """
    try:
        known = json.loads(raw)
    except (ValueError, RecursionError) as err:
        raise DamagedFileError(f"cannot read a failure: it is not JSON ({err})") from err
    if not isinstance(known, dict):
        raise DamagedFileError(
            f"cannot read a failure: expected an object, got {type(known).__name__}"
        )
    return FailureFacts(*(str(known.get(key, "")) for key in _SAID))


def of_known_prompts(reader: StoreReader, rows: Rows) -> Rows:
    """The figure rows whose prompts are in the prompt table as it was read, and those of all prompts."""
    keep = reader.prompts.has(rows["prompt"]) | (rows["prompt"] == np.uint64(NO_PROMPT))
    return rows if keep.all() else rows[keep]


def failure_table(reader: StoreReader, table: FigureTable, rows: Rows) -> pd.DataFrame:
    """One row for each failure, in the order of `rows`.

    Parameters
    ----------
    rows
        Figure rows, of known prompts; those that are no failures are left out.

    Returns
    -------
    Columns `name`, `prompt` (hash), `layer`, `head`, `error`, `message`, `traceback`; missing where a failure is
    of all prompts, or of no one head.
    """
    rows = rows[(rows["flags"] & FAILED) != 0]
    said = [parse_failure(table.data(row)) for row in rows]
    columns: dict[str, Any] = {
        "name": [table.kinds[kind]["name"] for kind in rows["kind"].tolist()],
        PROMPT: pd.Series(_hashes(reader, rows), dtype=object),
        LAYER: _numbers(rows["layer"]),
        HEAD: _numbers(rows["head"]),
    }
    columns |= {key: pd.Series([getattr(s, key) for s in said], dtype=object) for key in _SAID}
    return pd.DataFrame(columns)


def _hashes(reader: StoreReader, rows: Rows) -> list[str | None]:
    prompts = rows["prompt"]
    positions = np.unique(prompts[prompts != np.uint64(NO_PROMPT)]).astype(np.intp)
    hashes = dict(zip(positions.tolist(), reader.prompts.hashes(positions), strict=True))
    return [hashes.get(position) for position in prompts.tolist()]


def _numbers(values: Any) -> pd.Series[Any]:
    return pd.Series([None if v == NONE else v for v in values.tolist()], dtype="Int64")
