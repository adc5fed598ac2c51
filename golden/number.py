# SPDX-License-Identifier: Apache-2.0
"""The small float of accumulators and vector lanes.

A `Format` has a sign, a 10-bit exponent and `F` fraction bits.  There are no
subnormals, no NaN and no infinity; zero is the exponent field 0 (always with a
positive sign), every other field `q` means ``(-1)**sign * 2**(q - 512) * 1.fraction``.

Numbers are kept as float64 arrays whose values are exactly representable in
the format.  Since float64 has more than twice the precision plus two bits for
every ``F <= 24``, and a far wider exponent, a single ``+ - * / sqrt`` of the
hardware equals `Format.round` of the float64 operation (Figueroa, "When is
double rounding innocuous?", 1995).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

EXPONENT_BITS = 10
EXPONENT_BIAS = 512
EXPONENT_MIN = -511
"""Exponent of the smallest normal number."""
EXPONENT_MAX = 511
"""Exponent of the largest number; as a block exponent, too."""


@dataclass(frozen=True)
class Format:
    """A float with a 10-bit exponent and `fraction_bits` fraction bits.

    Raises
    ------
    ValueError
        If `fraction_bits` is outside 4..24.
    """

    fraction_bits: int

    def __post_init__(self) -> None:
        if not 4 <= self.fraction_bits <= 24:
            raise ValueError(f"fraction_bits must be 4 to 24, not {self.fraction_bits}")

    @property
    def width(self) -> int:
        """Bits of one number."""
        return 1 + EXPONENT_BITS + self.fraction_bits

    @cached_property
    def max(self) -> float:
        """The largest number, where overflow saturates."""
        return float(np.ldexp(2.0 - 2.0**-self.fraction_bits, EXPONENT_MAX))

    @cached_property
    def _min(self) -> float:
        """The smallest normal number."""
        return float(np.ldexp(1.0, EXPONENT_MIN))

    def round_flag(self, x: ArrayLike) -> tuple[Floats, Bools]:
        """Round to nearest even; say element by element where it overflowed.

        What is below the smallest normal number *after* rounding becomes zero;
        what is above the largest saturates and is flagged.
        """
        x = np.asarray(x, dtype=np.float64)
        # On float64's bits: a carry out of the fraction goes to the exponent, as it should.
        cut = np.int64(52 - self.fraction_bits)
        bits = x.view(np.int64)
        odd = (bits >> cut) & np.int64(1)
        bits = (bits + (odd + np.int64((1 << (51 - self.fraction_bits)) - 1))) >> cut << cut
        rounded = bits.view(np.float64)
        size = np.abs(rounded)
        overflow = size > self.max
        if overflow.any():
            rounded = np.where(overflow, np.copysign(self.max, x), rounded)
        return np.where(size < self._min, 0.0, rounded), overflow

    def round(self, x: ArrayLike) -> Floats:
        """`round_flag` without the flag."""
        return self.round_flag(x)[0]

    def encode(self, x: ArrayLike) -> NDArray[np.uint64]:
        """Bits of numbers of the format: sign, exponent field, fraction from the top."""
        x = np.asarray(x, dtype=np.float64)
        mantissa, exponent = np.frexp(np.abs(x))
        zero = x == 0
        field = np.where(zero, 0, exponent - 1 + EXPONENT_BIAS).astype(np.uint64)
        significand = np.ldexp(mantissa, self.fraction_bits + 1)
        fraction = np.where(zero, 0, significand - (1 << self.fraction_bits)).astype(np.uint64)
        sign = (x < 0).astype(np.uint64)
        f = np.uint64(self.fraction_bits)
        return (sign << (f + np.uint64(EXPONENT_BITS))) | (field << f) | fraction

    def decode(self, bits: Any) -> Floats:
        """Numbers from their bits (the inverse of `encode`)."""
        bits = np.asarray(bits, dtype=np.uint64)
        f = np.uint64(self.fraction_bits)
        fraction = (bits & np.uint64((1 << self.fraction_bits) - 1)).astype(np.float64)
        field = ((bits >> f) & np.uint64((1 << EXPONENT_BITS) - 1)).astype(np.int64)
        sign = np.where((bits >> (f + np.uint64(EXPONENT_BITS))) & np.uint64(1), -1.0, 1.0)
        value = sign * np.ldexp(1.0 + fraction / (1 << self.fraction_bits), field - EXPONENT_BIAS)
        return np.where(field == 0, 0.0, value)
