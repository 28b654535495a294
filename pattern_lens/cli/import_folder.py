"""``pattern-lens import``: take a data folder of pattern-lens 0.6 into files.

Rule: one model's error does not stop the next one; what was left out is listed with its reason.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.cli.output import DONE, FAILED, explain, print_json
from pattern_lens.cli.parser import add_command, listed
from pattern_lens.cli.surroundings import sigterm_as_interrupt
from pattern_lens.errors import PatternLensError
from pattern_lens.wording import counted

if TYPE_CHECKING:
    import argparse

    from pattern_lens.importing import ImportReport

_SHOWN: Final = 20


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "import",
        _run,
        summary="take a data folder of pattern-lens 0.6 or 0.8 into files",
        epilog="""examples:
  pattern-lens import attn_data              # attn_data/MODEL.h5 of each model
  pattern-lens import attn_data -m gpt2 -o gpt2.h5

Patterns, prompts and figures are taken over, every value is read back, and the
folder stays as it is. Stop it when you like: running the same command again
goes on. What cannot be imported is listed and makes the exit status 1.""",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the data folder")
    parser.add_argument(
        "-m", "--model", type=listed, help="models to import, between commas (default: all)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE.h5",
        help="the file to write to, for one model (default: DIR/MODEL.h5)",
    )


def _run(args: argparse.Namespace) -> int:
    with sigterm_as_interrupt():
        reports, is_whole = _import_all(args)
    if args.json:
        print_json([asdict(report) for report in reports])
    else:
        for report in reports:
            _print_report(report)
    return DONE if is_whole and not any(report.skipped for report in reports) else FAILED


def _import_all(args: argparse.Namespace) -> tuple[list[ImportReport], bool]:
    """Reports of the models that went well; of several, the errors of the others are explained."""
    from pattern_lens.importing import import_folder
    from pattern_lens.importing.run import plan

    names = [folder.name for folder, _ in plan(args.folder, args.output, args.model)]
    reports = []
    for name in names:
        try:
            reports += import_folder(
                args.folder, args.output, models=[name], progress=not args.quiet
            )
        except (PatternLensError, OSError) as err:
            if len(names) == 1:
                raise
            explain(err)
    return reports, len(reports) == len(names)


def _print_report(report: ImportReport) -> None:
    print(report.summary())
    _print_some("skipped", [str(one) for one in report.skipped])
    _print_some("hash that is not the text's, kept", report.given_hashes)
    _print_some("tokens not known", report.unknown_tokens)
    for note in report.notes:
        print(f"  {note}")
    if report.n_stored or report.n_present:
        print(f"  next: pattern-lens info '{report.path}'")
        print(f"        pattern-lens verify '{report.path}'")


def _print_some(what: str, items: list[str] | tuple[str, ...]) -> None:
    for item in items[:_SHOWN]:
        print(f"  {what}: {item}")
    if len(items) > _SHOWN:
        print(f"  and {counted(len(items) - _SHOWN, 'such line')} more; --json has all")
