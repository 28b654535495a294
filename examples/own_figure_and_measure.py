"""A measure and a figure of your own, over every prompt of a file, stored beside the data.

    pattern-lens demo && python examples/own_figure_and_measure.py demo.h5 arcs.png

The figure draws the tokens in a row, and an arc from each of them to what it looks at.
"""

import sys

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Arc

import pattern_lens as pl
from pattern_lens.figures import register_attn_figure_func
from pattern_lens.measures import induction_score

BEGINS = "zq xv kw pj"
LEAST_SHOWN = 0.1


def peak_distance(pattern):
    """Tokens between a query and the key it looks at most, mean over queries: dims (layer, head)."""
    return (pattern["query"] - pattern.argmax("key")).mean("query")


@register_attn_figure_func(fmt="png")
def arcs(pattern):
    """Arcs from each token to those it looks at; the first token, where many heads rest, left out."""
    tokens = pattern.key_token.values
    figure = Figure(figsize=(0.28 * len(tokens), 3), layout="constrained")
    axes = figure.subplots()
    for query, key in np.argwhere(pattern.values > LEAST_SHOWN):
        if 0 < key < query:
            weight = float(pattern.values[query, key])
            width = query - key
            arc = Arc(((query + key) / 2, 0), width, width, theta2=180, color="#0072b2")
            arc.set(alpha=weight, linewidth=0.5 + 2.5 * weight)
            axes.add_patch(arc)
    axes.set(xlim=(-0.5, len(tokens) - 0.5), ylim=(0, len(tokens) / 2), yticks=[])
    axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=9)
    axes.spines[["left", "right", "top"]].set_visible(False)
    layer, head = int(pattern["layer"]), int(pattern["head"])
    axes.set_title(f"L{layer}H{head} of {pattern.model}: what each token looks at", loc="left")
    return figure


def main(path: str, picture: str) -> None:
    """Measure every prompt, draw the best induction heads, and save one of the figures."""
    patterns = pl.open_patterns(path)
    distance = patterns.map(peak_distance, name="peak_distance")  # DataArray (prompt, layer, head)
    induction = patterns.map(induction_score, name="induction_score").mean("prompt")

    best = induction.to_series().sort_values(ascending=False).index[:3]  # (layer, head)
    heads = [f"L{layer}H{head}" for layer, head in best]
    for label, (layer, head) in zip(heads, best, strict=True):
        at = {"layer": layer, "head": head}
        score, tokens = float(induction.sel(at)), float(distance.sel(at).mean())
        print(f"{label}  induction {score:.2f}, looks {tokens:.1f} tokens back")

    report = pl.map_figures(path, arcs, heads=", ".join(heads))
    print(report.summary())

    prompts = patterns.prompts
    prompt = prompts.index[prompts.text.str.startswith(BEGINS)][0]
    figure = pl.open_figures(path)["arcs"].sel(prompt=prompt, head=heads[0])
    figure.save(picture)
    print(f"{figure} saved to {picture}")


if __name__ == "__main__":
    main(*sys.argv[1:])
