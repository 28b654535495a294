"""Import path of pattern-lens 0.6 for its pages beside the data."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.consts import DATA_DIR
from pattern_lens.figures.saving import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

__all__ = ["write_html_index"]

_MARK: Final = "<!-- written by pattern_lens -->"


def write_html_index(
    path: str | PathLike[str] = DATA_DIR,
    cfg_single: Mapping[str, Any] | None = None,
    cfg_patternlens: Mapping[str, Any] | None = None,
) -> None:
    """Write ``index.html`` and ``single.html`` beside the data of pattern-lens 0.6's calls.

    The application itself is served from the package now, and reads the files as they are; these two pages say how to
    open it. For a folder that any web host can serve, use `export_site`.

    Parameters
    ----------
    path
        The data folder; made if it is not there.
    cfg_single, cfg_patternlens
        Settings of the pages of pattern-lens 0.6, which the application does not need; kept as ``sg_cfg.json`` and
        ``pl_cfg.json`` for tools that read them.
    """
    folder = Path(path).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    page = _page(folder)
    for name in ("index.html", "single.html"):
        if _may_write(folder / name):
            write_whole(folder / name, page)
    for name, config in (("sg_cfg.json", cfg_single), ("pl_cfg.json", cfg_patternlens)):
        if config is not None:
            write_whole(folder / name, json.dumps(dict(config), indent="\t").encode() + b"\n")


def _may_write(path: Path) -> bool:
    """Whether a page is not there, or is one of ours: a site that was exported here stays."""
    return not path.exists() or _MARK.encode() in path.read_bytes()


def _page(folder: Path) -> bytes:
    files = sorted(one.name for one in folder.glob("*.h5"))
    items = "".join(f"<li>{escape(name)}</li>" for name in files)
    listed = f"<p>The files:</p><ul>{items}</ul>" if files else "<p>There is no file yet.</p>"
    return f"""<!doctype html>
{_MARK}
<html lang="en">
<meta charset="utf-8">
<title>pattern-lens</title>
<body>
<h1>Attention patterns</h1>
<p>To look at the files in this folder, run here</p>
<pre>python -m pattern_lens.server --path .</pre>
<p>For a folder that any web host can serve, or one page to send, run</p>
<pre>pattern-lens export-site FILE site
pattern-lens export-html FILE --prompts HASH -o page.html</pre>
{listed}
</body>
</html>
""".encode()
