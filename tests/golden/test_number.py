# SPDX-License-Identifier: Apache-2.0
"""The float against exact rational arithmetic."""

from collections.abc import Callable
from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np
import pytest

from golden.number import EXPONENT_BIAS, EXPONENT_MAX, EXPONENT_MIN, Floats, Format

FRACTION_BITS = (4, 5, 9, 15, 23, 24)


def floor_log2(x: Fraction) -> int:
    """The exponent e of a positive number, ``2**e <= x < 2**(e + 1)``."""
    e = x.numerator.bit_length() - x.denominator.bit_length()
    return e if Fraction(2) ** e <= x else e - 1


def exact_round(fmt: Format, x: Fraction) -> tuple[float, bool]:
    """`Format.round_flag` by its definition."""
    if x == 0:
        return 0.0, False
    unit = Fraction(2) ** (floor_log2(abs(x)) - fmt.fraction_bits)
    rounded = round(abs(x) / unit) * unit  # Python rounds fractions to nearest even
    if rounded > Fraction(fmt.max):
        return (-fmt.max if x < 0 else fmt.max), True
    if rounded < Fraction(2) ** EXPONENT_MIN:
        return 0.0, False
    return float(-rounded if x < 0 else rounded), False


def numbers(rng: np.random.Generator, fmt: Format, count: int) -> Floats:
    """Numbers of the format: of near and of any exponents, with few and many ones, and the ends."""
    f = fmt.fraction_bits
    free = rng.integers(0, 1 << f, count)
    few = free >> rng.integers(0, f, count) << rng.integers(0, f, count)
    ones = (1 << f) - (1 << rng.integers(0, f + 1, count))
    fraction = np.choose(rng.integers(0, 3, count), [free, few, ones]) & ((1 << f) - 1)
    any_field = rng.integers(1, 1024, count)
    near = EXPONENT_BIAS + rng.integers(-f - 3, f + 4, count)
    ends = rng.choice([1, 2, 3, 1021, 1022, 1023], count)
    field = np.choose(rng.choice(3, count, p=[0.3, 0.5, 0.2]), [any_field, near, ends])
    x = fmt.decode((rng.integers(0, 2, count) << (f + 10)) | (field << f) | fraction)
    return np.where(rng.random(count) < 0.02, 0.0, x)


