# SPDX-License-Identifier: Apache-2.0
"""Boards: clocks, pins and the command line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import afternorm.board.bitstream
import afternorm.report
from afternorm.board.bitstream import BITSTREAM, FEW, REPORT, Routing, RoutingError
from afternorm.board.boards import BOARDS, Pll
from afternorm.board.link import LinkError, open_board
from afternorm.board.protocol import Command, Frame, FrameDecoder
from afternorm.checkpoints import load_model
from afternorm.cli import main
from afternorm.compiler.model import ModelCompiler
from afternorm.config import preset
from afternorm.errors import AfternormError, CapacityError
from afternorm.job import DATA
from afternorm.models import ADDER
from afternorm.report import run_tool

ULX3S = BOARDS["ulx3s"]


def test_clocks() -> None:
    assert ULX3S.divisor == 20
    with pytest.raises(AfternormError, match=r"makes 75 MHz, not the clock's 40"):
        replace(ULX3S, pll=Pll(reference=1, feedback=3, output=8))
    with pytest.raises(AfternormError, match=r"at 400 to 800 MHz, not at 80"):
        replace(ULX3S, pll=Pll(reference=5, feedback=8, output=2))
    with pytest.raises(AfternormError, match="no multiple of 7000000 baud"):
        replace(ULX3S, baud=7_000_000)


@pytest.mark.parametrize("clock", [10.0, 20.0, 30.0, 40.0, 50.0, 100.0])
def test_other_clocks(clock: float) -> None:
    board = ULX3S.at(clock)
    assert board.oscillator / board.pll.reference * board.pll.feedback == board.clock == clock
    assert 400 <= clock * board.pll.output <= 800
    assert board.divisor * board.baud == 1e6 * clock
    assert ULX3S.at(ULX3S.clock) == ULX3S


@pytest.mark.parametrize(
    ("clock", "message"),
    [
        (33.0, "cannot make 33 MHz of the board's 25 MHz: take a multiple of 5 MHz"),
        (0.0, "cannot make 0 MHz"),
        (-20.0, "cannot make -20 MHz"),
        (25.0, "no multiple of 2000000 baud: take a multiple of 2 MHz"),
    ],
)
def test_clocks_that_cannot_be(clock: float, message: str) -> None:
    with pytest.raises(AfternormError, match=message):
        ULX3S.at(clock)


def test_a_clock_that_is_not_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report stays, and no bitstream, not even an older one."""
    path = [{"type": "setup", "delay": 80.0, "from": {"cell": "a"}, "to": {"cell": "a"}}]
    found = {
        "fmax": {"clock": {"achieved": 12.5}},
        "critical_paths": [{"from": "posedge clock", "to": "posedge clock", "path": path}],
    }

    def netlist(design: str, top: str, work: Path) -> Path:
        (work / "netlist.json").write_text(json.dumps({"modules": {top: {"cells": {}}}}))
        return work / "netlist.json"

    def placed(
        tool: str, launch: str, arguments: list[str], work: Path, output: str, *, watch: object
    ) -> Path:
        assert tool == "nextpnr"
        (work / output).write_text(json.dumps(found))
        return work / output

    monkeypatch.setattr(afternorm.board.bitstream, "write_netlist", netlist)
    monkeypatch.setattr(afternorm.board.bitstream, "run_tool", placed)
    (tmp_path / BITSTREAM).write_bytes(b"of an earlier run")
    arguments = ["bitstream", "--preset", "nano", "--frequency", "20", "-o", str(tmp_path)]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "reaches 12.5 MHz, not the clock's 20 MHz: take a lower --frequency" in message
    assert [file.name for file in tmp_path.iterdir()] == [REPORT]
    assert json.loads((tmp_path / REPORT).read_text()) == found


def routed(log: Path, conflicts: list[int]) -> None:
    """What nextpnr has written after so many iterations of its router."""
    lines = [
        f"Info:     iter={number} wires=99 overused={count} overuse={count + 5} archfail=NA"
        for number, count in enumerate(conflicts, start=1)
    ]
    log.write_text("\n".join(["Info: Running router2...", *lines, ""]))


