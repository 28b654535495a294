"""What a run over figure functions did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pattern_lens.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class FigureReport:
    """What a run over figure functions did; a call is one function on one head of one prompt.

    Attributes
    ----------
    path
        The file.
    n_drawn, n_numbers
        Figures stored, and prompts of which numbers were stored.
    n_failed, n_present
        Figures that failed, and calls whose figures were there before.
    n_other_version
        Figures there that another version of their function drew; ``force=True`` draws them again.
    seconds
        Time that the run took.
    failures
        The first failures: ``svd_spectra of L3H5 of {hash}: ValueError: …``.
    not_stored
        Chosen functions whose figures are drawn when somebody looks.
    """

    path: Path
    n_drawn: int
    n_numbers: int
    n_failed: int
    n_present: int
    n_other_version: int
    seconds: float
    failures: Sequence[str] = ()
    not_stored: Sequence[str] = ()

    def summary(self) -> str:
        """One line for people, and one for each thing to know."""
        parts = [f"{counted(self.n_drawn, 'figure')} stored in {self.path.name}"]
        if self.n_numbers:
            parts.append(f"numbers of {counted(self.n_numbers, 'prompt')}")
        if self.n_present:
            parts.append(f"{self.n_present:,} were there already")
        if self.n_failed:
            parts.append(f"{self.n_failed:,} failed")
        lines = [f"{', '.join(parts)} ({self.seconds:.1f} s)"]
        if self.n_other_version:
            lines.append(
                f"{counted(self.n_other_version, 'figure')} of those there came from another version of the function; "
                "force draws them again"
            )
        if self.not_stored:
            lines.append(f"drawn when somebody looks, not stored: {', '.join(self.not_stored)}")
        return "\n".join(lines)
