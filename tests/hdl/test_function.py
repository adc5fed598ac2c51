# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""Function unit: bit by bit against golden, all formats in one build."""

from typing import Any

import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.arith.format import float_layout
from hdl.vector.function import FUNCTION_BITS, FunctionUnit
from tb.runner import BenchError, Built, build

FORMATS = [4, 9, 15, 23, 24]


class Units(wiring.Component):  # type: ignore[misc]
    """Units of all formats side by side, so that they are compiled together."""

    def __init__(self) -> None:
        self.units = {f: FunctionUnit(fraction_bits=f) for f in FORMATS}
        members: dict[str, Any] = {"select": In(FUNCTION_BITS)}
        for f in FORMATS:
            layout = float_layout(f)
            members |= {f"i_{f}": In(layout), f"o_{f}": Out(layout.size + 1)}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for f, unit in self.units.items():
            m.submodules[f"unit_{f}"] = unit
            m.d.comb += [
                unit.select.eq(self.select),
                unit.i.eq(getattr(self, f"i_{f}")),
                getattr(self, f"o_{f}").eq(Cat(unit.o, unit.overflow)),
            ]
        return m


@pytest.fixture(scope="module")
def built() -> Built:
    return build(Units(), name="function_units")


def settings(**changes: Any) -> dict[str, Any]:
    latency = FunctionUnit(fraction_bits=FORMATS[0]).latency
    return {"formats": FORMATS, "vectors": 16000, "latency": latency} | changes


def test_units_match_golden(built: Built, seed: int) -> None:
    built.run("tb.bench_function", parameters=settings(), seed=seed)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"corrupt": 15}, "F=15: 1 of "), ({"latency": 15}, r"F=4: \d+ of \d+ wrong")],
)
def test_bench_can_fail(
    built: Built, seed: int, tmp_path: Any, change: dict[str, int], message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        built.run("tb.bench_function", parameters=settings(**change), seed=seed, workdir=tmp_path)


@pytest.mark.parametrize("fraction_bits", [3, 25, 15.0])
def test_fraction_bits_are_checked(fraction_bits: Any) -> None:
    with pytest.raises(ValueError, match=f"fraction_bits must be .* not {fraction_bits}"):
        FunctionUnit(fraction_bits=fraction_bits)
