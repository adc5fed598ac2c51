# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""The MX quantizer: bit by bit and cycle by cycle against golden."""

from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from golden.number import Format
from hdl.arith.format import float_layout
from hdl.mx import MXQuantizer, element_layout, float_element
from tb.runner import BenchError, build

# (block, lanes, significand_bits)
SIZES = [(8, 4, 10), (8, 8, 25), (16, 2, 5), (32, 8, 16), (32, 32, 12)]


def run(size: tuple[int, int, int], seed: int, **settings: Any) -> None:
    block, lanes, significand_bits = size
    unit = MXQuantizer(block=block, lanes=lanes, significand_bits=significand_bits)
    settings |= {
        "block": block,
        "lanes": lanes,
        "significand_bits": significand_bits,
        "latency": settings.get("latency", unit.latency),
    }
    build(unit, name=f"quantizer_{block}_{lanes}_{significand_bits}").run(
        "tb.bench_quantizer", parameters=settings, seed=seed, workdir=settings.pop("workdir", None)
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matches_golden(size: tuple[int, int, int], seed: int) -> None:
    run(size, seed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corrupt": "bit"}, "block 0: .* gives"),
        ({"corrupt": "valid"}, "0 blocks, not"),
        ({"latency": 7}, "in another cycle than expected"),
    ],
)
def test_bench_sees(settings: dict[str, Any], message: str, seed: int, tmp_path: Any) -> None:
    with pytest.raises(BenchError, match=message):
        run(SIZES[0], seed, workdir=tmp_path, **settings)


class _Element(wiring.Component):  # type: ignore[misc]
    def __init__(self, fraction_bits: int) -> None:
        super().__init__(
            {"i": In(float_layout(fraction_bits)), "o": Out(element_layout(fraction_bits + 1))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.o.eq(float_element(self.i))
        return m


def test_float_element() -> None:
    fmt = Format(9)
    dut = _Element(9)

    async def bench(ctx: Any) -> None:
        for value in (1.0, -1.5, 2.0**-511, -(2.0**511), fmt.max, 0.0):
            ctx.set(dut.i.as_value(), int(fmt.encode(value)))
            await ctx.delay(1e-9)
            o = ctx.get(dut.o)
            assert o.zero == (value == 0)
            if not o.zero:
                assert o.significand * 2.0 ** (o.exponent - 9) * (-1) ** o.sign == value

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    ("name", "value"),
    [("block", 0), ("block", 12), ("lanes", 0), ("lanes", 3), ("lanes", 16), ("lanes", None)],
)
def test_sizes_are_checked(name: str, value: Any) -> None:
    sizes = {"block": 8, "lanes": 4, "significand_bits": 12} | {name: value}
    with pytest.raises(ValueError, match=f"{name}[= ].*{value}"):
        MXQuantizer(**sizes)


@pytest.mark.parametrize("value", [1, 33, "12"])
def test_significand_bits_are_checked(value: Any) -> None:
    with pytest.raises(ValueError, match="significand_bits must be"):
        MXQuantizer(block=8, lanes=4, significand_bits=value)
