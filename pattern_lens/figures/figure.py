"""One figure: its bytes, what it is of, and how it shows itself."""

from __future__ import annotations

import os
import zlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pattern_lens.errors import DamagedFileError, FigureFailedError
from pattern_lens.figures import show
from pattern_lens.figures.content import StoredContent
from pattern_lens.figures.saving import check_ending, file_name, write_whole
from pattern_lens.patterns.failures import FailureFacts, parse_failure
from pattern_lens.wording import human_size

if TYPE_CHECKING:
    from os import PathLike

    from pattern_lens.figures.content import Content
    from pattern_lens.figures.held import HeldFigures
    from pattern_lens.figures.places import Place

_NO_FAILURE: Final = FailureFacts("", "", "")


class StoredFigure:
    """One figure of a file, or the failure in its place; nothing is read before it is asked for.

    Attributes
    ----------
    name
        ``svd_spectra``, ``multi.first``.
    layer, head
        None for a figure of several.
    place
        The same, with the prompt's position in the prompt table.
    """

    def __init__(self, held: HeldFigures, name: str, place: Place, content: Content) -> None:
        self._held, self._content = held, content
        self.name = name
        self.place = place
        self.layer = place.layer
        self.head = place.head

    # --- what it is of -------------------------------------------------------------------------

    @property
    def prompt(self) -> str | None:
        """Hash of the prompt; None for a figure of all prompts."""
        return None if self.place.prompt is None else self._held.prompt(self.place.prompt)[0]

    @property
    def text(self) -> str | None:
        """Text of the prompt; None for a figure of all prompts."""
        return None if self.place.prompt is None else self._held.prompt(self.place.prompt)[1]

    @property
    def label(self) -> str:
        """``L3H5``; empty for a figure of several heads."""
        return self.place.label

    @property
    def title(self) -> str:
        """In words: ``svd_spectra L3H5 of 'C7p4x9-iwFxWSKCb8kbLfQ'``."""
        of = "all prompts" if self.prompt is None else repr(self.prompt)
        return " ".join(part for part in (self.name, self.label, "of", of) if part)

    @property
    def about(self) -> dict[str, Any]:
        """What else is known of figures like this one, such as the function that drew them."""
        return self._content.about

    # --- what it is ----------------------------------------------------------------------------

    @property
    def data(self) -> bytes:
        """The bytes of a file of this figure's format.

        Raises
        ------
        FigureFailedError
            There is none, because its function raised; the note is the traceback.
        DamagedFileError
            The bytes in the file are not what was written.
        """
        if self.is_failure:
            error = FigureFailedError(
                f"no figure {self.title}: its function raised {self.error}: {self.message}; mend the function and draw "
                "the figure again"
            )
            error.add_note(self.traceback)
            raise error
        return self._content.read()

    @property
    def is_stored(self) -> bool:
        """Whether the file holds it; if not, it is drawn when somebody looks."""
        return isinstance(self._content, StoredContent)

    @property
    def format(self) -> str:
        """Ending of a file of it: ``png``, ``svgz``, …; empty for a failure."""
        return self._content.format

    @property
    def is_failure(self) -> bool:
        """Whether there is a failure in its place."""
        return self._content.is_failure

    @cached_property
    def _failure(self) -> FailureFacts:
        return parse_failure(self._content.read()) if self.is_failure else _NO_FAILURE

    @property
    def error(self) -> str:
        """Type of the error where the function raised one: ``ValueError``; empty otherwise."""
        return self._failure.error

    @property
    def message(self) -> str:
        """What the error says; empty where there is none."""
        return self._failure.message

    @property
    def traceback(self) -> str:
        """The error's traceback from the function on; empty where there is none."""
        return self._failure.traceback

    # --- where it goes -------------------------------------------------------------------------

    @property
    def file_name(self) -> str:
        """A file name that no other figure of the file has: ``svd_spectra.L3H5.C7p4x9-iwFxWSKCb8kbLfQ.svgz``."""
        parts = (self.name, self.label, self.prompt or "", self.format)
        return ".".join(file_name(part) for part in parts if part)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the figure to a file; what is there is written over.

        Parameters
        ----------
        path
            A file, to which the ending is added where it has none, or a folder, in which the file gets the name of
            `file_name`. An ``svgz`` figure is unpacked if the path ends with ``.svg``.

        Returns
        -------
        The file.

        Raises
        ------
        FigureFailedError
            There is a failure in the figure's place.
        FigureFormatError
            The path has an ending of another format.
        """
        data, target = self.data, Path(path).expanduser()
        if target.is_dir() or os.fspath(path).endswith(("/", os.sep)):
            target = target / self.file_name
        elif not target.suffix:
            target = target.with_name(f"{target.name}.{self.format}")
        else:
            check_ending(target, self.format, *(["svg"] if self.format == "svgz" else []))
        if self.format == "svgz" and target.suffix.lower() == ".svg":
            data = show.unpacked(data, limit_bytes=None)
        if not target.parent.is_dir():
            raise FileNotFoundError(f"cannot save {target}: there is no folder {target.parent}")
        write_whole(target, data)
        return target

    # --- how it shows itself -------------------------------------------------------------------

    def __repr__(self) -> str:
        if self._held.is_closed:
            return f"<figure {self.name} {self.label} · closed>"
        if not self._content.is_at_hand:
            return f"<figure {self.title} · drawn when looked at>"
        if self.is_failure:
            return f"<figure {self.title} · failed: {show.one_line(self.error)}>"
        return f"<figure {self.title} · {self.format} · {human_size(self._content.size_bytes)}>"

    def _picture(self, *formats: str) -> bytes | None:
        """The bytes, where it is a figure of one of these formats that can be read."""
        try:
            return self.data if self.format in formats else None
        except DamagedFileError:
            return None  # said in HTML

    def _repr_png_(self) -> bytes | None:
        return self._picture("png")

    def _repr_jpeg_(self) -> bytes | None:
        return self._picture("jpg", "jpeg")

    def _repr_svg_(self) -> str | None:
        data = self._picture("svg", "svgz")
        try:
            text = data and show.svg_text(data, self.format)
        except (ValueError, zlib.error):
            return None  # said in HTML
        return text or None

    def _repr_html_(self) -> str | None:
        if self._held.is_closed:
            return show.note(repr(self))
        try:
            if self.is_failure:
                return show.failure(self.title, self._failure)
            return show.page(self.title, self.data, self.format)
        except DamagedFileError as err:
            return show.note(f"{self.title}: {err}")
