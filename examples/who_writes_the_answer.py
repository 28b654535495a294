"""Find the heads that write the repeated token: how much each adds to its logit, beside its induction score.

    python examples/who_writes_the_answer.py answer.png
    python examples/who_writes_the_answer.py answer.png mine.h5

Without a file the bundled model runs on the bundled prompts that repeat themselves; the rest needs no model. The answer to
a prompt is the token that followed its last token the time before.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import pattern_lens as pl
from pattern_lens.demo import model_path, prompts_path
from pattern_lens.measures import induction_score


def captured(path: Path) -> Path:
    """Patterns, and what taking the residual stream apart needs, of the prompts that repeat themselves."""
    prompts = [json.loads(line) for line in prompts_path().read_text("utf-8").splitlines()]
    repeated = [prompt for prompt in prompts if prompt["meta"]["kind"] == "repetition"]
    names = ["pattern", "residual"]
    pl.capture(model_path(), repeated, path, names=names, weights="compatibility", progress=False)
    return path


def answers(run: pl.Run) -> dict[str, str]:
    """The token that followed the last one before, by prompt."""
    found = {}
    for prompt_hash, pattern in run.patterns.items():
        tokens = pattern.key_token.values.tolist()
        before = [i for i, token in enumerate(tokens[:-1]) if token == tokens[-1]]
        if before:
            found[prompt_hash] = tokens[before[-1] + 1]
    return found


def main(picture: str, file: str | None = None) -> None:
    """Attribute the answers' logits to heads, and compare with the induction scores."""
    with TemporaryDirectory() as folder:
        run = pl.open_run(file or captured(Path(folder) / "repetition.h5"))
        said = answers(run)
        found = run.direct_logit_attribution(list(said), said, unit="head")
        scores = run.patterns.map(induction_score, progress=False).mean("prompt")

        heads = found.scores.isel(component=found.scores["head"] >= 0).mean("prompt")
        both = scores.sel(layer=heads["layer"], head=heads["head"])
        for head in heads.sortby(heads, ascending=False)["component"].values[:5]:
            wrote, score = float(heads.sel(component=head)), float(both.sel(component=head))
            print(
                f"{head} adds {wrote:+.2f} to the logit of the repeated token, induction {score:.2f}"
            )
        agreement = np.corrcoef(heads.values, both.values)[0, 1]
        print(f"{len(said)} prompts, {heads.size} heads: correlation of the two {agreement:.2f}")
        print(f"closure error {float(found.closure_error.max()):.0e}")

        plot = pl.plot_attribution(found, title="logit of the repeated token")
        print(f"drawn to {plot.save(picture)}")
        run.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
