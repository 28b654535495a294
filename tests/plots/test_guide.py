"""The guide's code works on the demo file, and long prompts stay usable."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import pattern_lens as pl
from tests.plots.conftest import causal, labelled

GUIDE = Path(__file__).parents[2] / "docs" / "plots.md"


def test_the_guide_works_on_the_demo_file(demo_file, tmp_path, monkeypatch):
    pytest.importorskip("datashader")
    shutil.copy(demo_file, tmp_path / "demo.h5")
    monkeypatch.chdir(tmp_path)
    shared: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 6
    for block in blocks:
        exec(compile(block, "plots.md", "exec"), shared)  # noqa: S102 - our own document
    assert (tmp_path / "heads.html").stat().st_size < 2e6


def test_1024_tokens_stay_usable(seen):
    patterns = labelled(causal(1024, 1, 6), [f"w{i}" for i in range(1024)])
    one = patterns[0, 2]
    for plot in (pl.plot_pattern(one), pl.plot_tokens(one)):
        assert len(plot.html()) < 8e6
    (figure,) = seen.figures(pl.plot_pattern(one))
    assert figure.frame_width == 1024  # a cell that is no pixel wide may not be seen
    np.testing.assert_array_equal(seen.image(figure), one)
    mosaic = pl.plot_heads(patterns)
    assert mosaic.data.pattern.shape[2] <= 420
    overview, _ = seen.figures(mosaic)
    assert max(seen.image(overview).shape) <= 640
    assert len(mosaic.html()) < 16e6


def test_a_line_of_one_cell_is_seen_in_a_mosaic(seen):
    values = np.zeros((12, 12, 128, 128), np.float32)
    values[:, :] = np.eye(128, k=-5)
    overview, _ = seen.figures(pl.plot_heads(labelled(values, ["a"] * 128)))
    picture = seen.image(overview)
    assert max(picture.shape) <= 640
    tile = picture[: picture.shape[0] // 12, : picture.shape[1] // 12]
    rows = np.nanmax(tile[1:-1, 1:-1], axis=1)
    assert (rows[2:] == 1).all()
