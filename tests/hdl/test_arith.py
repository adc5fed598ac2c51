# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""Float units: bit by bit against golden, and their parameters' checks."""

from typing import Any

import pytest
from amaranth.hdl import C, Cat, Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.number import Format
from hdl.arith.delay import delay
from hdl.arith.float_add import FloatAdd
from hdl.arith.float_divide import FloatDivide
from hdl.arith.float_multiply import FloatMultiply
from hdl.arith.float_sqrt import FloatSqrt
from hdl.arith.format import float_layout
from hdl.arith.int_to_float import IntToFloat
from tb.runner import BenchError, build

WIDEST = 40


class Units(wiring.Component):  # type: ignore[misc]
    """All units of one format side by side, so that they are compiled together."""

    def __init__(self, *, fraction_bits: int) -> None:
        f = fraction_bits
        self.fraction_bits = f
        self.units: dict[str, tuple[str, Any]] = {
            "add": ("add", FloatAdd(fraction_bits=f)),
            "multiply": ("multiply", FloatMultiply(fraction_bits=f)),
            "divide": ("divide", FloatDivide(fraction_bits=f)),
            "divide_3": ("divide", FloatDivide(fraction_bits=f, bits_per_stage=3)),
            "sqrt": ("sqrt", FloatSqrt(fraction_bits=f)),
            "sqrt_3": ("sqrt", FloatSqrt(fraction_bits=f, bits_per_stage=3)),
        }
        for width in sorted({max(4, f - 3), f + 1, f + 2, 21, 32, WIDEST}):
            unit = IntToFloat(fraction_bits=f, width=width)
            self.units[f"int_{width}"] = ("int", unit)
        self.bits = Format(f).width + 2
        super().__init__(
            {
                "a": In(float_layout(f)),
                "b": In(float_layout(f)),
                "i": In(signed(WIDEST)),
                "exponent": In(signed(12)),
                "results": Out(len(self.units) * self.bits),
            }
        )

    def describe(self) -> list[dict[str, Any]]:
        """What the bench must know of the units."""
        return [
            {
                "name": name,
                "kind": kind,
                "latency": unit.latency,
                "width": getattr(unit, "width", 0),
            }
            for name, (kind, unit) in self.units.items()
        ]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        results = []
        for name, (kind, unit) in self.units.items():
            m.submodules[name] = unit
            if kind == "int":
                m.d.comb += [unit.i.eq(self.i), unit.exponent.eq(self.exponent)]
            elif kind == "sqrt":
                m.d.comb += unit.i.eq(self.a)
            else:
                m.d.comb += [unit.a.eq(self.a), unit.b.eq(self.b)]
            flag = unit.zero_divide if kind == "divide" else C(0, 1)
            results.append(Cat(unit.o, unit.overflow, flag))
        m.d.comb += self.results.eq(Cat(*results))
        return m


@pytest.mark.parametrize("fraction_bits", [4, 9, 15, 23, 24])
def test_units_match_golden(fraction_bits: int, seed: int) -> None:
    top = Units(fraction_bits=fraction_bits)
    build(top, name=f"units_{fraction_bits}").run(
        "tb.bench_arith",
        parameters={"fraction_bits": fraction_bits, "vectors": 6000, "units": top.describe()},
        seed=seed,
    )


@pytest.mark.parametrize("unit", ["add", "multiply", "divide", "sqrt", "int_40"])
def test_bench_sees_one_wrong_bit(unit: str, seed: int, tmp_path: Any) -> None:
    top = Units(fraction_bits=15)
    settings = {"fraction_bits": 15, "vectors": 6000, "units": top.describe(), "corrupt": unit}
    with pytest.raises(BenchError, match=f"{unit}: 1 of "):
        build(top, name="units_15").run(
            "tb.bench_arith", parameters=settings, seed=seed, workdir=tmp_path
        )


def test_bench_sees_a_wrong_latency(seed: int, tmp_path: Any) -> None:
    top = Units(fraction_bits=15)
    units = top.describe()
    units[0]["latency"] += 1
    with pytest.raises(BenchError, match=r"add: \d+ of \d+ wrong"):
        build(top, name="units_15").run(
            "tb.bench_arith",
            parameters={"fraction_bits": 15, "vectors": 6000, "units": units},
            seed=seed,
            workdir=tmp_path,
        )


@pytest.mark.parametrize("fraction_bits", [3, 25, -1, 15.0, None])
@pytest.mark.parametrize("unit", [FloatAdd, FloatMultiply, FloatDivide, FloatSqrt])
def test_fraction_bits_are_checked(unit: Any, fraction_bits: Any) -> None:
    with pytest.raises(ValueError, match=f"fraction_bits must be .* not {fraction_bits}"):
        unit(fraction_bits=fraction_bits)


@pytest.mark.parametrize("width", [1, 41, "8"])
def test_integer_width_is_checked(width: Any) -> None:
    with pytest.raises(ValueError, match="width must be an integer from 2 to 40"):
        IntToFloat(fraction_bits=15, width=width)


@pytest.mark.parametrize(("unit", "most"), [(FloatDivide, 18), (FloatSqrt, 16)])
def test_bits_per_stage_are_checked(unit: Any, most: int) -> None:
    unit(fraction_bits=15, bits_per_stage=most)
    for wrong in (0, most + 1):
        with pytest.raises(ValueError, match=f"bits_per_stage must be .* not {wrong}"):
            unit(fraction_bits=15, bits_per_stage=wrong)


def test_delay_is_checked() -> None:
    m = Module()
    unit = FloatAdd(fraction_bits=4)
    assert delay(m, unit.a, 0) is unit.a
    with pytest.raises(ValueError, match="not -1"):
        delay(m, unit.a, -1)
