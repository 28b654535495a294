"""Import of delphi's caches: what the cache says is what the file holds, and a cache that contradicts itself is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from pattern_lens.errors import (
    FeatureCacheError,
    FeaturesMismatchError,
    FileNotWritableError,
    ModelMismatchError,
)
from pattern_lens.features.capture import capture_features
from pattern_lens.features.delphi import import_delphi
from pattern_lens.features.delphi_target import hash_of_ids
from pattern_lens.features.loading import load_autoencoder
from pattern_lens.features.stored import open_features
from pattern_lens.store.reader import StoreReader
from pattern_lens.store.writer import StoreWriter
from pattern_lens.testing import tiny_model, tiny_tokenizer

N_FEATURES, SHAPE = 30, (7, 5)
SPLITS = ((0, 9), (10, 19), (20, 29))
QUIET = {"progress": False}


def dense_latents(seed=0):
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((*SHAPE, N_FEATURES)).astype(np.float16)
    found[found < 1] = 0
    found[3] = 0  # a row in which nothing is active
    return found


def token_rows(seed=0):
    return np.random.default_rng(seed).integers(0, 290, SHAPE)


def entries_of(dense, first, last, dtype=np.uint16):
    part = dense[..., first : last + 1]
    return {
        "locations": np.stack(np.nonzero(part), axis=1).astype(dtype),
        "activations": part[np.nonzero(part)],
    }


def write_cache(
    folder, module="layers.2", *, dense=None, tokens=None, splits=SPLITS, seed=0, **more
):
    """A cache as delphi's `save_splits` and `save_config` leave it."""
    dense = dense_latents(seed) if dense is None else dense
    tokens = token_rows() if tokens is None else tokens
    own = folder / module
    own.mkdir(parents=True)
    for first, last in splits:
        save_file(
            {**entries_of(dense, first, last), "tokens": tokens},
            own / f"{first}_{last}.safetensors",
        )
    config = {
        "dataset_repo": "some/dataset",
        "ctx_len": SHAPE[1],
        "model_name": "EleutherAI/tiny",
        **more,
    }
    (own / "config.json").write_text(json.dumps(config))
    return folder


def change(path, **arrays):
    from safetensors.numpy import load_file

    found = {**load_file(path), **arrays}
    save_file(
        {key: np.ascontiguousarray(one) for key, one in found.items() if one is not None}, path
    )


def assert_holds(path, module, dense, tokens):
    with open_features(path) as features:
        found = features[module]
        assert found.n_features == N_FEATURES
        for row, ids in zip(dense, tokens, strict=True):
            prompt = hash_of_ids(ids.astype(np.int32))
            np.testing.assert_array_equal(found.dense(prompt).values, row.astype(np.float32))


# --- what is stored ------------------------------------------------------------------------------


def test_a_cache_becomes_latents(tmp_path):
    folder = write_cache(tmp_path / "cache")
    report = import_delphi(folder, tmp_path / "f.h5", **QUIET)
    dense = dense_latents()
    assert (report.n_stored, report.n_present, report.n_tokens) == (7, 0, 35)
    assert report.n_entries == {"layers.2": np.count_nonzero(dense)}
    assert [*report.table().index] == ["read", "write"]
    assert_holds(tmp_path / "f.h5", "layers.2", dense, token_rows())
    reader = StoreReader(tmp_path / "f.h5")
    assert reader.model["name"] == "EleutherAI/tiny"
    assert reader.latents("layers.2", "value").layout.dtype == "float16"
    identity = reader.feature_set("layers.2")
    assert (identity["kind"], identity["hook"], identity["hash"]) == ("unknown", None, None)
    assert identity["source"]["dataset_repo"] == "some/dataset"
    assert identity["threshold"] == 1e-5


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_blocks_of_rows(tmp_path, batch_size):
    folder = write_cache(tmp_path / "cache")
    import_delphi(folder, tmp_path / "f.h5", batch_size=batch_size, **QUIET)
    assert_holds(tmp_path / "f.h5", "layers.2", dense_latents(), token_rows())


def test_several_modules_share_their_prompts(tmp_path):
    for number, module in enumerate(("h.0.mlp", "h.1.mlp")):
        write_cache(tmp_path / "run" / "latents", module, seed=number)
    report = import_delphi(
        tmp_path / "run", tmp_path / "f.h5", hooks={"h.1.mlp": "blocks.1.mlp.hook_post"}, **QUIET
    )
    assert report.n_stored == 7
    for number, module in enumerate(("h.0.mlp", "h.1.mlp")):
        assert_holds(tmp_path / "f.h5", module, dense_latents(number), token_rows())
    reader = StoreReader(tmp_path / "f.h5")
    assert len(reader.prompts) == 7
    identity = reader.feature_set("h.1.mlp")
    assert (identity["hook"], identity["site"], identity["layer"]) == (
        "blocks.1.mlp.hook_post",
        "post",
        1,
    )
    assert StoreReader(tmp_path / "f.h5").feature_sets() == ["h.0.mlp", "h.1.mlp"]


