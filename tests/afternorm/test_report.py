# SPDX-License-Identifier: Apache-2.0
"""Resources by hierarchy."""

import json
from collections import Counter
from pathlib import Path

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

import afternorm.report
from afternorm.cli import main
from afternorm.errors import AfternormError
from afternorm.report import Node, normalization, report, synthesize
from afternorm.targets import KINDS, TARGETS
from hdl.verilog import emit_rtlil


class Element(wiring.Component):
    """``o = a * b``, a cycle later."""

    a: In(8)
    b: In(8)
    o: Out(16)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.o.eq(self.a * self.b)
        return m


class Pair(wiring.Component):
    """Two elements."""

    a: In(8)
    b: In(8)
    o: Out(16)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.pe_0 = first = Element()
        m.submodules.pe_1 = second = Element()
        m.d.comb += [
            first.a.eq(self.a),
            first.b.eq(self.b),
            second.a.eq(first.o),
            second.b.eq(self.b),
            self.o.eq(second.o),
        ]
        return m


DESIGN = emit_rtlil(Pair(), name="top")
OTHER = emit_rtlil(Element(), name="top")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("AFTERNORM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cells(monkeypatch: pytest.MonkeyPatch, found: dict[str, dict[str, int]]) -> None:
    """Let synthesis find these cells."""
    monkeypatch.setattr(afternorm.report, "_run_yosys", lambda *_: found)


def amounts(**found: float) -> dict[str, float]:
    return dict.fromkeys(KINDS, 0) | found


def test_cells_of_equal_modules_multiply() -> None:
    result = report(DESIGN, top="top", target="ecp5")
    assert result.root.resources == amounts(ff=32, dsp=2)
    (pe,) = result.root.children
    assert (pe.name, pe.count, pe.resources) == ("pe", 2, amounts(ff=32, dsp=2))
    assert result.other == {}


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_counts_all_cells(target: str) -> None:
    result = report(DESIGN, top="top", target=target)
    assert result.other == {}
    taken = result.root.resources
    assert taken["dsp"] > 0 or taken["lut"] > 100
    assert result.root.children[0].count == 2


def test_second_report_needs_no_synthesis(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    first = report(DESIGN, top="top", target="ecp5")
    assert len(list(cache.iterdir())) == 1

    def run(*_: str) -> None:
        raise AssertionError("synthesized again")

    monkeypatch.setattr(afternorm.report, "_run_yosys", run)
    assert report(DESIGN, top="top", target="ecp5") == first
    with pytest.raises(AssertionError):
        report(DESIGN, top="top", target="gowin")
    with pytest.raises(AssertionError):
        report(OTHER, top="top", target="ecp5")


def test_depth_of_the_hierarchy(monkeypatch: pytest.MonkeyPatch) -> None:
    def module(name: str, *instances: str) -> str:
        cells = (instance.split() for instance in instances)
        lines = "".join(f"  cell \\{child} \\{label}\n  end\n" for child, label in cells)
        return f"module \\{name}\n{lines}end\n"

    design = module("top", "tile tile0", "other tile1", "add tree")
    design += module("tile", "exp exp", "reduce reduce", "pe pe_0_0", "pe pe_0_1")
    design += module("other", "exp exp", "pe pe_1_0") + module("reduce", "add add_3")
    design += module("exp") + module("pe") + module("add")
    found: dict[str, Counter[str]] = {
        "top": Counter({"tile": 1, "other": 1, "add": 1, "LUT4": 5}),
        "tile": Counter({"exp": 1, "reduce": 1, "pe": 2}),
        "other": Counter({"exp": 1, "pe": 1, "ODD": 4}),
        "reduce": Counter({"add": 1, "DP16KD": 3}),
        "exp": Counter({"LUT4": 10, "TRELLIS_DPR16X4": 2}),
        "pe": Counter({"MULT18X18D": 1, "CCU2C": 8, "PFUMX": 3}),
        "add": Counter({"TRELLIS_FF": 100}),
    }
    cells(monkeypatch, {name: dict(types) for name, types in found.items()})
    result = report(design, top="top", target="ecp5")
    assert result.root.resources == amounts(lut=25, lutram=16, ff=200, carry=24, dsp=3, bram=3)
    rows = [(depth, node.name, node.count) for depth, node in result.root.walk()]
    assert rows == [
        (0, "top", 1),
        (1, "tile", 2),
        (2, "exp", 2),
        (2, "reduce", 1),
        (3, "add", 1),
        (2, "pe", 3),
        (1, "tree", 1),
    ]
    # tree, tile/exp and tile/reduce
    assert result.normalization == amounts(lut=20, lutram=16, ff=200, bram=3)
    assert result.other == {"ODD": 4}
    assert result.to_dict()["hierarchy"]["children"][0]["count"] == 2


def test_normalization_of_a_tile() -> None:
    def node(name: str, lut: int, *children: Node) -> Node:
        return Node(name, 1, amounts(lut=lut), list(children))

    parts = [node("exp", 5), node("reduce", 7), node("matmul", 100), node("scale_memory", 1)]
    assert normalization(node("tile", 120, *parts)) == amounts(lut=13)
    assert normalization(node("accelerator", 200, node("tile", 120, *parts))) == amounts(lut=13)
    assert normalization(node("exp", 5, node("exp", 3))) == amounts()


def test_unknown_target() -> None:
    with pytest.raises(AfternormError, match="unknown target 'asic'; there are ecp5, xilinx"):
        report(DESIGN, top="top", target="asic")


def test_failed_synthesis_leaves_nothing(cache: Path) -> None:
    with pytest.raises(AfternormError, match=r"^Yosys failed: .*ERROR: .*\Z"):
        synthesize(DESIGN, top="nothing", synthesis="synth_ecp5")
    assert not cache.exists()


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    arguments = ["report", "--preset", "tiny", "--target", "ecp5", "--unit", "pe"]
    assert main([*arguments, "--json", str(path)]) == 0
    numbers = json.loads(path.read_text())
    taken = numbers["hierarchy"]["resources"]
    assert (taken["dsp"], taken["lutram"], taken["bram"]) == (1, 0, 0)
    captured = capsys.readouterr()
    row = [f"{taken[kind]:g}" for kind in KINDS]
    assert ["pe", *row] in [line.split() for line in captured.out.splitlines()]
    assert captured.err == ""
