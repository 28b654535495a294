"""Find the circuit that repeats a sequence: the head that writes what comes next, and the head that tells it where to look.

    python examples/find_the_induction_circuit.py pictures

The bundled model reads a sequence for the second time. The head with the largest effect on the next token is an induction
head; what makes it look behind the same token of the first time is a head that looks at the token before each.
"""

import sys
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import pattern_lens as pl
from pattern_lens.demo import model_path

TEXT = "zq xv kw pj rm zq xv kw"
ANSWER = pl.logit_diff(" p", " r")  # what followed "kw", and what followed what followed it


def main(folder: str) -> None:
    """Trace the answer to a head, that head's attention to another one, and ablate both."""
    target = Path(folder)
    target.mkdir(exist_ok=True)
    model, path = pl.load_model(model_path()), target / "circuit.h5"
    options = {"scalars": ["default", "pair"], "progress": False}

    found = pl.trace(model, [TEXT], path, objective=ANSWER, name="answer", **options).isel(prompt=0)
    heads = found.head_estimated_total_effect.isel(query=-1)
    layer, head = np.unravel_index(np.argmax(heads.values), heads.shape)
    induction, query = f"L{layer}H{head}", int(heads["query"])
    looks = found.pair_estimated_total_effect.isel(layer=layer, head=head, query=-1)
    key, token = int(np.argmax(looks.values)), found.query_token.values
    print(f"{induction} adds {float(heads.max()):+.2f} to {float(found.objective):+.2f}")
    print(
        f"  at {query} {token[query]!r} it looks at {key} {token[key]!r}, behind {token[key - 1]!r}"
    )

    node = f"{induction}@{query},{key}:K"
    side = pl.trace(model, [TEXT], path, trace=node, name="where_it_looks", **options)
    cause = side.nodes(k=1, kinds=["pair"], absolute=False).iloc[0]
    print(f"{cause.label} adds {cause.estimated_total_effect:+.2f} to that score, through its key")
    print(
        f"  at {cause['query']} it looks at {cause.key}, the token before: {cause.activation:.2f}"
    )

    left = {"whole": float(found.objective)}
    for ablated in ([induction], [cause.label], [induction, cause.label]):
        name = " and ".join(ablated)
        run = pl.trace(model, [TEXT], path, objective=ANSWER, ablate=ablated, name=name, **options)
        left[f"without {name}"] = float(run.objective[0])
        print(f"without {name}: {left[f'without {name}']:+.2f}")
    of_key = side.head_estimated_total_effect.isel(prompt=0).sum("query")
    print(f"drawn to {draw(heads, of_key, left, target / 'circuit.png')}")


def draw(answer: xr.DataArray, key: xr.DataArray, left: dict[str, float], path: Path) -> Path:
    """Effects of all heads on the answer and on where the head looks; the answer without them."""
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1.2, 1.2, 1])
    titles = ("effect of heads on the answer", "effect of heads on where that head looks")
    for ax, values, title in zip(axes, (answer, key), titles, strict=False):
        most = float(np.abs(values).max())
        image = ax.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
        ax.set(title=title, xlabel="head", ylabel="layer", yticks=values["layer"])
        figure.colorbar(image, ax=ax)
    axes[2].barh([*left], [*left.values()], color="0.5")
    axes[2].invert_yaxis()
    axes[2].set(title="logit difference")
    figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    main(*sys.argv[1:])