@pytest.mark.parametrize("source", ["module", "files", "one file", "unsplit", "unsplit folder"])
def test_other_ways_in_which_a_cache_lies(tmp_path, source):
    dense, tokens = dense_latents().astype(np.float32), token_rows()
    own = write_cache(tmp_path / "cache", dense=dense) / "layers.2"
    if source == "files":
        given = sorted(own.glob("*.safetensors"))
    elif source == "module":
        given = own
    elif source == "one file":
        given = (
            write_cache(tmp_path / "x", "layers.2", dense=dense, splits=[(0, 29)])
            / "layers.2"
            / "0_29.safetensors"
        )
    else:
        (tmp_path / "plain").mkdir()
        given = tmp_path / "plain" / "layers.2.safetensors"
        places = entries_of(dense, 0, 29, np.int64)
        save_file({**places, "tokens": tokens}, given)
        given = given if source == "unsplit" else given.parent
    report = import_delphi(given, tmp_path / "f.h5", **QUIET)
    assert [*report.n_entries] == ["layers.2"]
    assert_holds(tmp_path / "f.h5", "layers.2", dense, tokens)
    reader = StoreReader(tmp_path / "f.h5")
    assert reader.latents("layers.2", "value").layout.dtype == "float32"


def test_files_that_are_not_sorted(tmp_path):
    folder = write_cache(tmp_path / "cache")
    path = folder / "layers.2" / "10_19.safetensors"
    own = entries_of(dense_latents(), 10, 19)
    order = np.random.default_rng(0).permutation(len(own["activations"]))
    change(path, **{name: values[order] for name, values in own.items()})
    import_delphi(folder, tmp_path / "f.h5", batch_size=2, **QUIET)
    assert_holds(tmp_path / "f.h5", "layers.2", dense_latents(), token_rows())


def test_texts_come_from_the_tokenizer(tmp_path):
    tokenizer = tiny_tokenizer()
    rows = np.array([tokenizer("the cat sat on the mat")["input_ids"][:5]])
    dense = dense_latents()[:1]
    folder = write_cache(tmp_path / "cache", dense=dense, tokens=rows)
    import_delphi(folder, tmp_path / "t.h5", tokenizer=tokenizer, **QUIET)
    import_delphi(folder, tmp_path / "n.h5", **QUIET)
    with_text, numbered = StoreReader(tmp_path / "t.h5"), StoreReader(tmp_path / "n.h5")
    assert with_text.prompts.texts([0]) == [tokenizer.decode(rows[0])]
    assert with_text.vocab["token"][rows[0, 1]] == tokenizer.convert_ids_to_tokens([rows[0, 1]])[0]
    assert numbered.prompts.texts([0]) == [" ".join(map(str, rows[0]))]
    assert numbered.vocab["text"][rows[0, 1]] == f"<{rows[0, 1]}>"


def test_rows_that_repeat_are_one_prompt(tmp_path):
    tokens, dense = token_rows(), dense_latents()
    tokens[5], dense[5] = tokens[1], dense[1]
    folder = write_cache(tmp_path / "cache", dense=dense, tokens=tokens)
    assert import_delphi(folder, tmp_path / "f.h5", **QUIET).n_stored == 6
    assert_holds(tmp_path / "f.h5", "layers.2", dense, tokens)


def test_with_the_model_and_its_autoencoder_it_is_as_if_it_had_been_captured(tmp_path):
    model = tiny_model("gpt2")
    rng = torch.Generator().manual_seed(0)
    hook = "blocks.1.hook_resid_post"
    weights = {
        "W_enc": torch.randn(32, N_FEATURES, generator=rng),
        "b_enc": torch.full((N_FEATURES,), -3.0),
    }
    weights |= {"W_dec": torch.randn(N_FEATURES, 32, generator=rng), "b_dec": torch.zeros(32)}
    sae = load_autoencoder(weights, hook=hook, name="resid")
    tokens = token_rows()
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.from_numpy(tokens), names_filter=[hook])
        dense = sae.encode(cache[hook]).numpy()
    folder = write_cache(tmp_path / "cache", "resid", dense=dense, model_name="tiny-gpt2")
    options = {"autoencoders": {"resid": sae}, "model": model, **QUIET}
    import_delphi(folder, tmp_path / "f.h5", **options)
    assert_holds(tmp_path / "f.h5", "resid", dense, tokens)
    identity = StoreReader(tmp_path / "f.h5").feature_set("resid")
    assert {key: identity[key] for key in sae.identity()} == sae.identity()
    report = capture_features(
        model,
        load_autoencoder(weights, hook=hook, name="other"),
        ["the cat"],
        tmp_path / "f.h5",
        **QUIET,
    )
    assert report.n_stored == 1  # captures go into the same file
    assert import_delphi(folder, tmp_path / "f.h5", **options).n_present == 7
    with pytest.raises(ModelMismatchError, match="weights_hash"):
        import_delphi(folder, tmp_path / "f.h5", **{**options, "model": tiny_model("gpt2", seed=1)})


