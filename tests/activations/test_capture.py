"""Capture: what lands in the file is what the model computed, however it was batched or interrupted."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pattern_lens.activations.capture import capture
from pattern_lens.activations.gather import BatchBuffer
from pattern_lens.activations.report import CaptureReport
from pattern_lens.errors import (
    FileNotWritableError,
    ModelMismatchError,
    ModelNotFoundError,
    PromptError,
    UnknownHookError,
)
from pattern_lens.models import load_model
from pattern_lens.prompts import prompt_hash, read_prompts
from pattern_lens.store.reader import StoreReader
from pattern_lens.testing import tiny_model, tiny_model_folder

TEXTS = [
    "the cat sat on the mat and then the cat sat on the mat again",
    "Hello there.",
    "one two three one two three one",
    "a",
    "brackets (nested (in) brackets) [and] lists",
]
QUIET = {"progress": False}


def read(path: Path, name: str, text: str) -> np.ndarray:
    reader = StoreReader(path)
    array = reader.array(name)
    row = array.row_of(reader.prompts.position(prompt_hash(text)))
    values = array.read(row)
    assert array.is_intact(row)
    reader.close()
    return values


def alone(model, hook: str, text: str) -> np.ndarray:
    """TransformerLens' own value for the prompt alone."""
    ids = torch.from_numpy(model.tokenize(text).ids.astype(np.int64))[None]
    mask = None if model.causal else torch.ones_like(ids)
    options = {} if mask is None else {"attention_mask": mask}
    with torch.no_grad():
        _, cache = model.model.run_with_cache(ids, names_filter=[hook], **options)
    return cache[hook][0].numpy()


