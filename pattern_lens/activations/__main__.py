"""``python -m pattern_lens.activations``: capture patterns with the flags of pattern-lens 0.6."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pattern_lens.consts import DATA_DIR
from pattern_lens.each_model import each_model

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Capture for each model; returns the exit status, 1 where a model or a prompt failed."""
    options = vars(_parser().parse_args(argv))
    return each_model(options.pop("model"), lambda model: _capture(model, options), _say)


def _capture(model: str, options: dict[str, object]) -> int:
    from pattern_lens.activations.predecessor import activations_main

    report = activations_main(model, **options)  # type: ignore[arg-type]
    print(report.summary())  # noqa: T201
    for prompt, why in report.failures.items():
        _say(f"{prompt}: {why}")
    return int(bool(report.failures))


def _say(what: str) -> None:
    print(f"pattern_lens.activations: {what}", file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pattern_lens.activations",
        description="Capture attention patterns with the flags of pattern-lens 0.6, into SAVE_PATH/MODEL.h5. "
        "'pattern-lens capture' can do more.",
    )
    add = parser.add_argument
    add("--model", "-m", required=True, help="hub names or folders, between commas")
    add("--prompts", "-p", dest="prompts_path", help="a .jsonl, .jsonl.gz or .txt file")
    add("--save-path", "-s", default=DATA_DIR, help=f"folder of the files (default: {DATA_DIR})")
    add("--min-chars", type=int, default=100, help="leave out shorter prompts (default: 100)")
    add("--max-chars", type=int, default=1000, help="split longer prompts (default: 1000)")
    add("--n-samples", "-n", type=int, help="use so many prompts (default: all)")
    add("--batch-size", "-b", type=int, default=32, help="prompts at a time (default: 32)")
    add("--force", "-f", action="store_true", help="compute again what is stored")
    add("--shuffle", action="store_true", help="take the prompts in another order")
    add("--device", help="cpu, cuda, ... (default: cuda where there is one)")
    for flag in ("--no-index-html", "--stacked-heads"):
        add(flag, action="store_true", help="accepted, not needed any more")
    add("--raw-prompts", "-r", action="store_true", help="accepted, not needed any more")
    add("--compress-level", type=int, help="accepted, not needed any more")
    return parser


if __name__ == "__main__":
    sys.exit(main())
