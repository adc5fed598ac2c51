# SPDX-License-Identifier: Apache-2.0
"""Place and route: what is read from nextpnr's report, the cache, and the command's refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

import afternorm.pnr
from afternorm.cli import main
from afternorm.errors import AfternormError
from afternorm.pnr import Step, Timing, best, netlist_steps, place_and_route, read_timing
from afternorm.report import run_yosys
from hdl.verilog import emit_rtlil


class Stage(wiring.Component):
    """``o = i * i`` between two registers."""

    i: In(8)
    o: Out(16)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        operand = Signal(8)
        result = Signal(16)
        m.d.sync += [operand.eq(self.i), result.eq(operand * operand)]
        m.d.comb += self.o.eq(result)
        return m


class Top(wiring.Component):
    """A stage."""

    i: In(8)
    o: Out(16)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.stage = stage = Stage()
        m.d.comb += [stage.i.eq(self.i), self.o.eq(stage.o)]
        return m


class Wire(wiring.Component):
    """No register."""

    i: In(2)
    o: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.o.eq(self.i.all())
        return m


class Words(wiring.Component):
    """Four words of LUT RAM."""

    address: In(2)
    write: In(4)
    enable: In(1)
    o: Out(4)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.words = words = Memory(shape=4, depth=len(WORDS), init=WORDS)
        write, read = words.write_port(), words.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(self.address),
            write.data.eq(self.write),
            write.en.eq(self.enable),
            read.addr.eq(~self.address),
            self.o.eq(read.data),
        ]
        return m


WORDS = (3, 12, 5, 9)
DESIGN = emit_rtlil(Top(), name="top")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("AFTERNORM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def segment(kind: str, delay: float, cell: str) -> dict[str, Any]:
    return {"type": kind, "delay": delay, "from": {"cell": cell}, "to": {"cell": cell}}


TYPES = {
    "tile/add/sum$12_TRELLIS_FF_Q_3": "TRELLIS_FF",
    "tile/add/carry": "CCU2C",
    "tile/add/carry_1": "CCU2C",
    "done_TRELLIS_FF_Q": "TRELLIS_FF",
}
FOUND = {
    "fmax": {"clk": {"achieved": 123.456}},
    "critical_paths": [
        {
            "from": "<async>",
            "to": "posedge clk",
            "path": [segment("setup", 99.0, "done_TRELLIS_FF_Q")],
        },
        {
            "from": "posedge clk",
            "to": "posedge clk",
            "path": [
                segment("clk-to-q", 0.5, "tile/add/sum$12_TRELLIS_FF_Q_3"),
                segment("routing", 1.0, "tile/add/carry"),
                segment("logic", 0.4, "tile/add/carry$CCU2_COMB0"),
                segment("routing", 0.0, "tile/add/carry_1$CCU2_COMB0"),
                segment("logic", 0.1, "tile/add/carry_1$CCU2_COMB1"),
                segment("routing", 2.0, "done_TRELLIS_FF_Q"),
                segment("setup", 0.0, "done_TRELLIS_FF_Q"),
            ],
        },
    ],
}


def test_path_names_units() -> None:
    timing = read_timing(FOUND, TYPES, 7)
    assert (timing.seed, timing.fmax) == (7, 123.46)
    assert timing.path == (
        Step("tile/add", "register sum", 1, 0.5, 1.0),
        Step("tile/add", "carry chain", 2, 0.5, 2.0),
        Step("", "register done", 1, 0.0, 0.0),
    )
    assert (timing.logic, timing.routing) == (1.0, 3.0)


def test_best_is_the_fastest() -> None:
    timings = [Timing(1, 90.0, ()), Timing(2, 110.5, ()), Timing(3, 100.0, ())]
    assert best(timings).seed == 2


@pytest.mark.slow
def test_place_and_route(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (timing,) = place_and_route(DESIGN, top="top", seeds=[1])
    assert timing.fmax > 50
    first, multiplier, last = timing.path
    assert (first.unit, first.part) == ("stage", "register operand")
    assert (multiplier.unit, multiplier.part) == ("stage", "multiplier")
    assert (last.unit, last.part) == ("stage", "register result")
    assert timing.logic + timing.routing == pytest.approx(1000 / timing.fmax, rel=0.02)
    assert len(list(cache.iterdir())) == 1

    def run(*_: object) -> str:
        raise AssertionError("placed again")

    monkeypatch.setattr(afternorm.pnr, "_netlist", run)
    assert place_and_route(DESIGN, top="top", seeds=[1]) == [timing]
    with pytest.raises(AssertionError, match="placed again"):
        place_and_route(DESIGN, top="top", seeds=[1, 2])


@pytest.mark.slow
def test_no_address_of_a_small_lut_ram_is_constant(tmp_path: Path) -> None:
    """A bit that is not needed equals the lowest one; where it does, the words are as before."""
    design = emit_rtlil(Words(), name="words")
    path = run_yosys(tmp_path, design, netlist_steps("words"), "netlist.json")
    cells = json.loads(path.read_text("utf-8"))["modules"]["words"]["cells"].values()
    (memory,) = [cell for cell in cells if cell["type"] == "TRELLIS_DPR16X4"]
    for port in ("RAD", "WAD"):
        low, high, *unused = memory["connections"][port]
        assert isinstance(low, int) and isinstance(high, int) and low != high
        assert unused == [low, low]
    written = memory["parameters"]["INITVAL"]
    words = [written[len(written) - 4 * place - 4 :][:4] for place in range(16)]
    assert [int(words[place], 2) for place in (0b0000, 0b1101, 0b0010, 0b1111)] == list(WORDS)


@pytest.mark.slow
def test_nothing_between_registers(cache: Path) -> None:
    with pytest.raises(AfternormError, match="no path from register to register"):
        place_and_route(emit_rtlil(Wire(), name="top"), top="top", seeds=[1])
    assert not cache.exists()


def test_design_that_does_not_fit(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def full(*_: object) -> Path:
        raise AfternormError("nextpnr failed: ERROR: no BELs remaining to implement MULT18X18D")

    monkeypatch.setattr(afternorm.pnr, "run_tool", full)
    with pytest.raises(AfternormError, match=r"^top does not fit LFE5U-85F.*smaller.*MULT18X18D"):
        place_and_route(DESIGN, top="top", seeds=[1])
    assert not cache.exists()


def test_other_targets_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["report", "--preset", "tiny", "--unit", "pe", "--pnr", "--target", "gowin"]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "places and routes for ecp5 only, not for 'gowin'" in message


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        Timing(4, 100.0, (Step("add", "register a", 1, 4.0, 6.0),)),
        Timing(5, 125.0, (Step("mul", "multiplier", 1, 3.0, 5.0),)),
    ]

    def place(design: str, **settings: Any) -> list[Timing]:
        assert tuple(settings["seeds"]) == (4, 5)
        return found

    monkeypatch.setattr(afternorm.pnr, "place_and_route", place)
    path = tmp_path / "report.json"
    arguments = ["report", "--preset", "tiny", "--unit", "pe", "--pnr", "--seeds", "4,5"]
    assert main([*arguments, "--json", str(path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["seed", "4", "100.0", "10.00", "4.00", "6.00"] in lines
    assert ["seed", "5", "125.0", "8.00", "3.00", "5.00", "best"] in lines
    assert ["mul:", "multiplier", "1", "3.00", "5.00"] in lines
    numbers = json.loads(path.read_text())["place_and_route"]
    assert numbers["device"].startswith("LFE5U-85F-6")
    assert [timing["fmax"] for timing in numbers["timings"]] == [100.0, 125.0]
