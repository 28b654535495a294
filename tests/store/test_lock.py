"""One writer a file."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pattern_lens.errors import FileNotWritableError, WriterActiveError
from pattern_lens.store.lock import WriterLock, is_writer_alive, sidecar

HOLD = "import sys; from pathlib import Path; from pattern_lens.store.lock import WriterLock; lock = WriterLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some file.h5"


@pytest.fixture
def holder(path):
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_second_writer_in_the_same_process(path):
    lock = WriterLock(path)
    with pytest.raises(
        WriterActiveError, match=f"process {os.getpid()} on .* is writing to it; wait until it ends"
    ):
        WriterLock(path)
    lock.release()
    WriterLock(path).release()


def test_second_writer_in_another_process(path, holder):
    assert is_writer_alive(path)
    with pytest.raises(
        WriterActiveError, match=f"cannot write to .*some file.h5: process {holder.pid} on "
    ):
        WriterLock(path)


def test_the_note_survives_those_who_look(path, holder):
    for _ in range(2):
        assert is_writer_alive(path)
        with pytest.raises(BlockingIOError, match=f"process {holder.pid} on "):
            WriterLock(path)


def test_a_dead_writer_holds_nothing(path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_writer_alive(path)
    WriterLock(path).release()


def test_unreadable_note(path):
    lock = WriterLock(path)
    sidecar(path, "lock").write_text("{half")
    with pytest.raises(WriterActiveError, match="another process is writing to it"):
        WriterLock(path)
    lock.release()


def test_looking_never_keeps_a_writer_out(path):
    WriterLock(path).release()
    over = threading.Event()

    def look():
        while not over.is_set():
            is_writer_alive(path)

    thread = threading.Thread(target=look)
    thread.start()
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        WriterLock(path).release()
    over.set()
    thread.join()


def test_no_writer_and_no_lock_file(path):
    assert not is_writer_alive(path)
    assert not sidecar(path, "lock").exists()


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotWritableError, match=r"there is no folder .*absent"):
        WriterLock(tmp_path / "absent" / "file.h5")