# --- once more -----------------------------------------------------------------------------------


def test_a_second_import_stores_nothing(tmp_path):
    folder = write_cache(tmp_path / "cache")
    import_delphi(folder, tmp_path / "f.h5", **QUIET)
    before = (tmp_path / "f.h5").read_bytes()
    report = import_delphi(folder, tmp_path / "f.h5", **QUIET)
    assert (report.n_stored, report.n_present) == (0, 7)
    assert (tmp_path / "f.h5").read_bytes() == before
    assert import_delphi(folder, tmp_path / "f.h5", force=True, **QUIET).n_stored == 7


def test_an_import_that_is_stopped_goes_on(tmp_path, monkeypatch):
    folder = write_cache(tmp_path / "cache")
    commit, done = StoreWriter.commit, []

    def stops(self, records, blocks):
        if len(done) == 2:
            raise KeyboardInterrupt
        commit(self, records, blocks)
        done.append(len(records))

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "commit", stops)
        with pytest.raises(KeyboardInterrupt):
            import_delphi(folder, tmp_path / "f.h5", batch_size=2, **QUIET)
    report = import_delphi(folder, tmp_path / "f.h5", batch_size=2, **QUIET)
    assert (report.n_stored, report.n_present) == (3, 4)
    assert_holds(tmp_path / "f.h5", "layers.2", dense_latents(), token_rows())


def test_further_rows_with_larger_ids(tmp_path):
    import_delphi(write_cache(tmp_path / "a"), tmp_path / "f.h5", **QUIET)
    more = token_rows(1) + 500
    import_delphi(
        write_cache(tmp_path / "b", seed=1, tokens=more, n_tokens=7), tmp_path / "f.h5", **QUIET
    )
    assert_holds(tmp_path / "f.h5", "layers.2", dense_latents(), token_rows())
    assert_holds(tmp_path / "f.h5", "layers.2", dense_latents(1), more)
    assert len(StoreReader(tmp_path / "f.h5").vocab["token"]) == more.max() + 1


# --- bad caches ----------------------------------------------------------------------------------


def places(**changes):
    """The places of the middle file, with one entry changed."""
    found = entries_of(dense_latents(), 10, 19)["locations"].astype(np.int64)
    for column, value in changes.items():
        found[4, ("row", "position", "feature").index(column)] = value
    return found


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"activations": None}, r"no 'activations' in .*10_19.safetensors"),
        ({"locations": None}, r"no 'locations' in"),
        ({"locations": places()[:-1]}, r"has shape \(\d+, 3\), expected \(\d+, 3\)"),
        ({"locations": places()[:, :2]}, r"expected \(\d+, 3\): row, position and feature"),
        ({"activations": np.ones((4, 2), np.float16)}, "expected 1 dim of F16"),
        ({"activations": np.arange(9)}, "'activations' .* is I64 of shape"),
        ({"tokens": token_rows(3)}, "tokens in .* are not those of the rest"),
        ({"tokens": token_rows()[:6]}, "tokens in .* are not those of the rest"),
        ({"locations": places(row=7)}, "names row 7, and there are 7"),
        ({"locations": places(position=5)}, "names position 5, and there are 5"),
        ({"locations": places(feature=10)}, "names feature 10, and there are 10"),
        ({"locations": places(feature=-1)}, "names feature -1"),
        ({"locations": np.repeat(places()[:1], len(places()), 0)}, r"says feature \d+ twice"),
        ({"activations": np.full(len(places()), np.nan, np.float16)}, r"feature \d+ of module 'layers.2' is nan"),
    ],
)  # fmt: skip
def test_files_that_contradict_each_other(tmp_path, arrays, message):
    folder = write_cache(tmp_path / "cache")
    change(folder / "layers.2" / "10_19.safetensors", **arrays)
    with pytest.raises(FeatureCacheError, match=message):
        import_delphi(folder, tmp_path / "f.h5", **QUIET)


