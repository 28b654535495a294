"""Data folders of pattern-lens 0.6 and 0.8 -> files.

The rule: a file of the folder is stored whole and read back, or listed with the reason; nothing of the folder is
changed, and no file in it is trusted to be what it says.
"""

from __future__ import annotations

from pattern_lens.importing.report import ImportReport
from pattern_lens.importing.run import import_folder

__all__ = ["ImportReport", "import_folder"]
