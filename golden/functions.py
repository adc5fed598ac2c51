# SPDX-License-Identifier: Apache-2.0
"""The vector unit's functions, bit for bit.

Every function has the form::

    y = round(scale * g)

with one rounding, where `scale` is a float and `g` a fixed-point number of 18
fraction bits, interpolated from `golden.tables`::

    NONE        x * 1
    SILU        x * sigmoid(x)
    GELU        x * Phi(x), Phi the normal distribution
    SIGMOID     1 * sigmoid(x)
    TANH        +-2 * (sigmoid(2|x|) - 1/2)
    EXP         2**(n + 1) * 2**(f - 1), with x * log2(e) = n + f
    RECIPROCAL  +-2**-e * 1/m, with x = +-m * 2**e
    RSQRT       2**-(e // 2) * 1/sqrt(m * 2**(e % 2))

Sigmoid and Phi are tabulated for |x|; ``g(-x) = 1 - 2**-18 - g(x)``.  Before rounding,
their errors are below 2**-16 (so 2**-15 for TANH), those of RECIPROCAL and RSQRT below 2**-16
of the result and that of EXP below 2**-14 of it.  RECIPROCAL of 0, and RSQRT of 0 and of
negative numbers, are 0 and flagged, as is what overflows.
"""

import numpy as np

from afternorm.isa import Function
from golden.number import EXPONENT_MAX, Bools, Floats, Format
from golden.tables import C0_BITS, G_BITS, PLACE_BITS, Integers, Part, interpolate

FACTOR_BITS = 17
"""Fraction bits of the factor that brings the argument into the table's unit."""
LOG2_E = round(1.4426950408889634 * (1 << FACTOR_BITS))
LOG2_E_CORRECTION = 21
EXP_BITS = 16
"""Fraction bits of x * log2(e)."""
ARGUMENT_BITS = EXPONENT_MAX.bit_length() + EXP_BITS
"""Bits of a fixed-point argument: those of exp, 9.16."""
ARGUMENT_STEPS = {
    Function.SILU: 15,
    Function.SIGMOID: 15,
    Function.GELU: 16,
    Function.TANH: 16,
    Function.EXP: EXP_BITS,
}
"""An argument of |x| counts in steps of ``2**-this`` (for tanh, 2|x| in steps of 2**-15)."""
TABLE_BITS = 7 + PLACE_BITS
"""Bits of the arguments of sigmoid and Phi."""
RECIPROCAL_BITS, RSQRT_BITS = 18, 17
"""Fraction bits of a significand that RECIPROCAL and RSQRT look at."""

_PARTS = {
    Function.SILU: Part.SIGMOID,
    Function.SIGMOID: Part.SIGMOID,
    Function.TANH: Part.SIGMOID,
    Function.GELU: Part.PHI,
}


def apply(fmt: Format, function: Function, x: Floats) -> tuple[Floats, Bools]:
    """``function(x)`` of numbers of the format, and where it overflowed."""
    if function == Function.NONE:
        return x, np.zeros(x.shape, dtype=bool)
    mantissa, exponent = np.frexp(np.abs(x))
    exponent = np.where(x == 0, -EXPONENT_MAX - 1, exponent - 1).astype(np.int64)
    significand = np.ldexp(mantissa, fmt.fraction_bits + 1).astype(np.int64)
    negative = x < 0
    if function in (Function.RECIPROCAL, Function.RSQRT):
        return _reciprocal(fmt, function, significand, exponent, x)
    argument, beyond = _argument(fmt, function, significand, exponent)
    if function == Function.EXP:
        return _exp(fmt, argument, beyond, negative)
    return _bounded(fmt, function, argument, beyond, x)


def _argument(
    fmt: Format, function: Function, significand: Integers, exponent: Integers
) -> tuple[Integers, Bools]:
    """|x| (for exp, |x| * log2(e)) in fixed point, rounded down, and where it is too large."""
    factor = LOG2_E if function == Function.EXP else 1 << FACTOR_BITS
    product = significand * factor
    # The leading one of 2**exponent is to lie in the place exponent + steps.
    fall = fmt.fraction_bits + FACTOR_BITS - (ARGUMENT_BITS - 1)
    top = product >> fall if fall >= 0 else product << -fall
    right = ARGUMENT_BITS - 1 - (exponent + ARGUMENT_STEPS[function])
    argument = top >> np.clip(right, 0, ARGUMENT_BITS + 1)
    bits = ARGUMENT_BITS if function == Function.EXP else TABLE_BITS
    return argument & ((1 << bits) - 1), (right < 0) | (argument >> bits != 0)


def _bounded(
    fmt: Format, function: Function, argument: Integers, beyond: Bools, x: Floats
) -> tuple[Floats, Bools]:
    one = 1 << G_BITS
    g = interpolate(_PARTS[function] + (argument >> PLACE_BITS), argument & ((1 << PLACE_BITS) - 1))
    if function == Function.TANH:
        g = np.where(beyond, one, 2 * (g - (1 << C0_BITS)))
        scale = np.sign(x)
    else:
        g = np.where(beyond, one, g)
        g = np.where(x < 0, np.maximum(one - 1 - g, 0), g)
        scale = np.ones_like(x) if function == Function.SIGMOID else x
    return fmt.round_flag(scale * np.ldexp(g.astype(np.float64), -G_BITS))


def _exp(fmt: Format, argument: Integers, beyond: Bools, negative: Bools) -> tuple[Floats, Bools]:
    # LOG2_E is too large by 2**-21.2 of it.
    argument = argument - (argument >> LOG2_E_CORRECTION)
    # One's complement: n + f is at most 2**-16 below the negative argument.
    argument = np.where(negative, ~argument, argument)
    n = argument >> EXP_BITS
    place = (argument & ((1 << EXP_BITS) - 1)) << (RECIPROCAL_BITS - EXP_BITS)
    g = interpolate(Part.EXP + (place >> PLACE_BITS), place & ((1 << PLACE_BITS) - 1))
    y = np.ldexp(g.astype(np.float64), n + 1 - G_BITS)
    return fmt.round_flag(np.where(beyond, np.where(negative, 0.0, 2.0 * fmt.max), y))


def _reciprocal(
    fmt: Format, function: Function, significand: Integers, exponent: Integers, x: Floats
) -> tuple[Floats, Bools]:
    root = function == Function.RSQRT
    bits = RSQRT_BITS if root else RECIPROCAL_BITS
    fall = fmt.fraction_bits - bits
    top = significand >> fall if fall >= 0 else significand << -fall
    place = ~top & ((1 << bits) - 1)
    if root:
        part = np.where(exponent & 1, Part.RSQRT2, Part.RSQRT)
        exponent = exponent >> 1
    else:
        part = np.full(x.shape, Part.RECIP)
    g = interpolate(part + (place >> PLACE_BITS), place & ((1 << PLACE_BITS) - 1))
    y = np.ldexp(np.sign(x) * g, -exponent - G_BITS)
    undefined = (x <= 0) if root else (x == 0)
    y, overflow = fmt.round_flag(np.where(undefined, 0.0, y))
    return y, overflow | undefined
