"""TransformerLens' activation, attribution and path patching: its results labelled, and stored beside the prompts.

Rule: nothing is patched here; `transformer_lens.patching` and `transformer_lens.tools.analysis` do that.
"""

from pattern_lens.tracing.patching.nodes import label_attribution_patching
from pattern_lens.tracing.patching.storing import store_patching
from pattern_lens.tracing.patching.sweeps import PATCHING_DIMS, label_patching

__all__ = [
    "PATCHING_DIMS",
    "label_attribution_patching",
    "label_patching",
    "store_patching",
]
