"""Capturing by the names and flags of pattern-lens 0.6."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pattern_lens.activations as activations
from pattern_lens import open_patterns, prompt_hash
from pattern_lens.activations import (
    activations_main,
    compute_activations,
    compute_activations_batched,
    get_activations,
)
from pattern_lens.activations.__main__ import main
from pattern_lens.errors import PromptError
from pattern_lens.load_activations import (
    ActivationsMismatchError,
    InvalidPromptError,
    activations_exist,
    load_activations,
)

TEXTS = ["the cat sat on the mat", "hello world", "one two three four five six"]
HOOKS = [f"blocks.{layer}.attn.hook_pattern" for layer in range(3)]


@pytest.fixture
def model(make_model):
    return make_model("gpt2")


@pytest.fixture
def expected(model):
    """Patterns of a text, straight from the model, by hook."""

    def run(text):
        ids = torch.from_numpy(model.tokenize(text).ids.astype(np.int64))[None]
        with torch.no_grad():
            _, cache = model.model.run_with_cache(ids)
        return {hook: cache[hook].numpy() for hook in HOOKS}

    return run


@pytest.fixture
def prompts_file(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = ({"text": text, "meta": {"pile_set_name": "CC"}} for text in TEXTS)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def same(found, wanted):
    assert list(found) == list(wanted)
    for hook, values in wanted.items():
        np.testing.assert_allclose(np.asarray(found[hook]), values, rtol=0, atol=1e-6)
        assert found[hook].shape == values.shape


# --- compute_activations -------------------------------------------------------------------------


@pytest.mark.parametrize(("fmt", "kind"), [("torch", torch.Tensor), ("numpy", np.ndarray)])
def test_one_prompt(model, expected, tmp_path, fmt, kind):
    prompt = {"text": TEXTS[0], "meta": {"a": 1}}
    path, cache = compute_activations(prompt, model, save_path=tmp_path / "new", return_cache=fmt)
    assert path == tmp_path / "new" / "tiny-gpt2.h5"
    assert all(isinstance(value, kind) for value in cache.values())
    same(cache, expected(TEXTS[0]))
    assert prompt["hash"] == prompt_hash(TEXTS[0])
    assert prompt["n_tokens"] == len(prompt["tokens"]) == cache[HOOKS[0]].shape[-1] - 1
    assert "".join(prompt["tokens"]) == TEXTS[0].replace(" ", "Ġ")
    with open_patterns(path) as found:
        assert found.prompts.loc[prompt["hash"], "a"] == 1


def test_none_of_the_values(model, tmp_path):
    path, cache = compute_activations({"text": "a b"}, model, tmp_path, return_cache=None)
    assert cache is None
    assert path.exists()


def test_stacked(model, expected, tmp_path):
    wanted = np.stack(list(expected(TEXTS[0]).values()), axis=1)
    for fmt in ("numpy", "torch"):
        prompt = {"text": TEXTS[0]}
        _, stacked = compute_activations(
            prompt, model, tmp_path, return_cache=fmt, stack_heads=True
        )
        assert (
            stacked.shape
            == wanted.shape
            == (1, 3, 4, prompt["n_tokens"] + 1, prompt["n_tokens"] + 1)
        )
        np.testing.assert_allclose(np.asarray(stacked), wanted, rtol=0, atol=1e-6)
    _, cache = load_activations("tiny-gpt2", {"text": TEXTS[0]}, tmp_path, "numpy")
    same(cache, expected(TEXTS[0]))
    with pytest.raises(ValueError, match="expected attention patterns only"):
        compute_activations(
            {"text": "a"}, model, tmp_path, lambda name: "resid" in name, stack_heads=True
        )


def test_other_hooks(model, tmp_path):
    wanted = re.compile(r"blocks\.\d+\.hook_resid_post")
    prompt = {"text": TEXTS[0]}
    _, cache = compute_activations(prompt, model, tmp_path, wanted, "numpy")
    assert list(cache) == [f"blocks.{layer}.hook_resid_post" for layer in range(3)]
    assert cache["blocks.0.hook_resid_post"].shape == (1, prompt["n_tokens"] + 1, 32)


def test_bad_arguments_before_anything_runs(model, tmp_path):
    with pytest.raises(ValueError, match="invalid return_cache: return_cache = 'x'"):
        compute_activations({"text": "a"}, model, tmp_path, return_cache="x")
    with pytest.raises(ValueError, match="model must be passed"):
        compute_activations({"text": "a"})
    with pytest.raises(InvalidPromptError, match="prompt must contain 'text' key"):
        compute_activations({"hash": "a"}, model, tmp_path)
    assert not list(tmp_path.glob("*.h5"))


def test_several_prompts_in_order(model, expected, tmp_path):
    prompts = [{"text": text} for text in [*TEXTS, TEXTS[0]]]
    paths = compute_activations_batched(prompts, model, tmp_path, seq_lens=[1, 2, 3, 4])
    assert paths == [tmp_path / "tiny-gpt2.h5"] * 4
    with open_patterns(paths[0]) as found:
        assert list(found) == [prompt_hash(text) for text in TEXTS]
    for text, prompt in zip(TEXTS, prompts, strict=False):
        _, cache = load_activations("tiny-gpt2", {"text": text}, tmp_path, "numpy")
        same(cache, expected(text))
        assert prompt["n_tokens"] == len(prompt["tokens"])
    with pytest.raises(InvalidPromptError, match="prompts must not be empty"):
        compute_activations_batched([], model, tmp_path)
    with pytest.raises(ValueError, match="seq_lens length mismatch: 1 != 4"):
        compute_activations_batched(prompts, model, tmp_path, seq_lens=[1])


# --- get_activations -----------------------------------------------------------------------------


def test_computed_once_and_read_then(model, expected, tmp_path):
    path, cache = get_activations({"text": TEXTS[1]}, model, tmp_path)
    same(cache, expected(TEXTS[1]))
    before = path.stat().st_mtime_ns
    for fmt, kind in (("numpy", np.ndarray), ("torch", torch.Tensor)):
        _, again = get_activations({"text": TEXTS[1]}, model, tmp_path, return_cache=fmt)
        assert all(isinstance(value, kind) for value in again.values())
        same(again, expected(TEXTS[1]))
    assert get_activations({"text": TEXTS[1]}, model, tmp_path, return_cache=None) == (path, None)
    assert path.stat().st_mtime_ns == before
    assert get_activations({"text": TEXTS[0]}, model, tmp_path, return_cache=None) == (path, None)
    assert activations_exist("tiny-gpt2", {"hash": prompt_hash(TEXTS[0])}, tmp_path)


def test_a_model_by_name(model_folder, tmp_path):
    path, cache = get_activations({"text": TEXTS[0]}, str(model_folder), tmp_path)
    assert path.name == "tiny-gpt2.h5"
    assert list(cache) == HOOKS
    # found again under the same name, and without loading the model
    again, _ = get_activations({"text": TEXTS[0]}, "/gone/away/tiny-gpt2", tmp_path)
    assert again == path
    with pytest.raises(ActivationsMismatchError, match="at key text"):
        get_activations({"text": "x", "hash": prompt_hash(TEXTS[0])}, "tiny-gpt2", tmp_path)


def test_without_the_stored_values(model, tmp_path):
    path, _ = get_activations({"text": TEXTS[0]}, model, tmp_path)
    size = path.stat().st_size
    get_activations({"text": TEXTS[0]}, model, tmp_path, allow_disk_cache=False)
    assert path.stat().st_size > size


# --- activations_main ----------------------------------------------------------------------------


def test_main_takes_the_old_arguments(model_folder, prompts_file, tmp_path):
    save_path = tmp_path / "attn_data"
    report = activations_main(
        model_name=str(model_folder),
        save_path=str(save_path),
        prompts_path=str(prompts_file),
        raw_prompts=True,
        min_chars=5,
        max_chars=15,
        force=False,
        n_samples=4,
        no_index_html=False,
        shuffle=False,
        stacked_heads=False,
        device=torch.device("cpu"),
        batch_size=2,
        compress_level=6,
        progress=False,
    )
    pieces = ["the cat sat on ", "the mat", "hello world", "one two three f"]
    assert report.n_stored == 4
    with open_patterns(save_path / "tiny-gpt2.h5") as found:
        assert list(found) == [prompt_hash(piece) for piece in pieces]
        assert set(found.prompts["pile_set_name"]) == {"CC"}


def test_prompts_without_raw_prompts(model_folder, prompts_file, tmp_path):
    options = {"min_chars": 1, "device": "cpu", "progress": False}
    assert (
        activations_main(model_folder.as_posix(), tmp_path, prompts_file, **options).n_stored == 3
    )
    again = activations_main(model_folder.as_posix(), tmp_path, **options)
    assert (again.n_stored, again.n_present) == (0, 3)
    with pytest.raises(PromptError, match=r"no prompts: .*other.* does not exist"):
        activations_main(model_folder.as_posix(), tmp_path / "other", **options)
    with pytest.raises(TypeError, match="invalid device: 3"):
        activations_main(model_folder.as_posix(), tmp_path, device=3)


def test_the_readme_command(model_folder, prompts_file, tmp_path):
    command = [sys.executable, "-m", "pattern_lens.activations", "--model", model_folder]
    command += ["--prompts", prompts_file, "--save-path", "attn_data", "--min-chars", "1"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 prompts stored in tiny-gpt2.h5")
    with open_patterns(tmp_path / "attn_data" / "tiny-gpt2.h5") as found:
        assert list(found) == [prompt_hash(text) for text in TEXTS]


def test_every_old_flag(model_folder, prompts_file, tmp_path, capsys):
    argv = f"-m {model_folder},{model_folder} -p {prompts_file} -s {tmp_path} --min-chars 1 --max-chars 99"
    argv += (
        " -n 2 -b 1 -f --no-index-html -r --shuffle --stacked-heads --device cpu --compress-level 3"
    )
    assert main(argv.split()) == 0
    assert capsys.readouterr().out.count("2 prompts stored in tiny-gpt2.h5") == 2


def test_one_models_error_does_not_stop_the_next(model_folder, prompts_file, tmp_path, capsys):
    argv = ["-m", f"./nowhere,{model_folder}", "-p", str(prompts_file), "-s", str(tmp_path)]
    assert main([*argv, "--min-chars", "1"]) == 1
    out, err = capsys.readouterr()
    assert "3 prompts stored" in out
    assert "pattern_lens.activations: error: no folder './nowhere'" in err


# --- import paths --------------------------------------------------------------------------------


def test_import_path_is_light():
    code = (
        "import sys; from pattern_lens.activations import activations_main; import pattern_lens.consts\n"
        "from pattern_lens.load_activations import load_activations\n"
        "from pattern_lens.prompts import load_text_data\n"
        "assert not {'torch', 'transformer_lens'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_device_and_other_names():
    assert activations.DEFAULT_DEVICE in ("cpu", "cuda")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = activations.nothing
    assert Path(activations.__file__).name == "__init__.py"
