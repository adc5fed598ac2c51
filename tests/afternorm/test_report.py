# SPDX-License-Identifier: Apache-2.0
"""Resources by hierarchy."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

import afternorm.report
from afternorm.cli import main
from afternorm.devices import DEVICES
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


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("AFTERNORM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cells(monkeypatch: pytest.MonkeyPatch, found: dict[str, dict[str, int]]) -> None:
    """Let synthesis find these cells."""
    monkeypatch.setattr(afternorm.report, "synthesize", lambda *_, **__: found)


def amounts(**found: float) -> dict[str, float]:
    return dict.fromkeys(KINDS, 0) | found


def test_cells_of_equal_modules_multiply() -> None:
    result = report(DESIGN, top="top", target="ecp5")
    assert result.root.resources == amounts(ff=32, dsp=2)
    (pe,) = result.root.children
    assert (pe.name, pe.count, pe.resources) == ("pe", 2, amounts(ff=32, dsp=2))
    assert result.other == {}


@pytest.mark.parametrize(
    "target",
    [pytest.param(t, marks=[] if t in ("ecp5", "xilinx") else pytest.mark.slow) for t in TARGETS],
)
def test_every_target_counts_all_cells(target: str) -> None:
    result = report(DESIGN, top="top", target=target)
    assert result.other == {}
    taken = result.root.resources
    assert taken["dsp"] > 0 or taken["lut"] > 100
    assert result.root.children[0].count == 2


def test_second_report_needs_no_synthesis(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    first = report(DESIGN, top="top", target="ecp5")
    assert len(list(cache.iterdir())) == 2

    def run(*_: object) -> None:
        raise AssertionError("synthesized again")

    monkeypatch.setattr(afternorm.report, "_run_yosys", run)
    assert report(DESIGN, top="top", target="ecp5") == first
    with pytest.raises(AssertionError):
        report(DESIGN, top="top", target="gowin")


def test_only_what_changed_is_synthesized(monkeypatch: pytest.MonkeyPatch) -> None:
    first = report(DESIGN, top="top", target="ecp5")
    known, seen = afternorm.report._run_yosys, []

    def run(module: str, *others: Any) -> dict[str, int]:
        seen.append(module)
        return known(module, *others)

    monkeypatch.setattr(afternorm.report, "_run_yosys", run)
    # A sum instead of the product, below the same ports: the pair itself stays.
    changed = DESIGN.replace("cell $mul", "cell $add")
    assert changed != DESIGN
    report(changed, top="top", target="ecp5")
    (child,) = set(re.findall(r"^  cell \\(\w+) ", DESIGN, re.M))
    assert seen == [child]
    assert report(DESIGN, top="top", target="ecp5") == first
    assert len(seen) == 1


def test_an_interrupted_report_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    known, seen = afternorm.report._run_yosys, []

    def run(module: str, *others: Any) -> dict[str, int]:
        seen.append(module)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return known(module, *others)

    monkeypatch.setattr(afternorm.report, "_run_yosys", run)
    with pytest.raises(KeyboardInterrupt):
        report(DESIGN, top="top", target="ecp5", jobs=1)
    told: list[tuple[int, int]] = []
    result = report(
        DESIGN, top="top", target="ecp5", advance=lambda done, total: told.append((done, total))
    )
    assert result.root.resources == amounts(ff=32, dsp=2)
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert seen[1:] == [seen[1]] * 2


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


def test_shares_of_a_device() -> None:
    assert DEVICES.keys() == TARGETS.keys()
    used = amounts(lut=1000, lutram=200, ff=8364, carry=236, dsp=39, bram=312)
    assert DEVICES["ecp5"].utilization(used) == {
        "lut": 1672 / 83_640,
        "ff": 0.1,
        "dsp": 0.25,
        "bram": 1.5,
    }
    # Its carry cells are beside LUTs, which are counted.
    assert DEVICES["ice40"].utilization(amounts(lut=528, carry=500))["lut"] == 0.1


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
        synthesize(DESIGN, synthesis="synth_nothing")
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
    assert numbers["device"]["name"] == "LFE5U-85F"
    shares = numbers["utilization"]
    assert shares["dsp"] == pytest.approx(1 / 156)
    lines = [line.split() for line in captured.out.splitlines()]
    row = [f"{taken[kind]:g}" for kind in KINDS]
    assert ["pe", *row, f"{shares['lut']:.1%}"] in lines
    assert ["of", "LFE5U-85F", *(f"{share:.1%}" for share in shares.values())] in lines
    assert captured.err == ""
