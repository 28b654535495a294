"""Constants and names of files, by the import path of pattern-lens 0.6."""

from typing import get_args

import pytest

from pattern_lens import consts
from pattern_lens.models import load_model
from pattern_lens.testing import tiny_model


def test_values():
    assert consts.DATA_DIR == "attn_data"
    assert consts.DIVIDER_S1 == "=" * 70
    assert consts.DIVIDER_S2 == "-" * 50
    assert consts.SPINNER_KWARGS == {"config": {"success": "✔️ "}}
    assert consts.ATTN_PATTERN_REGEX.match("blocks.12.attn.hook_pattern").group(1) == "12"
    assert "numpy" in str(get_args(consts.ReturnCache))
    assert all(hasattr(consts, name) for name in consts.__all__)


@pytest.mark.parametrize(
    ("name", "folder"), [("a/b", "a-b"), ("a b:c", "a_b_c"), ("", ""), ("é.1-x_y", "_.1-x_y")]
)
def test_names_of_its_folders(name, folder):
    assert consts.sanitize_name_str(name) == folder == consts.sanitize_name_str(folder)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("gpt2", "gpt2.h5"),
        ("google/gemma-2b", "google-gemma-2b.h5"),
        ("./my-model", "my-model.h5"),
        ("../a/b", "b.h5"),
        ("/far/away/tiny", "tiny.h5"),
        ("~/tiny", "tiny.h5"),
        ("a/b/tiny/", "tiny.h5"),
        ("a b", "a-b.h5"),
        ("..", "model.h5"),
    ],
)
def test_names_of_our_files(tmp_path, name, file):
    assert consts.model_file(tmp_path, name) == tmp_path / file


@pytest.mark.parametrize("name", ["gpt2", "google/gemma-2b", "a b:c"])
def test_capture_calls_its_files_the_same(name):
    bridge = tiny_model()
    bridge.cfg.model_name = name
    assert f"{load_model(bridge).file_stem}.h5" == consts.model_file("", name).name
