"""HoloViews elements -> Bokeh figures.

The rule: HoloViews is made ready once, when something is first drawn, and its global options stay as they are.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import holoviews as hv


def ready() -> None:
    """Load HoloViews' Bokeh backend, unless somebody did."""
    if "bokeh" not in hv.Store.loaded_backends():
        hv.extension("bokeh", logo=False)


def drawn(element: Any) -> Any:
    """A new Bokeh model of a HoloViews object."""
    ready()
    model = hv.render(element, backend="bokeh")
    model.sizing_mode = (
        None  # what HoloViews sets needs the size of the whole, which it does not say
    )
    return model


@cache
def script(name: str) -> str:
    """The text of one of our scripts."""
    return resources.files(__package__).joinpath("js", f"{name}.js").read_text("utf-8")
