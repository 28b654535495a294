"""What only a live server does: searches, other formats, caches, compression, and how it starts."""

import gzip
import io
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pattern_lens as pl
from pattern_lens.errors import NothingToServeError, PortInUseError
from pattern_lens.figures import register_attn_figure_func
from pattern_lens.figures.products import Image
from pattern_lens.server import running
from pattern_lens.server.running import bound, prepared, warning_of
from tests.server.conftest import (
    HASHES,
    LAYERS,
    N_HEADS,
    SVG,
    SVGZ,
    TOKENS,
    ask,
    serving,
)

UNDER = "/api/toy-model"
PROMPT = f"{UNDER}/prompt/{HASHES[0]}"


def npy(body: bytes) -> np.ndarray:
    return np.load(io.BytesIO(body))


# --- what only a server answers ------------------------------------------------------------------


def test_search(rich_server):
    found = ask(rich_server, f"{UNDER}/prompts.json?find=NUMBER%204").json()
    assert (found["n_found"], [one["hash"] for one in found["prompts"]]) == (1, [HASHES[4]])
    found = ask(rich_server, f"{UNDER}/prompts.json?find={HASHES[2][1:6]}").json()
    assert [one["hash"] for one in found["prompts"]] == [HASHES[2]]
    assert ask(rich_server, f"{UNDER}/prompts.json?find=nowhere").json() == {
        "n_found": 0,
        "prompts": [],
    }


@pytest.mark.parametrize("heads", ["L3H1~L0", "x", "L2H3", "L0H2~L2H2~L3H2", "l0h3,L0H0", ""])
def test_pictures_of_chosen_heads(rich_server, rich_file, heads):
    found = npy(ask(rich_server, f"{PROMPT}/pictures.npy?heads={heads}").body)
    held = pl.open_patterns(rich_file)[HASHES[0]]
    chosen = (
        [(layer, head) for layer in LAYERS for head in range(N_HEADS)]
        if heads in ("x", "")
        else pl.parse_heads(heads, n_layers=5, n_heads=N_HEADS)
    )
    rows, columns = np.tril_indices(5)
    expected = [np.rint(255 * held.sel(layer=n, head=h).values[rows, columns]) for n, h in chosen]
    assert np.array_equal(found, expected)


def test_dense_values(rich_server, rich_file):
    found = npy(ask(rich_server, f"{PROMPT}/pattern/L3H1.npy").body)
    held = pl.open_patterns(rich_file)[HASHES[0]].sel(layer=3, head=1)
    assert np.array_equal(found, held.values)


def test_png(rich_server):
    from PIL import Image as Picture

    linear, log = (
        ask(rich_server, f"{PROMPT}/pattern/L3H1.png?cmap=Blues&scale={scale}")
        for scale in ("linear", "log")
    )
    assert linear.headers["content-type"] == "image/png"
    assert Picture.open(io.BytesIO(linear.body)).size == (5, 5)
    assert linear.body != log.body


def test_netcdf(rich_server, rich_file):
    reply = ask(rich_server, f"{PROMPT}/pattern/L3H1.nc")
    assert reply.status == 200
    with xr.open_dataset(io.BytesIO(reply.body), engine="scipy") as found:
        held = pl.open_patterns(rich_file)[HASHES[0]].sel(layer=3, head=1)
        assert np.array_equal(found["pattern"].values, held.values)
        assert found["query_token"].values.tolist() == TOKENS[:5]


def test_netcdf_without_scipy(rich_server, monkeypatch):
    monkeypatch.setattr("pattern_lens.server.pattern_answers.find_spec", lambda _: None)
    reply = ask(rich_server, f"{PROMPT}/pattern/L3H1.nc")
    assert (reply.status, "pip install 'pattern-lens[web]'" in reply.json()["error"]) == (404, True)


def test_a_figure_that_is_drawn_when_somebody_looks(rich_file):
    from pattern_lens.figures import ATTENTION_MATRIX_FIGURE_FUNCS

    before = list(ATTENTION_MATRIX_FIGURE_FUNCS)

    def corner(pattern) -> Image:
        return Image(b"corner of %d" % int(pattern["head"]), "png")

    try:
        register_attn_figure_func(corner, stored=False)
        with serving(rich_file) as server:
            found = ask(server, f"{PROMPT}/figures.json").json()["figures"]
            mine = [one for one in found if one["name"] == "corner"]
            assert len(mine) == len(LAYERS) * N_HEADS
            assert mine[0]["error"] is None
            reply = ask(server, "/" + mine[1]["href"])
            assert (reply.status, reply.body) == (200, b"corner of 1")
    finally:
        ATTENTION_MATRIX_FIGURE_FUNCS[:] = before


