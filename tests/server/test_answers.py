"""Every address answers with what the file holds: the live server, an exported site and an exported page alike."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

import pattern_lens as pl
from pattern_lens.figures.colours import palette
from pattern_lens.measures import cosine_similarity
from pattern_lens.server.keys import prompt_key
from tests.server.conftest import HASHES, LAYERS, LENGTHS, N_HEADS, SVG, TOKENS, Fetch

MODEL = "toy-model"
KEYS = [prompt_key(one) for one in HASHES]
UNDER = f"api/{MODEL}"


def js(fetch: Fetch, address: str):
    return json.loads(fetch(address))


def npy(fetch: Fetch, address: str) -> np.ndarray:
    return np.load(io.BytesIO(fetch(address)))


@pytest.fixture(scope="module")
def patterns(rich_file: Path) -> dict[str, np.ndarray]:
    """What the library itself says, dims (layer, head, query, key)."""
    held = pl.open_patterns(rich_file)
    return {one: held[one].values for one in HASHES}


def packed(values: np.ndarray) -> np.ndarray:
    rows, columns = np.tril_indices(values.shape[-1])
    return values[..., rows, columns]


def test_index(fetch):
    found = js(fetch, "api/index.json")
    assert found["version"] == pl.__version__
    assert found["notes"] == []
    (model,) = found["models"]
    file_id = model.pop("file_id")
    assert len(file_id) == 32
    assert model == {
        "id": MODEL,
        "name": "toy/model",
        "file": "rich.h5",
        "n_layers": 5,
        "n_heads": N_HEADS,
        "d_model": 16,
        "n_prompts": len(HASHES),
        "n_blocks": 1,
        "layers": list(LAYERS),
        "patterns": True,
        "residual": False,
        "traces": [],
        "features": [],
        "computes": False,
        "packing": "triangle",
        "dtype": "float32",
        "weights": "raw",
        "heads": None,
        "is_written": False,
        "error": None,
    }


def test_colours(fetch):
    import base64

    found = js(fetch, "api/colours.json")
    assert found["viridis"]["kind"] == "sequential"
    assert found["RdBu_r"]["kind"] == "diverging"
    for name, one in found.items():
        table = np.frombuffer(base64.b64decode(one["colours"]), np.uint8).reshape(256, 3)
        assert np.array_equal(table, palette(name).colours)


def test_model(fetch):
    found = js(fetch, f"{UNDER}/model.json")
    assert found["model"]["name"] == "toy/model"
    assert found["file"]["name"] == "rich.h5"
    assert "/" not in json.dumps(found["file"])


def test_prompts(fetch, rich_file):
    found = js(fetch, f"{UNDER}/prompts/0.json")
    assert (found["first"], found["n_prompts"]) == (0, len(HASHES))
    assert [one["hash"] for one in found["prompts"]] == HASHES
    assert [one["key"] for one in found["prompts"]] == KEYS
    table = pl.open_run(rich_file).prompts
    assert [one["text"] for one in found["prompts"]] == [text[:300] for text in table["text"]]
    assert [one["n_tokens"] for one in found["prompts"]] == table["n_tokens"].tolist()
    assert [one["n_ctx"] for one in found["prompts"]] == list(LENGTHS)
    assert [one["truncated"] for one in found["prompts"]] == [n == 8 for n in LENGTHS]
    assert [one["dataset"] for one in found["prompts"]][:3] == [None, "Books <3", "wiki"]


@pytest.mark.parametrize("i", range(len(HASHES)))
def test_prompt(fetch, rich_file, i):
    found = js(fetch, f"{UNDER}/prompt/{KEYS[i]}.json")
    run = pl.open_run(rich_file)
    held = run.patterns[HASHES[i]]
    assert found["hash"] == HASHES[i]
    assert found["key"] == KEYS[i]
    assert found["text"] == run.prompts.loc[HASHES[i], "text"]
    assert found["tokens"] == [str(one) for one in held["query_token"].values]
    assert [TOKENS[one] for one in found["token_ids"]] == found["tokens"]
    assert (found["n_ctx"], found["n_query"], found["n_key"]) == (LENGTHS[i],) * 3
    assert (found["bos"], found["truncated"]) == (i != 1, LENGTHS[i] == 8)
    assert found["meta"].get("x", "nothing") == (None if i % 3 == 2 else "nothing")  # NaN


@pytest.mark.parametrize("i", range(len(HASHES)))
def test_pictures(fetch, patterns, i):
    n = LENGTHS[i]
    step = -(-n // 256)
    side = -(-n // step)
    for at, layer in enumerate(LAYERS):
        found = npy(fetch, f"{UNDER}/prompt/{KEYS[i]}/pictures/L{layer}.npy")
        assert found.dtype == np.uint8
        levels = np.zeros((N_HEADS, side * step, side * step))
        levels[:, :n, :n] = np.rint(255 * patterns[HASHES[i]][at])
        reduced = levels.reshape(N_HEADS, side, step, side, step).max(axis=(2, 4))
        assert np.array_equal(found, packed(reduced))


@pytest.mark.parametrize("i", [0, 4, 5])
def test_exact_values(fetch, patterns, i):
    held = patterns[HASHES[i]]
    for layer, head in ((0, 1), (3, 2)):
        found = npy(fetch, f"{UNDER}/prompt/{KEYS[i]}/pattern/L{layer}H{head}.packed.npy")
        assert found.dtype == np.float32
        assert np.array_equal(found, packed(held[LAYERS.index(layer), head]))


@pytest.mark.parametrize("i", [0, 5])
def test_means_over_heads(fetch, patterns, i):
    held = patterns[HASHES[i]].astype(np.float64)
    for label, mean in (("L2Hx", held[1].mean(0)), ("LxHx", held.mean((0, 1)))):
        found = npy(fetch, f"{UNDER}/prompt/{KEYS[i]}/pattern/{label}.packed.npy")
        assert found.dtype == np.float32
        assert np.allclose(found, packed(mean), rtol=1e-6)


@pytest.mark.parametrize("i", [0, 5])
def test_similar_heads(fetch, rich_file, i):
    pattern = pl.open_patterns(rich_file)[HASHES[i]].astype("float64")
    oracle = cosine_similarity(pattern).sel(component="L2H1")
    found = js(fetch, f"{UNDER}/prompt/{KEYS[i]}/similar/L2H1.json")["similar"]
    assert {one["head"] for one in found} == {str(c) for c in oracle["component_other"].values} - {
        "L2H1"
    }
    values = [one["similarity"] for one in found]
    assert values == sorted(values, reverse=True)
    for one in found:
        expected = float(oracle.sel(component_other=one["head"]))
        assert one["similarity"] == pytest.approx(expected, abs=6e-6)


def test_scores(fetch, rich_file, tmp_path):
    scores = np.asarray(pl.open_results(rich_file)["entropy"])
    (found,) = js(fetch, f"{UNDER}/scores.json")["scores"]
    assert (found["name"], found["long_name"], found["units"]) == ("entropy", "the entropy", "bits")
    assert found["n_prompts"] == len(HASHES) - 1
    mean = np.array(found["mean"], float)
    assert mean.shape == (5, N_HEADS)
    assert np.isnan(mean[[1, 4]]).all()
    assert np.allclose(mean[list(LAYERS)], np.nanmean(scores, axis=0), rtol=1e-6)
    assert found["min"] == pytest.approx(float(np.nanmin(scores)))
    assert found["max"] == pytest.approx(float(np.nanmax(scores)))


def test_scores_of_a_prompt(fetch, rich_file):
    held = pl.open_results(rich_file)["entropy"]
    found = js(fetch, f"{UNDER}/prompt/{KEYS[2]}/scores.json")["scores"]["entropy"]
    assert found[2][3] is None  # a NaN
    values = np.array(found, float)[list(LAYERS)]
    assert np.array_equal(
        values.astype(np.float32), held.sel(prompt=HASHES[2]).values, equal_nan=True
    )
    assert js(fetch, f"{UNDER}/prompt/{KEYS[5]}/scores.json") == {"scores": {}}


def test_functions(fetch):
    found = {one["name"]: one for one in js(fetch, f"{UNDER}/functions.json")["functions"]}
    assert set(found) == {"raw", "spectra", "multi.first", "of_layer", "grid", "mean"}
    assert not found["raw"]["is_stored"]
    spectra = found["spectra"]
    assert (spectra["of"], spectra["formats"], spectra["doc"]) == ("head", ["svg"], "Spectra.")
    assert (spectra["n_figures"], spectra["n_failed"]) == (10, 1)
    assert spectra["source"] == "def spectra(p):\n    ...\n"
    assert [found[n]["of"] for n in ("of_layer", "grid", "mean")] == ["layer", "prompt", "head"]


def test_figures_of_a_prompt(fetch):
    found = js(fetch, f"{UNDER}/prompt/{KEYS[0]}/figures.json")["figures"]
    assert len(found) == 10
    failed = [one for one in found if one["error"] is not None]
    assert [(one["layer"], one["head"], one["error"]) for one in failed] == [
        (2, 3, "ValueError: <b>no</b>")
    ]
    assert failed[0]["href"] is None
    drawn = next(one for one in found if (one["layer"], one["head"]) == (3, 1))
    assert (drawn["format"], drawn["name"]) == ("svg", "spectra")
    assert fetch(drawn["href"]) in (SVG, SVG)


@pytest.mark.parametrize(
    ("listed", "data"),
    [
        (f"{UNDER}/figures.json", b"\x89PNG mean"),
        (f"{UNDER}/prompt/{KEYS[2]}/figures.json", b"<script>alert(2)</script>"),
    ],
)
def test_bytes_of_figures(fetch, listed, data):
    (one,) = js(fetch, listed)["figures"]
    assert fetch(one["href"]) == data


def test_figures_of_layers(fetch):
    found = js(fetch, f"{UNDER}/prompt/{KEYS[1]}/figures.json")["figures"]
    assert sorted((one["name"], one["layer"], one["head"]) for one in found) == [
        ("multi.first", 0, 1),
        ("of_layer", 3, None),
    ]
    assert {fetch(one["href"]) for one in found} == {b"\x89PNG one", b"\x89PNG layer"}


def test_what_is_not_there(fetch):
    for address in (
        f"{UNDER}/prompt/nothing.json",
        f"{UNDER}/prompts/1.json",
        "api/other/model.json",
    ):
        with pytest.raises(KeyError):
            fetch(address)
