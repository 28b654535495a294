"""pattern-lens 0.6.0 in an environment and a process of its own, where it is called, never copied."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

PEER_PATH: Final = Path(__file__).with_name(".work") / "peer"
_INSTALLED: Final = (("torch==2.13.0",), ("pattern-lens==0.6.0", "transformer-lens==3.9.0"))


def is_built() -> bool:
    """Whether the predecessor is installed, wholly."""
    return (PEER_PATH / "complete").exists()


def build_peer() -> None:
    """Install the predecessor into its own environment, unless it is there."""
    if is_built():
        return
    print(f"installing pattern-lens 0.6.0 into {PEER_PATH}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", PEER_PATH], check=True)
    for packages in _INSTALLED:  # torch first, as the build that this machine is set up for
        command = [_python(), "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(command, check=True)
    (PEER_PATH / "complete").touch()


def _python() -> Path:
    return PEER_PATH / "bin" / "python"


class Peer:
    """A process there, running a script of this folder: a line of JSON in, one sample, a line of JSON out.

    Parameters
    ----------
    script
        Name of the file.
    task
        The first line that it reads.
    surroundings
        Environment variables, beside those of this process.
    """

    def __init__(
        self, script: str, task: Mapping[str, Any], *, surroundings: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            # isolated, or it would import this checkout's pattern_lens
            [str(_python()), "-I", str(Path(__file__).with_name(script))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | dict(surroundings or {}),
        )
        self._say(task)

    def _say(self, what: Mapping[str, Any]) -> None:
        if self._process.stdin is None:
            raise RuntimeError("the predecessor's process has no standard input")
        self._process.stdin.write(f"{json.dumps(what)}\n")
        self._process.stdin.flush()

    def sample(self, what: Mapping[str, Any]) -> dict[str, Any]:
        """What one line of input gives: seconds, and bytes of memory at its peak."""
        self._say(what)
        for line in self._process.stdout or ():
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"the predecessor's process ended with {self._process.wait()}")

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=60)
        if self._process.stdout is not None:
            self._process.stdout.close()
