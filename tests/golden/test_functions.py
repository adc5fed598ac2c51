# SPDX-License-Identifier: Apache-2.0
"""The vector functions against mathematics, and their table against the script that fits it."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from afternorm.isa import Function
from golden import functions, tables
from golden.number import EXPONENT_MAX, EXPONENT_MIN, Floats, Format

FORMATS = [4, 9, 15, 23, 24]
SMALLEST = math.ldexp(1.0, EXPONENT_MIN)

_erfc = np.frompyfunc(math.erfc, 1, 1)


def phi(x: Floats) -> Floats:
    return np.asarray(0.5 * _erfc(-x / math.sqrt(2.0)), dtype=np.float64)


def sigmoid(x: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-x))


BOUNDED: dict[Function, Callable[[Floats], Floats]] = {
    Function.SIGMOID: sigmoid,
    Function.TANH: np.tanh,
}
GATED: dict[Function, Callable[[Floats], Floats]] = {
    Function.SILU: sigmoid,
    Function.GELU: phi,
}


def numbers(fmt: Format, seed: int, low: int, high: int, count: int = 40_000) -> Floats:
    """Positive numbers with exponents from `low` to `high`, fractions at random and at the ends."""
    rng = np.random.default_rng(seed)
    ulps = rng.integers(0, 1 << fmt.fraction_bits, count)
    near = rng.integers(-2, 3, count) % (1 << fmt.fraction_bits)
    ulps = np.where(rng.random(count) < 0.2, near, ulps)
    return np.ldexp(1.0 + ulps / (1 << fmt.fraction_bits), rng.integers(low, high + 1, count))


def both_signs(x: Floats) -> Floats:
    return np.concatenate([x, -x, [0.0]])


@pytest.mark.parametrize("fraction_bits", FORMATS)
@pytest.mark.parametrize("function", BOUNDED)
def test_bounded_functions(function: Function, fraction_bits: int, seed: int) -> None:
    fmt = Format(fraction_bits)
    for low, high in ((-12, 5), (EXPONENT_MIN, EXPONENT_MAX)):
        x = both_signs(numbers(fmt, seed, low, high))
        y, overflow = functions.apply(fmt, function, x)
        assert not overflow.any()
        error = np.abs(y - BOUNDED[function](x)).max()
        assert error < 2.0**-15 + 2.0 ** -(fraction_bits + 2)
        assert np.abs(y).max() == 1.0
        np.testing.assert_array_equal(y, fmt.round(y))


@pytest.mark.parametrize("fraction_bits", FORMATS)
@pytest.mark.parametrize("function", GATED)
def test_gated_functions_keep_relative_accuracy(
    function: Function, fraction_bits: int, seed: int
) -> None:
    fmt = Format(fraction_bits)
    for low, high in ((-12, 5), (EXPONENT_MIN, EXPONENT_MAX)):
        x = both_signs(numbers(fmt, seed, low, high))
        y, overflow = functions.apply(fmt, function, x)
        assert not overflow.any()
        gate = GATED[function](x)
        error = np.abs(y - x * gate)
        bound = np.abs(x) * (2.0**-16 + gate * 2.0 ** -(fraction_bits + 1))
        assert (error <= np.maximum(bound, 1.001 * SMALLEST)).all()  # underflow


@pytest.mark.parametrize("fraction_bits", FORMATS)
def test_exp(fraction_bits: int, seed: int) -> None:
    fmt = Format(fraction_bits)
    rng = np.random.default_rng(seed)
    x = np.concatenate([both_signs(numbers(fmt, seed, -20, 8)), rng.uniform(-354, 354, 40_000)])
    x = fmt.round(x)
    x = x[np.abs(x) < EXPONENT_MAX * math.log(2.0)]
    y, overflow = functions.apply(fmt, Function.EXP, x)
    assert not overflow.any()
    relative = np.abs(y / np.exp(x) - 1.0).max()
    assert relative < 2.0**-14 + 2.0 ** -(fraction_bits + 1)

    x = fmt.round([370.0, 1e10, fmt.max, -370.0, -1e10, -fmt.max, 0.0, SMALLEST, -SMALLEST])
    y, overflow = functions.apply(fmt, Function.EXP, x)
    assert y[:7].tolist() == [fmt.max] * 3 + [0.0] * 3 + [1.0]
    np.testing.assert_allclose(y[7:], 1.0, rtol=2.0**-15)
    assert overflow.tolist() == [True] * 3 + [False] * 6


@pytest.mark.parametrize("fraction_bits", FORMATS)
@pytest.mark.parametrize("function", [Function.RECIPROCAL, Function.RSQRT])
def test_reciprocals(function: Function, fraction_bits: int, seed: int) -> None:
    fmt = Format(fraction_bits)
    root = function == Function.RSQRT
    x = numbers(fmt, seed, EXPONENT_MIN, EXPONENT_MAX - 1)
    x = x if root else np.concatenate([x, -x])
    y, overflow = functions.apply(fmt, function, x)
    assert not overflow.any()
    exact = 1.0 / np.sqrt(x) if root else 1.0 / x
    assert np.abs(y / exact - 1.0).max() < 2.0**-16 + 2.0 ** -(fraction_bits + 1)

    # Powers of two (of four) are exact.
    power = np.ldexp(1.0, np.arange(EXPONENT_MIN + 1, EXPONENT_MAX, 2 if root else 1))
    y, overflow = functions.apply(fmt, function, power)
    np.testing.assert_array_equal(y, 1.0 / np.sqrt(power) if root else 1.0 / power)

    y, overflow = functions.apply(fmt, function, np.array([0.0, -1.0, -fmt.max, fmt.max]))
    if root:
        assert y[:3].tolist() == [0.0] * 3
        assert overflow.tolist() == [True] * 3 + [False]
    else:
        assert y.tolist() == [0.0, -1.0, 0.0, 0.0]
        assert overflow.tolist() == [True] + [False] * 3


@pytest.mark.parametrize("fraction_bits", [9, 15])
@pytest.mark.parametrize("function", [Function.SIGMOID, Function.TANH, Function.EXP])
def test_functions_are_monotonic(function: Function, fraction_bits: int) -> None:
    fmt = Format(fraction_bits)
    positive = np.unique(numbers(fmt, 1, -14, 4, 200_000))
    x = np.concatenate([-positive[::-1], [0.0], positive])
    y, _ = functions.apply(fmt, function, x)
    assert (np.diff(y) >= 0).all()


@pytest.mark.parametrize("fraction_bits", [9, 15])
def test_reciprocals_are_monotonic(fraction_bits: int) -> None:
    fmt = Format(fraction_bits)
    x = np.unique(np.ldexp(1.0 + np.arange(1 << fraction_bits) / (1 << fraction_bits), [[0], [1]]))
    for function in (Function.RECIPROCAL, Function.RSQRT):
        y, _ = functions.apply(fmt, function, x)
        assert (np.diff(y) <= 0).all()


def test_limits() -> None:
    fmt = Format(23)
    x = np.array([0.0, 16.0, -16.0, 1e100, -1e100, SMALLEST, -SMALLEST])

    def apply(function: Function) -> list[float]:
        return functions.apply(fmt, function, fmt.round(x))[0].tolist()

    large = float(fmt.round(1e100))
    for function in (Function.SILU, Function.GELU):
        assert apply(function)[:5] == [0.0, 16.0, 0.0, large, 0.0]
    assert apply(Function.TANH)[:5] == [0.0, 1.0, -1.0, 1.0, -1.0]
    assert apply(Function.SIGMOID)[:5] == [0.5, 1.0, 0.0, 1.0, 0.0]
    assert apply(Function.NONE) == fmt.round(x).tolist()


def test_table_stays_in_range_and_increases() -> None:
    place = np.arange(1 << tables.PLACE_BITS)
    for part, segments in tables.SEGMENTS.items():
        address = np.repeat(np.arange(part, part + segments), len(place))
        step = 4 if part == tables.Part.EXP else 1
        g = tables.interpolate(address, np.tile(place, segments))[::step]
        assert g.min() >= 1 << tables.C0_BITS
        assert g.max() <= 1 << tables.G_BITS
        assert (np.diff(g) >= 0).all()


def test_table_is_what_the_script_makes() -> None:
    script = Path(__file__).parents[2] / "scripts" / "fit_tables.py"
    subprocess.run([sys.executable, str(script), "--check"], check=True)


def test_table_entries_fit_their_word() -> None:
    assert len(tables.ROM) == 1 << tables.ADDRESS_BITS
    assert all(0 <= entry < 1 << tables.ENTRY_BITS for entry in tables.ROM)
    c0, c1, c2 = (int(c[5]) for c in tables.TABLE)
    assert tables.pack_entry(c0, c1, c2) == tables.ROM[5]
