"""One self-contained page of a Bokeh model.

The rules: everything that the page loads is inside it; no text of the model's becomes markup.
"""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Any, Final

from bokeh.embed import components
from bokeh.models import Widget
from bokeh.resources import Resources

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>body {{ margin: 8px; background: white; color: #222; font-family: system-ui, sans-serif; }}</style>
{library}
</head>
<body>
{place}
{drawing}
{script}
</body>
</html>
"""


def page(model: Any, title: str, *, script: str = "") -> str:
    """HTML of a page that shows a model.

    Parameters
    ----------
    script
        Runs when the page is shown.
    """
    drawing, place = components(model)
    return _PAGE.format(
        title=escape(title),
        library=_library(has_widgets=any(model.select({"type": Widget}))),
        place=place,
        drawing=drawing,
        script=f"<script>{script}</script>" if script else "",
    )


@cache
def _library(*, has_widgets: bool) -> str:
    """Bokeh's own scripts, and not those of whatever else is loaded: panel's ask a server for more."""
    names = ["bokeh", "bokeh-widgets"] if has_widgets else ["bokeh"]
    texts = Resources(mode="inline", components=names).js_raw
    return "\n".join(f"<script>\n{text}\n</script>" for text in texts)
