"""Files that grow, vanish, are replaced or damaged while they are served; several files at once."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import pattern_lens as pl
from pattern_lens.server import files
from pattern_lens.store.block import Block
from pattern_lens.store.writer import StoreWriter
from tests.server.conftest import (
    HASHES,
    N_HEADS,
    ask,
    layout,
    record,
    serving,
    values,
    write,
)

UNDER = "/api/toy-model"
PROMPT = f"{UNDER}/prompt/{HASHES[0]}"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at again at every request."""
    monkeypatch.setattr(files, "PATIENCE_SECONDS", 0.0)


def npy(body: bytes) -> np.ndarray:
    return np.load(io.BytesIO(body))


# --- files that change ---------------------------------------------------------------------------


def index(server) -> dict:
    return ask(server, "/api/index.json").json()


def test_new_prompts_are_seen(tmp_path):
    path = write(tmp_path / "a.h5", hashes=HASHES[:2], lengths=(5, 3))
    with serving(path) as server:
        before = ask(server, "/api/index.json")
        assert before.json()["models"][0]["n_prompts"] == 2
        assert ask(server, f"{UNDER}/prompt/{HASHES[2]}.json").status == 404
        pictures = ask(server, f"{PROMPT}/pictures/L0.npy")
        write(path, hashes=HASHES[2:4], lengths=(4, 2), seed=7)
        after = ask(server, "/api/index.json", If_None_Match=before.headers["etag"])
        assert after.json()["models"][0]["n_prompts"] == 4
        assert ask(server, f"{UNDER}/prompt/{HASHES[2]}.json").json()["n_query"] == 4
        again = ask(server, f"{PROMPT}/pictures/L0.npy", If_None_Match=pictures.headers["etag"])
        assert again.status == 304  # what was there is what it was


def test_a_capture_is_seen_while_it_runs(tmp_path):
    path = write(tmp_path / "a.h5", hashes=HASHES[:1], lengths=(5,))
    with serving(path) as server:
        assert not index(server)["models"][0]["is_written"]
        with StoreWriter(path, None, [layout()]):
            assert index(server)["models"][0]["is_written"]
        assert not index(server)["models"][0]["is_written"]


def test_many_ask_while_it_grows(tmp_path):
    path = write(tmp_path / "a.h5", hashes=HASHES[:1], lengths=(5,), figures=True)
    rests = ("pictures/L0.npy", "pattern/LxHx.packed.npy", "figures.json", "similar/L0H1.json")
    with serving(path) as server, ThreadPoolExecutor(6) as pool:
        writing = pool.submit(_grow, path)
        while not writing.done():
            replies = [pool.submit(ask, server, f"{PROMPT}/{rest}") for rest in rests]
            replies.append(pool.submit(ask, server, "/api/index.json"))
            assert {reply.result().status for reply in replies} == {200}
        writing.result()
        assert index(server)["models"][0]["n_prompts"] == 31


def _grow(path: Path) -> None:
    with StoreWriter(path, None, [layout()]) as writer:
        for i in range(30):
            block = Block([(3, 3)], values(layout(), 3, i))
            writer.commit([record(f"grown-{i}", 3, i)], {"pattern": block})


def test_a_file_that_was_replaced_is_the_new_one(tmp_path):
    path = write(tmp_path / "a.h5", hashes=HASHES[:1], lengths=(5,))
    with serving(path) as server:
        before = index(server)["models"][0]
        old = ask(server, f"{PROMPT}/pictures/L0.npy")
        other = write(tmp_path / "b.h5", hashes=HASHES[:1], lengths=(5,), seed=50)
        other.replace(path)
        assert index(server)["models"][0]["file_id"] != before["file_id"]
        new = ask(server, f"{PROMPT}/pictures/L0.npy", If_None_Match=old.headers["etag"])
        assert new.status == 200
        assert new.body != old.body


