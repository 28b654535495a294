"""What a commit appends to the growing datasets; no row is written here before what it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from pattern_lens.store.prompt_table import PromptRecord, hash_key, record_checksum
from pattern_lens.store.rows import (
    BOS_PREPENDED,
    FAILED,
    FIGURE_ROW,
    NO_PROMPT,
    NONE,
    PROMPT_ROW,
    TRUNCATED,
    WITHDRAWN,
    seal,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import h5py

    from pattern_lens.store.figures import FigureRecord

Rows = np.ndarray[Any, Any]


def append(dataset: h5py.Dataset, values: Rows) -> None:
    """Lengthen a dataset by `values`."""
    first = len(dataset)
    dataset.resize(first + len(values), axis=0)
    if len(values):
        dataset[first:] = values


def append_prompts(
    datasets: Mapping[str, h5py.Dataset],
    records: Sequence[PromptRecord],
    encoded: Sequence[tuple[bytes, bytes, bytes, bytes]],
) -> Rows:
    """Append hashes, texts, metadata and tokens; returns the sealed rows that name them."""
    streams = {name: datasets[f"prompts/{name}"] for name in ("hash", "text", "token_id")}
    starts = {name: len(stream) for name, stream in streams.items()}
    parts: dict[str, list[bytes]] = {name: [] for name in streams}
    rows = np.zeros(len(records), PROMPT_ROW)
    for row, record, fields in zip(rows, records, encoded, strict=True):
        raw_hash, text, meta, tokens = fields
        row["key"], row["checksum"] = hash_key(record.hash), record_checksum(fields)
        row["hash_start"], row["text_start"], row["token_start"] = starts.values()
        row["hash_size"], row["text_size"], row["meta_size"] = map(len, fields[:3])
        row["n_ctx"] = len(tokens) // 4
        row["flags"] = TRUNCATED * record.truncated | BOS_PREPENDED * record.bos
        starts["hash"] += len(raw_hash)
        starts["text"] += len(text) + len(meta)
        starts["token_id"] += len(tokens) // 4
        parts["hash"].append(raw_hash)
        parts["text"] += [text, meta]
        parts["token_id"].append(tokens)
    for name, stream in streams.items():
        append(stream, np.frombuffer(b"".join(parts[name]), stream.dtype))
    return seal(rows)


def append_figures(
    dataset: h5py.Dataset,
    records: Sequence[FigureRecord],
    kinds: Sequence[int],
) -> Rows:
    """Append the bytes of figures; returns the sealed rows that name them.

    Parameters
    ----------
    dataset
        ``/figures/data``.
    kinds
        For each record the row that describes it.
    """
    sizes = np.array([len(record.data) for record in records], np.int64)
    rows = np.zeros(len(records), FIGURE_ROW)
    rows["prompt"] = [NO_PROMPT if record.prompt is None else record.prompt for record in records]
    rows["kind"], rows["size"] = kinds, sizes
    rows["start"] = len(dataset) + np.cumsum(sizes) - sizes
    rows["layer"] = [NONE if record.layer is None else record.layer for record in records]
    rows["head"] = [NONE if record.head is None else record.head for record in records]
    rows["flags"] = [FAILED * one.failed | WITHDRAWN * one.withdrawn for one in records]
    rows["checksum"] = [xxhash.xxh3_64_intdigest(record.data) for record in records]
    append(dataset, np.frombuffer(b"".join(record.data for record in records), np.uint8))
    return seal(rows)