@pytest.mark.parametrize("fraction_bits", FRACTION_BITS)
def test_rounds_any_float64(fraction_bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fmt = Format(fraction_bits)
    x = np.ldexp(rng.uniform(-2, 2, 1500), rng.integers(-530, 530, 1500))
    # One more bit than the format has: every second one is a tie.  And its neighbours.
    halves = (1 << (fraction_bits + 1)) + rng.integers(0, 1 << (fraction_bits + 1), 1500)
    ties = np.ldexp(halves.astype(np.float64), rng.integers(-530, 530, 1500))
    x = np.concatenate([x, ties, -ties, np.nextafter(ties, 0), np.nextafter(ties, np.inf)])
    value, overflow = fmt.round_flag(x)
    for each, got, flag in zip(x.tolist(), value.tolist(), overflow.tolist(), strict=True):
        assert (got, flag) == exact_round(fmt, Fraction(each)), each


@pytest.mark.parametrize("fraction_bits", FRACTION_BITS)
def test_ends_of_the_range(fraction_bits: int) -> None:
    fmt = Format(fraction_bits)
    least = 2.0**EXPONENT_MIN
    half_unit = 2.0 ** (EXPONENT_MAX - fraction_bits - 1)
    below = np.nextafter(fmt.max + half_unit, 0)
    cases = [
        (least, least, False),
        # The unit in the last place is the lower binade's: this is exact, and too small.
        (least * (1 - 2.0 ** -(fraction_bits + 1)), 0.0, False),
        (least * (1 - 2.0 ** -(fraction_bits + 2)), least, False),  # a tie, to the even
        (least * (1 - 3 * 2.0 ** -(fraction_bits + 3)), 0.0, False),
        (least / 2, 0.0, False),
        (fmt.max, fmt.max, False),
        (below, fmt.max, False),
        (fmt.max + half_unit, fmt.max, True),
        (2.0**1023, fmt.max, True),
        (0.0, 0.0, False),
    ]
    for x, want, flag in cases:
        for sign in (1, -1):
            value, overflow = fmt.round_flag(sign * x)
            assert (float(value), bool(overflow)) == (sign * want, flag), sign * x
            assert exact_round(fmt, Fraction(sign * x)) == (sign * want, flag)


def _square_root(x: Fraction) -> Fraction:
    """A number that rounds as the square root of `x` does, in any format up to F = 24."""
    scale = 1 << 2 * max(0, 64 - floor_log2(x) // 2) if x else 1
    radicand = x * scale
    root = isqrt(radicand.numerator // radicand.denominator)
    exact = root * root == radicand
    # Not exact: anything between this integer and the next, which no tie is.
    return (Fraction(root) + (0 if exact else Fraction(1, 2))) / isqrt(scale)


OPERATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Fraction]]] = {
    "add": (np.add, lambda a, b: a + b),
    "multiply": (np.multiply, lambda a, b: a * b),
    "divide": (np.divide, lambda a, b: a / b),
    "sqrt": (lambda a, b: np.sqrt(np.abs(a)), lambda a, b: _square_root(abs(a))),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fraction_bits", FRACTION_BITS)
def test_rounding_a_float64_operation_is_rounding_the_exact_one(
    fraction_bits: int, operation: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    fmt = Format(fraction_bits)
    in_float64, exactly = OPERATIONS[operation]
    a, b = numbers(rng, fmt, 2000), numbers(rng, fmt, 2000)
    near = rng.random(2000) < 0.2  # operands that cancel, or whose quotient is almost one
    b = np.where(near, -a * (1 + rng.integers(-2, 3, 2000) * 2.0**-fraction_bits), b)
    b = np.where(b == 0, 1.0, fmt.round(b))
    b = np.where(b == 0, 1.0, b)
    with np.errstate(under="ignore"):
        value, overflow = fmt.round_flag(in_float64(a, b))
    for x, y, got, flag in zip(
        a.tolist(), b.tolist(), value.tolist(), overflow.tolist(), strict=True
    ):
        want = exact_round(fmt, exactly(Fraction(x), Fraction(y)))
        assert (got, flag) == want, f"{operation} {x} {y}"


def test_every_code_of_the_smallest_format() -> None:
    fmt = Format(4)
    bits = np.arange(1 << fmt.width, dtype=np.uint64)
    values = fmt.decode(bits)
    field = (bits >> np.uint64(4)) & np.uint64(1023)
    assert (values[field == 0] == 0).all()
    nonzero = bits[field != 0]
    assert (fmt.encode(values[field != 0]) == nonzero).all()
    assert len(np.unique(values)) == len(nonzero) + 1
    assert values.max() == fmt.max
    assert np.abs(values[values != 0]).min() == 2.0**EXPONENT_MIN
    assert (fmt.round(values) == values).all()
    assert values[np.uint64(EXPONENT_BIAS) << np.uint64(4)] == 1.0


@pytest.mark.parametrize("fraction_bits", FRACTION_BITS)
def test_codes_round_trip(fraction_bits: int, seed: int) -> None:
    fmt = Format(fraction_bits)
    assert fmt.width == fraction_bits + 11
    x = numbers(np.random.default_rng(seed), fmt, 5000)
    assert (fmt.decode(fmt.encode(x)) == x).all()
    assert (fmt.round(x) == x).all()
    assert fmt.encode(-0.0) == 0, "zero has a positive sign"


@pytest.mark.parametrize("fraction_bits", [3, 25])
def test_fraction_bits_are_checked(fraction_bits: int) -> None:
    with pytest.raises(ValueError, match=f"not {fraction_bits}"):
        Format(fraction_bits)
