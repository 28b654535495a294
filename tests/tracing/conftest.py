"""A file with traces of known values, and no model."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pattern_lens.testing import write_random_traces


class Written(NamedTuple):
    """The file, and by trace, variable and hash what was stored in it."""

    path: Path
    values: dict[str, dict[str, dict[str, Any]]]

    @property
    def hashes(self) -> list[str]:
        """Of all prompts, in the order of the file."""
        return list(self.values["effects"]["objective"])


@pytest.fixture
def traced(tmp_path: Path) -> Written:
    """Traces ``effects`` of six prompts, and ``ablated`` of four of them."""
    path = tmp_path / "traced.h5"
    return Written(path, write_random_traces(path))
