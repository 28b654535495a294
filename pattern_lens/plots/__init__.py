"""Plots of patterns and results: HoloViews draws them, Bokeh shows them, a saved page needs neither.

The rules: what a page can do, it does without Python and without a network; text of tokens is data, never markup.
"""

from __future__ import annotations

from importlib.util import find_spec

from pattern_lens.errors import PlotsMissingError

for _name in ("bokeh", "holoviews"):
    if find_spec(_name) is None:
        raise PlotsMissingError(
            f"cannot plot: {_name} is not installed; run: pip install 'pattern-lens[plots]'",
            name=_name,
        )
