"""Shared fixtures: tiny models, made once for the whole run."""

import os

collect_ignore_glob = ["scripts/*"]  # run by tests, in processes or environments of their own

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports Hugging Face's code
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads spin: 20 times slower when shared

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from pattern_lens.models import CaptureModel, load_model
from pattern_lens.testing import Kind, tiny_model, tiny_model_folder
from pattern_lens.weights import Weights

settings.register_profile("any machine", deadline=None)  # a busy one is no error
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def make_model() -> Callable[..., CaptureModel]:
    """Tiny models by kind, weights mode and BOS; shared, so tests leave them as they are."""

    @cache
    def make(kind: Kind = "gpt2", weights: Weights = "raw", *, prepend_bos: bool = True):
        bridge = tiny_model(kind)
        if weights == "compatibility":
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", message="BertArchitectureAdapter does not support"
                )
                bridge.enable_compatibility_mode()
        return load_model(bridge, prepend_bos=prepend_bos)

    return make


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny GPT-2 called ``tiny-gpt2``; not to be written to."""
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny-gpt2", "gpt2")


@pytest.fixture(scope="session")
def demo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``demo.h5`` with the patterns of the bundled model; not to be written to."""
    from pattern_lens.activations.capture import capture
    from pattern_lens.demo import model_path, prompts_path

    path = tmp_path_factory.mktemp("demo") / "demo.h5"
    capture(model_path(), prompts_path(), path, progress=False)
    return path
