"""A function over batches of items: in this process, on worker processes of this machine, or on dask.

The rule: nothing here knows what items and results are. Workers compute in processes of
their own, which are watched from outside, so that an item that raises, hangs or crashes costs that item only. Importing this loads neither dask nor cloudpickle.
"""

from __future__ import annotations

from pattern_lens.mapping.kept import workers_kept
from pattern_lens.mapping.outcomes import BatchOutcome, ItemFailure
from pattern_lens.mapping.run import run_batches

__all__ = ["BatchOutcome", "ItemFailure", "run_batches", "workers_kept"]
