"""``python -m pattern_lens.server``: look at files in a browser, with the flags of pattern-lens 0.6."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pattern_lens.errors import PatternLensError
from pattern_lens.server.running import HOST, PORT, prepared, warning_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_NEEDLESS: Final = (
    "--rewrite-index is not needed any more: the pages come from the package, and are never written"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; returns the exit status."""
    args = _parser().parse_args(argv)
    if args.rewrite_index:
        _say(_NEEDLESS)
    folder = args.path if args.path or args.files else Path()
    try:
        server = prepared(args.files, folder=folder, host=args.host, port=args.port)
    except (PatternLensError, OSError) as err:
        _say(f"error: {err}")
        return 2
    except ModuleNotFoundError as err:
        _say(f"error: {err.name} is not installed; run: pip install 'pattern-lens[web]'")
        return 2
    warning = warning_of(args.host)
    if warning:
        _say(f"warning: {warning}")
    with server, suppress(KeyboardInterrupt):
        server.run(lambda: print(f"serving at {server.address} (Ctrl-C ends)", flush=True))  # noqa: T201
    return 0


def _say(what: str) -> None:
    print(f"pattern_lens.server: {what}", file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pattern_lens.server",
        description="Look at files in a browser, with the flags of pattern-lens 0.6. 'pattern-lens serve' can do more.",
    )
    add = parser.add_argument
    add("files", nargs="*", type=Path, metavar="FILE", help="files that capture wrote")
    add("--path", type=Path, help="serve every file in this folder (default: this one)")
    add("--host", default=HOST, help=f"what to answer on (default: {HOST}, this machine alone)")
    add("--port", type=int, default=PORT, help=f"0 for one that is free (default: {PORT})")
    add("--rewrite-index", action="store_true", help="does nothing; understood for old commands")
    return parser


if __name__ == "__main__":
    sys.exit(main())
