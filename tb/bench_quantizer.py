# SPDX-License-Identifier: Apache-2.0
"""The quantizer against `golden.mx`, bit by bit, with gaps between the valid cycles and without.

A block must appear exactly `latency` cycles after its last elements, and nothing in any other
cycle.  Each class of hard cases must have occurred.
"""

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from numpy.typing import NDArray

from golden.mx import MANTISSA_MAX, MANTISSA_SHIFT, ZERO_EXPONENT, quantize
from golden.number import EXPONENT_MAX, EXPONENT_MIN
from tb.stream import STALLS, parameters, rng, seed, start

Ints = NDArray[np.int64]

EXPONENT_BITS = 10
MANTISSA_BITS = 8


class Elements:
    """Random blocks of elements, ``[blocks, block]``, as the parts that the port carries."""

    def __init__(
        self, generator: np.random.Generator, *, blocks: int, block: int, significand_bits: int
    ) -> None:
        g, shape, column = generator, (blocks, block), (blocks, 1)
        s = self.significand_bits = significand_bits
        spread = g.choice([0, 1, 3, 9, 40, 1022], column)
        top = np.where(
            g.random(column) < 0.2,
            g.choice([EXPONENT_MIN, EXPONENT_MIN + 1, 0, EXPONENT_MAX], column),
            g.integers(EXPONENT_MIN, EXPONENT_MAX + 1, column),
        )
        below = (g.random(shape) * (spread + 1)).astype(np.int64)
        self.exponent = np.maximum(top - below, EXPONENT_MIN)
        # Random, ones (which carry when rounded), few bits (ties), near a power of two.
        free = g.integers(0, 1 << (s - 1), shape)
        ones = (1 << (s - 1)) - (1 << g.integers(0, s, shape))
        few = free >> g.integers(0, s, shape) << g.integers(0, s, shape)
        near = g.integers(-2, 3, shape)
        fraction = np.choose(g.integers(0, 4, shape), [free, ones, few, near])
        self.significand = (1 << (s - 1)) | (fraction & ((1 << (s - 1)) - 1))
        self.sign = g.integers(0, 2, shape)
        self.zero = g.random(shape) < g.choice([0.0, 0.1, 0.9, 1.0], column, p=[0.6, 0.2, 0.1, 0.1])
        scaled = np.ldexp(self.significand.astype(np.float64), self.exponent - (s - 1))
        self.values = np.where(self.zero, 0.0, np.where(self.sign == 1, -scaled, scaled))

    def words(self, lanes: int) -> list[list[int]]:
        """What the port carries, a list of cycles for each block."""
        s = self.significand_bits
        exponent = self.exponent & ((1 << EXPONENT_BITS) - 1)
        packed = (
            self.significand
            | exponent << s
            | self.sign << (s + EXPONENT_BITS)
            | self.zero.astype(np.int64) << (s + EXPONENT_BITS + 1)
        )
        width = s + EXPONENT_BITS + 2
        return [
            [join(block[first : first + lanes], width) for first in range(0, len(block), lanes)]
            for block in packed.tolist()
        ]


def join(parts: list[int], width: int) -> int:
    """Integers of `width` bits side by side, the first lowest."""
    return sum(part << (place * width) for place, part in enumerate(parts))


def cover(elements: Elements) -> None:
    """Every class of hard cases must be among the blocks."""
    values = elements.values
    blocks = quantize(values, values.shape[1])
    mantissas, exponents = blocks.mantissas[:, 0], blocks.exponents[:, 0]
    scaled = np.ldexp(np.abs(values), MANTISSA_SHIFT - exponents[:, None].astype(np.int64))
    tie = scaled - np.floor(scaled) == 0.5
    even = np.floor(scaled) % 2 == 0
    counts = {
        "zero block": np.sum(exponents == ZERO_EXPONENT),
        "largest exponent": np.sum(exponents == EXPONENT_MAX),
        "smallest exponent": np.sum(exponents == EXPONENT_MIN),
        "half of a unit": np.sum(scaled == 0.5),
        "less than half": np.sum((scaled < 0.5) & (values != 0)),
        "saturated": np.sum(np.rint(scaled) > MANTISSA_MAX),
        "127": np.sum(mantissas == MANTISSA_MAX),
        "-127": np.sum(mantissas == -MANTISSA_MAX),
    }
    if elements.significand_bits > MANTISSA_SHIFT + 1:
        counts |= {"tie down": np.sum(tie & even), "tie up": np.sum(tie & ~even)}
    else:
        del counts["saturated"], counts["127"], counts["-127"]
    missing = [name for name, count in counts.items() if count == 0]
    cocotb.log.info("%s", {name: int(count) for name, count in counts.items()})
    assert not missing, f"no block for {missing}"


