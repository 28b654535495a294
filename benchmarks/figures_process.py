"""Runs in the predecessor's environment: figures by pattern-lens 0.6.0 for each line of standard input.

Rule: calls its public functions, imports nothing of this repository but the figure functions that both
sides run. The first line is the task as JSON, each other one a sample.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from pattern_lens.attn_figure_funcs import register_attn_figure_func
from pattern_lens.figures import figures_main


def main() -> None:
    task = json.loads(sys.stdin.readline())
    register(task["functions"], Path(task["script"]))
    for line in sys.stdin:
        sample = json.loads(line)
        save_path = Path(sample["save_path"])
        if sample["is_fresh"]:
            for folder in save_path.glob("*/prompts/*/L*"):
                shutil.rmtree(folder)
        held = reset_peak()
        started = time.perf_counter()
        figures_main(
            model_name=task["model_name"],
            save_path=save_path,
            n_samples=sample["n_prompts"],
            force=False,
            figure_funcs_select=sample["function"],
            parallel=sample["is_parallel"],
        )
        took = time.perf_counter() - started
        found = list(save_path.glob(f"*/prompts/*/L*/H*/{sample['function']}.*"))
        if len(found) != sample["n_figures"] or any(".error." in one.name for one in found):
            raise AssertionError(f"{len(found)} of {sample['n_figures']} figures, {found[:1]}")
        print(json.dumps({"seconds": took, "peak_bytes": status_bytes("VmHWM") - held}), flush=True)


def register(names: list[str], script: Path) -> None:
    """Load the functions as a module that worker processes know as well."""
    spec = spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"cannot load {script}")
    module = sys.modules[script.stem] = module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in names:
        register_attn_figure_func(getattr(module, name))


def reset_peak() -> int:
    """Begin a new peak of memory; returns the bytes held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return status_bytes("VmRSS")


def status_bytes(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
