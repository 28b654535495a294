"""What ablated activations are set to: means, and values of other prompts.

Rule: means come from stored activations, or from prompts that are given for it; where there are neither it is an error,
never a zero.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pattern_lens.activations.forward import pad_right, run_hooks
from pattern_lens.errors import SpecificationError
from pattern_lens.names import KEY, POS, QUERY
from pattern_lens.store.reader import StoreReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from pattern_lens.activations.batches import TokenizedPrompt
    from pattern_lens.tracing.ablations import Ablation
    from pattern_lens.tracing.batch import Batch
    from pattern_lens.tracing.edits import Place
    from pattern_lens.tracing.forward_pass import Surroundings

_AT_ONCE: Final = 16


@dataclass(eq=False)
class Baselines:
    """Means and other prompts' values, computed when an ablation asks for them.

    Parameters
    ----------
    path
        File whose stored activations give means; None where there is none.
    given
        Prompts for means; those of the same number as the prompts that are traced are their partners, in order.
    prompts
        All prompts that are traced.
    seed
        Of the pairing, where no partners are given.
    """

    around: Surroundings
    path: Path | None
    given: Sequence[TokenizedPrompt] | None
    prompts: Sequence[TokenizedPrompt]
    seed: int = 0
    _means: dict[Place, Any] = field(default_factory=dict)
    _partners: dict[int, TokenizedPrompt] | None = None

    def values_for(self, batch: Batch) -> Callable[[Ablation, int], Tensor]:
        """Values of the ablations of a batch, by ablation and row."""
        # before the batch runs: a mean may need passes of its own
        for asked in batch.asked:
            for one in asked.ablate:
                if one.is_mean:
                    self._ready(self._place(one))
        partners = self._values_of_partners(batch)

        def values(one: Ablation, row: int) -> Tensor:
            place = self._place(one)
            if one.is_mean:
                return self._mean(place, batch.lengths[row], max(batch.lengths))
            return partners[place][row]

        return values

    def _place(self, one: Ablation) -> Place:
        return self.around.sites.site(one.site, one.layer), one.layer

    # --- means --------------------------------------------------------------------------------

    def _mean(self, place: Place, n: int, longest: int) -> Tensor:
        """The mean, with dims of the site; of a square site cut and padded to the batch."""
        import torch

        mean = self._means[place]
        if self.around.sites.dims(place[0])[-2:] != (QUERY, KEY):
            return torch.from_numpy(mean)
        if mean.shape[-1] < n:
            raise SpecificationError(
                f"no mean of {place[0]!r} at query {n - 1}: the longest prompt that it is taken of has {mean.shape[-1]} positions; "
                "give longer ones with baseline="
            )
        padded = np.zeros((*mean.shape[:-2], longest, longest), np.float32)
        padded[..., :n, :n] = mean[..., :n, :n]
        return torch.from_numpy(padded)

    def _ready(self, place: Place) -> None:
        if place not in self._means:
            self._means[place] = self._computed(place)

    def _computed(self, place: Place) -> Any:
        values = self._of_prompts(place) if self.given else self._stored(place)
        dims = self.around.sites.dims(place[0])
        found = _mean_square(values) if dims[-2:] == (QUERY, KEY) else _mean_over_positions(values)
        if found is None:
            raise SpecificationError(
                f"the mean of {place[0]!r} is asked for, and there is nothing to take it of: capture it into the file "
                f"(names=[{place[0]!r}]), or give prompts with baseline="
            )
        return found

    def _stored(self, place: Place) -> Iterator[Any]:
        """Values of one layer of every prompt of the file that has them."""
        from pattern_lens.patterns.opening import open_activations

        if self.path is None or not self.path.exists():
            return
        reader = StoreReader(self.path)
        holds = place[0] in reader.names()
        reader.close()
        if not holds:
            return
        with open_activations(self.path, place[0]) as stored:
            chosen = stored if place[1] is None else stored.sel(layer=place[1])
            for prompt in chosen:
                yield np.asarray(chosen[prompt].values, np.float32)

    def _of_prompts(self, place: Place) -> Iterator[Any]:
        given = self.given or ()
        for first in range(0, len(given), _AT_ONCE):
            some = given[first : first + _AT_ONCE]
            for one, value in zip(some, self._run(some, [place])[place], strict=True):
                n = len(one.ids)
                is_square = self.around.sites.dims(place[0])[-2:] == (QUERY, KEY)
                own = value[..., :n, :n] if is_square else value[:n]
                yield own.float().cpu().numpy()

    # --- other prompts ------------------------------------------------------------------------

    def _values_of_partners(self, batch: Batch) -> dict[Place, list[Tensor]]:
        """For each resampled place the partners' values, cut and padded to the batch."""
        places = list(
            dict.fromkeys(
                self._place(one) for asked in batch.asked for one in asked.ablate if one.is_resample
            )
        )
        if not places:
            return {}
        partners = [self._partner(number) for number in batch.numbers]
        longest = max(batch.lengths)
        found = self._run(partners, places)
        return {
            place: [self._padded(value, place, longest) for value in values]
            for place, values in found.items()
        }

    def _padded(self, value: Tensor, place: Place, longest: int) -> Tensor:
        dims = self.around.sites.dims(place[0])
        for axis, dim in enumerate(dims):
            if dim in (POS, QUERY, KEY):
                n = value.shape[axis]
                if n > longest:
                    value = value.narrow(axis, 0, longest)
                elif n < longest:
                    shape = list(value.shape)
                    shape[axis] = longest - n
                    import torch

                    value = torch.cat([value, value.new_zeros(shape)], dim=axis)
        return value

    def _partner(self, number: int) -> TokenizedPrompt:
        if self._partners is None:
            self._partners = self._paired()
        return self._partners[number]

    def _paired(self) -> dict[int, TokenizedPrompt]:
        given = self.given
        if given is not None and len(given) == len(self.prompts):
            for own, other in zip(self.prompts, given, strict=True):
                if len(other.ids) < len(own.ids):
                    raise SpecificationError(
                        f"the prompt {other.prompt.text[:40]!r} of baseline= has {len(other.ids)} tokens and its partner "
                        f"{own.prompt.text[:40]!r} has {len(own.ids)}: expected at least as many"
                    )
            return dict(enumerate(given))
        return _pairs(self.prompts, list(given or self.prompts), self.seed)

    # --- running ------------------------------------------------------------------------------

    def _run(
        self, prompts: Sequence[TokenizedPrompt], places: Sequence[Place]
    ) -> dict[Place, list[Tensor]]:
        """Values of some places of some prompts, without gradients and ablations."""
        model, sites = self.around.model, self.around.sites
        hooks: dict[str, list[Place]] = defaultdict(list)
        for place in places:
            if place[0] in sites.spliced:
                own = sites.spliced[place[0]]
                hooks[sites.hook(own.site, own.layer)].append(place)
            elif place[0] == "resid_mid":
                hooks[sites.hook("resid_pre", place[1])].append(place)
                hooks[sites.hook("attn_out", place[1])].append(place)
            else:
                hooks[sites.hook(*place)].append(place)
        found: dict[Place, Tensor] = {}

        def keep(hook: str, value: Tensor) -> None:
            for place in hooks[hook]:
                own = value.detach().clone()
                if place[0] in sites.spliced:
                    own = sites.spliced[place[0]].encode(own).detach()
                found[place] = found[place] + own if place in found else own

        tokens, mask = pad_right([one.ids for one in prompts], masked=not model.causal)
        run_hooks(model, tokens, hooks, keep, attention_mask=mask)
        return {place: list(value.unbind()) for place, value in found.items()}


