"""Figure functions as users wrote them for pattern-lens 0.6; each side runs this file with its own decorators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pattern_lens.figure_util import matplotlib_figure_saver, save_matrix_wrapper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


@save_matrix_wrapper(fmt="png", normalize=True, cmap="Blues")
def raw_picture(attn_matrix: NDArray[Any]) -> NDArray[Any]:
    """The pattern as pixels: what 0.6 stores as ``raw``, and what is drawn on demand now."""
    return attn_matrix


@save_matrix_wrapper(fmt="svgz")
def gram_matrix(attn_matrix: NDArray[Any]) -> NDArray[Any]:
    """Similarity of each two queries' attention."""
    gram: NDArray[Any] = attn_matrix @ attn_matrix.T
    return gram


@matplotlib_figure_saver(fmt="svgz")
def svd_spectra(attn_matrix: NDArray[Any], ax: Axes) -> None:
    """Singular values of the pattern."""
    _, singular_values, _ = np.linalg.svd(attn_matrix)
    ax.plot(singular_values, "o-")
    ax.set_yscale("log")
    ax.set_xlabel("index")
    ax.set_ylabel("singular value")
    ax.set_title("singular values of the attention pattern")
