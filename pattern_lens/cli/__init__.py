"""The command ``pattern-lens``: parse, call one library function, report.

Rule: nothing heavy is imported before a command runs; what a command computes is in the library.
A command is one file here, named in `parser.COMMANDS`. Exit status 0: done; 1: some items failed;
2: wrong use; 130 and 143: ended by Ctrl-C or SIGTERM; 141: nobody reads the answer any more.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pattern_lens.cli.output import (
    INTERRUPTED,
    PIPE_CLOSED,
    TERMINATED,
    WRONG_USE,
    complain,
    explain,
)
from pattern_lens.cli.parser import parse
from pattern_lens.cli.surroundings import Terminated, let_go_of_stdout
from pattern_lens.errors import PatternLensError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        Arguments after the program's name; those of this process by default.

    Returns
    -------
    The exit status.
    """
    args = parse(argv)
    try:
        status = int(args.run(args))
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        complain("; ".join(["interrupted", *getattr(stop, "__notes__", [])]))
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except BrokenPipeError:
        let_go_of_stdout()
        return PIPE_CLOSED
    except (PatternLensError, OSError, ModuleNotFoundError) as err:
        if args.traceback or os.environ.get("PATTERN_LENS_TRACEBACK"):
            raise
        explain(err)
        return WRONG_USE
    return status