def test_a_router_that_is_stuck(tmp_path: Path) -> None:
    """Every iteration is told once; one that gets no further is ended, one that does is not."""
    told: list[str] = []
    log = tmp_path / "nextpnr.log"
    watch = Routing(log, told.append)
    watch()
    assert not told
    falling = [80_000, 50_000, 30_000, 20_000, 19_000, 18_500, 18_200, 18_000, 17_900, 17_800]
    routed(log, falling[:2])
    watch()
    watch()
    assert told == [
        "routing, iteration 1: 80,000 wires in conflict",
        "routing, iteration 2: 50,000 wires in conflict",
    ]
    routed(log, falling)
    watch()
    assert len(told) == len(falling)
    routed(log, [*falling, 17_700, 17_600])
    watch()
    routed(log, [*falling, 17_700, 17_600, 17_500])
    with pytest.raises(RoutingError, match="stuck with 17,500 wires in conflict after 13 iter"):
        watch()
    routed(log, [*falling, *[FEW] * 20])
    watch()


def test_what_watches_a_tool_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(afternorm.report, "_WATCH_SECONDS", 0.05)

    def watch() -> None:
        raise RoutingError("stuck")

    launch = "import sys, time; time.sleep(600); open(sys.argv[1], 'w')"
    with pytest.raises(RoutingError, match="stuck"):
        run_tool("sleep", launch, ["output"], tmp_path, "output", watch=watch)
    assert not (tmp_path / "output").exists()


def test_constraints() -> None:
    lines = ULX3S.constraints().splitlines()
    assert 'LOCATE COMP "oscillator" SITE "G2";' in lines
    assert 'LOCATE COMP "leds[7]" SITE "H3";' in lines
    assert 'IOBUF PORT "rx" IO_TYPE=LVCMOS33 PULLMODE=UP;' in lines
    assert 'FREQUENCY PORT "oscillator" 25 MHZ;' in lines
    sites = [line.split('"')[3] for line in lines if "SITE" in line]
    assert len(sites) == len(set(sites)) == 13


def test_the_adder_fits() -> None:
    """The model that comes with afternorm, weights and all, in the board's block RAM."""
    compiler = ModelCompiler(preset(ULX3S.preset), load_model(ADDER), tokens=10, chunk=8)
    ULX3S.memory.check(DATA, len(compiler.image()) - DATA)
    for program in (compiler.prologue(), compiler.step(0, 6), compiler.step(6)):
        ULX3S.memory.check(0, len(program.words))


def test_decoder_of_frames() -> None:
    frame = Frame(Command.WRITE, 7, 3, 0xC0DB, b"\xc0\xdb\xdc")
    line, decoder = frame.encode(), FrameDecoder()
    assert line.count(0xC0) == 2
    assert list(decoder.feed(b"noise" + line)) == [frame]
    for place in range(1, len(line) - 1):
        assert list(decoder.feed(line[:place] + line[place + 1 :])) == []
        assert list(decoder.feed(b"\xc0" + line)) == [frame]
    assert list(decoder.feed(b"\xc0" + bytes(5000) + b"\xc0" + line)) == [frame]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "adder", "--backend", "uart"], "--backend uart and --port DEV go together"),
        (["run", "adder", "--port", "/dev/none"], "--backend uart and --port DEV go together"),
        (
            ["run", "adder", "--prompt", "1+1=", "--backend", "uart", "--port", "/dev/none"],
            "--port /dev/none: ",
        ),
        (["bitstream", "--board", "other"], "invalid choice: 'other'"),
        (["bitstream", "-o", __file__], "is no folder"),
        (["bitstream", "--frequency", "33"], "the PLL cannot make 33 MHz"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_model_too_large() -> None:
    """Said before the port is opened."""
    config = preset(ULX3S.preset)
    with pytest.raises(CapacityError, match=r"114752 bytes at 0x100000 .* a smaller model"):
        open_board(config, bytes(DATA + ULX3S.memory.data + 64), "/dev/none")
    with pytest.raises(LinkError, match=r"--port /dev/none"):
        open_board(config, bytes(DATA + ULX3S.memory.data), "/dev/none")