@pytest.mark.parametrize("prepend_bos", [True, False])
@pytest.mark.parametrize("weights", ["raw", "compatibility"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral", "bert", "neox", "attn_only"])
def test_patterns_are_those_of_each_prompt_alone(make_model, tmp_path, kind, weights, prepend_bos):
    model = make_model(kind, weights, prepend_bos=prepend_bos)
    path = tmp_path / "m.h5"
    report = capture(model, TEXTS, path, batch_size=3, **QUIET)
    assert (report.n_stored, report.n_present, report.failures) == (len(TEXTS), 0, {})
    for text in TEXTS:
        stored = read(path, "pattern", text)
        for layer in range(3):
            expected = alone(model, f"blocks.{layer}.attn.hook_pattern", text)
            np.testing.assert_allclose(stored[layer], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_are_stored_bit_for_bit(tmp_path, monkeypatch, dtype):
    bridge = tiny_model("llama", seed=3).to(dtype)
    seen: dict[tuple[str, int], torch.Tensor] = {}
    sink = BatchBuffer.sink

    def spy(buffer, hook, value):
        for row, n in enumerate(buffer._lengths):
            seen[hook, n] = value[row].clone()
        sink(buffer, hook, value)

    monkeypatch.setattr(BatchBuffer, "sink", spy)
    path = tmp_path / "m.h5"
    model = load_model(bridge)
    capture(model, TEXTS, path, names=("pattern", "z", "resid_post"), batch_size=2, **QUIET)
    for text in TEXTS:
        n = len(model.tokenize(text).ids)
        pattern, z = read(path, "pattern", text), read(path, "z", text)
        resid = read(path, "resid_post", text)
        assert pattern.dtype == (np.float16 if dtype == torch.float16 else np.float32)
        for layer in range(3):
            computed = seen[f"blocks.{layer}.attn.hook_pattern", n][:, :n, :n].float().numpy()
            np.testing.assert_array_equal(pattern[layer].astype(np.float32), computed)
            computed = seen[f"blocks.{layer}.attn.hook_z", n][:n].float().numpy()
            np.testing.assert_array_equal(z[layer].astype(np.float32), computed)
            computed = seen[f"blocks.{layer}.hook_resid_post", n][:n].float().numpy()
            np.testing.assert_array_equal(resid[layer].astype(np.float32), computed)


def test_packing_on_a_device_gives_what_packing_on_the_host_gives(make_model, tmp_path):
    from pattern_lens.activations.gather import _pack_on_device, as_stored
    from pattern_lens.store.layout import ArrayLayout
    from pattern_lens.store.packing import pack_triangle

    lengths = [5, 3]
    value = torch.rand(2, 4, 5, 5, generator=torch.Generator().manual_seed(1))
    layout = ArrayLayout(
        "pattern", ("layer", "head", "query", "key"), {"layer": 2, "head": 4}, "triangle", "float32"
    )
    packed = as_stored(_pack_on_device(layout, value, lengths), layout)
    expected = np.empty((4, 15 + 6), np.float32)
    pack_triangle(value[0].numpy(), expected[:, :15])
    pack_triangle(value[1, :, :3, :3].numpy(), expected[:, 15:])
    np.testing.assert_array_equal(packed, expected)


def test_packing_one_value_a_prompt_on_a_device():
    from pattern_lens.activations.gather import _pack_on_device, as_stored
    from pattern_lens.store.layout import ArrayLayout

    value = torch.rand(2, 7, generator=torch.Generator().manual_seed(1))
    layout = ArrayLayout("final_logits", ("token",), {"token": 7}, "single", "float32")
    packed = as_stored(_pack_on_device(layout, value, [5, 3]), layout)
    np.testing.assert_array_equal(packed, value.numpy())
    assert packed.shape == layout.stored_shape(2)


def test_a_second_run_stores_nothing_and_further_prompts_only_themselves(model_folder, tmp_path):
    path = tmp_path / "m.h5"
    capture(model_folder, TEXTS[:3], path, **QUIET)
    again = capture(model_folder, TEXTS[:3], path, **QUIET)
    assert (again.n_stored, again.n_present) == (0, 3)
    further = capture(model_folder, TEXTS, path, **QUIET)
    assert (further.n_stored, further.n_present) == (2, 3)
    reader = StoreReader(path)
    assert len(reader.prompts) == len(reader.array("pattern")) == len(TEXTS)


def test_further_activations_join_stored_prompts(make_model, tmp_path):
    model = make_model("gpt2")
    path = tmp_path / "m.h5"
    capture(model, TEXTS[:4], path, **QUIET)
    report = capture(
        model, TEXTS, path, names=["pattern", "blocks.[02].hook_resid_mid", "embed"], **QUIET
    )
    assert report.n_stored == len(TEXTS)
    reader = StoreReader(path)
    assert reader.array("resid_mid").layout.layers == (0, 2)
    assert reader.array("embed").layout.dims == ("pos", "d_model")
    assert len(reader.prompts) == len(TEXTS)
    expected = alone(model, "blocks.2.hook_resid_mid", TEXTS[0])
    np.testing.assert_allclose(read(path, "resid_mid", TEXTS[0])[1], expected, atol=1e-6)
    assert capture(model, TEXTS, path, names=["pattern", "embed"], **QUIET).n_stored == 0


def test_damaged_values_are_computed_again(make_model, tmp_path):
    model = make_model("gpt2")
    path = tmp_path / "m.h5"
    capture(model, TEXTS, path, batch_size=1, **QUIET)
    whole = read(path, "pattern", TEXTS[2])
    with h5py.File(path, "r") as file:
        info = file["activations/pattern/data"].id.get_chunk_info(0)
    with path.open("r+b") as file:
        file.seek(info.byte_offset + info.size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 255]))
    report = capture(model, TEXTS, path, **QUIET)
    assert (report.n_stored, report.n_present) == (1, len(TEXTS) - 1)
    np.testing.assert_array_equal(read(path, "pattern", TEXTS[2]), whole)
    assert capture(model, TEXTS, path, **QUIET).n_stored == 0


def test_force_computes_again_and_the_newer_values_hold(make_model, tmp_path):
    path = tmp_path / "m.h5"
    capture(make_model("gpt2"), TEXTS, path, **QUIET)
    assert capture(make_model("gpt2"), TEXTS[:2], path, force=True, **QUIET).n_stored == 2
    reader = StoreReader(path)
    assert len(reader.prompts) == len(reader.array("pattern")) == len(TEXTS)


def test_another_model_is_refused_and_both_are_named(make_model, tmp_path):
    path = tmp_path / "m.h5"
    capture(make_model("gpt2"), TEXTS[:1], path, **QUIET)
    other = load_model(tiny_model("gpt2", seed=1))
    with pytest.raises(ModelMismatchError, match=r"'tiny-gpt2'.*weights_hash"):
        capture(other, TEXTS, path, **QUIET)
    with pytest.raises(ModelMismatchError, match=r"weights \{'mode': 'raw'"):
        capture(make_model("gpt2", "compatibility"), TEXTS, path, **QUIET)
    with pytest.raises(ModelMismatchError, match="prepend_bos True in the file, False now"):
        capture(make_model("gpt2", prepend_bos=False), TEXTS, path, **QUIET)
    assert len(StoreReader(path).prompts) == 1


def test_another_dtype_of_one_activation_is_refused(make_model, tmp_path):
    path = tmp_path / "m.h5"
    capture(make_model("gpt2"), TEXTS[:1], path, dtype="float16", **QUIET)
    with pytest.raises(ModelMismatchError, match=r"'pattern'.*dtype 'float16'.*'float32'"):
        capture(make_model("gpt2"), TEXTS, path, **QUIET)


def test_when_memory_runs_out_batches_are_halved(tmp_path):
    bridge = tiny_model("gpt2")
    sizes = []

    def full(_module, args):
        n_batch, n_ctx = args[0].shape
        sizes.append(n_batch)
        if n_batch > 2 or n_ctx > 30:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {n_batch} x {n_ctx}")

    handle = bridge.embed.register_forward_pre_hook(full)
    path = tmp_path / "m.h5"
    texts = [*TEXTS[1:4], "x y z", "p q", "word " * 40]
    report = capture(load_model(bridge), texts, path, batch_size=8, **QUIET)
    handle.remove()
    assert report.n_stored == 5
    assert list(report.failures) == [prompt_hash(texts[-1])]
    assert "out of memory with" in report.failures[prompt_hash(texts[-1])]
    assert "1 failed" in report.summary()
    assert capture(load_model(bridge), texts, path, **QUIET).n_stored == 1


def test_an_interrupt_keeps_what_was_committed(make_model, tmp_path, monkeypatch):
    calls = []
    sink = BatchBuffer.sink

    def interrupting(buffer, hook, value):
        calls.append(hook)
        if len(calls) == 8:  # within the third of five batches of three hooks
            raise KeyboardInterrupt
        sink(buffer, hook, value)

    path = tmp_path / "m.h5"
    with monkeypatch.context() as patch:
        patch.setattr(BatchBuffer, "sink", interrupting)
        with pytest.raises(KeyboardInterrupt) as stopped:
            capture(make_model("gpt2"), TEXTS, path, batch_size=1, **QUIET)
    assert stopped.value.__notes__ == [
        "values of 2 of 5 prompts were stored in m.h5; run the same again to go on"
    ]
    assert len(StoreReader(path).array("pattern")) == 2
    report = capture(make_model("gpt2"), TEXTS, path, **QUIET)
    assert (report.n_stored, report.n_present) == (3, 2)


def test_prompts_stand_in_the_order_in_which_they_were_given(make_model, tmp_path):
    path = tmp_path / "m.h5"
    texts = ["one two", "three four five six seven", "eight", "nine ten eleven"]
    capture(make_model("gpt2"), texts, path, batch_size=1, **QUIET)
    capture(make_model("gpt2"), ["twelve and more and more", *texts], path, **QUIET)
    reader = StoreReader(path)
    rows = reader.array("pattern").rows
    table = reader.prompts
    assert table.texts(rows["prompt"].astype(int)) == [*texts, "twelve and more and more"]
    assert rows["start"].tolist() != sorted(rows["start"].tolist())  # the longest is stored first


def test_a_long_prompt_is_cut_and_marked(make_model, tmp_path):
    path = tmp_path / "m.h5"
    report = capture(make_model("gpt2"), ["word " * 200, "short"], path, **QUIET)
    assert report.n_truncated == 1
    table = StoreReader(path).prompts
    longest = table.position(prompt_hash("word " * 200))
    assert table.truncated([longest]).tolist() == [True]
    assert table.n_ctx([longest]).tolist() == [64]


def test_metadata_and_given_hashes_are_kept(make_model, tmp_path):
    path = tmp_path / "m.h5"
    rows = [{"text": "one", "meta": {"set": "a"}, "hash": "my-hash"}, {"text": "two", "n": 7}]
    capture(make_model("gpt2"), rows, path, **QUIET)
    table = StoreReader(path).prompts
    positions = [table.position("my-hash"), table.position(prompt_hash("two"))]
    assert table.metas(positions) == [{"set": "a"}, {"n": 7}]
    with pytest.raises(PromptError, match=r"'my-hash' is 'one'.*'other' here"):
        capture(make_model("gpt2"), [{"text": "other", "hash": "my-hash"}], path, **QUIET)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"names": "patern"}, UnknownHookError, "patern.*pattern"),
        ({"batch_size": 0}, ValueError, "batch_size is 0, expected a whole number of at least 1"),
        ({"dtype": "int3"}, ValueError, "dtype is 'int3', expected 'float32'"),
        ({"prompts": []}, PromptError, "no prompts"),
        ({"prompts": ["ok", 5]}, PromptError, "prompt 1"),
        ({"prompts": "no-such-file.jsonl"}, PromptError, "no-such-file.jsonl"),
        ({"model": "./no-such-folder"}, ModelNotFoundError, "no-such-folder"),
        ({"nmaes": "pattern"}, TypeError, "nmaes"),
    ],
)
def test_bad_input_is_refused_and_leaves_the_file_as_it_was(
    model_folder, tmp_path, options, error, message
):
    path = tmp_path / "m.h5"
    capture(model_folder, TEXTS[:1], path, **QUIET)
    before = path.read_bytes()
    given = {"model": model_folder, "prompts": TEXTS, "path": path, **QUIET, **options}
    with pytest.raises(error, match=message):
        capture(given.pop("model"), given.pop("prompts"), given.pop("path"), **given)
    assert path.read_bytes() == before


