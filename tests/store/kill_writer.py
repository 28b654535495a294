"""A writer that can be killed anywhere, and what must be true of its file afterwards.

Every value follows from the number of its prompt, so that any process can tell whether a file is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pattern_lens.errors import PatternLensError
from pattern_lens.store.figures import FigureRecord, failure_record
from pattern_lens.store.header import Header
from pattern_lens.store.layout import ArrayLayout
from pattern_lens.store.prompt_table import PromptRecord
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.rows import NO_PROMPT
from pattern_lens.store.weights import lacking_weights, weight_layout, write_weight
from pattern_lens.store.writer import Block, StoreWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pattern_lens.store.reader import StoredArray

HEADER: Final = Header({"name": "killed"}, {"token": ["a", "b"], "text": ["a", " b"]})
PATTERN: Final = ArrayLayout(
    "pattern",
    ("layer", "head", "query", "key"),
    {"layer": 2, "head": 3},
    "triangle",
    "float32",
    (0, 4),
    ("blocks.0.attn.hook_pattern", "blocks.4.attn.hook_pattern"),
)
RESID: Final = ArrayLayout(
    "resid_post", ("layer", "pos", "d_model"), {"layer": 2, "d_model": 7}, "line", "float16", (1, 3)
)
SCORE: Final = ArrayLayout(
    "score",
    ("layer", "head"),
    {"layer": 2, "head": 3},
    "single",
    "float64",
    (0, 4),
    section="results",
    ragged_dims=(),
)
CURVE: Final = ArrayLayout(
    "curve",
    ("head", "distance"),
    {"head": 3},
    "line",
    "float32",
    section="results",
    ragged_dims=("distance",),
    labels={"head": [0, 1, 2]},
)
EFFECT: Final = ArrayLayout(
    "t/head_direct_effect",
    ("layer", "head", "query"),
    {"layer": 2, "head": 3},
    "line",
    "float32",
    (0, 4),
    section="traces",
    ragged_dims=("query",),
)
NODE_VALUE: Final = ArrayLayout(
    "t/node_value", (), {}, "single", "float32", section="traces", ragged_dims=()
)
SAID: Final = {"objective": {"kind": "zero"}}
COMPUTED: Final = (SCORE, CURVE, EFFECT, NODE_VALUE)
W_O: Final = weight_layout("W_O", (2, 3, 4, 70), "float16")
B_U: Final = weight_layout("b_U", (9000,), "float32")  # three chunks
WEIGHTS: Final = (W_O, B_U)
FACTS: Final = {"eps": 1e-5, "normalization": "LN"}
STORED: Final = (
    "pattern",
    "resid_post",
    *(layout.key for layout in COMPUTED),
    "figures",
    W_O.key,
    B_U.key,
)
BATCHES: Final = ((0, 1, 2), (3,), (4, 5, 6, 7), (8, 9))
LATER: Final = ((0, 1, 10), (2, 3, 4, 5, 11), (6, 7, 8, 9))
DOOMED: Final = 5


def name_of(i: int) -> str:
    """Hash of a prompt."""
    return f"prompt-{i:04d}"


def number_of(prompt_hash: str) -> int | None:
    """The number of the prompt of this hash, if there is one."""
    return next((i for i in range(100) if name_of(i) == prompt_hash), None)


def n_ctx(i: int) -> int:
    """Tokens of a prompt."""
    return 9 + (37 * i) % 83


def record(i: int) -> PromptRecord:
    """One prompt, with as much text as makes the streams cross pages."""
    tokens = (np.arange(n_ctx(i)) * (i + 1)).astype(np.int32)
    return PromptRecord(name_of(i), f"text {i} " * (50 + i), tokens, {"n": i})


def stored(layout: ArrayLayout, i: int) -> np.ndarray:
    """Values of one prompt as they are stored."""
    shape = layout.stored_shape(layout.length(*sizes(layout, i)))
    values = np.random.default_rng([i, len(layout.name)]).random(shape, np.float32)
    return values.astype(layout.stored_dtype)


def sizes(layout: ArrayLayout, i: int) -> tuple[int, int]:
    """Sizes of the ragged dims of one prompt."""
    n = n_ctx(i)
    return {"triangle": (n, n), "line": (n, 1), "single": (1, 1)}[layout.packing]


def block(layout: ArrayLayout, prompts: Sequence[int]) -> Block:
    """Values of some prompts, for one commit."""
    parts = [stored(layout, i) for i in prompts]
    return Block([sizes(layout, i) for i in prompts], np.concatenate(parts, axis=layout.axis))


def figure(position: int, i: int) -> FigureRecord:
    """A figure of one prompt; a failure of every third."""
    if i % 3 == 0:
        return failure_record("drawn", (position, 0, 1), "ValueError", f"no {i}", "Traceback …")
    return FigureRecord(position, 0, 1, "drawn", "png", f"picture {i} ".encode() * (90 * i))


def weight(layout: ArrayLayout) -> np.ndarray:
    """Values of a weight."""
    shape = layout.stored_shape(70 if layout is W_O else 9000)
    return np.random.default_rng(len(shape)).random(shape).astype(layout.stored_dtype)


def write(path: Path, acknowledge: Callable[[str], None]) -> None:
    """Write what the file lacks; each prompt is acknowledged when its commit has returned."""
    with StoreWriter(path, HEADER, [PATTERN]) as writer:
        for batch in BATCHES:
            _commit(writer, batch, [PATTERN], acknowledge)
    with StoreWriter(path, HEADER, [PATTERN, RESID, *WEIGHTS], facts=FACTS) as writer:
        for layout in lacking_weights(writer.reader, WEIGHTS):
            write_weight(writer, layout, weight(layout))
            acknowledge(f"{layout.key} 0")
        for batch in LATER:
            _commit(writer, batch, [RESID], acknowledge)
            _commit(writer, batch, [PATTERN], acknowledge)
        writer.commit([record(0)], {"pattern": block(PATTERN, [0])})  # the newer row of a prompt
        position = writer.position(name_of(DOOMED))
        assert position is not None
        acknowledge(f"deleting {DOOMED}")
        writer.delete([position])
        acknowledge(f"deleted {DOOMED}")
    with StoreWriter(path, None, COMPUTED, figures=True, traces={"t": SAID}) as writer:
        for batch in LATER:
            _commit_computed(writer, [i for i in batch if i != DOOMED], acknowledge)


def _commit_computed(
    writer: StoreWriter, batch: Sequence[int], acknowledge: Callable[[str], None]
) -> None:
    writer.reader.refresh()
    lacking = [i for i in batch if not holds(writer.reader, NODE_VALUE.key, i)]
    if not lacking:
        return
    positions = [writer.position(name_of(i)) for i in lacking]
    assert None not in positions
    blocks = {layout.key: block(layout, lacking) for layout in COMPUTED}
    writer.commit_computed(positions, blocks, list(map(figure, positions, lacking)))
    for i in lacking:
        for what in (*(layout.key for layout in COMPUTED), "figures"):
            acknowledge(f"{what} {i}")


def _commit(
    writer: StoreWriter,
    batch: Sequence[int],
    layouts: Sequence[ArrayLayout],
    acknowledge: Callable[[str], None],
) -> None:
    for layout in layouts:
        writer.reader.refresh()
        lacking = [i for i in batch if not holds(writer.reader, layout.name, i)]
        if lacking:
            writer.commit([record(i) for i in lacking], {layout.name: block(layout, lacking)})
            for i in lacking:
                acknowledge(f"{layout.name} {i}")


def holds(reader: StoreReader, name: str, i: int) -> bool:
    """Whether the file has these values of this prompt."""
    if name.startswith("weights/"):
        return name.removeprefix("weights/") in reader.weight_names()
    position = reader.prompts.find(name_of(i))
    if position is None:
        return False
    if name == "figures":
        return position in reader.figures.rows["prompt"]
    group = name if "/" in name else f"activations/{name}"
    return group in reader.groups() and reader.stored(group).row_of(position) is not None


def faults(path: Path) -> list[str]:
    """Everything in the file that is not as it was written; empty if it is whole."""
    found = []
    reader = StoreReader(path)
    prompts = reader.prompts
    hashes = prompts.hashes(prompts.positions)
    found += [f"{h} twice" for h in set(hashes) if hashes.count(h) > 1]
    sums = prompts.checksums(prompts.positions)
    rows = prompts.rows[prompts.positions]
    found += [
        f"{h} damaged" for h, s, r in zip(hashes, sums, rows, strict=True) if s != r["checksum"]
    ]
    of_position = dict(zip(prompts.positions.tolist(), hashes, strict=True))
    for name in reader.groups():
        array = reader.stored(name)
        for row in range(len(array)):
            position = int(array.rows[row]["prompt"])
            if position not in of_position:
                found.append(f"{name} row {row} names no prompt")
                continue
            if not _is_right(array, row, of_position[position]):
                found.append(f"{name} of {of_position[position]}")
    found += _wrong_figures(reader, of_position) + _wrong_weights(reader)
    found += [f"trace {n}" for n in reader.trace_names() if reader.trace_spec(n) != SAID]
    reader.close()
    return found


def _wrong_figures(reader: StoreReader, of_position: dict[int, str]) -> list[str]:
    found = []
    for row in reader.figures.rows:
        if len(reader.prompts.rows) <= row["prompt"] < NO_PROMPT:
            continue  # stored since the prompts were read
        record = reader.figures.record(row)
        prompt_hash = of_position.get(record.prompt, "")
        i = number_of(prompt_hash)
        if i is None or record != figure(record.prompt, i):
            found.append(f"figure {record.name} of {prompt_hash or 'no prompt'}")
    return found


def _wrong_weights(reader: StoreReader) -> list[str]:
    names = reader.weight_names()
    found = [] if reader.facts == FACTS or not names else [f"facts {reader.facts}"]
    for layout in WEIGHTS:
        if layout.name in names:
            array = reader.weight(layout.name)
            if not (array.is_intact(0) and np.array_equal(array.read(0), weight(layout))):
                found.append(layout.key)
    return found


def _is_right(array: StoredArray, row: int, prompt_hash: str) -> bool:
    i = number_of(prompt_hash)
    if i is None or array.sizes(row) != sizes(array.layout, i):
        return False
    expected = stored(array.layout, i)
    if array.layout.packing == "single":
        expected = expected[0]
    values = array.read(row)
    if array.layout.packing == "triangle":
        q, k = np.tril_indices(n_ctx(i))
        values = values[..., q, k]
    return array.is_intact(row) and np.array_equal(values, expected)


def lost(path: Path, acknowledged: Sequence[str]) -> list[str]:
    """What was acknowledged and is not in the file."""
    if not path.exists():
        return list(acknowledged)
    reader = StoreReader(path)
    missing = []
    for line in acknowledged:
        what, i = line.split()
        if what == "deleted":
            gone = reader.prompts.find(name_of(int(i))) is None
            missing += [] if gone else [line]
        elif what != "deleting" and not holds(reader, what, int(i)):
            doomed = int(i) == DOOMED and f"deleting {DOOMED}" in acknowledged
            missing += [] if doomed else [line]
    reader.close()
    return missing


def watch(path: Path, is_over: Callable[[], bool], say: Callable[[str], object]) -> dict[str, int]:
    """Read the file again and again; how often, and what went wrong."""
    seen = {"reads": 0, "wrong": 0, "retries": 0, "errors": 0}
    while not is_over():
        try:
            found = faults(path)
            seen["reads"] += 1
            seen["wrong"] += len(found)
            if found:
                say(f"wrong: {found}")
        except FileNotFoundError:
            continue
        except PatternLensError as err:
            seen["retries"] += 1
            say(f"retry after {err!r}")
        except Exception as err:  # noqa: BLE001 - counted, and told
            seen["errors"] += 1
            say(f"foreign error {err!r}")
    return seen