@cocotb.test()
@cocotb.parametrize(stall=STALLS)
async def matches_golden(dut: Any, stall: float) -> None:
    """Random blocks."""
    settings = parameters()
    block, lanes, latency = settings["block"], settings["lanes"], settings["latency"]
    count = 120 if stall > 0.5 else 600
    elements = Elements(
        np.random.default_rng(seed()),
        blocks=600,
        block=block,
        significand_bits=settings["significand_bits"],
    )
    cover(elements)
    want = quantize(elements.values, block)
    results = [
        join([m & 0xFF for m in mantissas[0]], MANTISSA_BITS)
        | (exponent[0] & 0x3FF) << (block * MANTISSA_BITS)
        for mantissas, exponent in zip(
            want.mantissas.tolist(), want.exponents.tolist(), strict=True
        )
    ][:count]
    words = elements.words(lanes)[:count]
    gaps = rng(f"gaps {stall}")

    expected: dict[int, int] = {}  # cycle -> block
    received: dict[int, int] = {}
    cycle = 0

    async def tick() -> None:
        nonlocal cycle
        await RisingEdge(dut.clk)
        if int(dut.o_valid.value):
            received[cycle] = int(dut.o.value)
        cycle += 1

    dut.i_valid.value = 0
    await start(dut)
    for chunks, result in zip(words, results, strict=True):
        for chunk in chunks:
            dut.i_valid.value = 0
            while gaps.random() < stall:
                dut.i.value = gaps.getrandbits(len(dut.i))
                await tick()
            dut.i_valid.value = 1
            dut.i.value = chunk
            await tick()
        expected[cycle - 1 + latency] = result
    dut.i_valid.value = 0
    for _ in range(latency + 50):
        await tick()

    match settings.get("corrupt"):  # shows that the bench can fail
        case "bit":
            received[next(iter(received))] ^= 1 << gaps.randrange(block * MANTISSA_BITS)
        case "valid":
            received.clear()
    assert len(received) == count, f"{len(received)} blocks, not {count}"
    assert list(received) == list(expected), "a block came in another cycle than expected"
    for index, (got, result) in enumerate(zip(received.values(), results, strict=True)):
        assert got == result, (
            f"block {index}: {elements.values[index].tolist()} gives {got:#x}, not {result:#x}"
        )


@cocotb.test()
async def reset_forgets(dut: Any) -> None:
    """A reset amid a block: neither what came before nor its count is left."""
    settings = parameters()
    block, lanes = settings["block"], settings["lanes"]
    elements = Elements(
        np.random.default_rng(seed()),
        blocks=2,
        block=block,
        significand_bits=settings["significand_bits"],
    )
    before, after = elements.words(lanes)
    dut.i_valid.value = 0
    await start(dut)
    for word in (*before, *before[1:]):
        dut.i_valid.value = 1
        dut.i.value = word
        await RisingEdge(dut.clk)
    dut.i_valid.value = 0
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    received = []
    for cycle in range(len(after) + settings["latency"] + 50):
        await RisingEdge(dut.clk)
        if int(dut.o_valid.value):
            received.append(int(dut.o.value))
        dut.i_valid.value = int(cycle < len(after))
        if cycle < len(after):
            dut.i.value = after[cycle]
    want = quantize(elements.values[1], block)
    result = join([m & 0xFF for m in want.mantissas[0].tolist()], MANTISSA_BITS)
    result |= (int(want.exponents[0]) & 0x3FF) << (block * MANTISSA_BITS)
    assert received == [result]
