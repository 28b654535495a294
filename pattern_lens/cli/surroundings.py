"""What surrounds a command: signals, the console that other libraries write on, a closed pipe.

Rule: a context manager here leaves everything as it found it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Never

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the block like Ctrl-C: what runs is finished, and files are closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(signum: int, frame: object) -> Never:  # noqa: ARG001
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def hushed_libraries(*, downloads: bool) -> Iterator[None]:
    """Keep Hugging Face's bars and warnings off the console, but for downloads, which take long."""
    hub, logging = map(import_module, ("huggingface_hub.utils", "transformers.utils.logging"))
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bars = not hub.are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if downloads and hub_bars:
        hub.enable_progress_bars()
    try:
        with warnings.catch_warnings():
            for library in ("transformers", "transformer_lens", "huggingface_hub", "torch"):
                warnings.filterwarnings("ignore", module=rf"{library}\b")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        (hub.enable_progress_bars if hub_bars else hub.disable_progress_bars)()


def let_go_of_stdout() -> None:
    """Send what is still to be printed nowhere, because its reader (such as ``head``) has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
