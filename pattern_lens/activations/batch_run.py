"""Batches of prompts, run and stored: while one runs, the one before is written.

A batch that does not fit into memory is run in halves, and those after it are as small.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pattern_lens.activations.batches import BatchPlan, TokenizedPrompt, budget_bytes
from pattern_lens.activations.forward import pad_right, run_hooks
from pattern_lens.activations.gather import BatchBuffer, places
from pattern_lens.store.codec import give_way
from pattern_lens.store.prompt_table import PromptRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tqdm import tqdm

    from pattern_lens.activations.hooks import HookGroup
    from pattern_lens.models import CaptureModel
    from pattern_lens.store.layout import ArrayLayout
    from pattern_lens.store.writer import StoreWriter

_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


@dataclass(frozen=True)
class BatchRun:
    """A model and what is recorded of it.

    Parameters
    ----------
    batch_size
        Most prompts in one forward pass and one commit.
    """

    model: CaptureModel
    groups: Sequence[HookGroup]
    batch_size: int

    @property
    def is_on_cpu(self) -> bool:
        """Whether the model's threads run on the cores that store."""
        # Torch's threads wait for each other: one that is kept from its core stops them all.
        return bool(self.model.device.type == "cpu")

    def store(
        self,
        writer: StoreWriter,
        prompts: Sequence[TokenizedPrompt],
        layouts: Mapping[str, ArrayLayout],
        stored: list[TokenizedPrompt],
        bar: tqdm[Any],
    ) -> dict[str, str]:
        """Run the batches; while one runs, the one before is written and added to `stored`."""
        plan = BatchPlan(
            prompts,
            list(layouts.values()),
            batch_size=self.batch_size,
            n_heads=int(self.model.model.cfg.n_heads),
            budget_bytes=budget_bytes(self.model.device),
            equal_lengths=_padding_changes_values(self.model),
        )
        failures: dict[str, str] = {}
        writing: Future[None] | None = None
        start = give_way if self.is_on_cpu else None
        with ThreadPoolExecutor(1, "pattern-lens-writer", initializer=start) as background:
            for batch in plan:
                for part, buffer in self._run(batch, layouts, plan, failures):
                    if writing is not None:
                        writing.result()
                    writing = background.submit(_commit, writer, part, buffer, stored, bar)
            if writing is not None:
                writing.result()
        bar.update(len(failures))
        return failures

    def _run(
        self,
        batch: Sequence[TokenizedPrompt],
        layouts: Mapping[str, ArrayLayout],
        plan: BatchPlan,
        failures: dict[str, str],
    ) -> Iterator[tuple[Sequence[TokenizedPrompt], BatchBuffer]]:
        """The values of a batch; of its halves where memory runs out."""
        try:
            buffer = self._forward(batch, layouts)
        except (MemoryError, RuntimeError) as err:
            if not is_out_of_memory(err):
                raise
            _give_memory_back(self.model)
            if len(batch) == 1:
                failures[batch[0].prompt.hash] = (
                    f"out of memory with {len(batch[0].ids)} tokens: {err}"
                )
                return
            plan.halve()
        else:
            yield batch, buffer
            return
        half = len(batch) // 2
        yield from self._run(batch[:half], layouts, plan, failures)
        yield from self._run(batch[half:], layouts, plan, failures)

    def _forward(
        self, batch: Sequence[TokenizedPrompt], layouts: Mapping[str, ArrayLayout]
    ) -> BatchBuffer:
        groups = [group for group in self.groups if group.name in layouts]
        recorded = places(groups, layouts)
        rows = [one.ids for one in batch]
        tokens, mask = pad_right(rows, masked=not self.model.causal)
        lengths = [len(row) for row in rows]
        buffer = BatchBuffer(layouts, lengths, recorded)
        run_hooks(self.model, tokens, recorded, buffer.sink, attention_mask=mask, lengths=lengths)
        return buffer


def _commit(
    writer: StoreWriter,
    batch: Sequence[TokenizedPrompt],
    buffer: BatchBuffer,
    stored: list[TokenizedPrompt],
    bar: tqdm[Any],
) -> None:
    writer.commit([record_of(one) for one in batch], buffer.blocks())
    stored.extend(batch)
    bar.set_postfix(n_ctx=len(batch[0].ids), refresh=False)
    bar.update(len(batch))


def record_of(one: TokenizedPrompt) -> PromptRecord:
    """A prompt as it is stored."""
    return PromptRecord(
        hash=one.prompt.hash,
        text=one.prompt.text,
        token_ids=one.ids,
        meta=one.prompt.meta,
        truncated=one.truncated,
        bos=one.bos,
    )


def is_out_of_memory(err: BaseException) -> bool:
    """Whether an error of torch or Python says that memory ran out."""
    text = str(err).lower()
    return (
        isinstance(err, MemoryError) or "out of memory" in text or "can't allocate memory" in text
    )


def _give_memory_back(model: CaptureModel) -> None:
    import gc

    gc.collect()
    if model.device.type == "cuda":
        import torch

        torch.cuda.empty_cache()


def _padding_changes_values(model: CaptureModel) -> bool:
    """Whether rotary frequencies depend on the longest row of a batch."""
    config = getattr(getattr(model.model, "original_model", None), "config", None)
    scaling = getattr(config, "rope_scaling", None) or {}
    kind = scaling.get("rope_type", scaling.get("type")) if isinstance(scaling, dict) else None
    return kind in _LENGTH_DEPENDENT_ROPE
