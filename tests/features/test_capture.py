"""Capture of features: what lands in the file is what the autoencoder says of each prompt alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pattern_lens.activations.capture import capture
from pattern_lens.errors import (
    AutoencoderError,
    DeadAutoencoderWarning,
    DimensionError,
    FeaturesMismatchError,
    FileNotWritableError,
    HookSilentError,
    ModelMismatchError,
    PromptError,
    UnknownHookError,
)
from pattern_lens.features.buffer import FeatureBuffer, by_prompt
from pattern_lens.features.capture import capture_features
from pattern_lens.features.loading import load_autoencoder
from pattern_lens.features.sparse import Entries, active, encoded, rows_of
from pattern_lens.features.steps import Steps
from pattern_lens.features.stored import open_features
from pattern_lens.models import load_model
from pattern_lens.prompts import prompt_hash
from pattern_lens.store.reader import StoreReader
from pattern_lens.testing import tiny_model, tiny_model_folder

TEXTS = [
    "the cat sat on the mat and then the cat sat on the mat again",
    "Hello there.",
    "one two three one two three one",
    "a",
    "brackets (nested (in) brackets) [and] lists",
]
POST, RESID, Z = "blocks.0.mlp.hook_post", "blocks.1.hook_resid_post", "blocks.2.attn.hook_z"
WIDTHS = {POST: 40, RESID: 32, Z: 32}


def autoencoder(hook=POST, n_features=50, *, bias=-1.5, seed=0, name=None, width=None):
    rng = torch.Generator().manual_seed(seed)
    width = width or WIDTHS[hook]
    weights = {
        "W_enc": torch.randn(width, n_features, generator=rng),
        "b_enc": torch.full((n_features,), bias),
        "W_dec": torch.randn(n_features, width, generator=rng),
        "b_dec": 0.1 * torch.randn(width, generator=rng),
    }
    return load_autoencoder(weights, hook=hook, name=name)


@pytest.fixture(scope="module")
def model():
    return load_model(tiny_model("gpt2"))


def captured(model, sae, path, texts=TEXTS, **options):
    return capture_features(model, sae, texts, path, progress=False, **options)


def dense(path, name, text, n_features=50):
    """What is stored of a prompt, as dims (pos, feature); checks that it is sorted and whole."""
    reader = StoreReader(path)
    at = reader.prompts.position(prompt_hash(text))
    parts = {}
    for variable in ("position", "feature", "value"):
        array = reader.latents(name, variable)
        row = array.row_of(at)
        assert array.is_intact(row)
        parts[variable] = array.read(row)
    n_ctx = len(reader.prompts.token_ids(at))
    reader.close()
    place = parts["position"].astype(int) * n_features + parts["feature"]
    assert (np.diff(place) > 0).all()
    assert parts["value"].all()
    found = np.zeros((n_ctx, n_features), np.float32)
    found.flat[place] = parts["value"]
    return found


def expected(model, sae, text):
    """Latents of the prompt alone, from TransformerLens' own value."""
    ids = torch.from_numpy(model.tokenize(text).ids.astype(np.int64))[None]
    mask = {} if model.causal else {"attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        _, cache = model.model.run_with_cache(ids, names_filter=[sae.hook], **mask)
        return sae.encode(cache[sae.hook][0].flatten(1)).numpy()


# --- what is stored ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_latents_are_those_of_each_prompt_alone(model, tmp_path, batch_size):
    saes = [autoencoder(POST), autoencoder(RESID, seed=1), autoencoder(Z, seed=2)]
    report = captured(model, saes, tmp_path / "f.h5", batch_size=batch_size)
    assert (report.n_stored, report.n_present, report.failures) == (len(TEXTS), 0, {})
    for sae in saes:
        for text in TEXTS:
            found = dense(tmp_path / "f.h5", sae.name, text)
            np.testing.assert_allclose(found, expected(model, sae, text), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "bert", "attn_only"])
def test_other_architectures(tmp_path, kind):
    model = load_model(tiny_model(kind))
    sae = autoencoder(Z)
    captured(model, sae, tmp_path / "f.h5", batch_size=2)
    for text in TEXTS:
        found = dense(tmp_path / "f.h5", "z.2", text)
        np.testing.assert_allclose(found, expected(model, sae, text), rtol=0, atol=1e-4)


