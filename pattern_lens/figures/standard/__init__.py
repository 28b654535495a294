"""The figure functions that come with the package; importing this registers them."""

from __future__ import annotations

from pattern_lens.figures.standard.heat_maps import log_scale, mean_over_prompts, raw
from pattern_lens.figures.standard.profiles import (
    attention_by_distance,
    query_entropy,
    singular_values,
)

__all__ = [
    "attention_by_distance",
    "log_scale",
    "mean_over_prompts",
    "query_entropy",
    "raw",
    "singular_values",
]
