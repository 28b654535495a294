"""A HookedTransformer of TransformerLens 3, in an environment of its own (this one has 4)."""

import os
import subprocess
from pathlib import Path

import pytest

PYTHON = os.environ.get("PATTERN_LENS_TL3_PYTHON")


@pytest.mark.slow
@pytest.mark.skipif(
    PYTHON is None,
    reason="no environment with TransformerLens 3; .ci/run makes one and sets PATTERN_LENS_TL3_PYTHON",
)
def test_a_hooked_transformer_is_captured(tmp_path):
    script = Path(__file__).parents[1] / "scripts" / "hooked_transformer.py"
    done = subprocess.run(
        [str(PYTHON), str(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("equal 3.")
