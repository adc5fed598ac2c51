# SPDX-License-Identifier: Apache-2.0
"""MX blocks against an element-by-element implementation in exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from golden.mx import MANTISSA_MAX, ZERO_EXPONENT, Blocks, dequantize, quantize
from golden.number import EXPONENT_MAX, EXPONENT_MIN, Floats

BLOCKS = (8, 16, 32)


def exact_quantize(x: list[float]) -> tuple[list[int], int]:
    """One block, by the definition of MXINT8 with an exponent of -511 to 511."""
    exact = [Fraction(value) for value in x]
    peak = max(abs(value) for value in exact)
    if peak < Fraction(2) ** EXPONENT_MIN:
        return [0] * len(x), ZERO_EXPONENT
    exponent = EXPONENT_MIN
    while exponent < EXPONENT_MAX and Fraction(2) ** (exponent + 1) <= peak:
        exponent += 1
    unit = Fraction(2) ** (exponent - 6)
    mantissas = [round(value / unit) for value in exact]  # to nearest even
    return [max(-127, min(127, m)) for m in mantissas], exponent


def rows(rng: np.random.Generator, count: int, block: int) -> Floats:
    """Blocks with wide and narrow spreads, ties, zeros and the ends of the range."""
    top = rng.choice([EXPONENT_MIN, -300, -3, 0, 1, 200, EXPONENT_MAX], (count, 1))
    spread = rng.choice([0, 1, 4, 9, 30], (count, 1))
    exponent = top - (rng.random((count, block)) * (spread + 1)).astype(np.int64)
    free = rng.uniform(1, 2, (count, block))
    ties = 1 + rng.integers(0, 256, (count, block)) / 256
    significand = np.where(rng.random((count, block)) < 0.5, free, ties)
    x = np.ldexp(significand, exponent) * rng.choice([-1, 1], (count, block))
    return np.where(rng.random((count, block)) < rng.choice([0, 0.1, 0.9, 1], (count, 1)), 0.0, x)


@pytest.mark.parametrize("block", BLOCKS)
def test_matches_the_definition(block: int, seed: int) -> None:
    x = rows(np.random.default_rng(seed), 400, block)
    result = quantize(x, block)
    assert result.mantissas.shape == (400, 1, block) and result.exponents.shape == (400, 1)
    saturated = 0
    for row, mantissas, exponent in zip(
        x.tolist(), result.mantissas[:, 0].tolist(), result.exponents[:, 0].tolist(), strict=True
    ):
        assert (mantissas, exponent) == exact_quantize(row)
        saturated += MANTISSA_MAX in mantissas
    assert saturated
    assert result.mantissas.min() == -MANTISSA_MAX


@pytest.mark.parametrize("block", BLOCKS)
def test_error_and_idempotence(block: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(3, 5, 4 * block)) * 10.0
    result = quantize(x, block)
    back = dequantize(result)
    assert back.shape == x.shape
    unit = np.repeat(np.ldexp(1.0, result.exponents.astype(np.int64) - 6), block, axis=-1)
    # Half a unit; a whole one where 127.5 and more saturate.
    clipped = np.abs(x) > 127.5 * unit
    assert (np.abs(back - x) <= np.where(clipped, 1.0, 0.5) * unit).all()
    again = quantize(back, block)
    assert (again.mantissas == result.mantissas).all()
    assert (again.exponents == result.exponents).all()


def test_corners() -> None:
    def one(*values: float) -> tuple[list[int], int]:
        blocks = quantize([*values, *([0.0] * (8 - len(values)))], 8)
        return blocks.mantissas[0, : len(values)].tolist(), int(blocks.exponents[0])

    assert one(0.0, -0.0) == ([0, 0], ZERO_EXPONENT)
    assert one(1.0, -1.0, 0.5) == ([64, -64, 32], 0)
    assert one(127.5 / 64, -127.5 / 64) == ([127, -127], 0), "saturates, does not carry"
    assert one(1.0, 0.5 / 64, 1.5 / 64, 2.5 / 64) == ([64, 0, 2, 2], 0), "ties go to even"
    assert one(1.0, np.nextafter(0.5 / 64, 1)) == ([64, 1], 0)
    assert one(2.0**EXPONENT_MIN) == ([64], EXPONENT_MIN)
    assert one(np.nextafter(2.0**EXPONENT_MIN, 0)) == ([0], ZERO_EXPONENT), "too small"
    assert one(2.0**1000, -(2.0**500)) == ([127, 0], EXPONENT_MAX), "too large"
    assert one(np.nextafter(2.0, 0)) == ([127], 0)


def test_minus_128_is_accepted_and_not_produced() -> None:
    blocks = Blocks(np.full((1, 8), -128, dtype=np.int8), np.array([3], dtype=np.int16))
    x = dequantize(blocks)
    assert (x == -16.0).all()
    again = quantize(x, 8)
    assert (again.mantissas == -64).all() and again.exponents == 4


def test_exponents_are_e8m0_at_the_border(seed: int) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(seed)
    x = np.ldexp(rng.uniform(-2, 2, (255, 32)), np.arange(-127, 128)[:, None])
    x[:, 0] = np.ldexp(1.5, np.arange(-127, 128))
    exponents = quantize(x, 32).exponents[:, 0]
    scale = np.ldexp(1.0, exponents.astype(np.int64)).astype(ml_dtypes.float8_e8m0fnu)
    assert (scale.view(np.uint8).astype(int) - 127 == exponents).all()
    assert (scale.astype(np.float64) == np.ldexp(1.0, exponents.astype(np.int64))).all()


def test_what_cannot_be_quantized() -> None:
    with pytest.raises(ValueError, match="12 elements, no multiple of block 8"):
        quantize(np.zeros(12), 8)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="NaN or infinity"):
            quantize([bad] + [0.0] * 7, 8)
