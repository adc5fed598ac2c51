# SPDX-License-Identifier: Apache-2.0
"""Bit-exact functions of the accelerator's units, except the vector functions.

Each takes and returns numpy arrays and says element by element what raised a
sticky flag.  They are composed of single float operations (`Format.round_flag`)
and exact integer arithmetic, in the order in which the RTL does them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afternorm.isa import Scale
from golden.mx import MANTISSA_SHIFT, Blocks, quantize
from golden.number import EXPONENT_MAX, Bools, Floats, Format

EXP_FRACTION_BITS = 8
EXP_TABLE_BITS = 11
"""Fraction bits of the significands in `exp_table`."""


def products(fmt: Format, a: Blocks, b: Blocks) -> tuple[Floats, Bools]:
    """Dot products of blocks ``a[..., m]`` and ``b[..., n]``, rounded once: ``[..., m, n]``.

    The integer dot product of two blocks is exact (in float32, too: it is below 2**24);
    with the two exponents it enters the float format in a single rounding.
    """
    dots = a.mantissas.astype(np.float32) @ b.mantissas.astype(np.float32).swapaxes(-1, -2)
    # Powers of two, exact: the smallest product of two is a subnormal of float64.
    scale_a = np.ldexp(1.0, a.exponents.astype(np.int32) - MANTISSA_SHIFT)[..., :, None]
    scale_b = np.ldexp(1.0, b.exponents.astype(np.int32) - MANTISSA_SHIFT)[..., None, :]
    with np.errstate(over="ignore"):  # beyond float64, thus beyond the format: saturates
        return fmt.round_flag(dots * scale_a * scale_b)


def statistics(fmt: Format, a: Blocks, squares: bool) -> tuple[Floats, Bools]:
    """Sum of the elements and (if `squares`) of their squares, per block: shape ``[..., 2]``.

    Both integer sums are exact and rounded once on entering the float format.
    """
    m = a.mantissas.astype(np.float64)
    exponents = a.exponents.astype(np.int64) - MANTISSA_SHIFT
    s1 = np.ldexp(m.sum(axis=-1), exponents)
    with np.errstate(over="ignore"):  # beyond float64, thus beyond the format: saturates
        s2 = np.ldexp((m * m).sum(axis=-1), 2 * exponents)
    return fmt.round_flag(np.stack([s1, s2 if squares else np.zeros_like(s2)], axis=-1))


def tree_sum(fmt: Format, partials: Floats) -> tuple[Floats, Bools]:
    """The sum over axis 0 (tiles), by neighbours, level by level; an odd one passes on."""
    overflow = np.zeros(partials.shape[1:], dtype=bool)
    level = list(partials)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[len(level) & ~1 :]
        level = []
        for left, right in pairs:
            total, flags = fmt.round_flag(left + right)
            level.append(total)
            overflow |= flags
        level += odd
    return level[0], overflow


class Scales(NamedTuple):
    """The two scales of a row, and what they flagged."""

    scale0: Floats
    scale1: Floats
    overflow: Bools
    zero: Bools


def row_scales(
    fmt: Format, mode: Scale, s1: Floats, s2: Floats, inv_d: float, eps: float
) -> Scales:
    """The scale unit (see `afternorm.isa.Scale`); a division by zero gives 0 and `zero`.

    Every operation is rounded: ``mean = s1 * inv_d``, ``power = s2 * inv_d``,
    ``power - mean * mean`` clamped at 0, ``+ eps``, square root, ``1 / x``,
    ``-mean * scale0``.
    """
    nothing = np.zeros_like(s1)
    if mode == Scale.SUM:
        return Scales(s1, s2, nothing.astype(bool), nothing.astype(bool))
    overflow = np.zeros(s1.shape, dtype=bool)

    def rounded(x: Floats) -> Floats:
        nonlocal overflow
        y, flags = fmt.round_flag(x)
        overflow = overflow | flags
        return y

    mean = nothing
    if mode == Scale.SOFTMAX:
        root = s1
    else:
        power = rounded(s2 * inv_d)
        if mode == Scale.LAYER:
            mean = rounded(s1 * inv_d)
            power = np.maximum(rounded(power - rounded(mean * mean)), 0.0)
        root = rounded(np.sqrt(rounded(power + eps)))
    zero = root == 0
    scale0 = np.where(zero, 0.0, rounded(1.0 / np.where(zero, 1.0, root)))
    scale1 = rounded(-mean * scale0) if mode == Scale.LAYER else nothing
    return Scales(scale0, scale1, overflow, zero)


def exp_table() -> NDArray[np.int64]:
    """``2**(i/256)`` for i = 0..255, as integers with `EXP_TABLE_BITS` fraction bits."""
    steps = np.arange(1 << EXP_FRACTION_BITS) / (1 << EXP_FRACTION_BITS)
    table: NDArray[np.int64] = np.rint(np.exp2(steps) * (1 << EXP_TABLE_BITS)).astype(np.int64)
    return table


def exp2_blocks(scores: Floats, masked: Bools, block: int) -> tuple[Blocks, Bools]:
    """``2**score`` as MX blocks along the last axis; masked lanes are zeros.

    A score is rounded (nearest even) to 8 fraction bits; its integer part goes
    to the exponent, its fraction through `exp_table`.  Scores outside the
    exponent's range -511..511 saturate and are flagged.
    """
    unit = 1 << EXP_FRACTION_BITS
    low, high = -EXPONENT_MAX * unit, EXPONENT_MAX * unit + unit - 1
    steps = np.rint(scores * unit)
    saturated = ((steps < low) | (steps > high)) & ~masked
    steps = np.clip(steps, low, high).astype(np.int64)
    significands = exp_table()[steps & (unit - 1)] / (1 << EXP_TABLE_BITS)
    values = np.where(masked, 0.0, np.ldexp(significands, steps >> EXP_FRACTION_BITS))
    return quantize(values, block), saturated