def test_files_that_are_missing(tmp_path):
    folder = write_cache(tmp_path / "cache")
    (folder / "layers.2" / "10_19.safetensors").rename(folder / "aside")
    with pytest.raises(
        FeatureCacheError, match=r"lacks features 10 to 19: 20_29.safetensors begins with 20"
    ):
        import_delphi(folder, tmp_path / "f.h5", **QUIET)
    (folder / "aside").rename(folder / "layers.2" / "5_19.safetensors")
    with pytest.raises(FeatureCacheError, match="has twice features 5 to 9"):
        import_delphi(folder, tmp_path / "f.h5", **QUIET)
    assert not (tmp_path / "f.h5").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"source": "nowhere"}, FeatureCacheError, "no folder 'nowhere'"),
        ({"source": []}, FeatureCacheError, "no cache of latents"),
        ({"source": ["nowhere/0_9.safetensors"]}, FeatureCacheError, "no file"),
        ({"modules": ["layers.3"]}, FeatureCacheError, "no module 'layers.3' .* it has layers.2"),
        ({"hooks": {"layers.3": "x"}}, FeatureCacheError, "hooks= names module 'layers.3'"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"dtype": "int8"}, ValueError, "dtype is 'int8'"),
        ({"tokens": np.ones((3, 2), int)}, FeatureCacheError, "are not those of the rest"),
        ({"tokens": np.ones(SHAPE)}, FeatureCacheError, "expected whole numbers with dims"),
        ({"tokenizer": "no/tokenizer/here"}, ValueError, "no tokenizer at"),
    ],
)
def test_bad_options(tmp_path, options, error, message):
    folder = write_cache(tmp_path / "cache")
    given = {"source": folder, "path": tmp_path / "f.h5", **options}
    with pytest.raises(error, match=message):
        import_delphi(given.pop("source"), given.pop("path"), **given, **QUIET)
    assert not (tmp_path / "f.h5").exists()


def test_tokens_that_were_not_saved(tmp_path):
    folder = write_cache(tmp_path / "cache")
    for path in (folder / "layers.2").glob("*.safetensors"):
        change(path, tokens=None)
    with pytest.raises(FeatureCacheError, match=r"says no tokens.*give tokens="):
        import_delphi(folder, tmp_path / "f.h5", **QUIET)
    import_delphi(folder, tmp_path / "f.h5", tokens=token_rows(), **QUIET)
    assert_holds(tmp_path / "f.h5", "layers.2", dense_latents(), token_rows())


def test_a_file_that_is_no_safetensors(tmp_path):
    folder = write_cache(tmp_path / "cache")
    (folder / "layers.2" / "10_19.safetensors").write_bytes(b"PK\x03\x04 not this")
    with pytest.raises(FeatureCacheError, match=r"cannot read .*10_19.safetensors as safetensors"):
        import_delphi(folder, tmp_path / "f.h5", **QUIET)
    (folder / "layers.2" / "config.json").write_text("{")
    with pytest.raises(FeatureCacheError, match=r"cannot read .*config.json as JSON"):
        import_delphi(folder, tmp_path / "f.h5", **QUIET)


def test_ids_that_the_tokenizer_does_not_have(tmp_path):
    folder = write_cache(tmp_path / "cache", tokens=token_rows() + 1000)
    with pytest.raises(FeatureCacheError, match=r"the tokenizer has 3.. tokens"):
        import_delphi(folder, tmp_path / "f.h5", tokenizer=tiny_tokenizer(), **QUIET)


def test_a_file_of_another_model(tmp_path):
    import_delphi(write_cache(tmp_path / "a"), tmp_path / "f.h5", **QUIET)
    other = write_cache(tmp_path / "b", model_name="EleutherAI/other")
    with pytest.raises(ModelMismatchError, match="of model 'EleutherAI/tiny'"):
        import_delphi(other, tmp_path / "f.h5", **QUIET)


def test_an_autoencoder_of_another_size(tmp_path):
    folder = write_cache(tmp_path / "cache")
    weights = {"W_enc": torch.ones(32, 31), "b_enc": torch.zeros(31)}
    weights |= {"W_dec": torch.ones(31, 32), "b_dec": torch.zeros(32)}
    sae = load_autoencoder(weights, hook="blocks.0.hook_resid_post")
    with pytest.raises(FeatureCacheError, match="has 30 features, and its autoencoder 31"):
        import_delphi(folder, tmp_path / "f.h5", autoencoders={"layers.2": sae}, **QUIET)


def test_another_autoencoder_under_this_name(tmp_path):
    folder = write_cache(tmp_path / "cache")
    import_delphi(
        folder, tmp_path / "f.h5", hooks={"layers.2": "blocks.2.hook_resid_post"}, **QUIET
    )
    with pytest.raises(FeaturesMismatchError, match=r"hook 'blocks.2.hook_resid_post' there"):
        import_delphi(
            folder, tmp_path / "f.h5", hooks={"layers.2": "blocks.1.hook_resid_post"}, **QUIET
        )


def test_places_that_cannot_be_written_to(tmp_path):
    with pytest.raises(FileNotWritableError, match="it is a folder"):
        import_delphi(write_cache(tmp_path / "cache"), Path(tmp_path), **QUIET)
