# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""Components that are elaborated once, and Verilog that is kept."""

import re
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import DomainRenamer, Fragment, Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

import tb.emission
from hdl.once import once
from hdl.verilog import emit
from tb.emission import emitted

PAIR = data.StructLayout({"low": 4, "high": 4})


class Invert(wiring.Component):  # type: ignore[misc]
    """Neither clock nor reset, and a port without bits."""

    elaborated = 0

    def __init__(self, *, width: int) -> None:
        self.width = width
        super().__init__({"i": In(width).array(2), "none": In(0), "o": Out(width).array(2)})

    def elaborate(self, platform: object) -> Module:
        Invert.elaborated += 1
        m = Module()
        m.d.comb += [o.eq(~i) for o, i in zip(self.o, self.i, strict=True)]
        return m


class Stage(wiring.Component):  # type: ignore[misc]
    """Contains such components, is clocked, and has members of other kinds."""

    latency = 1

    def __init__(self, *, width: int = 8) -> None:
        self.width = width
        self.inner = Signal(unsigned(3))
        super().__init__({"i": In(PAIR), "o": Out(wiring.Signature({"payload": Out(PAIR)}))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.invert = invert = once(Invert, width=self.width)
        m.d.comb += invert.i[0].eq(self.i)
        m.d.sync += self.o.payload.eq(invert.o[0])
        return m


class Pipeline(wiring.Component):  # type: ignore[misc]
    """A chain of stages; all but the first in another domain."""

    def __init__(self, *, stages: int, width: int = 8) -> None:
        self.stages = stages
        self.width = width
        super().__init__({"i": In(PAIR), "o": Out(PAIR)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        last: Any = self.i
        for n in range(self.stages):
            stage = once(Stage, width=self.width)
            m.submodules[f"stage{n}"] = DomainRenamer("other")(stage) if n else stage
            m.d.comb += stage.i.eq(last)
            last = stage.o.payload
        m.d.comb += self.o.eq(last)
        return m


def modules(verilog: str) -> list[str]:
    return re.findall(r"^module (\w+)", verilog, re.MULTILINE)


def test_each_module_is_made_once() -> None:
    Invert.elaborated = 0
    verilog = emit(Pipeline(stages=5), name="top")
    assert modules(verilog) == ["top", "top_Invert", "top_Stage"]
    assert len(re.findall(r"^  top_Stage stage\d \(", verilog, re.MULTILINE)) == 5
    assert verilog.count(".clk(other_clk)") == 4
    assert Invert.elaborated == 1
    assert "none" not in verilog


def test_names_do_not_depend_on_what_was_made_before() -> None:
    first = emit(Pipeline(stages=2), name="top")
    emit(Pipeline(stages=2, width=7), name="top")
    assert emit(Pipeline(stages=2), name="top") == first


def test_other_arguments_make_another_module() -> None:
    class Both(Pipeline):
        def elaborate(self, platform: object) -> Module:
            m = Module()
            for width in (5, 6, 5):
                stage = once(Stage, width=width)
                m.submodules += stage
                m.d.comb += self.o.eq(stage.o.payload)
                self.o = Signal(PAIR)
            return m

    found = modules(emit(Both(stages=1), name="top"))
    assert found == ["top", "top_Invert", "top_Invert_1", "top_Stage", "top_Stage_1"]


def test_an_instance_has_the_component_s_constants() -> None:
    stage = once(Stage, width=8)
    assert (stage.latency, stage.width) == (1, 8)
    assert stage.i is not once(Stage, width=8).i
    with pytest.raises(AttributeError, match="inner is inside"):
        _ = stage.inner
    with pytest.raises(AttributeError, match="nothing"):
        _ = stage.nothing  # type: ignore[attr-defined]


def test_arguments_are_told_apart_by_type() -> None:
    assert once(Invert, width=1).width is not once(Invert, width=True).width
    with pytest.raises(TypeError, match="keywords"):
        once(Stage, 8)  # type: ignore[call-arg]


def test_verilog_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERNORM_CACHE", str(tmp_path))
    first = emitted(Pipeline, name="top", stages=2)
    elaborated = []

    def other(component: Pipeline, name: str) -> str:
        elaborated.append(Fragment.get(component, None))
        return "new"

    monkeypatch.setattr(tb.emission, "emit", other)
    assert emitted(Pipeline, name="top", stages=2) == first
    assert not elaborated
    assert emitted(Pipeline, name="top", stages=3) == "new"
    monkeypatch.setattr(tb.emission, "_sources", lambda: ["changed"])
    assert emitted(Pipeline, name="top", stages=2) == "new"
