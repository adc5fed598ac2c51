# SPDX-License-Identifier: Apache-2.0
"""Function units of several formats against `golden.functions`, side by side.

For each F in the parameter `formats` the top has an input `i_F` and an output
`o_F` (overflow above the float); `select` goes to all.  A result must appear
exactly `latency` cycles after its argument, bit by bit, one a cycle.  Each class
of hard cases must have occurred.
"""

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from numpy.typing import NDArray

from afternorm.isa import Function
from golden import functions
from golden.number import EXPONENT_MAX, EXPONENT_MIN, Floats, Format
from tb.stream import parameters, seed, start


def arguments(rng: np.random.Generator, fmt: Format, function: Function, count: int) -> Floats:
    """Arguments over the whole range, dense where the function has its features."""
    wide = np.ldexp(rng.uniform(1, 2, count), rng.integers(EXPONENT_MIN, EXPONENT_MAX + 1, count))
    small = np.ldexp(rng.uniform(1, 2, count), rng.integers(-20, 4, count))
    span = 700.0 if function == Function.EXP else 20.0
    even = rng.uniform(0, span, count)
    near_limits = rng.choice([4.0, 8.0, 16.0, 353.5, 354.2, 354.9], count)
    near_limits = near_limits * (1 + rng.normal(size=count) * 2.0**-fmt.fraction_bits)
    powers = np.ldexp(1.0, rng.integers(EXPONENT_MIN, EXPONENT_MAX + 1, count))
    ulps = np.ldexp(rng.integers(-2, 3, count), -fmt.fraction_bits)
    x = np.choose(
        rng.integers(0, 6, count),
        [wide, small, even, near_limits, powers * (1 + ulps), np.rint(even * 8) / 8],
    )
    x = x * rng.choice([-1.0, 1.0], count)
    smallest = float(np.ldexp(1.0, EXPONENT_MIN))
    corners = [0.0, smallest, -smallest, fmt.max, -fmt.max, 1.0, -1.0, 16.0, -16.0, 8.0, -8.0]
    x[: len(corners)] = corners
    return fmt.round(x)


def expected(fmt: Format, function: Function, x: Floats) -> NDArray[np.uint64]:
    """What the unit must put out: the float, above it the overflow."""
    y, overflow = functions.apply(fmt, function, x)
    cover(function, x, y, overflow)
    return fmt.encode(y) | (overflow.astype(np.uint64) << np.uint64(fmt.width))


def cover(function: Function, x: Floats, y: Floats, overflow: NDArray[np.bool_]) -> None:
    """Every class of hard cases that the function can meet must be among the vectors."""
    cases = {"zero": x == 0}
    if function == Function.EXP:
        cases |= {
            "overflow": overflow,
            "underflow": y == 0,
            "huge": (y >= np.ldexp(1.0, EXPONENT_MAX - 8)) & ~overflow,
            "one": (y == 1) & (x != 0),
        }
    if function in (Function.RECIPROCAL, Function.RSQRT):
        cases |= {"flagged": overflow, "exact": y * y * np.abs(x) == 1}
    if function == Function.RECIPROCAL:
        cases["underflow"] = (y == 0) & ~overflow
    if function in (Function.SIGMOID, Function.TANH, Function.SILU, Function.GELU):
        cases |= {
            "saturated above": (x > 0) & (y == (x if y.max() > 1 else 1)),
            "saturated below": (x < 0) & (y == (-1 if function == Function.TANH else 0)),
        }
    missing = [name for name, hit in cases.items() if not hit.any()]
    assert not missing, f"{function.name}: no vector for {missing}"


@cocotb.test()
async def matches_golden(dut: Any) -> None:
    """All formats and functions, the function changing from cycle to cycle."""
    settings = parameters()
    rng = np.random.default_rng(seed())
    formats = [Format(bits) for bits in settings["formats"]]
    per_function = settings["vectors"] // len(Function)
    function = np.repeat(np.arange(len(Function)), per_function)
    order = rng.permutation(len(function))
    drive, want = [], []
    for fmt in formats:
        x = np.concatenate([arguments(rng, fmt, each, per_function) for each in Function])
        parts = np.split(x, len(Function))
        y = [expected(fmt, each, part) for each, part in zip(Function, parts, strict=True)]
        drive.append(fmt.encode(x)[order].tolist())
        want.append(np.concatenate(y)[order])
    function = function[order]

    inputs = [getattr(dut, f"i_{fmt.fraction_bits}") for fmt in formats]
    outputs = [getattr(dut, f"o_{fmt.fraction_bits}") for fmt in formats]
    await start(dut)
    latency: int = settings["latency"]
    sampled: list[list[int]] = [[] for _ in formats]
    for cycle in range(len(function) + latency):
        if cycle < len(function):
            dut.select.value = int(function[cycle])
            for port, values in zip(inputs, drive, strict=True):
                port.value = values[cycle]
        await RisingEdge(dut.clk)
        for port, values in zip(outputs, sampled, strict=True):
            values.append(int(port.value))

    for place, fmt in enumerate(formats):
        got = np.array(sampled[place][latency:], dtype=np.uint64)
        if settings.get("corrupt") == fmt.fraction_bits:  # shows that the bench can fail
            got[rng.integers(len(got))] ^= np.uint64(1 << int(rng.integers(fmt.width + 1)))
        wrong = np.flatnonzero(got != want[place])
        if len(wrong):
            n = int(wrong[0])
            raise AssertionError(
                f"F={fmt.fraction_bits}: {len(wrong)} of {len(got)} wrong, first {n}: "
                f"{Function(int(function[n])).name}({fmt.decode(drive[place][n])}) "
                f"gives {int(got[n]):#x}, not {int(want[place][n]):#x}"
            )