def test_activations_of_the_same_pass(model, tmp_path, monkeypatch):
    passes = []
    run = type(model.model).run_with_hooks
    monkeypatch.setattr(
        type(model.model),
        "run_with_hooks",
        lambda self, *a, **k: passes.append(1) or run(self, *a, **k),
    )
    names = ("pattern", "blocks.0.mlp.hook_post", "z")
    captured(model, autoencoder(), tmp_path / "f.h5", names=names, batch_size=2)
    assert (
        len(passes) == 2 + 3
    )  # one to see how wide the hook is, one to see the others, three batches
    capture(model, TEXTS, tmp_path / "c.h5", names=names, progress=False)
    ours, theirs = StoreReader(tmp_path / "f.h5"), StoreReader(tmp_path / "c.h5")
    assert ours.names() == theirs.names()
    for text in TEXTS:
        for name in ours.names():
            one, other = (
                r.array(name).read(r.array(name).row_of(r.prompts.position(prompt_hash(text))))
                for r in (ours, theirs)
            )
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_types_that_are_stored(model, tmp_path):
    sae = autoencoder()
    captured(model, sae, tmp_path / "f.h5", dtype="float16")
    reader = StoreReader(tmp_path / "f.h5")
    dtypes = [
        str(reader.latents("mlp.0", v).layout.dtype) for v in ("position", "feature", "value")
    ]
    assert dtypes == ["uint16", "uint16", "float16"]
    found = dense(tmp_path / "f.h5", "mlp.0", TEXTS[0])
    np.testing.assert_allclose(found, expected(model, sae, TEXTS[0]), rtol=1e-3, atol=1e-4)


def test_a_value_too_large_for_float16_is_refused(model, tmp_path):
    large = autoencoder(bias=1e6)
    with pytest.raises(DimensionError, match="do not fit float16"):
        captured(model, large, tmp_path / "f.h5", dtype="float16")


def test_a_threshold_leaves_out_what_is_small(model, tmp_path):
    sae = autoencoder()
    captured(model, sae, tmp_path / "f.h5", threshold=1.0)
    whole = expected(model, sae, TEXTS[0])
    np.testing.assert_allclose(
        dense(tmp_path / "f.h5", "mlp.0", TEXTS[0]), np.where(whole > 1, whole, 0), atol=1e-4
    )
    with open_features(tmp_path / "f.h5") as features:
        assert features["mlp.0"].identity["threshold"] == 1.0


def test_objects_with_negative_latents_keep_them(model, tmp_path):
    class Signed:
        W_dec = torch.eye(32)

        def encode(self, x):
            return x

        def decode(self, latents):
            return latents

    captured(model, {RESID: ("raw", Signed())}, tmp_path / "f.h5")
    ids = torch.from_numpy(model.tokenize(TEXTS[1]).ids.astype(np.int64))[None]
    _, cache = model.model.run_with_cache(ids, names_filter=[RESID])
    found = dense(tmp_path / "f.h5", "raw", TEXTS[1], 32)
    np.testing.assert_allclose(found, cache[RESID][0].detach(), atol=1e-5)
    assert (found < 0).any()


def test_a_folder_a_mapping_and_a_list_are_taken(tmp_path):
    from safetensors.torch import save_file

    folder = tiny_model_folder(tmp_path / "model")
    save_file(autoencoder().weights, tmp_path / "sae.safetensors")
    sources = [
        {POST: tmp_path / "sae.safetensors"},
        autoencoder(RESID),
        {Z: ("heads", autoencoder(Z))},
    ]
    report = captured(str(folder), sources, tmp_path / "f.h5", TEXTS[:1])
    assert [*report.n_entries] == ["mlp.0", "resid_post.1", "heads"]
    assert StoreReader(tmp_path / "f.h5").feature_sets() == ["heads", "mlp.0", "resid_post.1"]


def test_a_hook_may_be_named_as_the_bridge_names_it(model, tmp_path):
    sae = autoencoder()
    captured(
        model, load_autoencoder(sae, hook="blocks.0.mlp.out.hook_in", name="x"), tmp_path / "f.h5"
    )
    np.testing.assert_allclose(
        dense(tmp_path / "f.h5", "x", TEXTS[0]), expected(model, sae, TEXTS[0]), atol=1e-4
    )


def test_prompts_that_are_cut_and_single_tokens(model, tmp_path):
    texts = ["a", "word " * 200]
    report = captured(model, autoencoder(), tmp_path / "f.h5", texts)
    assert report.n_truncated == 1
    assert [dense(tmp_path / "f.h5", "mlp.0", text).shape[0] for text in texts] == [2, 64]