# --- caches and compression ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "/",
        "/api/index.json",
        "/api/colours.json",
        f"{UNDER}/prompts/0.json",
        f"{UNDER}/functions.json",
        f"{UNDER}/scores.json",
        f"{PROMPT}.json",
        f"{PROMPT}/figures.json",
        f"{PROMPT}/pictures/L0.npy",
        f"{PROMPT}/pictures.npy?heads=L0",
        f"{PROMPT}/pattern/LxHx.packed.npy",
        f"{PROMPT}/similar/L0H1.json",
        f"{PROMPT}/figures/spectra/L0H1.svg",
    ],
)
def test_what_has_not_changed_is_not_sent_again(rich_server, address):
    first = ask(rich_server, address)
    assert first.status == 200
    again = ask(rich_server, address, If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert ask(rich_server, address, If_None_Match='"another"').status == 200
    head = ask(rich_server, address, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(first.body))


def test_different_answers_have_different_tags(rich_server):
    tags = [
        ask(rich_server, f"{PROMPT}/{rest}").headers["etag"]
        for rest in (
            *(f"pattern/L0H{head}.packed.npy" for head in range(N_HEADS)),
            "pattern/L0Hx.packed.npy",
            "pattern/L0H0.npy",
            "pattern/L0H0.png",
            "pattern/L0H0.png?scale=log",
            "pictures/L0.npy",
            "pictures.npy?heads=L0H0",
            "pictures.npy?heads=L0H1",
            "similar/L0H0.json",
        )
    ]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize(
    "address", [f"{UNDER}/prompt/{HASHES[5]}/pictures.npy", f"{UNDER}/prompts/0.json"]
)
def test_answers_are_compressed_for_who_takes_that(rich_server, address):
    plain = ask(rich_server, address)
    packed = ask(rich_server, address, Accept_Encoding="gzip, br")
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < 0.95 * len(plain.body)
    assert gzip.decompress(packed.body) == plain.body


def test_stored_gzip_is_sent_as_it_is(rich_server):
    address = f"{PROMPT}/figures/spectra/L0H1.svg"
    packed = ask(rich_server, address, Accept_Encoding="gzip")
    assert (packed.headers["content-encoding"], packed.body) == ("gzip", SVGZ)
    assert ask(rich_server, address).body == SVG
    assert packed.headers["content-type"] == "image/svg+xml"


# --- starting ------------------------------------------------------------------------------------


def test_nothing_to_serve(tmp_path):
    with pytest.raises(NothingToServeError, match="there is no such file"):
        prepared([tmp_path / "none.h5"], port=0)
    with pytest.raises(NothingToServeError, match="serve the files in it with --path"):
        prepared([tmp_path], port=0)
    with pytest.raises(NothingToServeError, match="capture one with 'pattern-lens capture'"):
        prepared([], folder=tmp_path, port=0)
    with pytest.raises(NothingToServeError, match="there is no such folder"):
        prepared([], folder=tmp_path / "none", port=0)
    (tmp_path / "models.jsonl").write_text("{}\n")
    with pytest.raises(NothingToServeError, match="'pattern-lens import "):
        prepared([], folder=tmp_path, port=0)


def test_ports(rich_file):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(
            PortInUseError, match="another program answers there; give another one with --port"
        ):
            prepared([rich_file], port=taken.getsockname()[1])
    for port in (-1, 65_536):
        with pytest.raises(PortInUseError, match="expected 1 to 65535"):
            bound("127.0.0.1", port)
    with pytest.raises(PortInUseError, match="leave --host out"):
        bound("203.0.113.7", 0)


def test_small_answers_do_not_wait():
    """Asyncio switches Nagle's algorithm off where a socket says that it is of TCP."""
    with bound("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_who_else_can_read_is_said():
    assert warning_of("127.0.0.1") is None
    assert warning_of("::1") is None
    assert "everybody who can reach 0.0.0.0" in warning_of("0.0.0.0")  # noqa: S104


def test_in_a_notebook(rich_file):
    with pl.serve(rich_file) as server:
        assert server.address == f"http://127.0.0.1:{server.port}/"
        assert ask(server, "/api/index.json").json()["live"] is True
        assert f'href="{server.address}"' in server._repr_html_()
        port = server.port
    with (
        pytest.raises(OSError, match="refused"),
        socket.create_connection(("127.0.0.1", port)),
    ):
        pass


def test_the_default_address_is_of_this_machine_alone():
    assert running.HOST == "127.0.0.1"
    assert running.PORT == 8000


def test_a_copy_elsewhere_is_served_as_well(rich_file, tmp_path):
    path = Path(shutil.copy(rich_file, tmp_path / "שלום <b>.h5"))
    with serving(path) as server:
        assert ask(server, "/api/index.json").json()["models"][0]["file"] == path.name
