"""Messages over a pipe: kind (1 byte), size (8 bytes), bytes."""

from __future__ import annotations

import struct
from typing import IO, Final

READY: Final = b"+"
RESULT: Final = b"="
UNUSABLE: Final = b"!"
FUNCTION: Final = b"f"
ITEMS: Final = b"i"

_HEAD: Final = struct.Struct("<cQ")


def write_frame(pipe: IO[bytes], kind: bytes, *parts: bytes) -> None:
    """Send one message, its bytes in parts."""
    pipe.write(_HEAD.pack(kind, sum(map(len, parts))))
    for part in parts:
        pipe.write(part)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> tuple[bytes, bytes] | None:
    """Kind and bytes of the next message; None where the other side has gone."""
    head = pipe.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    kind, size = _HEAD.unpack(head)
    data = pipe.read(size)
    return None if len(data) < size else (kind, data)
