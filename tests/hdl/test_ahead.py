# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""Modules that another process makes."""

from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.ahead import ahead
from hdl.arith.float_divide import FloatDivide
from hdl.once import once
from hdl.verilog import emit

FRACTION_BITS = 9


class Halves(wiring.Component):  # type: ignore[misc]
    """Two results of divisions by 2."""

    elaborated = 0

    def __init__(self, *, width: int) -> None:
        self.width = width
        super().__init__({"i": In(width), "o": Out(width).array(2)})

    def elaborate(self, platform: object) -> Module:
        Halves.elaborated += 1
        m = Module()
        for number in range(2):
            divide = once(FloatDivide, fraction_bits=FRACTION_BITS)
            m.submodules[f"divide{number}"] = divide
            m.d.comb += divide.a.eq(self.i)
            m.d.sync += self.o[number].eq(divide.o.as_value())
        return m


class Top(wiring.Component):  # type: ignore[misc]
    """Such a component, and beside it one that it has as well."""

    def __init__(self) -> None:
        super().__init__({"i": In(16), "o": Out(16)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.halves = halves = once(Halves, width=16)
        m.submodules.divide = divide = once(FloatDivide, fraction_bits=FRACTION_BITS)
        m.d.comb += [
            halves.i.eq(self.i),
            divide.a.eq(halves.o[0]),
            divide.b.eq(halves.o[1]),
            self.o.eq(divide.o.as_value()),
        ]
        return m


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    Halves.elaborated = 0
    monkeypatch.setattr("hdl.once._shared", {})


def made_here(monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as patch:
        patch.setattr("hdl.once._shared", {})
        return emit(Top(), name="top")


@pytest.mark.parametrize("found", [True, False])
def test_the_text_is_the_same(found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verilog = made_here(monkeypatch)
    assert verilog.count("\nmodule top_Halves") == verilog.count("\nmodule top_FloatDivide") == 1
    assert Halves.elaborated == 1
    monkeypatch.chdir(Path(__file__).parent if found else tmp_path)
    with ahead(Halves, width=16):
        assert emit(Top(), name="top") == verilog
    assert Halves.elaborated == (1 if found else 2)


def test_what_is_made_already_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    verilog = emit(Top(), name="top")
    monkeypatch.setattr("hdl.ahead.subprocess", None)
    with ahead(Halves, width=16):
        assert emit(Top(), name="top") == verilog


def test_an_error_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError), ahead(Halves, width=16):
        _ = 1 / 0
    assert emit(Top(), name="top") == made_here(monkeypatch)
