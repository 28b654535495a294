"""``python -m pattern_lens`` is the command ``pattern-lens``."""

import sys

from pattern_lens.cli import main

if __name__ == "__main__":
    sys.exit(main())