def test_places_that_cannot_be_written_to(model_folder, tmp_path):
    with pytest.raises(FileNotWritableError, match="it is a folder; name a file in it"):
        capture(model_folder, TEXTS, tmp_path, **QUIET)
    with pytest.raises(
        FileNotWritableError, match=r"there is no folder .*missing; create it first"
    ):
        capture(model_folder, TEXTS, tmp_path / "missing" / "m.h5", **QUIET)


def test_bad_prompts_can_be_skipped(model_folder, tmp_path):
    report = capture(model_folder, ["fine", 5, ""], tmp_path / "m.h5", on_error="skip", **QUIET)
    assert report.n_stored == 1
    assert len(report.skipped) == 2
    assert "2 bad prompts left out" in report.summary()


def test_folders_hold_models_of_any_kind(tmp_path):
    folder = tiny_model_folder(tmp_path / "tiny-llama", "llama")
    prompts = read_prompts(TEXTS)
    report = capture(folder, prompts, tmp_path / "m.h5", weights="compatibility", **QUIET)
    assert isinstance(report, CaptureReport)
    reader = StoreReader(tmp_path / "m.h5")
    assert reader.model["weights"]["mode"] == "compatibility"
    assert reader.model["name"] == "tiny-llama"
    assert str(tmp_path) not in str(reader.model)


def test_a_filter_that_also_matches_silent_hooks_is_complete_after_one_run(make_model, tmp_path):
    path = tmp_path / "m.h5"
    first = capture(make_model("gpt2"), TEXTS, path, names="blocks.*.attn.*", **QUIET)
    assert first.n_stored == len(TEXTS)
    assert {"pattern", "q", "z"} <= set(StoreReader(path).names())
    again = capture(make_model("gpt2"), TEXTS, path, names="blocks.*.attn.*", **QUIET)
    assert (again.n_stored, again.n_present) == (0, len(TEXTS))
