"""A small file with known values, one for the whole run."""

from pathlib import Path
from typing import Any

import pytest

from pattern_lens.testing import write_random_file

LAYERS = (0, 2, 3)


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Path of the file, and the dense arrays in it by name and hash; not to be written to."""
    path = tmp_path_factory.mktemp("files") / "random.h5"
    return path, write_random_file(path, layers=LAYERS)
