"""What every plot function returns: it shows itself in a notebook, and saves itself."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pattern_lens.errors import PlotFormatError

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    import xarray as xr


@dataclass(frozen=True, eq=False, repr=False)
class Plot:
    """A plot of one of the ``plot_`` functions.

    Attributes
    ----------
    view
        The HoloViews object: lay it out beside others, change its options, use it live in a notebook.
    data
        What is shown, as labelled arrays in memory.
    title
        One line: what it is of.
    size
        Width and height that it takes on a page, in pixels.
    build
        Makes a new Bokeh model of it, with what a page can do without Python.
    """

    view: Any
    data: xr.Dataset
    title: str
    size: tuple[int, int]
    build: Callable[[], Any]

    def save(self, path: str | PathLike[str]) -> Path:
        """Write one self-contained file.

        Parameters
        ----------
        path
            Ends in ``.html`` (a page that works offline, hover and buttons included), ``.png`` or ``.svg`` (a picture;
            needs Chromium or Chrome on this machine).

        Returns
        -------
        The path.

        Raises
        ------
        PlotFormatError
            Another ending.
        BrowserMissingError
            A picture is asked for, and no browser is found or none draws it.
        """
        from pattern_lens.plots.pictures import picture

        path = Path(path)
        kind = path.suffix.lower()
        if kind == ".html":
            path.write_text(self.html(), "utf-8")
        elif kind in (".png", ".svg"):
            path.write_bytes(picture(self.build(), kind[1:]))
        else:
            raise PlotFormatError(
                f"cannot save a plot as {path.name!r}: expected a name that ends in .html, .png or .svg, "
                f"for example {path.stem + '.html'!r}"
            )
        return path

    def html(self) -> str:
        """The self-contained page that `save` writes."""
        from pattern_lens.plots.pages import page

        return page(self.build(), self.title)

    def _repr_html_(self) -> str:
        # in a frame of its own: works in every notebook, kept or exported, and loads nothing
        width, height = self.size
        style = f"width:100%;max-width:{width}px;height:{height}px;border:0"
        return (
            f'<iframe title="{escape(self.title)}" sandbox="allow-scripts allow-downloads" '
            f'style="{style}" srcdoc="{escape(self.html())}"></iframe>'
        )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{dim}: {n}" for dim, n in self.data.sizes.items())
        return f"<Plot {self.title!r} ({sizes}); .save('page.html') writes it, .view is the HoloViews object>"
