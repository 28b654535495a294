"""The data of a feature: what its variables are called, their dims, and what they mean.

Rule: every name that is stored is written here once; `feature` comes before the dims.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_RANK: Final = ("rank",)
_BIN: Final = ("bin",)
_EDGE: Final = ("edge",)
_INTERVAL: Final = ("interval",)
_SEQUENCE: Final = ("sequence",)
_PLACE: Final = ("sequence", "place")
_CHANGED: Final = ("sequence", "place", "rank")


class Variable(NamedTuple):
    """Dims of one feature's values, and one line of prose."""

    dims: tuple[str, ...]
    prose: str


VARIABLES: Final = {
    "n_active": Variable((), "tokens at which the feature fires"),
    "density": Variable((), "share of all tokens at which the feature fires"),
    "max_activation": Variable((), "largest activation; NaN for a feature that never fires"),
    "mean_activation": Variable((), "mean of the activations where the feature fires"),
    "activation_histogram": Variable(_BIN, "activations between two edges, the upper included"),
    "activation_edges": Variable(_EDGE, "from 0 (or the lowest below it) to the largest"),
    "interval_low": Variable(_INTERVAL, "where an interval of activations starts, not included"),
    "interval_high": Variable(_INTERVAL, "where an interval of activations ends, included"),
    "interval_share": Variable(_INTERVAL, "share of the feature's activations in the interval"),
    "top_logit_token": Variable(_RANK, "ids of the tokens whose logits are highest"),
    "top_logit": Variable(_RANK, "logit of the decoder direction, without the norm's divisor"),
    "bottom_logit_token": Variable(_RANK, "ids of the tokens whose logits are lowest"),
    "bottom_logit": Variable(_RANK, "logit of the decoder direction, without the norm's divisor"),
    "logits_histogram": Variable(_BIN, "tokens whose logits are between two edges"),
    "logits_edges": Variable(_EDGE, "from the lowest logit to the highest"),
    "neuron": Variable(_RANK, "units of the hook in which the decoder direction is largest"),
    "neuron_alignment": Variable(_RANK, "decoder direction at these units"),
    "neuron_l1_share": Variable(_RANK, "share of these units in the decoder's L1 norm"),
    "correlated_neuron": Variable(_RANK, "neurons of the layer, by Pearson's correlation"),
    "neuron_pearson": Variable(_RANK, "Pearson's correlation with them, over all tokens"),
    "neuron_cosine": Variable(_RANK, "cosine with them, over all tokens"),
    "correlated_feature": Variable(_RANK, "other features, by Pearson's correlation"),
    "feature_pearson": Variable(_RANK, "Pearson's correlation with them, over all tokens"),
    "feature_cosine": Variable(_RANK, "cosine with them, over all tokens"),
    "second_feature": Variable(_RANK, "features of the second autoencoder, by correlation"),
    "second_pearson": Variable(_RANK, "Pearson's correlation with them, over all tokens"),
    "second_cosine": Variable(_RANK, "cosine with them, over all tokens"),
    "sequence_group": Variable(_SEQUENCE, "-1 top, -2 bottom, -3 random, else the interval"),
    "sequence_prompt": Variable(_SEQUENCE, "position in the prompt table; -1 where there is none"),
    "sequence_start": Variable(_SEQUENCE, "position of the window's first token in its prompt"),
    "sequence_length": Variable(_SEQUENCE, "tokens of the window; 0 where there is none"),
    "peak": Variable(_SEQUENCE, "place in the window of the token that it is about"),
    "sequence_token": Variable(_PLACE, "token ids; -1 outside the window"),
    "sequence_activation": Variable(_PLACE, "the feature's activation; NaN outside the window"),
    "loss_effect": Variable(
        _PLACE, "loss of the next token with the feature ablated less that without, in nats"
    ),
    "raised_token": Variable(_CHANGED, "tokens whose log-probability the feature raises most"),
    "raised_logit": Variable(_CHANGED, "log-probability without the ablation less that with it"),
    "lowered_token": Variable(_CHANGED, "tokens whose log-probability the feature lowers most"),
    "lowered_logit": Variable(_CHANGED, "log-probability without the ablation less that with it"),
    "source_attribution": Variable(
        _PLACE, "what attention to a token adds to the encoder's product at the peak"
    ),
    "source_outside": Variable(_SEQUENCE, "the same, of all tokens outside the window"),
}
"""Every variable, by name."""
