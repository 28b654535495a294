"""Scripts written for pattern-lens 0.6, by its import paths."""

import gzip
import io
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from pattern_lens.figures import produce, select_figure_functions

README = """
    import numpy as np
    import matplotlib.pyplot as plt
    from pattern_lens.figure_util import matplotlib_figure_saver, save_matrix_wrapper
    from pattern_lens.attn_figure_funcs import register_attn_figure_func

    @register_attn_figure_func
    @matplotlib_figure_saver(fmt="svgz")
    def svd_spectra(attn_matrix: np.ndarray, ax: plt.Axes) -> None:
        _, s, _ = np.linalg.svd(attn_matrix, full_matrices=False)
        ax.plot(s, "o-")
        ax.set_yscale("log")
        ax.set_xlabel("Singular Value Index")
        ax.set_title("Singular Value Spectrum")
"""

NOTEBOOK = """
    from pathlib import Path
    import numpy as np
    import matplotlib.pyplot as plt
    from pattern_lens.figure_util import save_matrix_wrapper
    from pattern_lens.attn_figure_funcs import register_attn_figure_func

    @register_attn_figure_func
    def attention_flow(attn_matrix: np.ndarray, path: Path) -> None:
        fig, ax = plt.subplots(figsize=(4, 4))
        for i, row in enumerate(attn_matrix):
            for j, weight in enumerate(row):
                ax.plot([0, 1], [j, i], alpha=float(weight))
        plt.tight_layout()
        fig.savefig(path / "attention_flow.svgz", format="svgz")

    @register_attn_figure_func
    @save_matrix_wrapper(fmt="svgz")
    def gram_matrix(attn_matrix):
        return attn_matrix @ attn_matrix.T
"""


@pytest.mark.parametrize(
    ("script", "names"),
    [(README, ["svd_spectra"]), (NOTEBOOK, ["attention_flow", "gram_matrix"])],
)
def test_its_scripts_run_unchanged(script, names, pattern, registry):
    for _ in range(2):  # as a notebook's cell that is run again
        exec(textwrap.dedent(script), {"__name__": "__main__"})  # noqa: S102
    assert [f.__name__ for f in registry][-len(names) :] == names
    for entry in select_figure_functions(names):
        (made,) = produce(entry, pattern)
        assert (made.name, made.format) == (entry.name, "svgz")
        assert b"<svg" in gzip.decompress(made.data)


def test_its_raw(tmp_path, pattern):
    from pattern_lens.attn_figure_funcs import raw

    raw(pattern.values, tmp_path)
    image = np.asarray(Image.open(tmp_path / "raw.png").convert("RGB"))
    assert image.shape == (5, 5, 3)
    assert image[0, 1].tolist() == [247, 251, 255]  # the first colour of "Blues"
    assert image[0, 0].tolist() == [8, 48, 107]  # the last one


def test_iterating_over_its_list(tmp_path, pattern):
    from pattern_lens.attn_figure_funcs import (
        _FIGURE_NAMES_KEY,
        ATTENTION_MATRIX_FIGURE_FUNCS,
        get_all_figure_names,
    )

    assert "raw" in get_all_figure_names()
    names = [name for f in ATTENTION_MATRIX_FIGURE_FUNCS for name in getattr(f, _FIGURE_NAMES_KEY)]
    assert "raw" in names


def test_multifigures_need_both_decorators(pattern):
    from pattern_lens.attn_figure_funcs import register_attn_figure_multifunc
    from pattern_lens.figure_util import matplotlib_multifigure_saver

    @register_attn_figure_multifunc(["left", "right"])
    @matplotlib_multifigure_saver(["left", "right"], fmt="png")
    def pair(attn_matrix, axes_dict):
        for ax in axes_dict.values():
            ax.matshow(attn_matrix)

    made = produce(pair, pattern)
    assert [(p.name, p.format) for p in made] == [("pair.left", "png"), ("pair.right", "png")]
    assert Image.open(io.BytesIO(made[0].data)).size == (1000, 1000)


def test_every_name_is_there():
    import pattern_lens.attn_figure_funcs as funcs
    import pattern_lens.figure_util as util
    import pattern_lens.figures as figures

    for module in (funcs, util, figures):
        assert all(hasattr(module, name) for name in module.__all__)
        assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.parametrize("module", ["figures", "figure_util", "attn_figure_funcs"])
def test_importing_loads_nothing_heavy(module):
    code = f"import sys, pattern_lens.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"matplotlib", "PIL", "xarray", "h5py", "dask", "torch"}
    assert not heavy & set(done.stdout.split())
