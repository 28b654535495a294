"""The seam between a run and where it runs."""

from __future__ import annotations

from typing import Protocol, TypeAlias

Computed: TypeAlias = tuple[int, list[bytes] | None]
"""Key of a batch, and its packed results.

None where it ended every worker it was tried on; fewer than items where a worker was told to end meanwhile.
"""


class Workers(Protocol):
    """Takes packed batches, gives back packed results in order of completion."""

    def n_workers(self) -> int:
        """Batches that are computed at the same time."""

    def submit(self, key: int, items: bytes, *, n_items: int) -> None:
        """Have a batch computed."""

    def next_done(self) -> Computed:
        """Wait for a batch."""

    def close(self) -> None:
        """Stop what is still computed, and leave nothing behind."""
