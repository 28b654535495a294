"""What an open file can do with a residual stream: the methods of `Run` that stand for this room.

The rule: nothing of the room is imported before a method is called; opening a file needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pattern_lens.residual.stack_methods import StackMethods

if TYPE_CHECKING:
    import xarray as xr

    from pattern_lens.residual.attribution import Unit
    from pattern_lens.residual.attribution_over import LogitLens
    from pattern_lens.residual.lazy import Results
    from pattern_lens.residual.readings import Attribution


class ResidualMethods(StackMethods):
    """TransformerLens' ActivationCache on a file, over any number of prompts.

    All methods take `prompt`: a hash gives a DataArray; a list of hashes or None, for all that have what is needed,
    gives a lazy collection of such, as patterns are, which is computed in blocks of prompts; where one position was chosen
    with `pos`, it gives one array with a dim `prompt`, on dask if the file was opened with `chunks`. With `name` the
    results are stored in the file as those of `Activations.map` are, whose further options they take (`client`,
    `n_workers`, `force`, `timeout_seconds`, `progress`).
    """

    def apply_ln_to_stack(
        self,
        stack: xr.DataArray | Results,
        layer: int | None = None,
        *,
        mlp_input: bool = False,
        pos: Any = None,
        recompute_ln: bool = False,
        prompt: str | None = None,
    ) -> xr.DataArray | Results:
        """A stack as a layer reads it; see `pattern_lens.residual.apply_ln_to_stack`.

        Parameters
        ----------
        stack
            What another method gave. Where it has lost its positions, `pos` is the one that was chosen.
        prompt
            Of which prompt it is, where it does not say so itself.
        layer, mlp_input, recompute_ln
            As for the function.
        """
        from pattern_lens.residual.normalised_over import apply_ln_over

        asked = self._asked(prompt, pos, None, {})
        chosen = {"mlp_input": mlp_input, "recompute_ln": recompute_ln}
        return apply_ln_over(asked, stack, layer, **chosen)  # type: ignore[no-any-return]

    def logit_attrs(
        self,
        stack: xr.DataArray | Results,
        tokens: Any,
        incorrect_tokens: Any = None,
        *,
        pos: Any = None,
        prompt: str | None = None,
    ) -> xr.DataArray | Results:
        """What each component adds to a logit; see `pattern_lens.residual.logit_attrs`.

        Parameters
        ----------
        stack, pos, prompt
            As for `apply_ln_to_stack`.
        tokens, incorrect_tokens
            Text of a token, or its id; of one prompt also one for each position.
        """
        from pattern_lens.residual.normalised_over import attrs_over

        asked = self._asked(prompt, pos, None, {})
        return attrs_over(asked, stack, tokens, incorrect_tokens, self._vocabulary())  # type: ignore[no-any-return]

    def direct_logit_attribution(
        self,
        prompts: Any,
        answer_tokens: Any,
        incorrect_tokens: Any = None,
        *,
        unit: Unit = "component",
        pos: Any = -1,
        name: str | None = None,
        **options: Any,
    ) -> Attribution:
        """What each part adds to an answer's logit; see `pattern_lens.residual.direct_logit_attribution`.

        Parameters
        ----------
        prompts
            A hash, a list of hashes, or None for all that have what is needed.
        answer_tokens, incorrect_tokens
            Text of a token with its leading space, or its id: one for all prompts, one for each in their order, or a
            mapping from hash to token.
        unit, pos
            As for the function.
        name
            Stores the scores as a result of this name, and the closure errors as ``{name}.closure_error``.
        options
            Of `Activations.map`, with `name`.

        Returns
        -------
        `Attribution`, its scores with dims (component) for a hash, else (prompt, component); on dask if the file was
        opened with `chunks`. Without one position they have a dim `pos`, too, padded with NaN.
        """
        from pattern_lens.residual.attribution_over import attribute_over

        asked = self._asked(prompts, pos, name, options)
        return attribute_over(asked, answer_tokens, incorrect_tokens, unit, self._vocabulary())

    def logit_lens(
        self,
        *,
        answer_tokens: Any = None,
        incl_mid: bool = False,
        pos: Any = None,
        k: int = 5,
        prompt: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> xr.Dataset | LogitLens:
        """What each stream would predict; see `pattern_lens.residual.logit_lens`.

        Parameters
        ----------
        answer_tokens
            As for `direct_logit_attribution`.
        incl_mid, pos, k
            As for the function.

        Returns
        -------
        A Dataset for a hash or one position, or of stored results; else a mapping from hash to Dataset, computed when a
        prompt is taken from it.
        """
        from pattern_lens.residual.attribution_over import lens_over

        asked = self._asked(prompt, pos, name, options)
        return lens_over(asked, answer_tokens, self._vocabulary(), incl_mid=incl_mid, k=k)

    def cache(self, prompt: Any, model: Any = None) -> Any:
        """A `transformer_lens.ActivationCache` of stored activations; see `pattern_lens.residual.cache.activation_cache`."""
        from pattern_lens.residual.cache import activation_cache

        return activation_cache(self.activations, self._reader, prompt, model)
