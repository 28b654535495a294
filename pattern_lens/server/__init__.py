"""The web application: answers made from files, a server for them, and exports that need none.

The rule: what an address of docs/web.md answers is made in one place (`resources`); the live server, an exported site
and an exported page hand out the same bytes. Only `app` and `running` know a web framework.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def main(path: str | Path | None = None, port: int = 8000) -> None:
    """Serve the files of a folder until Ctrl-C, as pattern-lens 0.6 did.

    Parameters
    ----------
    path
        The folder; by default the one that this process is in.
    """
    from pattern_lens.server.running import prepared

    with prepared([], folder=Path(path or "."), port=port) as server, suppress(KeyboardInterrupt):
        server.run(lambda: print(f"serving at {server.address} (Ctrl-C ends)", flush=True))  # noqa: T201
