"""Worker processes from the side that drives them.

The rule: an item that takes too long, or that ends its process, costs that item only. A process is
watched and killed from outside, so that no code of an item can keep it alive.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from threading import Lock, Timer
from typing import IO, TYPE_CHECKING, Final

from pattern_lens.errors import FunctionNotSentError, WorkerStartError
from pattern_lens.mapping.child import sent
from pattern_lens.mapping.frames import (
    FUNCTION,
    ITEMS,
    READY,
    UNUSABLE,
    read_frame,
    write_frame,
)
from pattern_lens.mapping.outcomes import ItemFailure
from pattern_lens.mapping.sending import unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SURROUNDINGS: Final = {
    **dict.fromkeys(
        (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "BLIS_NUM_THREADS",
            "VECLIB_MAXIMUM_THREADS",
            "NUMEXPR_NUM_THREADS",
        ),
        "1",
    ),
    "MPLBACKEND": "Agg",
}
"""Environment variables of every worker process."""

_CODE: Final = (
    "import sys; sys.path[:] = {path!r}; from pattern_lens.mapping.child import main; main()"
)


class _TookTooLongError(Exception):
    """An item is still not done when its time is over."""


class _EndedError(Exception):
    """A process ended in the middle of an item."""


class _ClosedError(Exception):
    """The crew was closed while a batch was computed."""


class Crew:
    """Worker processes of one run, as many as are asked of at once.

    Parameters
    ----------
    function
        The function, packed.
    timeout_seconds
        Longest that one item may take, the function's beginning of a batch included.
    """

    def __init__(self, function: bytes, *, timeout_seconds: float | None) -> None:
        self._function, self._timeout = function, timeout_seconds
        self._lock = Lock()
        self._all: set[_Child] = set()
        self._idle: list[_Child] = []
        self._is_closed = False

    def compute(self, items: bytes, *, n_items: int) -> list[bytes]:
        """Packed results of a packed batch, in order; fewer if the crew was closed meanwhile.

        An item whose process ended is tried twice.
        """
        results: list[bytes] = []
        ended_at = -1
        while len(results) < n_items:
            try:
                self._compute_on(items, range(len(results), n_items), results)
            except _TookTooLongError:
                results.append(sent(_took_too_long(self._timeout)))
            except _EndedError as ended:
                if ended_at == len(results):
                    results.append(sent(ItemFailure("ChildProcessError", str(ended))))
                ended_at = len(results)
            except _ClosedError:
                break
        return results

    def has_processes(self) -> bool:
        """Whether any process is left."""
        return any(child.is_alive() for child in list(self._all))

    def close(self) -> None:
        """End every process at once."""
        with self._lock:
            self._is_closed = True
            children = list(self._all)
        for child in children:
            child.kill()
        for child in children:
            self._end(child)

    def _compute_on(self, items: bytes, which: range, results: list[bytes]) -> None:
        child = self._take()
        try:
            results.extend(child.results(items, which, self._timeout))
        except BaseException:
            self._end(child)
            raise
        self._idle.append(child)

    def _take(self) -> _Child:
        while self._idle:
            with suppress(IndexError):  # another thread took it
                child = self._idle.pop()
                if child.is_alive():
                    return child
                self._end(child)
        with self._lock:
            if self._is_closed:
                raise _ClosedError
            child = _Child()
            self._all.add(child)
        try:
            child.begin(self._function)
        except BaseException:
            self._end(child)
            if self._is_closed:
                raise _ClosedError from None
            raise
        return child

    def _end(self, child: _Child) -> None:
        child.kill()
        child.release()
        self._all.discard(child)


class _Child:
    """One process and its pipes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, "-c", _CODE.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | SURROUNDINGS,
            start_new_session=True,  # Ctrl-C is for the process that drives it
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise WorkerStartError("a worker process was started without pipes")
        self._commands: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout

    def begin(self, function: bytes) -> None:
        """Hand over the function and wait until it is loaded."""
        try:
            self._ask(FUNCTION, function)
            kind, _ = self._answer()
        except _EndedError as ended:
            raise WorkerStartError(
                f"{ended} before it could begin; see what it wrote to stderr, and whether a module "
                "that the function needs can be imported in a process of its own"
            ) from None
        if kind != READY:
            raise WorkerStartError("a worker process answered out of turn")

    def results(self, items: bytes, which: range, timeout: float | None) -> Iterator[bytes]:
        """Packed results of some of a packed batch's items, as they come."""
        self._ask(ITEMS, which.start.to_bytes(8, "little"), items)
        for _ in which:
            limit = _Limit(timeout, self.kill)
            try:
                _, result = self._answer()
            except _EndedError:
                if limit.is_over:
                    raise _TookTooLongError from None
                raise
            finally:
                limit.cancel()
            yield result

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it and whatever it started."""
        if not self.is_alive():
            return
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def release(self) -> None:
        """Leave no zombie and no open pipe."""
        self._process.wait()
        for pipe in (self._commands, self._answers):
            with suppress(OSError):  # what could not be sent any more
                pipe.close()

    def _ask(self, kind: bytes, *parts: bytes) -> None:
        try:
            write_frame(self._commands, kind, *parts)
        except OSError:
            raise _EndedError(self._end()) from None

    def _answer(self) -> tuple[bytes, bytes]:
        frame = None
        with suppress(OSError, ValueError):  # closed by another thread
            frame = read_frame(self._answers)
        if frame is None:
            raise _EndedError(self._end())
        if frame[0] == UNUSABLE:
            failure = unpacked(frame[1])
            raise FunctionNotSentError(
                f"a worker process cannot load what it was sent: {failure.error}: {failure.message}; install what is "
                f"missing where the workers run\n{failure.traceback}"
            )
        return frame

    def _end(self) -> str:
        code = self._process.wait()
        if code < 0:
            with suppress(ValueError):
                return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"


class _Limit:
    """A time after which something is done, unless cancelled before."""

    def __init__(self, seconds: float | None, act: Callable[[], None]) -> None:
        self.is_over = False
        self._act = act
        self._timer = None if seconds is None else Timer(seconds, self._reached)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _reached(self) -> None:
        self.is_over = True
        self._act()


def _took_too_long(seconds: float | None) -> ItemFailure:
    return ItemFailure("TimeoutError", f"not done after {seconds:g} s; its process was ended")
