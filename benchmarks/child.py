"""Run one side of one benchmark in this fresh process, and print its peak memory as JSON.

Imports and inputs are there before the side begins, so the peak is what the side itself needs.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

from benchmarks.measure import peak_above, reset_peak


def main(module: str, name: str, size: str, folder: str) -> None:
    benchmark = import_module(f"benchmarks.{module}")
    side = benchmark.sides(benchmark.Size(**json.loads(size)), Path(folder))[name]
    held = reset_peak()
    side()
    print(json.dumps({"peak_bytes": peak_above(held)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
