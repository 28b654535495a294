"""Every example runs, from any folder, without a network; each is short."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
SAYS = {
    "capture_and_read": ["2 prompts stored in clock.h5", "the last token looks at"],
    "draw_a_head": ["drawn to head.png"],
    "look_at_heads": [
        "heads.html: demo-gpt2",
        "pattern.html: L1H0",
        "comparison.html: L1H0 and L1H",
    ],
    "who_writes_the_answer": [
        "L1H5 adds +1.3",
        "correlation of the two 0.9",
        "drawn to answer.png",
    ],
    "find_the_induction_circuit": [
        "L1H5 adds +1.8",
        "L0H7 adds +1.6",
        "without L1H5 and L0H7: +1.2",
        "circuit.png",
    ],
    "features_of_the_demo": [
        "mlp.0: 256 features, 10.1 active a token",
        "effects computed through the model",
        "feature 135: the next token costs +6.1",
        "in[ s]econds.'",
        "written to features.html",
    ],
    "own_figure_and_measure": ["L1H5  induction 0.5", "105 figures stored", "saved to arcs.png"],
}


def test_every_example_is_listed_here() -> None:
    assert {path.stem for path in EXAMPLES} == set(SAYS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path, tmp_path: Path, demo_file: Path) -> None:
    assert len(path.read_text().splitlines()) < 80
    file = shutil.copy(demo_file, tmp_path / "own.h5")
    arguments = {
        "own_figure_and_measure": [file, "arcs.png"],
        "draw_a_head": [file, "head.png"],
        "look_at_heads": [file, "pages"],
        "who_writes_the_answer": ["answer.png"],
    }
    command = [sys.executable, "-W", "error::DeprecationWarning:pattern_lens", path]
    command += arguments.get(path.stem, [tmp_path])
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in SAYS[path.stem]:
        assert words in done.stdout
