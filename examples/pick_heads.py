"""Pick heads by a score of your own, written with numpy, over every prompt of a file.

    pattern-lens demo && python examples/pick_heads.py demo.h5

The score here: how much of its attention a head gives to the token before.
"""

import sys

import numpy as np

import pattern_lens as pl


def previous_token_score(pattern: np.ndarray) -> np.ndarray:
    """Mean attention to the token before, dims (layer, head), of one prompt."""
    return np.diagonal(pattern, offset=-1, axis1=-2, axis2=-1).mean(axis=-1)


def main(path: str) -> None:
    """Print the five best heads of the file, and where the best one scores least."""
    patterns = pl.open_patterns(path)
    # One prompt at a time: the file may be larger than the memory.
    scores = np.stack([previous_token_score(pattern.values) for pattern in patterns.values()])
    mean = scores.mean(axis=0)
    best = np.argsort(mean, axis=None)[::-1][:5]
    heads = [divmod(int(i), mean.shape[1]) for i in best]
    for layer, head in heads:
        print(f"L{layer}H{head}  {mean[layer, head]:.2f}")

    layer, head = heads[0]
    prompt_hash = list(patterns)[int(scores[:, layer, head].argmin())]
    text = patterns.prompts.text[prompt_hash]
    print(f"L{layer}H{head} scores least on {text[:50]!r}")


if __name__ == "__main__":
    main(sys.argv[1])
