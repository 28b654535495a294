"""What an import did, in numbers and words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pattern_lens.wording import counted, human_size

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Skipped:
    """A file of the folder that was not imported.

    Parameters
    ----------
    file
        Its path below the data folder.
    reason
        What is wrong with it, in words.
    """

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass
class Figures:
    """Figure files of a model's folder.

    Attributes
    ----------
    n_stored, n_failures
        Figures, and failures of figures, stored by this run.
    n_present
        Those that were in the file before.
    n_raw
        Files of `raw`, which is drawn from the data instead.
    n_stale
        Failures left out because the figure is there.
    """

    n_stored: int = 0
    n_failures: int = 0
    n_present: int = 0
    n_raw: int = 0
    n_stale: int = 0


@dataclass(frozen=True)
class ImportReport:
    """What the import of one model did.

    Attributes
    ----------
    model, path
        Name of the model, and the file.
    n_stored, n_present
        Prompts imported by this run, and those that were whole in the file before.
    skipped
        What was not imported, with the reason.
    given_hashes
        Prompts whose hash is not that of their text: kept as it is.
    unknown_tokens
        Prompts whose listed tokens are not as many as their patterns have positions: their tokens count as unknown.
    notes
        What else is to be known.
    figures
        Counts of figure files.
    folder_bytes, file_bytes
        Size of the model's folder, and of the file.
    seconds
        Time that it took.
    """

    model: str
    path: Path
    n_stored: int
    n_present: int
    skipped: tuple[Skipped, ...] = ()
    given_hashes: tuple[str, ...] = ()
    unknown_tokens: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    figures: Figures = field(default_factory=Figures)
    folder_bytes: int = 0
    file_bytes: int = 0
    seconds: float = 0.0

    def summary(self) -> str:
        """One line for people."""
        parts = [f"{self.model}: {counted(self.n_stored, 'prompt')} imported into {self.path.name}"]
        if self.n_present:
            parts.append(f"{self.n_present:,} were there already")
        parts += self._figure_words()
        if self.skipped:
            parts.append(f"{counted(len(self.skipped), 'file')} skipped")
        sizes = f"{human_size(self.folder_bytes)} before, {human_size(self.file_bytes)} after"
        return f"{', '.join(parts)}; {sizes} ({self.seconds:.1f} s)"

    def _figure_words(self) -> list[str]:
        counts = self.figures
        words = {
            counted(counts.n_stored, "figure"): counts.n_stored,
            counted(counts.n_failures, "failed figure"): counts.n_failures,
            f"{counts.n_present:,} figures were there already": counts.n_present,
            f"{counts.n_raw:,} of raw not stored (drawn from the data)": counts.n_raw,
        }
        return [word for word, n in words.items() if n]
