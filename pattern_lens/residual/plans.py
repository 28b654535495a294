"""Which parts each analysis stacks, in which order: the components that TransformerLens gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from pattern_lens.errors import OutOfRangeError, ResidualError
from pattern_lens.residual import inputs
from pattern_lens.residual.norm import Norm, check_mlp_input, norm_before
from pattern_lens.residual.parts import Bias, Heads, Neurons, Part, Remainder, Stream
from pattern_lens.residual.places import Component, block_number, neuron_numbers, stream_number

if TYPE_CHECKING:
    from pattern_lens.residual.inputs import ModelFacts, Needs

Mode = Literal["all", "mlp", "attn"]

FINAL_POST: Final = "final_post"


@dataclass(frozen=True, eq=False)
class Plan:
    """What is stacked, and the norm that is applied to it.

    Parameters
    ----------
    name
        The analysis, for results and messages.
    said
        Its options as text; what tells one result from another.
    """

    name: str
    facts: ModelFacts
    parts: tuple[Part, ...]
    norm: Norm | None = None
    said: str = ""

    @property
    def components(self) -> list[Component]:
        """Labels of the whole stack."""
        return [component for part in self.parts for component in part.components]

    @property
    def needs(self) -> Needs:
        """Activations of all parts and of the norm."""
        found: dict[str, tuple[int, ...] | None] = {}
        every = [part.needs for part in self.parts] + ([self.norm.needs] if self.norm else [])
        for needs in every:
            for name, layers in needs.items():
                known = found.get(name)
                found[name] = None if layers is None else tuple(sorted({*(known or ()), *layers}))
        return found


def accumulated(
    facts: ModelFacts,
    layer: int | None = None,
    *,
    incl_mid: bool = False,
    apply_ln: bool = False,
    mlp_input: bool = False,
) -> Plan:
    """The stream in front of every layer up to one."""
    number = stream_number(layer, facts.n_layers)
    check_mlp_input(facts, number, mlp_input=mlp_input)
    if incl_mid or mlp_input:
        _check_has_mid(facts)
    parts = []
    for at in range(number + 1):
        parts.append(stream_before(facts, at))
        if (incl_mid and at < number) or (mlp_input and at == number):
            parts.append(Stream(f"{at}_mid", inputs.RESID_MID, at))
    norm = None
    if apply_ln:  # in front of the unembedding each stream has its own statistics: the logit lens
        norm = norm_before(facts, number, mlp_input=mlp_input, recompute=True)
    said = f"(layer={number}, {incl_mid=}, {apply_ln=}, {mlp_input=})"
    return Plan("accumulated_resid", facts, tuple(parts), norm, said)


def decomposed(
    facts: ModelFacts,
    layer: int | None = None,
    *,
    mlp_input: bool = False,
    mode: Mode = "all",
    apply_ln: bool = False,
    incl_embeds: bool = True,
    has_pos_embed: bool = True,
) -> Plan:
    """What every attention and MLP layer up to one wrote, and the embeddings."""
    if mode not in get_args(Mode):
        raise ResidualError(f"no mode {mode!r}: expected one of {', '.join(get_args(Mode))}")
    number = stream_number(layer, facts.n_layers)
    check_mlp_input(facts, number, mlp_input=mlp_input)
    parts = _embeddings(has_pos_embed=has_pos_embed) if incl_embeds else []
    for at in range(number):
        if mode != "mlp":
            parts.append(Stream(f"{at}_attn_out", inputs.ATTN_OUT, at))
        if mode != "attn" and not facts.attn_only:
            parts.append(Stream(f"{at}_mlp_out", inputs.MLP_OUT, at))
    if mlp_input and mode != "mlp":
        parts.append(Stream(f"{number}_attn_out", inputs.ATTN_OUT, number))
    if not parts:
        what = "the model has no MLPs" if facts.attn_only and mode == "mlp" else "no layer is left"
        raise OutOfRangeError(
            f"decompose_resid of layer {layer} with mode={mode!r}, incl_embeds=False is empty: {what}"
        )
    norm = norm_before(facts, number, mlp_input=mlp_input) if apply_ln else None
    said = f"(layer={number}, {mlp_input=}, {mode=}, {apply_ln=}, {incl_embeds=})"
    return Plan("decompose_resid", facts, tuple(parts), norm, said)


def heads(
    facts: ModelFacts,
    layer: int | None = -1,
    *,
    incl_remainder: bool = False,
    apply_ln: bool = False,
) -> Plan:
    """What every head in front of a layer wrote."""
    number = stream_number(layer, facts.n_layers, least=1)
    parts: list[Part] = [Heads(tuple(range(number)), facts.n_heads)]
    if incl_remainder:
        parts.append(Remainder(stream_before(facts, number)))
    norm = norm_before(facts, number, mlp_input=False) if apply_ln else None
    said = f"(layer={number}, {incl_remainder=}, {apply_ln=})"
    return Plan("stack_head_results", facts, tuple(parts), norm, said)


def neurons_of(facts: ModelFacts, layer: int, *, neurons: Any, n_neurons: int) -> Plan:
    """What the neurons of one layer wrote."""
    _check_has_mlp(facts)
    numbers = neuron_numbers(neurons, n_neurons)
    part = Neurons((block_number(layer, facts.n_layers),), numbers)
    said = f"(layer={part.layers[0]}, {neurons=})"
    return Plan("get_neuron_results", facts, (part,), None, said)


def neurons_before(
    facts: ModelFacts,
    layer: int | None,
    *,
    neurons: Any,
    n_neurons: int,
    incl_remainder: bool = False,
    apply_ln: bool = False,
) -> Plan:
    """What the neurons in front of a layer wrote."""
    _check_has_mlp(facts)
    number = stream_number(layer, facts.n_layers, least=1)
    parts: list[Part] = [
        Neurons(tuple(range(number)), neuron_numbers(neurons, n_neurons)),
    ]
    if incl_remainder:
        parts.append(Remainder(stream_before(facts, number)))
    norm = norm_before(facts, number, mlp_input=False) if apply_ln else None
    said = f"(layer={number}, {neurons=}, {incl_remainder=}, {apply_ln=})"
    return Plan("stack_neuron_results", facts, tuple(parts), norm, said)


def full(
    facts: ModelFacts,
    layer: int | None = None,
    *,
    mlp_input: bool = False,
    expand_neurons: bool = True,
    apply_ln: bool = False,
    n_neurons: int = 0,
    has_pos_embed: bool = True,
) -> Plan:
    """Every head, every neuron or MLP, the embeddings and the biases."""
    number = stream_number(layer, facts.n_layers)
    check_mlp_input(facts, number, mlp_input=mlp_input)
    before = tuple(range(number))
    attn_layers = tuple(range(number + mlp_input))
    parts: list[Part] = [Heads(attn_layers, facts.n_heads)] if attn_layers else []
    expands = expand_neurons and not facts.attn_only
    if expands and before:
        parts.append(Neurons(before, range(n_neurons)))
    elif not facts.attn_only:
        parts += [Stream(f"{at}_mlp_out", inputs.MLP_OUT, at) for at in before]
    embeddings = _embeddings(has_pos_embed=has_pos_embed)
    parts += [*embeddings, Bias(attn_layers, before if expands else (), embeddings[0])]
    norm = norm_before(facts, number, mlp_input=mlp_input) if apply_ln else None
    said = f"(layer={number}, {mlp_input=}, {expand_neurons=}, {apply_ln=})"
    return Plan("get_full_resid_decomposition", facts, tuple(parts), norm, said)


def stream_before(facts: ModelFacts, number: int) -> Stream:
    """The stream that a layer reads, or the unembedding."""
    if number == facts.n_layers:
        return Stream(FINAL_POST, inputs.RESID_POST, number - 1, number)
    return Stream(f"{number}_pre", inputs.RESID_PRE, number)


def _embeddings(*, has_pos_embed: bool) -> list[Any]:
    found = [Stream("embed", inputs.EMBED)]
    return [*found, Stream("pos_embed", inputs.POS_EMBED)] if has_pos_embed else found


def _check_has_mid(facts: ModelFacts) -> None:
    what = "MLPs" if facts.attn_only else "a stream between attention and MLP, which are parallel"
    if facts.attn_only or facts.parallel:
        raise ResidualError(f"the model has no {inputs.RESID_MID!r}: it has no {what}")


def _check_has_mlp(facts: ModelFacts) -> None:
    if facts.attn_only:
        raise ResidualError("the model has attention only: it has no neurons")