def test_a_prompt_of_one_token(tmp_path):
    model = load_model(tiny_model("gpt2"), prepend_bos=False)
    sae = autoencoder()
    captured(model, sae, tmp_path / "f.h5", ["a"])
    found = dense(tmp_path / "f.h5", "mlp.0", "a")
    assert found.shape == (1, 50)
    np.testing.assert_allclose(found, expected(model, sae, "a"), atol=1e-4)


# --- once more -----------------------------------------------------------------------------------


def test_a_second_run_runs_nothing(model, tmp_path, monkeypatch):
    path = tmp_path / "f.h5"
    captured(model, autoencoder(), path)
    before = path.read_bytes()
    monkeypatch.setattr(FeatureBuffer, "sink", lambda *_: pytest.fail("computed again"))
    report = captured(model, autoencoder(), path)
    assert (report.n_stored, report.n_present, report.n_tokens) == (0, len(TEXTS), 0)
    assert path.read_bytes() == before
    assert (
        report.summary() == "0 prompts stored in f.h5, 5 were there already" + report.summary()[46:]
    )


def test_further_prompts_autoencoders_and_activations(model, tmp_path):
    path = tmp_path / "f.h5"
    capture(model, TEXTS[:2], path, progress=False)
    captured(model, autoencoder(), path, TEXTS[:3])
    both = [autoencoder(), autoencoder(RESID, seed=1)]
    report = captured(model, both, path, names="resid_post")
    assert report.n_stored == len(TEXTS)
    assert captured(model, both, path, names="resid_post").n_stored == 0
    reader = StoreReader(path)
    assert len(reader.prompts) == len(TEXTS)
    assert len(reader.latents("mlp.0", "value").rows) == len(TEXTS)  # none was computed twice
    for sae in both:
        for text in TEXTS:
            found = dense(path, sae.name, text)
            np.testing.assert_allclose(found, expected(model, sae, text), atol=1e-4)


def test_damaged_values_are_computed_again(model, tmp_path):
    path = tmp_path / "f.h5"
    captured(model, autoencoder(), path, batch_size=1)
    with h5py.File(path, "r") as file:
        info = file["features/mlp.0/latents/value/data"].id.get_chunk_info(0)
    with path.open("r+b") as file:
        file.seek(info.byte_offset + info.size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 255]))
    report = captured(model, autoencoder(), path)
    assert (report.n_stored, report.n_present) == (1, len(TEXTS) - 1)
    for text in TEXTS:
        np.testing.assert_allclose(
            dense(path, "mlp.0", text), expected(model, autoencoder(), text), atol=1e-4
        )


def test_force_computes_again_and_the_newer_values_hold(model, tmp_path):
    path = tmp_path / "f.h5"
    captured(model, autoencoder(), path)
    assert captured(model, autoencoder(), path, TEXTS[:2], force=True).n_stored == 2
    with open_features(path) as features:
        assert len(features["mlp.0"].prompts) == len(TEXTS)


def test_prompts_of_which_a_variable_is_missing_are_computed_again(model, tmp_path):
    path = tmp_path / "f.h5"
    captured(model, autoencoder(), path)
    reader = StoreReader(path)
    layout = reader.latents("mlp.0", "value").layout
    at = reader.prompts.position(prompt_hash(TEXTS[2]))
    reader.close()
    with h5py.File(path, "r+") as file:  # as if a newer row had been torn off its siblings
        rows = file[f"{layout.group}/index"]
        own = [i for i, row in enumerate(rows[:]) if row["prompt"] == at and row["checksum"]]
        rows[own[0]] = np.zeros((), rows.dtype)
    assert captured(model, autoencoder(), path).n_stored == 1
    np.testing.assert_allclose(
        dense(path, "mlp.0", TEXTS[2]), expected(model, autoencoder(), TEXTS[2]), atol=1e-4
    )


@pytest.mark.parametrize(
    ("other", "options", "message"),
    [
        (autoencoder(seed=5), {}, "'mlp.0'.*hash"),
        (autoencoder(), {"threshold": 0.5}, "threshold 0.0 there, 0.5 here"),
        (autoencoder(), {"dtype": "float16"}, "dtype 'float32'.*'float16'"),
        (autoencoder(n_features=51), {}, "n_features 50 there, 51 here"),
    ],
)
def test_another_autoencoder_of_the_same_name_is_refused(model, tmp_path, other, options, message):
    path = tmp_path / "f.h5"
    captured(model, autoencoder(), path, TEXTS[:1])
    before = path.read_bytes()
    with pytest.raises(FeaturesMismatchError, match=message):
        captured(model, other, path, **options)
    assert path.read_bytes() == before


