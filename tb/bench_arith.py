# SPDX-License-Identifier: Apache-2.0
"""Float units against `golden.number`, all of one format at once.

The top has the inputs `a`, `b`, `i` and `exponent` and one output `results`,
in which the units' results lie side by side as the parameter `units` says.  A
unit's results must appear exactly its latency after the operands, bit by bit,
overflow and all, one a cycle.  Each class of hard cases must have occurred.
"""

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from numpy.typing import NDArray

from golden.number import EXPONENT_MAX, EXPONENT_MIN, Floats, Format
from tb.stream import parameters, seed, start

Ints = NDArray[np.int64]


def fractions(rng: np.random.Generator, fmt: Format, count: int) -> Ints:
    """Fractions: random, with few significant bits, of ones, near the ends."""
    f = fmt.fraction_bits
    free = rng.integers(0, 1 << f, count)
    few = free >> rng.integers(0, f + 1, count) << rng.integers(0, f + 1, count)
    near = rng.integers(-3, 4, count)
    ones = (1 << rng.integers(0, f + 1, count)) - 1
    choice = rng.integers(0, 4, count)
    return np.choose(choice, [free, few, near, ones]) & ((1 << f) - 1)


def number(fmt: Format, sign: Ints, field: Ints, fraction: Ints) -> Floats:
    """Floats from their parts; the field is clipped to its range."""
    f = fmt.fraction_bits
    field = np.clip(field, 0, 1023)
    fraction = np.where(field == 0, 0, fraction)
    sign = np.where(field == 0, 0, sign)
    return fmt.decode((sign << (f + 10)) | (field << f) | fraction)


def pairs(rng: np.random.Generator, fmt: Format, count: int) -> tuple[Floats, Floats]:
    """Operands, so that sums, products and quotients meet their hard cases."""
    f = fmt.fraction_bits
    ends = np.array([0, 1, 2, 3, f, f + 1, f + 2, 1020, 1021, 1022, 1023])
    field_a = np.where(
        rng.random(count) < 0.3, rng.choice(ends, count), rng.integers(0, 1024, count)
    )
    jitter = rng.integers(-2, 3, count)
    field_b = np.choose(
        rng.integers(0, 8, count),
        [
            rng.integers(0, 1024, count),
            field_a + rng.integers(-f - 4, f + 5, count),
            field_a + jitter,
            field_a,
            512 + jitter - field_a,  # the product underflows, nearly
            1535 + jitter - field_a,  # or overflows
            field_a + 511 + jitter,  # the quotient underflows, nearly
            field_a - 511 + jitter,  # or overflows
        ],
    )
    fraction_a, fraction_b = fractions(rng, fmt, count), fractions(rng, fmt, count)
    close = rng.random(count) < 0.15
    near = np.clip(fraction_a + rng.integers(-2, 3, count), 0, (1 << f) - 1)
    fraction_b = np.where(close, near, fraction_b)
    # Products just below a power of two, half of them at the ends of the range.
    below_two = rng.random(count) < 0.08
    fraction_b = np.where(
        below_two, (2 << (2 * f)) // ((1 << f) + fraction_a) & ((1 << f) - 1), fraction_b
    )
    ends_of_range = np.where(rng.random(count) < 0.5, 512, 1535) - field_a
    field_b = np.where(below_two & (rng.random(count) < 0.5), ends_of_range, field_b)
    a = number(fmt, rng.integers(0, 2, count), field_a, fraction_a)
    b = number(fmt, rng.integers(0, 2, count), field_b, fraction_b)
    smallest = float(np.ldexp(1.0, EXPONENT_MIN))
    corners = [0.0, smallest, -smallest, fmt.max, -fmt.max, 1.0, -1.0]
    grid_a, grid_b = np.meshgrid(corners, corners)
    return np.concatenate([grid_a.ravel(), a]), np.concatenate([grid_b.ravel(), b])


