"""Flip bits of a file, one at a time, in a process of its own: a crash of the interpreter is seen from outside.

Each flip must change nothing that is read, or be an error of ours, or be seen by checksums and seals.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import kill_writer

from pattern_lens.errors import PatternLensError
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.rows import is_blank, is_valid

SIGNATURES = (
    b"\x89HDF",
    b"OHDR",
    b"OCHK",
    b"EAHD",
    b"EAIB",
    b"EADB",
    b"GCOL",
    b'{"token',
    b"prompt-0000",
    b"text 0",
)


def everything(path: Path) -> list[Any]:
    """All that can be read."""
    reader = StoreReader(path)
    table = reader.prompts
    parts: list[Any] = [reader.root, reader.model, reader.vocab, table.rows.tobytes()]
    parts += [table.hashes(table.positions), table.texts(table.positions)]
    parts += [table.metas(table.positions), [table.token_ids(p).tobytes() for p in table.positions]]
    for name in reader.names():
        array = reader.array(name)
        values = [array.read(row).tobytes() for row in range(len(array))]
        parts += [name, array.layout, array.rows.tobytes(), values]
    parts += [reader.facts, reader.weight_names()]
    parts += [reader.weight(name).read(0).tobytes() for name in reader.weight_names()]
    reader.close()
    return parts


def is_noticed(path: Path) -> bool:
    """Whether checksums or seals tell that something is wrong."""
    if kill_writer.faults(path):
        return True
    reader = StoreReader(path)
    with reader.handle.open() as file:
        indexes = [file["prompts/index"][:]]
        for section in ("activations", "weights"):
            indexes += [file[f"{section}/{name}/index"][:] for name in file[section]]
    reader.close()
    return any(bool((~is_valid(rows) & ~is_blank(rows)).any()) for rows in indexes)


def verdict(path: Path, expected: list[Any]) -> str:
    """What came of one flip."""
    try:
        if everything(path) == expected:
            return "harmless"
        return "noticed" if is_noticed(path) else "UNNOTICED"
    except PatternLensError as err:
        return type(err).__name__
    except Exception as err:  # noqa: BLE001 - what this looks for
        return f"FOREIGN {err!r}"


def main(folder: Path, n_flips: int, seed: int) -> None:
    """Flip, read, count; the counts go to stdout as JSON."""
    path = folder / "file.h5"
    kill_writer.write(path, lambda line: None)
    raw = path.read_bytes()
    expected = everything(path)
    places = [at for s in SIGNATURES for at in range(len(raw)) if raw.startswith(s, at)]
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    for number in range(n_flips):
        at = rng.randrange(48) if number % 10 == 0 else rng.choice(places) + rng.randrange(150)
        at = rng.randrange(len(raw)) if number % 3 == 1 else at
        damaged = bytearray(raw)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        counts[verdict(path, expected)] += 1
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