def test_another_model_is_refused(model, tmp_path):
    captured(model, autoencoder(), tmp_path / "f.h5")
    with pytest.raises(ModelMismatchError, match="weights_hash"):
        captured(load_model(tiny_model("gpt2", seed=1)), autoencoder(), tmp_path / "f.h5")


# --- memory, interrupts, kill -9 -----------------------------------------------------------------


def test_when_memory_runs_out_batches_are_halved(tmp_path):
    bridge = tiny_model("gpt2")
    sizes = []

    def full(_module, args):
        sizes.append(len(args[0]))
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = bridge.embed.register_forward_pre_hook(full)
    report = captured(load_model(bridge), autoencoder(), tmp_path / "f.h5", batch_size=8)
    handle.remove()
    assert report.n_stored == len(TEXTS)
    assert max(size for size in sizes if size <= 2) == 2


def test_an_encoder_that_runs_out_of_memory_halves_too(model, tmp_path, monkeypatch):
    sae = autoencoder()
    encode = type(sae).encode
    longest = max(len(model.tokenize(text).ids) for text in TEXTS)

    def full(self, x):
        if len(x) > longest:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return encode(self, x)

    monkeypatch.setattr(type(sae), "encode", full)
    assert captured(model, sae, tmp_path / "f.h5").n_stored == len(TEXTS)


def test_an_interrupt_keeps_what_was_committed(model, tmp_path, monkeypatch):
    calls = []
    sink = FeatureBuffer.sink

    def interrupting(buffer, hook, value):
        calls.append(hook)
        if len(calls) == 3:
            raise KeyboardInterrupt
        sink(buffer, hook, value)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureBuffer, "sink", interrupting)
        with pytest.raises(KeyboardInterrupt) as stopped:
            captured(model, autoencoder(), tmp_path / "f.h5", batch_size=1)
    assert "values of 2 of 5 prompts were stored in f.h5" in stopped.value.__notes__[0]
    report = captured(model, autoencoder(), tmp_path / "f.h5")
    assert (report.n_stored, report.n_present) == (3, 2)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from test_capture import RESID, TEXTS, autoencoder, captured
from pattern_lens.models import load_model
from pattern_lens.store.writer import StoreWriter
from pattern_lens.testing import tiny_model

commit, done = StoreWriter.commit, []

def kills(self, records, blocks):
    if len(done) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    commit(self, records, blocks)
    done.append(len(records))

StoreWriter.commit = kills
captured(load_model(tiny_model("gpt2")), [autoencoder(), autoencoder(RESID, seed=1)], sys.argv[1], batch_size=1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("n_commits", [1, 3])
def test_what_was_stored_outlives_kill_9(model, tmp_path, n_commits):
    path = tmp_path / "f.h5"
    here = str(Path(__file__).parent)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(n_commits), here], check=False
    )
    assert ended.returncode == -signal.SIGKILL
    saes = [autoencoder(), autoencoder(RESID, seed=1)]
    report = captured(model, saes, path, batch_size=1)
    assert report.n_stored == len(TEXTS) - (n_commits - 1)  # the first registers the prompts
    for sae in saes:
        for text in TEXTS:
            found = dense(path, sae.name, text)
            np.testing.assert_allclose(found, expected(model, sae, text), atol=1e-4)


# --- what is told --------------------------------------------------------------------------------


def test_the_estimate_comes_before_anything_is_stored(model, tmp_path):
    told = []
    path = tmp_path / "f.h5"

    def take(found):
        assert not path.exists()
        told.append(found)

    texts = [f"{text} {i}" for i in range(8) for text in TEXTS]
    report = captured(
        model, autoencoder(), path, texts, names="pattern", on_estimate=take, batch_size=4
    )
    (found,) = told
    n_bytes = 8 * report.n_entries["mlp.0"]  # two, two and four bytes
    assert found.n_tokens == report.n_tokens
    assert found.activation_bytes["mlp.0"] == pytest.approx(n_bytes, rel=0.3)
    assert found.activation_bytes["pattern"] > 0
    assert found.n_active["mlp.0"] == pytest.approx(
        report.n_entries["mlp.0"] / report.n_tokens, rel=0.3
    )
    assert "active features of a token: " in found.summary()


