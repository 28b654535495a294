"""Patterns of a batch of prompts: read, committed, read back and compared, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.errors import DamagedFileError, PromptError
from pattern_lens.importing.archive import is_lower, open_archive
from pattern_lens.importing.folders import PROMPT_FILE, VALUES_FILE
from pattern_lens.importing.prompt_file import read_prompt
from pattern_lens.importing.scan import PATTERN, Pending, Scan
from pattern_lens.importing.tokens import places
from pattern_lens.store.block import Block, spans
from pattern_lens.store.chunks import Selection
from pattern_lens.store.packing import pack_triangle
from pattern_lens.store.prompt_table import PromptRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pattern_lens.importing.folders import ModelFolder
    from pattern_lens.store.layout import ArrayLayout
    from pattern_lens.store.writer import StoreWriter

Array = np.ndarray[Any, np.dtype[Any]]

_BATCH_BYTES: Final = 32 << 20
_BATCH_PROMPTS: Final = 32


@dataclass(frozen=True)
class Batch:
    """Prompts of one commit, and their patterns in stored layout."""

    records: Sequence[PromptRecord]
    block: Block


def batches(pending: Sequence[Pending], layout: ArrayLayout) -> Iterator[list[Pending]]:
    """Prompts in order, as many at once as memory should hold; one at least."""
    element = layout.stored_dtype.itemsize * int(np.prod(layout.stored_shape(1)))
    batch: list[Pending] = []
    n_bytes = 0
    for one in pending:
        size = element * layout.length(one.shape.n_ctx, one.shape.n_ctx)
        if batch and (n_bytes + size > _BATCH_BYTES or len(batch) == _BATCH_PROMPTS):
            yield batch
            batch, n_bytes = [], 0
        batch.append(one)
        n_bytes += size
    if batch:
        yield batch


def read_batch(
    model: ModelFolder, found: Scan, layout: ArrayLayout, batch: Sequence[Pending]
) -> Batch | None:
    """The prompts of a batch; what turns out to be damaged is skipped. None if nothing is left."""
    records: list[PromptRecord] = []
    parts: list[Array] = []
    for one in batch:
        file = one.folder / PROMPT_FILE
        try:
            record = _record(found, one)
            file = one.folder / VALUES_FILE
            values = _values(one, layout)
        except PromptError as err:
            found.skip(model, file, err)
            continue
        records.append(record)
        parts.append(values)
    if not records:
        return None
    sizes = [(len(record.token_ids), len(record.token_ids)) for record in records]
    data = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=layout.axis)
    return Batch(records, Block(sizes, data))


def _record(found: Scan, one: Pending) -> PromptRecord:
    old = read_prompt(one.folder)
    facts = found.facts
    at = places(old, one.shape.n_ctx, facts.n_ctx, prepends_bos=facts.prepends_bos)
    prompt = old.prompt if at.is_known else old.with_tokens_as_meta()
    return PromptRecord(
        hash=prompt.hash,
        text=prompt.text,
        token_ids=found.vocabulary.ids(at.tokens),
        meta=prompt.meta,
        truncated=at.truncated,
        bos=at.bos,
    )


def _values(one: Pending, layout: ArrayLayout) -> Array:
    """Patterns of one prompt in stored layout; layer by layer, because all together are large."""
    n = one.shape.n_ctx
    out = np.empty(layout.stored_shape(layout.length(n, n)), layout.stored_dtype)
    with open_archive(one.folder / VALUES_FILE, n) as archive:
        if archive.shape != one.shape:
            raise PromptError("it was changed while it was imported")
        for slab, layer in zip(out, archive.shape.layers, strict=True):
            values = archive.read(layer)
            if layout.packing == "rectangle":
                slab[...] = values.reshape(slab.shape)
            elif is_lower(values):
                pack_triangle(values, slab)
            else:
                raise PromptError(
                    f"layer {layer} has values above the diagonal, which layer {archive.shape.layers[0]} has not"
                )
    return out


def store(writer: StoreWriter, layout: ArrayLayout, batch: Batch) -> None:
    """Commit a batch, and read it back.

    Raises
    ------
    DamagedFileError
        What was read is not what was written; the batch is taken out again.
    """
    writer.commit(batch.records, {PATTERN: batch.block})
    try:
        check_stored(writer, layout, batch)
    except DamagedFileError:
        positions = [writer.position(record.hash) for record in batch.records]
        writer.delete([position for position in positions if position is not None])
        raise


def check_stored(writer: StoreWriter, layout: ArrayLayout, batch: Batch) -> None:
    """Raise DamagedFileError unless the file holds these prompts and these bits."""
    reader = writer.reader
    reader.refresh()
    table, array = reader.prompts, reader.array(PATTERN)
    positions = [table.position(record.hash) for record in batch.records]
    if table.texts(positions) != [record.text for record in batch.records]:
        raise DamagedFileError(_differs(writer, "texts of prompts"))
    rows = [row for row in map(array.row_of, positions) if row is not None]
    if len(rows) != len(positions):
        raise DamagedFileError(_differs(writer, "patterns"))
    parts = [(0, size) for size, _ in batch.block.sizes]
    for layer, written in enumerate(batch.block.data):
        found = array.read_packed(rows, Selection([layer], (slice(None),)), parts)
        for values, (start, stop) in zip(found, spans(layout, batch.block.sizes), strict=True):
            if values[0].tobytes() != written[..., start:stop].tobytes():
                raise DamagedFileError(
                    _differs(writer, f"patterns of layer {layout.layers[layer]}")
                )


def _differs(writer: StoreWriter, what: str) -> str:
    return (
        f"{what} read back from {writer.path} are not what was written; look at its disk, and run the same again: "
        "what was imported before stays"
    )
