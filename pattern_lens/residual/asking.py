"""What the methods of an open file share: its weights, its vocabulary, and what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from pattern_lens.residual.inputs import ModelFacts
    from pattern_lens.residual.lazy import Results
    from pattern_lens.residual.over_prompts import Asked
    from pattern_lens.residual.stored import WeightsOfFile
    from pattern_lens.residual.tokens import Vocabulary
    from pattern_lens.store.reader import StoreReader


class Asking:
    """An open file, as the analyses see it."""

    _reader: StoreReader
    activations: Any

    @property
    def _weights_of_file(self) -> WeightsOfFile:
        from pattern_lens.residual.stored import WeightsOfFile

        found = self.__dict__.get("_residual_weights")
        if found is None or found.seen != self._reader.weight_names():
            found = self.__dict__["_residual_weights"] = WeightsOfFile(self._reader)
        return found

    def _facts(self) -> ModelFacts:
        from pattern_lens.residual.inputs import ModelFacts

        return ModelFacts.of(self._weights_of_file.dataset)

    def _vocabulary(self) -> Vocabulary:
        from pattern_lens.residual.tokens import Vocabulary

        columns = self._reader.vocab
        found = self.__dict__.get("_residual_vocabulary")
        if found is None or found.columns is not columns:
            found = self.__dict__["_residual_vocabulary"] = Vocabulary(columns)
        return found

    def _has_pos_embed(self) -> bool:
        return "pos_embed" in self.activations

    def _asked(self, prompt: Any, pos: Any, name: str | None, options: Mapping[str, Any]) -> Asked:
        from pattern_lens.residual.over_prompts import Asked

        return Asked(self.activations, self._weights_of_file, prompt, pos, name, options)

    def _stack(
        self, plan: Any, prompt: Any, pos: Any, name: str | None, options: Mapping[str, Any]
    ) -> xr.DataArray | Results:
        from pattern_lens.residual.over_prompts import stack_over

        return stack_over(self._asked(prompt, pos, name, options), plan)  # type: ignore[no-any-return]
