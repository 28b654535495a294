"""``pattern-lens figures``: draw figures of every head of every prompt, and store them in the file."""

from __future__ import annotations

import sys
import warnings
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pattern_lens.cli.output import DONE, FAILED, complain, print_json, print_table
from pattern_lens.cli.parser import add_command, add_file, count, listed
from pattern_lens.cli.surroundings import sigterm_as_interrupt
from pattern_lens.errors import MapWarning

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "figures",
        _run,
        summary="draw figures of every head, and store them in the file",
        epilog="""examples:
  pattern-lens figures gpt2.h5
  pattern-lens figures gpt2.h5 --figures 'query*,mean*' --heads 'L5, L0-3H2'
  pattern-lens figures gpt2.h5 --from my_figures.py --workers 8
  pattern-lens figures gpt2.h5 --cluster tcp://10.0.0.1:8786
  pattern-lens figures gpt2.h5 --list

What is there is not drawn again, and what failed is tried again, so the same
command goes on where an earlier one stopped.""",
        usage="%(prog)s FILE [options]",
    )
    add_file(parser)
    _add_choice(parser)
    _add_where(parser)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is drawn").add_argument
    add(
        "--figures",
        type=listed,
        metavar="NAMES",
        help="names or globs of figure functions between commas (default: all that are registered)",
    )
    add(
        "--from",
        dest="source",
        metavar="MODULE",
        help="a .py file or module that registers figure functions; without --figures only its own are drawn",
    )
    add("--list", action="store_true", help="list the figure functions, and draw nothing")
    add("--prompts", type=listed, metavar="HASHES", help="hashes between commas (default: all)")
    add("--heads", metavar="HEADS", help="such as 'L0-3H2, L5' (default: all)")
    add("-f", "--force", action="store_true", help="draw again what is there")


def _add_where(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where it is drawn")
    one = group.add_mutually_exclusive_group()
    one.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes on this machine; 0 draws in this one (default: one a CPU, if it takes longer)",
    )
    one.add_argument("--cluster", metavar="ADDRESS", help="address of a dask scheduler")
    group.add_argument(
        "--timeout", type=count, metavar="SECONDS", help="longest that one call may take"
    )


def _run(args: argparse.Namespace) -> int:
    from pattern_lens.figures import figure_functions, select_figure_functions

    before = set(figure_functions())
    if args.source:
        _load(args.source)
    own = [name for name in figure_functions() if name not in before]
    chosen = select_figure_functions(args.figures or own or None)
    if args.list:
        _list(chosen, as_json=args.json)
        return DONE
    return _draw(args, chosen)


def _load(source: str) -> None:
    """Run a file, or import a module, that registers figure functions."""
    path = Path(source).expanduser()
    is_file = source.endswith(".py")
    if is_file and not path.is_file():
        raise FileNotFoundError(
            f"cannot read figure functions from {source}: there is no such file"
        )
    folder = str(path.resolve().parent) if is_file else str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import_module(path.stem if is_file else source)


def _list(chosen: Any, *, as_json: bool) -> None:
    from pattern_lens.figures import figure_records

    records = [record for entry in chosen for record in figure_records(entry)]
    if as_json:
        print_json(records)
        return
    rows = [("figure", "stored", "what it shows")]
    for record in records:
        shows = (record["doc"] or "").strip().partition("\n")[0]
        rows.append((record["name"], "yes" if record["stored"] else "drawn when seen", shows))
    print_table(rows)


def _draw(args: argparse.Namespace, chosen: Any) -> int:
    from pattern_lens.figures.run import map_figures

    with sigterm_as_interrupt(), warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)  # said below
        report = map_figures(
            args.file,
            chosen,
            client=args.cluster,
            n_workers=args.workers,
            force=args.force,
            prompts=args.prompts,
            heads=args.heads,
            timeout_seconds=args.timeout,
            progress=not args.quiet,
        )
    if args.json:
        print_json(asdict(report))
    else:
        print(report.summary())
    for what in report.failures:
        complain(what)
    if report.n_failed > len(report.failures):
        complain(
            f"and {report.n_failed - len(report.failures):,} more; open_run(FILE).failures has all"
        )
    return FAILED if report.n_failed else DONE
