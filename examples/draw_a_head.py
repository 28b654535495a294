"""Draw what one head attends to, with the tokens on both axes.

    pattern-lens demo && python examples/draw_a_head.py demo.h5 induction.png

The head is an induction head of the demo model: at a token that was there before, it looks at what followed it.
"""

import sys

from matplotlib.figure import Figure

import pattern_lens as pl

HEAD = "L1H0"
BEGINS = "zq xv kw pj"


def main(path: str, picture: str) -> None:
    """Draw `HEAD` on the prompt that begins with `BEGINS`."""
    patterns = pl.open_patterns(path)
    prompts = patterns.prompts
    prompt_hash = prompts.index[prompts.text.str.startswith(BEGINS)][0]
    pattern = patterns.sel(head=HEAD)[prompt_hash]  # DataArray (query, key), nothing read yet

    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(pattern.values, cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(image, label="attention probability")
    axes.set_xticks(pattern["key"], pattern.key_token.values, rotation=90)
    axes.set_yticks(pattern["query"], pattern.query_token.values)
    axes.set(xlabel="key (looked at)", ylabel="query (looks)", title=f"{HEAD} of {pattern.model}")
    figure.savefig(picture, dpi=100)
    print(f"{HEAD} on {prompts.text[prompt_hash][:40]!r} drawn to {picture}")


if __name__ == "__main__":
    main(*sys.argv[1:])
