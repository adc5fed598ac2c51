# SPDX-License-Identifier: Apache-2.0
"""The table of the vector functions, and the integer arithmetic that interpolates it.

One table serves all functions.  Every part of it is an increasing function
``g`` with values from 1/2 to 1, cut into segments; within a segment ``g`` is a
quadratic in the 12-bit place ``d`` counted from the segment's middle::

    part     g                 argument, in steps of   segments
    SIGMOID  1 / (1 + e**-z)   z = T * 2**-15          128
    PHI      (1 + erf(z/√2))/2 z = T * 2**-16          128
    EXP      2**(z - 1)        z = T * 2**-18           64
    RECIP    1 / (2 - z)       z = (T + 1) * 2**-18     64
    RSQRT    1 / √(2 - z)      z = (T + 1) * 2**-17     32
    RSQRT2   1 / √(2 (2 - z))  z = (T + 1) * 2**-17     32
    HALF     1/2               any                      64

with ``T = 4096 * segment + d``.  Where an argument is cut to that many bits, the
table is that of the middle of what is cut off.  An entry has 36 bits, one word
of a small block RAM: 17 of c0 (its leading one is not stored), 12 of c1 and 7
of a signed c2.  The contents, in `golden.function_rom`, are made by
`scripts/fit_tables.py`, which searches the integers for the smallest largest
error of the interpolation as the hardware computes it, among those that keep
every part monotonic.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from golden.function_rom import ROM

Integers = NDArray[np.int64]

PLACE_BITS = 12
"""Bits of the place within a segment."""
G_BITS = 18
"""Fraction bits of g."""
C0_BITS, C1_BITS, C2_BITS = G_BITS - 1, 12, 7
"""Stored bits of the coefficients: c0 without its leading one; c2 is signed."""
ENTRY_BITS = C0_BITS + C1_BITS + C2_BITS
ADDRESS_BITS = 9
COARSE_BITS = 7
"""Top bits of a signed place that multiply c2."""
Q_SHIFT, S_SHIFT, P_SHIFT, GUARD_BITS = 3, 3, 10, 4
"""Where the interpolation cuts and aligns, see `interpolate`."""


class Part(IntEnum):
    """First entry of each part of the table."""

    SIGMOID = 0
    PHI = 128
    EXP = 256
    RECIP = 320
    RSQRT = 384
    RSQRT2 = 416
    HALF = 448


SEGMENTS = {
    Part.SIGMOID: 128,
    Part.PHI: 128,
    Part.EXP: 64,
    Part.RECIP: 64,
    Part.RSQRT: 32,
    Part.RSQRT2: 32,
    Part.HALF: 64,
}


def pack_entry(c0: int, c1: int, c2: int) -> int:
    """An entry of the table from its coefficients, c0 with its leading one."""
    return (
        (c0 - (1 << C0_BITS)) | c1 << C0_BITS | (c2 & ((1 << C2_BITS) - 1)) << (C0_BITS + C1_BITS)
    )


def unpack_entries(entries: Integers) -> tuple[Integers, Integers, Integers]:
    """Coefficients c0, c1, c2 of entries (the inverse of `pack_entry`)."""
    c0 = (entries & ((1 << C0_BITS) - 1)) + (1 << C0_BITS)
    c1 = (entries >> C0_BITS) & ((1 << C1_BITS) - 1)
    c2 = entries >> (C0_BITS + C1_BITS)
    return c0, c1, c2 - ((c2 >> (C2_BITS - 1)) << C2_BITS)


def polynomial(c0: Integers, c1: Integers, c2: Integers, place: Integers) -> Integers:
    """``g * 2**18`` at a place 0..4095 of a segment with these coefficients.

    With ``D = place - 2048``, c0, c1 and c2 count in steps of 2**-18, 2**-17 and
    2**-16 for a D of one segment (4096); every shift rounds down::

        q = (c2 * (D >> 5)) >> 3
        s = (c1 << 3) + q
        p = (s * D) >> 10
        g = ((c0 << 4) + 8 + p) >> 4
    """
    d = place - (1 << (PLACE_BITS - 1))
    q = (c2 * (d >> (PLACE_BITS - COARSE_BITS))) >> Q_SHIFT
    s = (c1 << S_SHIFT) + q
    p = (s * d) >> P_SHIFT
    return ((c0 << GUARD_BITS) + (1 << (GUARD_BITS - 1)) + p) >> GUARD_BITS


TABLE = unpack_entries(np.array(ROM, dtype=np.int64))
"""Coefficients c0, c1, c2 of all entries."""


def interpolate(address: Integers, place: Integers) -> Integers:
    """``g * 2**18``, from 2**17 to 2**18, at a place of the segment at an address."""
    c0, c1, c2 = TABLE
    return polynomial(c0[address], c1[address], c2[address], place)
