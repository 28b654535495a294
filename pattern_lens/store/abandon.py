"""Let go of an HDF5 file that can no longer be written, leaving on disk what a crash here would leave.

When a write fails, HDF5 keeps the unwritten metadata, refuses to close the file, and would write it later: over
what another writer has stored since. So its file descriptor is pointed at memory first; from then on nothing
reaches the file, and closing succeeds.
"""

from __future__ import annotations

import os
import resource
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py


@contextmanager
def diverted(file: h5py.File) -> Iterator[None]:
    """What HDF5 writes to `file` from now on, and what it reads, is memory.

    Within the block the caller closes every handle of this process on it: closing a reader's writes too.
    """
    if not file.id.valid:
        yield
        return
    descriptor = file.id.get_vfd_handle()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits[1], limits[1]))  # it holds for memory too
    try:
        nowhere = _memory_file(os.fstat(descriptor).st_size)
        os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _memory_file(size_bytes: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pattern-lens-abandoned")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size_bytes)
    return descriptor