def test_a_file_that_vanished_is_gone_and_may_come_back(tmp_path):
    path = write(tmp_path / "a.h5", hashes=HASHES[:1], lengths=(5,))
    with serving(path) as server:
        path.rename(tmp_path / "away")
        reply = ask(server, f"{UNDER}/model.json")
        assert reply.status == 410
        assert (
            reply.json()["error"] == "a.h5 is no longer there: put it back, or serve another file"
        )
        (model,) = index(server)["models"]
        assert (model["id"], model["error"]) == ("toy-model", reply.json()["error"])
        (tmp_path / "away").rename(path)
        assert ask(server, f"{UNDER}/model.json").status == 200
        assert index(server)["models"][0]["error"] is None


def test_a_damaged_file_is_said_in_its_place(tmp_path):
    good = write(tmp_path / "good.h5", hashes=HASHES[:1], lengths=(5,))
    bad = tmp_path / "bad.h5"
    bad.write_bytes(good.read_bytes()[:-500])
    text = tmp_path / "text.h5"
    text.write_text("no HDF5")
    with serving(bad, good, text) as server:
        models = index(server)["models"]
        assert [model["file"] for model in models] == ["bad.h5", "good.h5", "text.h5"]
        assert "truncated" in models[0]["error"]
        assert models[1]["error"] is None
        assert "expected an HDF5 file" in models[2]["error"]
        assert str(tmp_path) not in json.dumps(models)
        reply = ask(server, f"/api/{models[0]['id']}/model.json")
        assert (reply.status, "truncated" in reply.json()["error"]) == (500, True)
        assert ask(server, f"{PROMPT}/pictures/L0.npy").status == 200


def test_a_damaged_prompt_table_names_no_folder(tmp_path):
    path = write(tmp_path / "a.h5", hashes=HASHES[:1], lengths=(5,))
    with serving(path) as server:
        raw = path.read_bytes()
        path.write_bytes(raw.replace(b"number 0", b"number \xff"))
        reply = ask(server, f"{UNDER}/prompts/0.json")
        assert reply.status == 500
        assert "cannot read prompts of a.h5: /prompts/text is not UTF-8" in reply.json()["error"]