def _pairs(
    prompts: Sequence[TokenizedPrompt], others: Sequence[TokenizedPrompt], seed: int
) -> dict[int, TokenizedPrompt]:
    """Each prompt with another one of as many tokens, or, where there is none, of more."""
    order = list(range(len(others)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a choice that can be repeated
    found = {}
    for number, own in enumerate(prompts):
        n = len(own.ids)
        # the first behind its own place in the shuffled order, so that partners differ
        turned = order[number % len(order) :] + order[: number % len(order)]
        fit = [
            i
            for i in turned
            if len(others[i].ids) >= n and others[i].prompt.hash != own.prompt.hash
        ]
        if not fit:
            n_others = sum(one.prompt.hash != own.prompt.hash for one in others)
            raise SpecificationError(
                f"no prompt to resample {own.prompt.text[:40]!r} from: of {n_others} others none has its {n} tokens or more; "
                "give some with baseline="
            )
        found[number] = others[min(fit, key=lambda i: len(others[i].ids))]
    return found


def _mean_over_positions(values: Iterable[Any]) -> Any:
    """Mean over prompts and positions: dims of the site, with one position; float32."""
    total: Any = None
    count = 0
    for value in values:
        own = value.sum(0, dtype=np.float64)
        total = own if total is None else total + own
        count += len(value)
    return None if total is None else (total / count)[None].astype(np.float32)


def _mean_square(values: Iterable[Any]) -> Any:
    """Mean over the prompts that have a query and a key: dims (head, query, key); float32."""
    total = np.zeros((1, 0, 0))
    count = np.zeros((0, 0))
    for value in values:
        n, held = value.shape[-1], total.shape[-1]
        if n > held or total.shape[0] != value.shape[0]:
            grown = np.zeros((value.shape[0], max(n, held), max(n, held)))
            if held:
                grown[:, :held, :held] = total
            counted = np.zeros((max(n, held), max(n, held)))
            counted[:held, :held] = count
            total, count = grown, counted
        total[:, :n, :n] += value
        count[:n, :n] += 1
    return (total / np.maximum(count, 1)).astype(np.float32) if count.size else None
