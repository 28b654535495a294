"""A file with features, shared by the tests of this folder."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pattern_lens.testing import write_random_features


@pytest.fixture(scope="session")
def featured(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """``path`` of a file with random features (not to be written to), and the ``values`` in it."""
    path: Path = tmp_path_factory.mktemp("features") / "featured.h5"
    values = write_random_features(path)
    return SimpleNamespace(path=path, values=values, hashes=[*values["mlp.0"]["latents"]])
