"""Capture a local model on prompts of your own, and read what was stored.

    python examples/capture_and_read.py [FOLDER]

The model is the bundled one, so this needs no network; any folder or hub name goes in its place.
"""

import sys
from pathlib import Path

import pattern_lens as pl
from pattern_lens.demo import model_path

PROMPTS = [
    "The old clock ticks. The old clock stops.",
    {"text": "one fish, two fish, one fish, two", "meta": {"kind": "repetition"}},
]


def main(folder: Path) -> None:
    """Capture into ``clock.h5`` in `folder`; run it twice, and nothing is computed twice."""
    path = folder / "clock.h5"
    report = pl.capture(model_path(), PROMPTS, path, names=("pattern", "resid_post"))
    print(report.summary())

    patterns = pl.open_patterns(path)  # lazy: nothing is read until it is asked for
    prompt_hash = pl.prompt_hash("The old clock ticks. The old clock stops.")
    pattern = patterns[prompt_hash]  # (layer, head, query, key), with the tokens along it
    tokens = [str(token) for token in pattern.query_token.values]
    print(dict(pattern.sizes), tokens[:4])

    last = pattern.sel(layer=0, head=7).isel(query=-1)
    print("the last token looks at", repr(tokens[int(last.argmax("key"))]))

    stream = pl.open_activations(path, "resid_post")[prompt_hash]  # (layer, pos, d_model)
    print("length of the residual stream:", (stream**2).sum("d_model").mean("pos").values.round(1))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