def test_nothing_is_estimated_where_nothing_is_stored(model, tmp_path):
    captured(model, autoencoder(), tmp_path / "f.h5")
    captured(model, autoencoder(), tmp_path / "f.h5", on_estimate=lambda _: pytest.fail("told"))


def test_the_table_of_steps(model, tmp_path):
    report = captured(model, autoencoder(), tmp_path / "f.h5", names="pattern")
    table = report.table()
    assert [*table.index] == ["forward", "encode", "sparse", "pack", "write"]
    assert table.share.sum() == pytest.approx(1)
    assert (table.seconds > 0).all()
    assert table.seconds.drop("write").sum() <= report.seconds
    assert table.size_bytes["sparse"] == 8 * report.n_entries["mlp.0"]
    assert table.size_bytes["write"] == (tmp_path / "f.h5").stat().st_size
    assert table.estimated_seconds.drop("write").notna().all()
    n_entries = sum(np.count_nonzero(expected(model, autoencoder(), text)) for text in TEXTS)
    assert report.n_entries == {"mlp.0": n_entries}
    assert f"mlp.0: {n_entries:,} active latents of {report.n_tokens} tokens" in report.summary()


def test_a_dead_autoencoder_is_warned_of_and_stored(model, tmp_path):
    path = tmp_path / "f.h5"
    dead = autoencoder(RESID, bias=-1e4, name="dead")
    with pytest.warns(
        DeadAutoencoderWarning, match="no feature of 'dead' is active on any prompt of f.h5"
    ):
        captured(model, [autoencoder(), dead], path)
    assert not dense(path, "dead", TEXTS[0]).any()
    with pytest.warns(DeadAutoencoderWarning) as caught:
        assert captured(model, dead, path).n_present == len(TEXTS)
    assert caught[0].filename.endswith("test_capture.py")


