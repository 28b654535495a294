"""Features as a folder: a page for each, and a list that leads to them.

The rule: what all pages share is asked for once; of the features themselves one is held at a time.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tqdm import tqdm

from pattern_lens.errors import ForeignFolderError
from pattern_lens.figures.saving import write_whole
from pattern_lens.server.keys import model_id
from pattern_lens.store.create import explain_writing
from pattern_lens.wording import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pattern_lens.server.chosen import Chosen

    Answers = dict[str, Any]

_OF_SAE: Final = re.compile(r"^api/[^/]+/features/(?P<sae>[^/]+)/(?P<of>table|tokens)\.json$")
_INDEX: Final = "index.html"


def write_folder(
    folder: Path,
    one: Chosen,
    shared: Answers,
    page: Callable[[Answers], bytes],
    *,
    progress: bool,
) -> list[int]:
    """Write the pages of a folder; returns their sizes in bytes.

    Parameters
    ----------
    one
        What is shown of the file.
    shared
        Answers by address that are of no one feature.
    page
        Makes a page from answers.

    Raises
    ------
    ForeignFolderError
        There is a file of this name.
    DiskFullError, FileNotWritableError
        What stood in the place of a page still does.
    """
    if folder.exists() and not folder.is_dir():
        raise ForeignFolderError(
            f"cannot export to {folder}: it is a file, and the name of a page ends in .html; give a folder"
        )
    names = one.view.feature_names
    each = [(name, n) for name in names for n in one.view.features.numbers(name).tolist()]
    sizes = []
    for name, n in tqdm(each, "exporting", unit="feature", disable=not progress):
        rest = f"features/{name}/feature/{n}.json"
        own = {f"api/{one.id}/{rest}": json.loads(one.answer(rest).make())}
        sizes.append(written(folder / _name(name, n), page(_only(shared, name, n) | own)))
    return [*sizes, written(folder / _INDEX, _index(one, shared))]


def written(path: Path, data: bytes) -> int:
    """Write a page whole or not at all; returns its size."""
    with explain_writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)
    return len(data)


def _name(sae: str, number: int) -> str:
    return f"{model_id(sae)}-{number}.html"


def _only(shared: Answers, sae: str, number: int) -> Answers:
    """The answers of a page of one feature, without its own."""
    found = {}
    for address, told in shared.items():
        place = _OF_SAE.match(address)
        if place is None:
            found[address] = told
        elif place["sae"] == sae:
            found[address] = _row(told, number)
    return found


def _row(told: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One row of columns, with the texts of its tokens."""
    at = told["feature"].index(number)
    row = {key: [some[at]] if isinstance(some, list) else some for key, some in told.items()}
    ids = {n for some in row.values() if isinstance(some, list) for n in np.ravel(some).tolist()}
    return {**row, "texts": {n: text for n, text in told["texts"].items() if int(n) in ids}}


# --- the list of a folder ------------------------------------------------------------------------


def _index(one: Chosen, shared: Answers) -> bytes:
    """A page that lists features and leads to theirs; it holds no script."""
    title = f"Features of {one.view.model_name}"
    places = ((_OF_SAE.match(address), told) for address, told in shared.items())
    tables = "".join(_table(at["sae"], told) for at, told in places if at and at["of"] == "table")
    page = _INDEX_PAGE.replace("TITLE", escape(title)).replace("FILE", escape(one.view.name))
    return page.replace("TABLES", tables).encode("utf-8", "replace")


def _table(sae: str, told: Mapping[str, Any]) -> str:
    n_rows = len(told["feature"])
    tokens = told["top_token"] or [-1] * n_rows
    texts = ["" if n < 0 else visible(told["texts"][str(n)]) for n in tokens]
    measures = [told[key] or [None] * n_rows for key in ("density", "max_activation")]
    rows = []
    for n, text, *numbers in zip(told["feature"], texts, *measures, strict=True):
        link = f'<a href="./{escape(_name(sae, n))}">{n}</a>'
        cells = "".join(f"<td>{'' if one is None else f'{one:.4g}'}</td>" for one in numbers)
        rows.append(
            f"<tr><td>{link}</td><td><bdi><code>{escape(text)}</code></bdi></td>{cells}</tr>"
        )
    head = "<tr><th>feature</th><th>raises</th><th>density</th><th>max</th></tr>"
    return f"<h2><bdi>{escape(sae)}</bdi></h2><table>{head}{''.join(rows)}</table>"


_INDEX_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>TITLE</title>
<style>
:root { color-scheme: light dark; font: 14px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
body { margin: 24px; } table { border-collapse: collapse; } :is(td, th) { padding: 1px 16px 1px 0; text-align: left; }
tr { border-top: 1px solid light-dark(#d9dee5, #333a44); }
</style></head><body><h1>TITLE</h1><p>from FILE</p>TABLES</body></html>
"""
