"""Files with everything that is hard to show, and three ways to ask for their answers."""

import base64
import gzip
import http.client
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pattern_lens.prompts import prompt_hash
from pattern_lens.server.one_page import export_html
from pattern_lens.server.running import Server, prepared
from pattern_lens.server.site import export_site
from pattern_lens.store.block import Block
from pattern_lens.store.figures import FigureRecord
from pattern_lens.store.header import Header
from pattern_lens.store.layout import ArrayLayout
from pattern_lens.store.prompt_table import PromptRecord
from pattern_lens.store.writer import StoreWriter

TOKENS = [
    "<BOS>",
    "<script>alert(1)</script>",
    "\n",
    "\ufffd",
    "שלום",
    "\u202eevil",
    " the",
    "&amp;",
    "</script>",
    "‍",
]
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><text>a &lt; b</text></svg>"
SVGZ = gzip.compress(SVG, mtime=0)
LAYERS = (0, 2, 3)
N_HEADS = 4
HASHES = [
    prompt_hash("first"),
    "../../etc/passwd",
    "-dash_begins",
    "<b>&\"'",
    "CON",
    prompt_hash("long"),
]
LENGTHS = (5, 3, 8, 2, 1, 300)


def layout(
    packing: str = "triangle",
    dtype: str = "float32",
    layers: tuple[int, ...] = LAYERS,
    n_heads: int = N_HEADS,
) -> ArrayLayout:
    return ArrayLayout(
        name="pattern",
        dims=("layer", "head", "query", "key"),
        sizes={"layer": len(layers), "head": n_heads},
        packing=packing,
        dtype=dtype,
        layers=layers,
        hooks=tuple(f"blocks.{layer}.attn.hook_pattern" for layer in layers),
        units="probability",
    )


def score_layout(name: str) -> ArrayLayout:
    return ArrayLayout(
        name=name,
        dims=("layer", "head"),
        sizes={"layer": len(LAYERS), "head": N_HEADS},
        packing="single",
        dtype="float32",
        layers=LAYERS,
        units="bits",
        section="results",
        ragged_dims=(),
        origin={"long_name": f"the {name}"},
    )


def record(prompt_hash: str, n: int, number: int = 0) -> PromptRecord:
    ids = (np.arange(n) + number) % len(TOKENS)
    ids[0] = 0
    text = "".join(TOKENS[i] for i in ids[1:]) + f" number {number}"
    meta = [{}, {"meta": {"pile_set_name": "Books <3"}}, {"dataset": "wiki", "x": float("nan")}][
        number % 3
    ]
    return PromptRecord(
        prompt_hash, text, ids.astype(np.int32), meta, truncated=n == 8, bos=number != 1
    )


def values(kind: ArrayLayout, n: int, seed: int) -> np.ndarray:
    """Packed probabilities, dims (layer, head, packed)."""
    rng = np.random.default_rng(seed)
    length = kind.length(n, n)
    return rng.random(kind.stored_shape(length)).astype(np.float32) ** 9