def integers(rng: np.random.Generator, fmt: Format, width: int, count: int) -> tuple[Ints, Ints]:
    """Integers of up to `width` bits and exponents: ties, ones, ends, the edges of the range."""
    f = fmt.fraction_bits
    size = rng.integers(0, width, count)
    free = rng.integers(0, 1 << 62, count) >> (62 - size)
    drop = np.maximum(size - f - 1, 0)  # bits to round away
    tie = (free >> drop << drop) | np.where(drop > 0, 1 << np.maximum(drop - 1, 0), 0)
    ones = ((1 << size) - 1) ^ rng.integers(0, 2, count)
    magnitude = np.choose(rng.integers(0, 3, count), [free, tie, ones])
    value = np.where(rng.random(count) < 0.5, -magnitude, magnitude)
    value[: count // 100] = -(1 << (width - 1))
    value = np.clip(value, -(1 << (width - 1)), (1 << (width - 1)) - 1)
    top = np.frexp(value.astype(np.float64))[1] - 1
    jitter = rng.integers(-2, 3, count)
    exponent = np.choose(
        rng.integers(0, 4, count),
        [
            rng.integers(-2048, 2048, count),
            rng.integers(-40, 20, count),
            EXPONENT_MIN - top + jitter,
            EXPONENT_MAX - top + jitter,
        ],
    )
    return value, exponent


def integer_corners(fmt: Format, width: int) -> tuple[Ints, Ints]:
    """Integers at the ends of `width` bits and of the fraction, at the ends of the exponents."""
    end = 1 << (width - 1)
    values = [0, 1, -1, end - 1, -end, min(end - 1, (2 << fmt.fraction_bits) - 1)]
    pairs = [
        (value, place - (abs(value).bit_length() - 1) + step)
        for value in values
        for place in (EXPONENT_MIN, EXPONENT_MAX)
        for step in (-2, -1, 0, 1)
    ]
    value, exponent = np.array(pairs, dtype=np.int64).T
    return value, exponent


def expected(unit: dict[str, Any], fmt: Format, inputs: dict[str, Any]) -> NDArray[np.uint64]:
    """What `unit` must put out: the float, above it overflow, above that zero_divide."""
    a, b = inputs["a"], inputs["b"]
    flag: Any = 0
    with np.errstate(all="ignore"):
        match unit["kind"]:
            case "add":
                exact = a + b
            case "multiply":
                exact = a * b
            case "divide":
                flag = b == 0
                exact = np.where(flag, 0.0, a / b)
            case "sqrt":
                exact = np.sqrt(np.maximum(a, 0.0))
            case "int":
                exact = np.ldexp(
                    narrow(inputs["i"], unit["width"]).astype(np.float64), inputs["exponent"]
                )
            case kind:
                raise ValueError(f"unknown unit {kind!r}")
    value, overflow = fmt.round_flag(exact)
    cover(unit, fmt, exact, value, overflow)
    bits = fmt.encode(value) | (overflow.astype(np.uint64) << np.uint64(fmt.width))
    return bits | (np.asarray(flag).astype(np.uint64) << np.uint64(fmt.width + 1))


def narrow(value: Ints, width: int) -> Ints:
    """The low `width` bits of `value`, with their sign."""
    half = 1 << (width - 1)
    return ((value + half) & (2 * half - 1)) - half


def cover(unit: dict[str, Any], fmt: Format, exact: Floats, value: Floats, overflow: Any) -> None:
    """Every class of hard cases that the unit can meet must be among the vectors."""
    scaled = np.frexp(exact)[0] * (1 << (fmt.fraction_bits + 1))
    finite = np.isfinite(scaled)
    scaled = np.where(finite, scaled, 0.0)
    exponents = np.frexp(exact)[1]
    counts = {
        "zero": np.sum(exact == 0),
        "exact": np.sum((scaled == np.rint(scaled)) & (exact != 0)),
        "inexact": np.sum(scaled != np.rint(scaled)),
    }
    kind = unit["kind"]
    wide = kind != "int" or unit["width"] > fmt.fraction_bits + 2
    if kind in ("add", "multiply", "int") and wide:
        tie = (np.abs(scaled - np.trunc(scaled)) == 0.5) & (value != 0) & ~overflow
        even = np.trunc(scaled) % 2 == 0
        counts["tie down"], counts["tie up"] = np.sum(tie & even), np.sum(tie & ~even)
        carry = np.abs(np.rint(scaled)) == 1 << (fmt.fraction_bits + 1)
        counts["carry"] = np.sum(carry)
    if kind != "sqrt":
        counts["overflow"] = np.sum(overflow)
        if wide:
            counts["largest"] = np.sum((np.abs(value) == fmt.max) & ~overflow)
        smallest = np.abs(value) == np.ldexp(1.0, EXPONENT_MIN)
        counts["smallest"] = np.sum(smallest)
        if kind != "add":
            counts["underflow"] = np.sum((value == 0) & (exact != 0))
        if kind in ("multiply", "int") and wide:
            counts["rounds up to the smallest"] = np.sum(smallest & (exponents == EXPONENT_MIN))
    if not wide:
        del counts["inexact"]
    missing = [name for name, count in counts.items() if count == 0]
    cocotb.log.info("%s: %s", unit["name"], {name: int(c) for name, c in counts.items()})
    assert not missing, f"{unit['name']}: no vector for {missing}"


@cocotb.test()
async def matches_golden(dut: Any) -> None:
    """All units, one set of operands a cycle."""
    settings = parameters()
    units: list[dict[str, Any]] = settings["units"]
    fmt = Format(settings["fraction_bits"])
    rng = np.random.default_rng(seed())
    a, b = pairs(rng, fmt, settings["vectors"])
    # Narrower converters see the low bits: let a part of the integers fit each of them.
    widths = [unit["width"] for unit in units if unit["kind"] == "int"]
    width = max(widths)
    parts = [integers(rng, fmt, each, -(-2 * len(a) // len(widths))) for each in widths]
    parts += [integer_corners(fmt, each) for each in widths]
    i = np.concatenate([part[0] for part in parts])
    exponent = np.clip(np.concatenate([part[1] for part in parts]), -2048, 2047)
    order = rng.permutation(len(i))
    i, exponent = i[order], exponent[order]
    repeat = -(-len(i) // len(a))
    a, b = np.tile(a, repeat)[: len(i)], np.tile(b, repeat)[: len(i)]
    inputs = {"a": a, "b": b, "i": i, "exponent": exponent}
    await start(dut)
    drive = list(
        zip(
            fmt.encode(a).tolist(),
            fmt.encode(b).tolist(),
            (i & ((1 << width) - 1)).tolist(),
            (exponent & 0xFFF).tolist(),
            strict=True,
        )
    )
    # Element n of `sampled` is what the edge sees that samples operand n.
    sampled: list[int] = []
    latest = max(unit["latency"] for unit in units)
    for cycle in range(len(drive) + latest + 1):
        if cycle < len(drive):
            dut.a.value, dut.b.value, dut.i.value, dut.exponent.value = drive[cycle]
        await RisingEdge(dut.clk)
        sampled.append(int(dut.results.value))

    bits = fmt.width + 2
    mask = (1 << bits) - 1
    for place, unit in enumerate(units):
        want = expected(unit, fmt, inputs)
        got = np.array(
            [sampled[n + unit["latency"]] >> (place * bits) & mask for n in range(len(drive))],
            dtype=np.uint64,
        )
        if settings.get("corrupt") == unit["name"]:  # shows that the bench can fail
            got[rng.integers(len(got))] ^= np.uint64(1 << int(rng.integers(bits)))
        wrong = np.flatnonzero(got != want)
        if len(wrong):
            n = int(wrong[0])
            raise AssertionError(
                f"{unit['name']}: {len(wrong)} of {len(want)} wrong, first {n}: "
                f"{ {name: values[n].item() for name, values in inputs.items()} } "
                f"gives {int(got[n]):#x}, not {int(want[n]):#x}"
            )
