# SPDX-License-Identifier: Apache-2.0
"""Boards: clocks, pins and the command line."""

from dataclasses import replace

import pytest

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

ULX3S = BOARDS["ulx3s"]


def test_clocks() -> None:
    assert ULX3S.divisor == 25
    with pytest.raises(AfternormError, match=r"makes 75 MHz, not the clock's 50"):
        replace(ULX3S, pll=Pll(reference=1, feedback=3, output=8))
    with pytest.raises(AfternormError, match=r"at 400 to 800 MHz, not at 100"):
        replace(ULX3S, pll=Pll(reference=1, feedback=2, output=2))
    with pytest.raises(AfternormError, match="no multiple of 3000000 baud"):
        replace(ULX3S, baud=3_000_000)


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
    assert (compiler.resident, compiler.cached) == (True, True)
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