def stored(kind: ArrayLayout, data: np.ndarray) -> np.ndarray:
    if kind.dtype != "bfloat16":
        return data.astype(kind.stored_dtype)
    return (np.ascontiguousarray(data, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write(
    path: Path,
    *,
    name: str = "toy/model",
    kind: ArrayLayout | None = None,
    hashes: list[str] = HASHES,
    lengths: tuple[int, ...] = LENGTHS,
    figures: bool = False,
    d_model: int | None = 16,
    seed: int = 0,
    **model: Any,
) -> Path:
    """A file, or more prompts in one that is there."""
    kind = kind or layout()
    n_heads = kind.sizes["head"]
    known = {
        "name": name,
        "n_layers": 5,
        "n_heads": n_heads,
        "d_model": d_model,
        "weights": {"mode": "raw"},
    }
    header = Header({**known, **model}, {"token": TOKENS, "text": TOKENS})
    with StoreWriter(path, header, [kind], figures=figures) as writer:
        for i, (one, n) in enumerate(zip(hashes, lengths, strict=True)):
            data = stored(kind, values(kind, n, seed + i))
            writer.commit([record(one, n, seed + i)], {"pattern": Block([(n, n)], data)})
    return path


def add_scores(path: Path) -> np.ndarray:
    """Scores of all prompts but the last, dims (prompt, layer, head); one is NaN."""
    n = len(HASHES) - 1
    scores = np.random.default_rng(9).standard_normal((n, len(LAYERS), N_HEADS)).astype(np.float32)
    scores[2, 1, 3] = np.nan
    with StoreWriter(path, None, [score_layout("entropy")], figures=True) as writer:
        writer.commit_computed(
            range(n), {"results/entropy": Block([(1, 1)] * n, scores)}, figures()
        )
    return scores


def figures() -> list[FigureRecord]:
    why = {"error": "ValueError", "message": "<b>no</b>", "traceback": "Traceback …"}
    about = {"function": "mine.spectra", "doc": "Spectra.", "source": "def spectra(p):\n    ...\n"}
    spectra = [
        FigureRecord(0, layer, head, "spectra", "svgz", SVGZ, about=about)
        for layer in LAYERS
        for head in range(N_HEADS - 1)
    ]
    return [
        *spectra,
        FigureRecord(0, 2, 3, "spectra", "", json.dumps(why).encode(), failed=True),
        FigureRecord(1, 0, 1, "multi.first", "png", b"\x89PNG one"),
        FigureRecord(1, 3, None, "of_layer", "png", b"\x89PNG layer"),
        FigureRecord(2, None, None, "grid", "html", b"<script>alert(2)</script>"),
        FigureRecord(None, 2, 1, "mean", "png", b"\x89PNG mean"),
    ]


@pytest.fixture(scope="session")
def rich_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hostile prompts, scores and figures; not to be written to."""
    path = write(tmp_path_factory.mktemp("rich") / "rich.h5", figures=True)
    add_scores(path)
    return path


# --- asking ------------------------------------------------------------------------------------


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    server: Server, target: str, *, method: str = "GET", host: str | None = None, **headers: str
) -> Reply:
    """One request, with the address as it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", f"127.0.0.1:{server.port}" if host is None else host)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    reply = connection.getresponse()
    found = Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
    connection.close()
    return found


@contextmanager
def serving(*paths: Path, folder: Path | None = None) -> Iterator[Server]:
    with prepared(list(paths), folder=folder, port=0).start() as server:
        yield server


@pytest.fixture(scope="session")
def rich_server(rich_file: Path) -> Iterator[Server]:
    with serving(rich_file) as server:
        yield server


Fetch = Callable[[str], bytes]


def from_site(folder: Path) -> Fetch:
    def fetch(address: str) -> bytes:
        path = folder / address
        if not path.is_file():
            raise KeyError(address)
        return path.read_bytes()

    return fetch


def from_page(page: Path) -> Fetch:
    text = page.read_text(encoding="utf-8")
    inside = re.search(
        r'<script type="application/json" id="pattern-lens-data"[^>]*>(.*?)</script>',
        text,
        re.DOTALL,
    )
    data = json.loads(inside[1])
    zipped = set(data["gzip"])

    def fetch(address: str) -> bytes:
        found = data["answers"][address]
        if not isinstance(found, str):
            return json.dumps(found).encode()
        raw = base64.b64decode(found)
        return gzip.decompress(raw) if address in zipped else raw

    return fetch


def from_server(server: Server) -> Fetch:
    def fetch(address: str) -> bytes:
        reply = ask(server, "/" + address)
        if reply.status != 200:
            raise KeyError(address)
        return reply.body

    return fetch


@pytest.fixture(scope="session", params=["live", "site", "page"])
def fetch(
    request: pytest.FixtureRequest, rich_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Fetch:
    """Gives the answer at an address, from each place that answers may come from."""
    if request.param == "live":
        return from_server(request.getfixturevalue("rich_server"))
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "site":
        export_site(rich_file, folder / "site", progress=False)
        return from_site(folder / "site")
    export_html(rich_file, folder / "page.html", progress=False)
    return from_page(folder / "page.html")
