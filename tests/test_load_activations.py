"""Patterns of one prompt by the import path of pattern-lens 0.6."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import h5py
import numpy as np
import pytest
import torch

from pattern_lens.errors import NotAPatternFileError, PatternLensError
from pattern_lens.load_activations import (
    ActivationsMismatchError,
    ActivationsMissingError,
    GetActivationsError,
    InvalidPromptError,
    activations_exist,
    augment_prompt_with_hash,
    compare_prompt_to_loaded,
    load_activations,
)
from pattern_lens.store.reader import StoreReader
from pattern_lens.testing import write_random_file


@pytest.fixture
def held(tmp_path):
    """What ``tiny.h5`` holds, by hash."""
    return write_random_file(tmp_path / "tiny.h5", layers=(0, 2))["pattern"]


@pytest.fixture
def prompt(held, tmp_path):
    reader = StoreReader(tmp_path / "tiny.h5")
    name = list(held)[2]
    text = reader.prompts.texts([reader.prompts.position(name)])[0]
    reader.close()
    return {"text": text, "hash": name}


def test_shapes_and_values(held, prompt, tmp_path):
    path, cache = load_activations("tiny", prompt, tmp_path, return_fmt="numpy")
    assert path == tmp_path / "tiny.h5"
    assert list(cache) == ["blocks.0.attn.hook_pattern", "blocks.2.attn.hook_pattern"]
    for values, stored in zip(cache.values(), held[prompt["hash"]], strict=True):
        assert values.shape == (1, 4, 8, 8)
        np.testing.assert_array_equal(values[0], stored)


def test_formats(held, prompt, tmp_path):
    _, tensors = load_activations("tiny", prompt, tmp_path)
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    _, arrays = load_activations("tiny", prompt, str(tmp_path), None)
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    with pytest.raises(ValueError, match="Invalid return_fmt: 'jax'"):
        load_activations("nowhere", {}, tmp_path, "jax")


@pytest.mark.parametrize("key", ["text", "hash"])
def test_a_text_or_a_hash_is_enough(held, prompt, tmp_path, key):
    given = {key: prompt[key]}
    load_activations("tiny", given, tmp_path)
    assert given["hash"] == prompt["hash"] or key == "text"


def test_what_is_missing(held, prompt, tmp_path):
    with pytest.raises(ActivationsMissingError, match=r"file .*other\.h5 does not exist"):
        load_activations("other", prompt, tmp_path)
    with pytest.raises(ActivationsMissingError, match="does not hold them"):
        load_activations("tiny", {"text": "never seen"}, tmp_path)
    write_random_file(tmp_path / "resid.h5", names=("resid_post",))
    with pytest.raises(ActivationsMissingError, match="does not hold them"):
        load_activations("resid", prompt, tmp_path)
    with pytest.raises(ActivationsMismatchError, match="at key text:\n"):
        load_activations("tiny", {**prompt, "text": "another"}, tmp_path)
    (tmp_path / "bad.h5").write_text("no HDF5")
    with pytest.raises(NotAPatternFileError, match="expected an HDF5 file"):
        load_activations("bad", prompt, tmp_path)


def test_existence_means_whole(held, prompt, tmp_path):
    assert activations_exist("tiny", prompt, tmp_path)
    assert not activations_exist("tiny", {"hash": "x"}, tmp_path)
    assert not activations_exist("other", prompt, tmp_path)
    with pytest.raises(InvalidPromptError, match="must have 'hash' key"):
        activations_exist("tiny", {"text": "x"}, tmp_path)
    first = {"hash": next(iter(held))}
    assert activations_exist("tiny", first, tmp_path)
    with h5py.File(tmp_path / "tiny.h5", "r+", locking=False) as file:
        data = file["activations/pattern/data"].id
        _, packed = data.read_direct_chunk((1, 0, 0))
        data.write_direct_chunk((1, 0, 0), packed[:40] + bytes(8) + packed[48:])
    assert not activations_exist("tiny", first, tmp_path)


def test_prompts_and_hashes():
    prompt = {"text": "hello world"}
    assert augment_prompt_with_hash(prompt) is prompt
    assert prompt["hash"] == "XrY7u-Ae7tCTyyK7j1rNww"
    assert augment_prompt_with_hash({"text": "t", "hash": "kept"})["hash"] == "kept"
    with pytest.raises(InvalidPromptError, match="neither text nor hash"):
        augment_prompt_with_hash({})
    compare_prompt_to_loaded({"hash": "a"}, {"text": "t", "hash": "a"})
    with pytest.raises(ActivationsMismatchError, match="at key hash"):
        compare_prompt_to_loaded({"text": "t", "hash": "a"}, {"text": "t", "hash": "b"})


def test_error_classes():
    for error in (ActivationsMissingError, ActivationsMismatchError, InvalidPromptError):
        assert issubclass(error, GetActivationsError)
    assert issubclass(GetActivationsError, ValueError)
    assert issubclass(GetActivationsError, PatternLensError)
    assert issubclass(ActivationsMissingError, FileNotFoundError)
    assert str(pickle.loads(pickle.dumps(ActivationsMissingError("gone")))) == "gone"  # noqa: S301


def _first_value(folder, prompt):
    return float(
        load_activations("tiny", prompt, folder, "numpy")[1]["blocks.0.attn.hook_pattern"][
            0, 0, 0, 0
        ]
    )


def test_in_other_processes(held, prompt, tmp_path):
    load_activations("tiny", prompt, tmp_path, "numpy")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(_first_value, tmp_path, prompt).result() == 1.0