def test_damaged_values_are_a_sentence(tmp_path):
    path = write(tmp_path / "a.h5", hashes=HASHES[:1], lengths=(5,))
    with serving(path) as server:
        assert ask(server, f"{PROMPT}/pictures/L0.npy").status == 200
        reader = pl.open_patterns(path)
        reader.close()
        raw = path.read_bytes()
        import h5py

        with h5py.File(path, "r", locking=False) as file:
            chunk = file["activations/pattern/data"].id.get_chunk_info(0)
        damaged = bytearray(raw)
        damaged[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
        path.write_bytes(bytes(damaged))
        reply = ask(server, f"{PROMPT}/pictures/L0.npy")
        assert reply.status == 500
        assert "cannot read 'pattern'" in reply.json()["error"]
        assert str(tmp_path) not in reply.json()["error"]
        assert ask(server, f"{UNDER}/prompts/0.json").status == 200


# --- several files -------------------------------------------------------------------------------


def test_models_of_different_shape(tmp_path):
    one = write(tmp_path / "one.h5", name="one", hashes=HASHES[:1], lengths=(5,))
    kind = layout("rectangle", "float16", layers=(0, 1), n_heads=2)
    two = write(
        tmp_path / "two.h5", name="two", kind=kind, hashes=HASHES[:1], lengths=(3,), d_model=None
    )
    with serving(one, two) as server:
        a, b = index(server)["models"]
        assert (a["id"], a["n_heads"], a["packing"], a["layers"]) == (
            "one",
            4,
            "triangle",
            [0, 2, 3],
        )
        assert (b["id"], b["n_heads"], b["packing"], b["dtype"]) == (
            "two",
            2,
            "rectangle",
            "float16",
        )
        assert b["d_model"] is None
        pictures = npy(ask(server, f"/api/two/prompt/{HASHES[0]}/pictures.npy?heads=L1~L0H0").body)
        held = pl.open_patterns(two)[HASHES[0]].values.astype(np.float32)
        expected = np.rint(255 * np.stack([held[1, 0], held[1, 1], held[0, 0]])).reshape(3, 9)
        assert np.array_equal(pictures, expected)
        exact = npy(ask(server, f"/api/two/prompt/{HASHES[0]}/pattern/L1H1.packed.npy").body)
        assert exact.dtype == np.float32
        assert np.array_equal(exact, held[1, 1].reshape(-1))
        assert (
            npy(ask(server, f"/api/two/prompt/{HASHES[0]}/pattern/L1H1.npy").body).dtype
            == np.float16
        )


@pytest.mark.parametrize(
    ("packing", "dtype"),
    [("rectangle", "float32"), ("triangle", "float64"), ("triangle", "bfloat16")],
)
def test_other_packings_and_dtypes(tmp_path, packing, dtype):
    path = write(
        tmp_path / "a.h5", kind=layout(packing, dtype), hashes=HASHES[:2], lengths=(300, 7)
    )
    held = pl.open_patterns(path)
    with serving(path) as server:
        for one, step in ((HASHES[0], 2), (HASHES[1], 1)):
            pictures = npy(ask(server, f"{UNDER}/prompt/{server_key(one)}/pictures/L2.npy").body)
            dense = held[one].sel(layer=2).values
            levels = np.rint(255 * dense.astype(np.float32)).reshape(N_HEADS, -1)
            n = dense.shape[-1]
            levels = levels.reshape(N_HEADS, n // step, step, n // step, step).max(axis=(2, 4))
            rows, columns = np.tril_indices(n // step)
            expected = (
                levels[:, rows, columns] if packing == "triangle" else levels.reshape(N_HEADS, -1)
            )
            assert np.array_equal(pictures, expected)
            exact = npy(
                ask(server, f"{UNDER}/prompt/{server_key(one)}/pattern/L2H1.packed.npy").body
            )
            rows, columns = np.tril_indices(n)
            value = dense[1][rows, columns] if packing == "triangle" else dense[1].reshape(-1)
            assert np.array_equal(exact, value)
            assert exact.dtype == (np.float64 if dtype == "float64" else np.float32)


def server_key(one: str) -> str:
    from pattern_lens.server.keys import prompt_key

    return prompt_key(one)


def test_values_that_are_no_probabilities(tmp_path):
    from pattern_lens.server.packed import as_bytes

    odd = np.array([np.nan, -1, 2, np.inf, -np.inf, 0.5, 1 / 255], np.float16)
    assert as_bytes(odd).tolist() == [0, 0, 255, 255, 0, 128, 1]


def test_two_files_of_one_model(tmp_path):
    for name in ("a.h5", "b c.h5"):
        write(tmp_path / name, hashes=HASHES[:1], lengths=(5,))
    with serving(tmp_path / "a.h5", tmp_path / "b c.h5") as server:
        ids = [model["id"] for model in index(server)["models"]]
        assert ids == ["toy-model", "toy-model@b_c"]
        assert ask(server, "/api/toy-model%40b_c/model.json").json()["file"]["name"] == "b c.h5"


def test_a_file_without_prompts(tmp_path):
    path = write(tmp_path / "a.h5", hashes=[], lengths=())
    with serving(path) as server:
        (model,) = index(server)["models"]
        assert (model["n_prompts"], model["n_blocks"], model["error"]) == (0, 0, None)
        assert ask(server, f"{UNDER}/prompts/0.json").json()["prompts"] == []
        for rest in ("scores.json", "functions.json", "figures.json", "prompts.json?find=x"):
            assert ask(server, f"{UNDER}/{rest}").status == 200


def test_a_folder_is_looked_through_again(tmp_path):
    write(tmp_path / "a.h5", name="a", hashes=HASHES[:1], lengths=(5,))
    import h5py

    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    (tmp_path / "notes.txt").write_text("x")
    with serving(folder=tmp_path) as server:
        found = index(server)
        assert [model["id"] for model in found["models"]] == ["a"]
        assert found["notes"] == ["foreign.h5 is not shown: it is no file of pattern_lens"]
        write(tmp_path / "b.h5", name="b", hashes=HASHES[:1], lengths=(5,))
        assert [model["id"] for model in index(server)["models"]] == ["a", "b"]
        (tmp_path / "a.h5").unlink()
        assert ask(server, "/api/b/model.json").status == 200