def test_one_live_feature_on_one_prompt_is_not_dead(model, tmp_path, recwarn):
    sae = autoencoder()
    peak = {text: expected(model, autoencoder(bias=0.0), text).max() for text in TEXTS}
    first, second = sorted(peak.values())[-2:]
    sae = autoencoder(bias=-float(first + second) / 2)
    for text in TEXTS:  # prompt by prompt, so that most runs store nothing active
        captured(model, sae, tmp_path / "f.h5", [max(peak, key=peak.__getitem__), text])
    assert not [one for one in recwarn if one.category is DeadAutoencoderWarning]


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sae": autoencoder(width=39)}, AutoencoderError, "'mlp.0' does not fit.*encodes 39 numbers, the hook has 40"),
        ({"sae": {"blocks.7.hook_resid_post": autoencoder(RESID)}}, UnknownHookError, "blocks.7.hook_resid_post"),
        ({"sae": {"resid_post": autoencoder(RESID)}}, AutoencoderError, "not one hook"),
        ({"sae": {"final_logits": autoencoder(RESID)}}, AutoencoderError, "not one hook"),
        ({"sae": {"blocks.0.attn.hook_pattern": autoencoder(RESID)}}, AutoencoderError, "a vector for each position"),
        ({"sae": {"blocks.0.ln1.hook_scale": autoencoder(RESID)}}, AutoencoderError, "a vector for each position"),
        ({"sae": []}, AutoencoderError, "no autoencoder is given"),
        ({"sae": [autoencoder(), autoencoder(seed=1)]}, AutoencoderError, "2 autoencoders are called 'mlp.0'"),
        ({"sae": {POST: object()}}, AutoencoderError, "encode"),
        ({"sae": "no-such-folder"}, AutoencoderError, "no-such-folder"),
        ({"names": "patern"}, UnknownHookError, "patern.*pattern"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"dtype": "bfloat16"}, ValueError, "dtype is 'bfloat16', expected 'float32' or 'float16'"),
        ({"threshold": -1}, ValueError, "threshold is -1, expected a number of at least 0"),
        ({"threshold": float("nan")}, ValueError, "threshold is nan"),
        ({"prompts": []}, PromptError, "no prompts"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_runs(model, tmp_path, options, error, message):
    given = {
        "model": model,
        "sae": autoencoder(),
        "prompts": TEXTS,
        "path": tmp_path / "f.h5",
        **options,
    }
    with pytest.raises(error, match=message):
        capture_features(**given, progress=False)
    assert not (tmp_path / "f.h5").exists()


def test_a_hook_that_never_fires(tmp_path):
    model = load_model(tiny_model("neox"))
    with pytest.raises(HookSilentError, match=r"never fired: .*hook_rot_k") as caught:
        captured(model, {"blocks.0.attn.hook_rot_k": autoencoder(Z)}, tmp_path / "f.h5")
    assert "reads it; say another with hook=" in caught.value.__notes__[0]


def test_places_that_cannot_be_written_to(model, tmp_path):
    with pytest.raises(FileNotWritableError, match="it is a folder"):
        captured(model, autoencoder(), tmp_path)


def _spoiled(model, token):
    """Let the model's embedding of one token be NaN, for a while."""
    return model.model.embed.register_forward_hook(
        lambda _, args, out: torch.where((args[0] == token)[..., None], float("nan"), out)
    )


def test_values_that_are_not_numbers_are_refused_and_name_the_prompt(tmp_path):
    model = load_model(tiny_model("gpt2"))
    token = int(model.tokenize("Hello there.").ids[1])
    handle = _spoiled(model, token)
    with pytest.raises(
        AutoencoderError, match=r"values at 'blocks.0.*NaN or infinite for prompt 'Hello there.'"
    ):
        captured(model, autoencoder(), tmp_path / "f.h5", batch_size=2)
    report = captured(model, autoencoder(), tmp_path / "f.h5", on_error="skip", names="pattern")
    handle.remove()
    assert report.n_stored == len(TEXTS) - 1
    assert [*report.failures] == [prompt_hash("Hello there.")]
    assert "1 failed" in report.summary()
    assert captured(model, autoencoder(), tmp_path / "f.h5").n_stored == 1
    for text in TEXTS:
        np.testing.assert_allclose(
            dense(tmp_path / "f.h5", "mlp.0", text), expected(model, autoencoder(), text), atol=1e-4
        )


def test_latents_that_are_not_numbers_are_refused(model, tmp_path):
    broken = autoencoder()
    broken.weights["b_enc"][7] = float("nan")
    with pytest.raises(
        AutoencoderError, match=r"latents of autoencoder 'mlp\.0' are NaN or infinite"
    ):
        captured(model, broken, tmp_path / "f.h5")
    assert not (tmp_path / "f.h5").exists()


def test_an_object_that_gives_other_shapes_is_refused(model, tmp_path):
    class Odd:
        W_dec = torch.eye(32)

        def encode(self, x):
            return x if len(x) < 5 else x[:, :31]

        def decode(self, latents):
            return latents

    with pytest.raises(AutoencoderError, match=r"gives latents of shape \(\d+, 31\)"):
        captured(model, {RESID: Odd()}, tmp_path / "f.h5")


# --- parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.0, 0.3])
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_entries_are_what_numpy_finds(monkeypatch, threshold, chunk):
    from pattern_lens.features import sparse

    monkeypatch.setattr(sparse, "_CHUNK_BYTES", {"cpu": chunk * 4 * 11})
    monkeypatch.setattr(sparse, "_LOOKED_THROUGH", 13)
    rows = torch.randn(17, 11, generator=torch.Generator().manual_seed(1))
    rows[rows.abs() < 0.2] = 0.0
    found = encoded(lambda x: x, rows, 11, threshold=threshold, steps=Steps())
    row, feature = np.nonzero(np.abs(rows.numpy()) > threshold)
    np.testing.assert_array_equal(found.row, row)
    np.testing.assert_array_equal(found.feature, feature)
    np.testing.assert_array_equal(found.value, rows.numpy()[row, feature])


def test_what_is_no_number_counts_as_active():
    for threshold in (0.0, 5.0):
        found = active(torch.tensor([[0.0, float("nan"), -float("inf")]]), threshold)
        assert found.feature.tolist() == [1, 2]


def test_rows_have_no_padding():
    value = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert rows_of(value, [3, 1])[:, 0].tolist() == [0, 4, 8, 12]
    assert rows_of(value, [3, 3]).shape == (6, 4)


def test_prompts_without_entries():
    nothing = Entries(*(np.empty(0, np.int64),) * 2, np.empty(0, np.float32))
    assert [len(value) for *_, value in by_prompt(nothing, [3, 1])] == [0, 0]


def test_steps_within_others_are_counted_once():
    steps = Steps()
    with steps.around("forward", "encode"), steps.timed("encode"):
        pass
    assert 0 <= steps.seconds["forward"] < 0.1
