"""Stacks of components as methods of an open file.

The rule: nothing of the room is imported before a method is called; opening a file needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pattern_lens.residual.asking import Asking

if TYPE_CHECKING:
    import xarray as xr

    from pattern_lens.patterns.collection import Activations
    from pattern_lens.residual.lazy import Results
    from pattern_lens.residual.plans import Mode


class StackMethods(Asking):
    """Methods that take a stream apart."""

    def accumulated_resid(
        self,
        layer: int | None = None,
        *,
        incl_mid: bool = False,
        apply_ln: bool = False,
        pos: Any = None,
        mlp_input: bool = False,
        prompt: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> xr.DataArray | Results:
        """The residual stream in front of every layer; see `pattern_lens.residual.accumulated_resid`."""
        from pattern_lens.residual import plans

        plan = plans.accumulated(
            self._facts(), layer, incl_mid=incl_mid, apply_ln=apply_ln, mlp_input=mlp_input
        )
        return self._stack(plan, prompt, pos, name, options)

    def decompose_resid(
        self,
        layer: int | None = None,
        *,
        mlp_input: bool = False,
        mode: Mode = "all",
        apply_ln: bool = False,
        pos: Any = None,
        incl_embeds: bool = True,
        prompt: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> xr.DataArray | Results:
        """What every layer wrote, and the embeddings; see `pattern_lens.residual.decompose_resid`."""
        from pattern_lens.residual import plans

        plan = plans.decomposed(
            self._facts(),
            layer,
            mlp_input=mlp_input,
            mode=mode,
            apply_ln=apply_ln,
            incl_embeds=incl_embeds,
            has_pos_embed=self._has_pos_embed(),
        )
        return self._stack(plan, prompt, pos, name, options)

    def compute_head_results(
        self, *, pos: Any = None, prompt: Any = None, name: str | None = None, **options: Any
    ) -> xr.DataArray | Results:
        """What every head writes, dims (layer, pos, head, d_model); see `pattern_lens.residual.compute_head_results`."""
        from pattern_lens.residual import plans
        from pattern_lens.residual.over_prompts import stack_over
        from pattern_lens.residual.writers import head_grid

        asked = self._asked(prompt, pos, name, options)
        return stack_over(asked, plans.heads(self._facts()), head_grid)  # type: ignore[no-any-return]

    def stack_head_results(
        self,
        layer: int | None = -1,
        *,
        incl_remainder: bool = False,
        pos: Any = None,
        apply_ln: bool = False,
        prompt: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> xr.DataArray | Results:
        """What every head wrote; see `pattern_lens.residual.stack_head_results`."""
        from pattern_lens.residual import plans

        plan = plans.heads(self._facts(), layer, incl_remainder=incl_remainder, apply_ln=apply_ln)
        return self._stack(plan, prompt, pos, name, options)

    def stack_activation(
        self, activation: str, layer: int | None = -1, *, prompt: Any = None
    ) -> xr.DataArray | Activations:
        """One activation of all layers before one, dims (layer, ...); see `pattern_lens.residual.stack_activation`."""
        from pattern_lens.residual.over_prompts import activation_over

        asked = self._asked(prompt, None, None, {})
        return activation_over(asked, self._facts(), activation, layer)  # type: ignore[no-any-return]

    def get_neuron_results(
        self,
        layer: int,
        *,
        neurons: Any = None,
        pos: Any = None,
        prompt: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> xr.DataArray | Results:
        """What every neuron of a layer writes; see `pattern_lens.residual.get_neuron_results`."""
        from pattern_lens.residual import plans
        from pattern_lens.residual.stack import n_neurons

        n = n_neurons(self._weights_of_file.dataset, "get_neuron_results")
        plan = plans.neurons_of(self._facts(), layer, neurons=neurons, n_neurons=n)
        return self._stack(plan, prompt, pos, name, options)

    def stack_neuron_results(
        self,
        layer: int | None,
        *,
        pos: Any = None,
        neurons: Any = None,
        incl_remainder: bool = False,
        apply_ln: bool = False,
        prompt: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> xr.DataArray | Results:
        """What every neuron in front of a layer wrote; see `pattern_lens.residual.stack_neuron_results`."""
        from pattern_lens.residual import plans
        from pattern_lens.residual.stack import n_neurons

        plan = plans.neurons_before(
            self._facts(),
            layer,
            neurons=neurons,
            n_neurons=n_neurons(self._weights_of_file.dataset, "stack_neuron_results"),
            incl_remainder=incl_remainder,
            apply_ln=apply_ln,
        )
        return self._stack(plan, prompt, pos, name, options)

    def get_full_resid_decomposition(
        self,
        layer: int | None = None,
        *,
        mlp_input: bool = False,
        expand_neurons: bool = True,
        apply_ln: bool = False,
        pos: Any = None,
        prompt: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> xr.DataArray | Results:
        """Every head, neuron or MLP, the embeddings and biases; see `pattern_lens.residual.get_full_resid_decomposition`."""
        from pattern_lens.residual import plans
        from pattern_lens.residual.stack import n_neurons

        weights = self._weights_of_file.dataset
        plan = plans.full(
            self._facts(),
            layer,
            mlp_input=mlp_input,
            expand_neurons=expand_neurons,
            apply_ln=apply_ln,
            n_neurons=n_neurons(weights, "get_full_resid_decomposition") if expand_neurons else 0,
            has_pos_embed=self._has_pos_embed(),
        )
        return self._stack(plan, prompt, pos, name, options)
