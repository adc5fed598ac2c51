# SPDX-License-Identifier: Apache-2.0
"""The units' functions against mathematics: exact integers, float64, 50-digit decimals."""

from decimal import Decimal, getcontext

import numpy as np
import pytest

from afternorm.isa import Scale
from golden.mx import MANTISSA_MAX, ZERO_EXPONENT, Blocks, dequantize, quantize
from golden.number import EXPONENT_MAX, Floats, Format
from golden.units import (
    EXP_FRACTION_BITS,
    EXP_TABLE_BITS,
    Scales,
    exp2_blocks,
    exp_table,
    products,
    row_scales,
    statistics,
    tree_sum,
)

BLOCK = 32
FRACTION_BITS = (4, 9, 15, 23, 24)


def random_blocks(rng: np.random.Generator, count: int, low: int = -250, high: int = 251) -> Blocks:
    mantissas = rng.integers(-128, 128, (count, BLOCK)).astype(np.int8)
    mantissas[0], mantissas[1], mantissas[2] = -128, 127, 0
    exponents = rng.integers(low, high, count).astype(np.int16)
    exponents[2] = ZERO_EXPONENT
    return Blocks(mantissas, exponents)


# -- products, statistics, tree -----------------------------------------------------------------


@pytest.mark.parametrize("fraction_bits", FRACTION_BITS)
def test_products_are_exact_and_rounded_once(fraction_bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fmt = Format(fraction_bits)
    a, b = random_blocks(rng, 20), random_blocks(rng, 15)
    value, overflow = products(fmt, a, b)
    assert value.shape == overflow.shape == (20, 15) and not overflow.any()
    for m in range(20):
        for n in range(15):
            pairs = zip(a.mantissas[m].tolist(), b.mantissas[n].tolist(), strict=True)
            dot = sum(x * y for x, y in pairs)
            exact = np.ldexp(float(dot), int(a.exponents[m]) + int(b.exponents[n]) - 12)
            assert value[m, n] == fmt.round(exact)
    assert (value[2] == 0).all() and (value[:, 2] == 0).all()


def test_products_overflow_saturates() -> None:
    fmt = Format(15)
    a = Blocks(np.full((2, BLOCK), 127, dtype=np.int8), np.array([300, 300], dtype=np.int16))
    b = Blocks(np.full((1, BLOCK), -128, dtype=np.int8), np.array([300], dtype=np.int16))
    value, overflow = products(fmt, a, b)
    assert (value == -fmt.max).all() and overflow.all()


@pytest.mark.parametrize("squares", [False, True])
def test_statistics(squares: bool, seed: int) -> None:
    fmt = Format(15)
    a = random_blocks(np.random.default_rng(seed), 40, -200, 200)
    value, overflow = statistics(fmt, a, squares)
    x = dequantize(Blocks(a.mantissas[:, None], a.exponents[:, None]))
    assert not overflow.any()
    assert (value[:, 0] == fmt.round(x.sum(axis=-1))).all()
    assert (value[:, 1] == (fmt.round((x * x).sum(axis=-1)) if squares else 0.0)).all()


def test_statistics_overflow() -> None:
    a = Blocks(np.full((1, BLOCK), 127, dtype=np.int8), np.array([400], dtype=np.int16))
    value, overflow = statistics(Format(15), a, True)
    assert overflow.tolist() == [[False, True]] and value[0, 1] == Format(15).max


@pytest.mark.parametrize("tiles", [1, 2, 3, 4, 5, 7, 8, 16])
def test_tree_sum(tiles: int, seed: int) -> None:
    fmt = Format(9)
    x = fmt.round(np.random.default_rng(seed).normal(size=(tiles, 50)))
    value, overflow = tree_sum(fmt, x)
    depth = int(np.ceil(np.log2(tiles)))
    bound = np.abs(x).sum(axis=0) * depth * 2.0 ** -(fmt.fraction_bits + 1) * 1.01
    assert (np.abs(value - x.sum(axis=0)) <= bound).all() and not overflow.any()
    if tiles == 3:  # the odd one passes on
        assert (value == fmt.round(fmt.round(x[0] + x[1]) + x[2])).all()
    if tiles > 1:
        huge = np.full((tiles, 1), fmt.max)
        value, overflow = tree_sum(fmt, huge)
        assert value == fmt.max and overflow


# -- scales -------------------------------------------------------------------------------------


def scales(
    fmt: Format, mode: Scale, s1: Floats, s2: Floats, d: int = 64, eps: float = 1e-5
) -> Scales:
    inv_d, eps = fmt.round([1.0 / d, eps])
    return row_scales(fmt, mode, fmt.round(s1), fmt.round(s2), inv_d, eps)


@pytest.mark.parametrize("fraction_bits", FRACTION_BITS)
def test_scales_against_float64(fraction_bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fmt = Format(fraction_bits)
    ulp = 2.0**-fraction_bits
    d, eps = 64, 1e-5
    x = rng.normal(size=(200, d)) * 2.0 ** rng.integers(-6, 7, (200, 1))
    x += 0.05 * x.std(axis=-1, keepdims=True)  # LayerNorm's mean is small beside sigma
    s1, s2 = x.sum(axis=-1), (x * x).sum(axis=-1)

    softmax = scales(fmt, Scale.SOFTMAX, s2, s1)
    np.testing.assert_allclose(softmax.scale0, 1 / s2, rtol=2 * ulp)
    assert (softmax.scale1 == 0).all()

    # Half an ulp for each of the sum, 1/d, product, eps, sum and root; then 1/x.  The root halves.
    rms = scales(fmt, Scale.RMS, s1, s2, d, eps)
    np.testing.assert_allclose(rms.scale0, 1 / np.sqrt(s2 / d + eps), rtol=3 * ulp)
    assert (rms.scale1 == 0).all()

    layer = scales(fmt, Scale.LAYER, s1, s2, d, eps)
    mean = x.mean(axis=-1)
    sigma = np.sqrt(x.var(axis=-1) + eps)
    np.testing.assert_allclose(layer.scale0, 1 / sigma, rtol=5 * ulp)
    np.testing.assert_allclose(layer.scale1, -mean / sigma, rtol=9 * ulp, atol=ulp**2)

    plain = scales(fmt, Scale.SUM, s1, s2)
    assert (plain.scale0 == fmt.round(s1)).all() and (plain.scale1 == fmt.round(s2)).all()
    for result in (softmax, rms, layer, plain):
        assert not result.zero.any() and not result.overflow.any()


@pytest.mark.parametrize("fraction_bits", FRACTION_BITS)
def test_scales_of_nothing(fraction_bits: int) -> None:
    fmt = Format(fraction_bits)
    zero = np.zeros(2)
    for mode in (Scale.SOFTMAX, Scale.RMS, Scale.LAYER):
        result = scales(fmt, mode, zero, zero, eps=0.0)
        assert (result.scale0 == 0).all() and (result.scale1 == 0).all()
        assert result.zero.all() and not result.overflow.any()
    # With eps there is no zero.
    result = scales(fmt, Scale.RMS, zero, zero, eps=0.25)
    assert (result.scale0 == 2.0).all() and not result.zero.any()


def test_a_variance_below_zero_is_clamped() -> None:
    fmt = Format(4)
    # A constant row whose squared mean is rounded up above its mean square.
    d = 8
    x = fmt.round(np.arange(1.0, 2.0, 1 / 16))
    s1, s2 = fmt.round(d * x), fmt.round(d * x * x)
    inv_d = 1 / d
    mean = fmt.round(s1 * inv_d)
    assert (s2 * inv_d < fmt.round(mean * mean)).any() or (s2 * inv_d == mean * mean).any()
    result = row_scales(fmt, Scale.LAYER, s1, s2 * (1 - 1 / 16), inv_d, 0.25)
    assert np.isfinite(result.scale0).all() and (result.scale0 == 2.0).all()


def test_scales_overflow() -> None:
    fmt = Format(15)
    result = row_scales(
        fmt, Scale.SOFTMAX, np.array([2.0**-511, -(2.0**-511)]), np.zeros(2), 1.0, 0.0
    )
    # 1 / 2**-511 is the largest power of two: in range.
    assert (np.abs(result.scale0) == 2.0**511).all() and not result.overflow.any()
    big = np.array([fmt.max])
    result = row_scales(fmt, Scale.RMS, big, big, 4.0, 0.0)
    assert result.overflow.all()


# -- exp ----------------------------------------------------------------------------------------


def test_exp_table_is_rounded_exactly() -> None:
    getcontext().prec = 50
    for i, entry in enumerate(exp_table().tolist()):
        exact = Decimal(2) ** (Decimal(i) / (1 << EXP_FRACTION_BITS)) * (1 << EXP_TABLE_BITS)
        assert entry == int(exact.to_integral_value())
        assert 1 << EXP_TABLE_BITS <= entry < 2 << EXP_TABLE_BITS


def test_exp_of_every_step_in_range() -> None:
    unit = 1 << EXP_FRACTION_BITS
    steps = np.arange(-EXPONENT_MAX * unit, EXPONENT_MAX * unit + unit)
    table = exp_table()
    # Alone in its block, a score keeps its own exponent, and 7 bits of its significand.
    scores = np.zeros((len(steps), 8))
    scores[:, 3] = steps / unit
    masked = np.ones((len(steps), 8), dtype=bool)
    masked[:, 3] = False
    blocks, saturated = exp2_blocks(scores, masked, 8)
    assert not saturated.any()
    assert (blocks.exponents[:, 0] == steps // unit).all()
    want = np.minimum(np.rint(table[steps % unit] / 32), MANTISSA_MAX)
    assert (blocks.mantissas[:, 0, 3] == want).all()
    assert (np.delete(blocks.mantissas[:, 0], 3, axis=-1) == 0).all()


def test_exp_rounds_ties_to_even_and_saturates() -> None:
    unit = 1 << EXP_FRACTION_BITS
    top = EXPONENT_MAX + 1
    cases = [
        # score, the step it is rounded to, saturated
        (0.5 / unit, 0, False),
        (1.5 / unit, 2, False),
        (-0.5 / unit, 0, False),
        (-1.5 / unit, -2, False),
        (top - 1 / unit, top * unit - 1, False),
        (top - 0.75 / unit, top * unit - 1, False),
        (top - 0.5 / unit, top * unit - 1, True),
        (1e30, top * unit - 1, True),
        (-EXPONENT_MAX - 0.5 / unit, -EXPONENT_MAX * unit, False),
        (-EXPONENT_MAX - 0.75 / unit, -EXPONENT_MAX * unit, True),
        (-1e30, -EXPONENT_MAX * unit, True),
    ]
    for score, step, flag in cases:
        scores = np.full((1, 8), score)
        blocks, saturated = exp2_blocks(scores, np.zeros((1, 8), dtype=bool), 8)
        exact, _ = exp2_blocks(np.full((1, 8), step / unit), np.zeros((1, 8), dtype=bool), 8)
        assert (blocks.mantissas == exact.mantissas).all(), score
        assert blocks.exponents == exact.exponents == step // unit, score
        assert (saturated == flag).all(), score
        # A masked score raises no flag, whatever it is.
        _, saturated = exp2_blocks(scores, np.ones((1, 8), dtype=bool), 8)
        assert not saturated.any()


def test_masked_scores_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 5, (50, 4 * BLOCK))
    masked = rng.random(scores.shape) < 0.5
    masked[:, BLOCK : 2 * BLOCK] = True
    other = np.where(masked, rng.normal(0, 1000, scores.shape), scores)
    blocks, _ = exp2_blocks(scores, masked, BLOCK)
    others, _ = exp2_blocks(other, masked, BLOCK)
    assert (blocks.mantissas == others.mantissas).all()
    assert (blocks.exponents == others.exponents).all()
    assert (blocks.exponents[:, 1] == ZERO_EXPONENT).all()
    assert (blocks.mantissas[:, 1] == 0).all()


ROWS = {
    "usual": lambda rng, shape: rng.normal(0, 3, shape),
    "near -131": lambda rng, shape: rng.normal(-131, 4, shape),
    "-131 to -219": lambda rng, shape: rng.uniform(-219, -131, shape),
    "+300": lambda rng, shape: rng.normal(300, 4, shape),
    "-300": lambda rng, shape: rng.normal(-300, 4, shape),
    "+-300": lambda rng, shape: 300.0 * rng.choice([-1, 1], shape) + rng.normal(0, 2, shape),
    "-300 to 300": lambda rng, shape: rng.uniform(-300, 300, shape),
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("fraction_bits", [9, 15, 23])
def test_softmax_against_float64(kind: str, causal: bool, fraction_bits: int, seed: int) -> None:
    """Weights as the machine makes them, P / sum(P), against softmax with a row maximum."""
    rng = np.random.default_rng(seed)
    fmt = Format(fraction_bits)
    keys = 4 * BLOCK
    scores = fmt.round(ROWS[kind](rng, (keys, keys)))
    masked = np.triu(np.ones((keys, keys), dtype=bool), 1) & causal
    blocks, saturated = exp2_blocks(scores, masked, BLOCK)
    assert not saturated.any()
    p = dequantize(blocks)

    total = np.zeros(keys)
    for k in range(keys // BLOCK):
        entry, _ = statistics(fmt, Blocks(blocks.mantissas[:, k], blocks.exponents[:, k]), False)
        total = fmt.round(total + entry[:, 0])
    result = row_scales(fmt, Scale.SOFTMAX, total, np.zeros(keys), 1.0, 0.0)
    assert not result.zero.any() and not result.overflow.any()
    weights = p * result.scale0[:, None]

    ulp = 2.0**-fraction_bits
    assert np.isfinite(weights).all()
    # Numerator and denominator come from the same mantissas: only the rounding of the sum, over
    # its blocks, and of 1/x is left.
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=(keys // BLOCK + 1) * ulp)

    # A power's error: half a unit of its block (a whole one where it saturates), the score's
    # rounding (half of 1/256 in the exponent) and the table's.
    score_error = np.log(2) / 512 + 2.0**-12
    powers = np.where(masked, 0.0, np.exp2(scores))
    units = np.ldexp(1.0, blocks.exponents.astype(np.int64) - 6).repeat(BLOCK, axis=-1)
    near_top = powers * (1 + score_error) > 127.5 * units
    assert (np.abs(p - powers) <= np.where(near_top, 1, 0.5) * units + powers * score_error).all()

    shifted = np.where(masked, -np.inf, scores)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    want = np.exp2(shifted)
    want /= want.sum(axis=-1, keepdims=True)
    # On average it is what int8 elements cost however they are made: the same as casting the
    # float64 weights to MX, but for the rounding of the scores, the table and the float.
    cast = dequantize(quantize(want, BLOCK))
    cast /= cast.sum(axis=-1, keepdims=True)
    error = np.abs(weights - want).sum(axis=-1).mean()
    assert error <= 1.1 * np.abs(cast - want).sum(axis=-1).mean() + 2 * score_error + 4 * ulp
    assert (weights[masked] == 0).all()


def test_a_fully_masked_row_has_scale_zero() -> None:
    fmt = Format(15)
    blocks, _ = exp2_blocks(np.zeros((2, BLOCK)), np.ones((2, BLOCK), dtype=bool), BLOCK)
    assert (blocks.exponents == ZERO_EXPONENT).all() and (blocks.mantissas == 0).all()
    entry, _ = statistics(fmt, Blocks(blocks.mantissas[:, 0], blocks.exponents[:, 0]), False)
    result = row_scales(fmt, Scale.SOFTMAX, entry[:, 0], entry[:, 1], 1.0, 0.0)
    assert (result.scale0 == 0).all() and result.zero.all()


def test_exp_blocks_are_quantized_powers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.integers(-2000, 2000, (20, BLOCK))
    powers = exp_table()[steps % 256] / 2048 * 2.0 ** (steps // 256)
    blocks, _ = exp2_blocks(steps / 256, np.zeros(steps.shape, dtype=bool), BLOCK)
    want = quantize(powers, BLOCK)
    assert (blocks.mantissas == want.mantissas).all()
    assert (blocks.exponents == want.exponents).all()
