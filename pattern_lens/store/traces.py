"""Traces in a file: a specification each, and a stored array for each of its variables.

The rule: a prompt is traced when every variable of the trace has a row for it.
"""

from __future__ import annotations

import json
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from pattern_lens.errors import DamagedFileError
from pattern_lens.store.attributes import read_text, write_text
from pattern_lens.store.layout import TRACES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import h5py

    from pattern_lens.store.prompt_table import Positions
    from pattern_lens.store.reader import StoredArray


def write_specification(file: h5py.File, name: str, specification: Mapping[str, Any]) -> None:
    """Store what a trace is; its variables may be there already."""
    text = json.dumps(dict(specification), sort_keys=True)
    attributes = file.require_group(f"{TRACES}/{name}").attrs
    write_text(attributes, "json", text)
    attributes["checksum"] = np.uint64(xxhash.xxh3_64_intdigest(text.encode()))


def read_specification(file: h5py.File, name: str) -> dict[str, Any]:
    """What a trace is; empty where nothing is said yet.

    Raises
    ------
    DamagedFileError
        It is not what was written.
    KeyError
        The file holds no such trace.
    """
    group = file[f"{TRACES}/{name}"]
    if "json" not in group.attrs:
        return {}
    text = read_text(group, "json")
    stored = group.attrs.get("checksum")
    if stored is None or int(stored) != xxhash.xxh3_64_intdigest(text.encode()):
        raise DamagedFileError(
            f"cannot read the specification of trace {name!r}: attribute json of /{TRACES}/{name} does not have its checksum"
        )
    found: dict[str, Any] = json.loads(text)
    return found


def lacking_specifications(file: h5py.File, names: Iterable[str]) -> list[str]:
    """Those of the traces of which a file says nothing yet."""
    held = file.get(TRACES, {})
    return [name for name in names if name not in held or "json" not in held[name].attrs]


def variables_of(file: h5py.File, name: str) -> list[str]:
    """Names of a trace's variables; none where there is no such trace. What is not known is left out."""
    held = file.get(f"{TRACES}/{name}", {})
    return sorted(variable for variable in held if "spec" in held[variable].attrs)


def trace_groups(file: h5py.File) -> list[str]:
    """Paths of all variables of all traces."""
    traces = sorted(file.get(TRACES, ()))
    return [
        f"{TRACES}/{name}/{variable}" for name in traces for variable in variables_of(file, name)
    ]


def traced(arrays: Sequence[StoredArray]) -> Positions:
    """Positions of the prompts that every one of a trace's variables has, ascending."""
    if not arrays:
        return np.empty(0, np.intp)
    held = (array.rows["prompt"].astype(np.intp) for array in arrays)
    return reduce(lambda one, other: np.intersect1d(one, other, assume_unique=True), held)
