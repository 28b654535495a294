"""The helpers of these tests are scripts beside them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A file of eleven prompts with two activations, one added later; see kill_writer.py."""
    import kill_writer

    path = tmp_path / "written.h5"
    kill_writer.write(path, lambda line: None)
    return path
