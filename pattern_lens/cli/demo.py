"""``pattern-lens demo``: what the bundled model's heads do, and what to try next."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pattern_lens.cli.output import DONE, print_json, print_table
from pattern_lens.cli.parser import add_command
from pattern_lens.cli.surroundings import hushed_libraries, sigterm_as_interrupt
from pattern_lens.wording import human_size

if TYPE_CHECKING:
    import argparse

    from pattern_lens.demo.run import DemoResult, HeadScore


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "demo",
        _run,
        summary="capture the bundled model, score and draw its heads, and say what to try next",
        epilog="""examples:
  pattern-lens demo                # writes ./demo.h5; needs no network
  pattern-lens demo -o other.h5""",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE.h5",
        default=Path("demo.h5"),
        help="the file to write to (default: demo.h5)",
    )


def _run(args: argparse.Namespace) -> int:
    with sigterm_as_interrupt(), hushed_libraries(downloads=False):
        from pattern_lens.demo.run import run_demo

        result = run_demo(args.output, progress=not args.quiet)
    if args.json:
        print_json(asdict(result))
    else:
        _print_result(result)
    return DONE


def _print_result(result: DemoResult) -> None:
    dense, stored = human_size(result.dense_bytes), human_size(result.stored_bytes)
    print(result.report.summary())
    print(
        f"{result.n_prompts} prompts, {result.n_tokens:,} tokens: {dense} of patterns in {stored}"
    )
    print()
    print_table(
        [
            ("kind of head", "a token attends to", "strongest, with mean attention"),
            ("previous-token", "the token before it", _scores(result.previous_token)),
            ("induction", "what followed it last time", _scores(result.induction)),
        ]
    )
    print("(induction: in the prompts that repeat themselves)")
    print(f"\nof the strongest of each kind, {result.drawn.summary()}")
    folder = result.report.path.parent
    print(f"\ntry next, in {'this folder' if folder == Path.cwd() else folder}:")
    for step in result.next_steps:
        print(f"  {step}")


def _scores(heads: tuple[HeadScore, ...]) -> str:
    return "  ".join(f"{head.head} {head.score:.2f}" for head in heads)
