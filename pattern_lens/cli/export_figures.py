"""``pattern-lens export-figures``: figures as files, in the folder tree of pattern-lens 0.6."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pattern_lens.cli.output import DONE, FAILED, complain, print_json
from pattern_lens.cli.parser import add_command, add_file, listed
from pattern_lens.cli.surroundings import sigterm_as_interrupt

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "export-figures",
        _run,
        summary="write figures as files, in the folders of pattern-lens 0.6",
        epilog="""examples:
  pattern-lens export-figures gpt2.h5
  pattern-lens export-figures gpt2.h5 -o site --figures 'svd*,raw'
  pattern-lens export-figures gpt2.h5 --prompts=-iwFxWSKCb8kbLfQC7p4x9

A hash may begin with '-': write '=' before the hashes. What is there is not
written again, so the same command goes on where an earlier one stopped.""",
    )
    add_file(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        default=Path("attn_data"),
        help="the data folder, which may hold other models (default: attn_data)",
    )
    parser.add_argument(
        "--figures",
        type=listed,
        metavar="NAMES",
        help="names or globs between commas (default: all stored figures, and raw)",
    )
    parser.add_argument(
        "--prompts",
        type=listed,
        metavar="HASHES",
        help="hashes of prompts between commas (default: all)",
    )
    parser.add_argument(
        "--no-raw", action="store_true", help="draw no raw.png, unless --figures names it"
    )
    parser.add_argument("--force", action="store_true", help="write figures again that are there")


def _run(args: argparse.Namespace) -> int:
    from pattern_lens.figures.export import export_figures

    with sigterm_as_interrupt():
        report = export_figures(
            args.file,
            args.output,
            figures=args.figures,
            prompts=args.prompts,
            raw=not args.no_raw,
            force=args.force,
            progress=not args.quiet,
        )
    if args.json:
        print_json(asdict(report))
    else:
        print(report.summary())
    for what in report.damaged:
        complain(what)
    return FAILED if report.damaged else DONE
