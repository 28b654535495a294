"""Look at the heads of a model: pages that need neither Python nor the file.

    pattern-lens demo && python examples/look_at_heads.py demo.h5 pages

Open the pages in a browser: tap a tile of the mosaic to see that head large, point at a cell to read its number.
"""

import sys
from pathlib import Path

import pattern_lens as pl
from pattern_lens.measures import induction_score

BEGINS = "zq xv kw pj"


def main(path: str, folder: str) -> None:
    """Save a mosaic, the strongest induction head, its text, a comparison and a map of scores."""
    patterns = pl.open_patterns(path)
    prompts = patterns.prompts
    prompt_hash = prompts.index[prompts.text.str.startswith(BEGINS)][0]
    pattern = patterns[prompt_hash]  # DataArray (layer, head, query, key), nothing read yet

    scores = induction_score(pattern).compute()  # (layer, head)
    order = scores.stack(at=["layer", "head"]).sortby(lambda x: -x)
    first, second = (order[i].at.item() for i in (0, 1))
    best = pattern.sel(layer=first[0], head=first[1])

    plots = {
        "heads": pl.plot_heads(pattern, large=first),
        "pattern": pl.plot_pattern(best),
        "text": pl.plot_tokens(best),
        "comparison": pl.compare(best, pattern.sel(layer=second[0], head=second[1])),
        "scores": pl.plot_scores(scores),
    }
    Path(folder).mkdir(exist_ok=True)
    for name, plot in plots.items():
        saved = plot.save(Path(folder) / f"{name}.html")
        print(f"{saved}: {plot.title}")


if __name__ == "__main__":
    main(*sys.argv[1:])
