# SPDX-License-Identifier: Apache-2.0
"""The link to a board: the host's side against the RTL, through a pseudo-terminal and a UART.

The line loses bytes, changes them and adds some, in both directions.
"""

import os
import pty
import random
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

from afternorm.board.boards import BOARDS, DEFAULT_BOARD
from afternorm.board.link import LinkError, SerialLink, UartDevice
from afternorm.board.memory import BoardMemory
from afternorm.board.protocol import ANSWER, REGISTERS_BASE, Command, Frame, FrameDecoder
from afternorm.checkpoints import seeded_model
from afternorm.cli import main
from afternorm.compiler.model import ModelCompiler
from afternorm.config import preset
from afternorm.driver.python import DeviceError
from afternorm.errors import AfternormError, CapacityError
from afternorm.golden_device import GoldenDevice
from afternorm.inference import Inference
from afternorm.isa import INSTRUCTION_BYTES, Error, Instruction, Opcode, Target
from afternorm.job import DATA
from afternorm.memory_map import Register, Status
from hdl.board.system import BoardSystem
from tb.runner import Built, build

TINY = preset("tiny")
MEMORY = BoardMemory(program=32 << 10, data=128 << 10)
DIVISOR = 4
BAUD = 9600
"""The simulated line is slow; the host waits as long as on a line of this speed."""
NOISE = 0.004
COUNT = 40
COPY, CRASH, STRAY = 0x1000, 0x1400, 0x1800
SOURCE, EXPONENTS, TARGET, TARGET_EXPONENTS = (DATA + n for n in (0, 0x1000, 0x2008, 0x3006))


def assemble(*instructions: Instruction) -> bytes:
    return b"".join(i.pack().to_bytes(INSTRUCTION_BYTES, "little") for i in instructions)


def copy(source: int = SOURCE) -> bytes:
    """A program that copies blocks by way of the scratchpad."""
    fields = {"target": Target.BLOCKS, "count": COUNT, "base": 100, "shared": 1}
    return assemble(
        Instruction(Opcode.LOAD, {**fields, "dram": source, "exponents": EXPONENTS}, signals=(3,)),
        Instruction(
            Opcode.STORE, {**fields, "dram": TARGET, "exponents": TARGET_EXPONENTS}, waits=(3,)
        ),
        Instruction(Opcode.END),
    )


CRASHES = assemble(Instruction(Opcode.LOAD, {"count": 0}), Instruction(Opcode.END))

Boards = Callable[..., str]


@pytest.fixture(scope="module")
def built() -> Built:
    system = BoardSystem(config=TINY, memory=MEMORY, divisor=DIVISOR)
    return build(system, name="afternorm_board")


@pytest.fixture
def board(built: Built, seed: int) -> Iterator[Boards]:
    """Starts a simulated board; the name of its serial port."""
    with ExitStack() as stack:

        def board(noise: float = 0.0) -> str:
            master, slave = pty.openpty()
            tty.setraw(slave)
            running = built.start(
                "tb.bench_uart_link",
                parameters={"terminal": master, "divisor": DIVISOR, "noise": noise},
                seed=seed,
                pass_fds=[master],
            )

            def end() -> None:
                os.close(slave)
                code = running.process.wait(60)
                os.close(master)
                assert code == 0, running.log_tail()
                assert "FAIL=0" in running.log_tail()

            stack.callback(end)
            return os.ttyname(slave)

        yield board


def link(port: str, *, noise: float = 0.0, payload: int = 256) -> SerialLink:
    """Without noise the timeout is so long that a repetition is a mistake, however slow all is."""
    return SerialLink(port, baud=BAUD, timeout=0.3 if noise else 30.0, payload=payload)


@pytest.mark.parametrize("noise", [0.0, NOISE])
def test_memory_registers_programs(board: Boards, noise: float, seed: int) -> None:
    rng = random.Random(seed)
    with UartDevice(TINY, link(board(noise), noise=noise, payload=61), memory=MEMORY) as device:
        expected = bytearray(300)
        device.write(DATA, bytes(300))
        for _ in range(12):
            first = rng.randrange(300)
            data = rng.randbytes(rng.choice([1, 2, 9, 150]))[: 300 - first]
            device.write(DATA + first, data)
            expected[first : first + len(data)] = data
            count = rng.randrange(301 - first)
            assert device.read(DATA + first, count) == expected[first : first + count]
        assert device.read(DATA, 300) == expected
        # The escapes, all of them, at the ends of both windows.
        special = bytes([0xC0, 0xDB, 0xDC, 0xDD]) * 4
        for last in (MEMORY.program, DATA + MEMORY.data):
            device.write(last - len(special), special)
            assert device.read(last - len(special), len(special)) == special

        for address, program in (
            (COPY, copy()),
            (CRASH, CRASHES),
            (STRAY, copy(DATA + MEMORY.data - 8)),
        ):
            device.write(address, program)
        blocks = rng.randbytes(COUNT * TINY.block)
        values = [rng.randrange(-512, 512) for _ in range(COUNT)]
        exponents = b"".join(v.to_bytes(2, "little", signed=True) for v in values)
        device.write(SOURCE, blocks)
        device.write(EXPONENTS, exponents)
        for _ in range(2):
            device.write(TARGET - 3, bytes([77]) * (len(blocks) + 6))
            run = device.run(COPY)
            assert (run.status, run.error, run.flags) == (Status.DONE, Error.NONE, 0)
            assert run.cycles > COUNT
            margin = bytes([77]) * 3
            assert device.read(TARGET - 3, len(blocks) + 6) == margin + blocks + margin
            assert device.read(TARGET_EXPONENTS, len(exponents)) == exponents
            assert device.run(CRASH).error == Error.OPERAND
            run = device.run(STRAY)
            assert (run.status, run.error) == (Status.ERROR, Error.BUS)
            stray = run.registers[Register.ERROR_ADDRESS_LOW]
            assert stray == DATA + MEMORY.data - 8
        assert (device.link.repeated > 0) == (noise > 0)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, NOISE / 8])
def test_model(board: Boards, noise: float, seed: int) -> None:
    model = seeded_model("llama", seed, layers=1)
    compiler = ModelCompiler(TINY, model, tokens=10, chunk=8)
    image = compiler.image()
    with UartDevice(TINY, link(board(noise), noise=noise), memory=MEMORY, image=image) as device:
        rtl = Inference(compiler, device)
        golden = Inference(compiler, GoldenDevice(TINY, image))
        for tokens in ([3, 17, 5], [40]):
            np.testing.assert_array_equal(rtl.feed(tokens), golden.feed(tokens))
        assert (device.link.repeated > 0) == (noise > 0)
        for mine, other in zip(rtl.done, golden.done, strict=True):
            assert mine.run.flags == other.run.flags


@pytest.mark.slow
def test_command(
    board: Boards, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole model from the command line, with a memory and a speed that suit the simulation."""
    slow = replace(BOARDS[DEFAULT_BOARD], memory=MEMORY, baud=10_000)
    monkeypatch.setitem(BOARDS, DEFAULT_BOARD, slow)
    sums = ["run", "adder", "--prompt", "27+48=", "--preset", "tiny"]
    assert main([*sums, "--backend", "uart", "--port", board()]) == 0
    out = capsys.readouterr().out
    assert out.startswith("27+48=75\n")
    assert f"tokens/s at {slow.clock:g} MHz" in out


def test_requests(board: Boards) -> None:
    """What comes twice, or broken, frame by frame."""
    port = os.open(board(), os.O_RDWR | os.O_NOCTTY)
    decoder = FrameDecoder()

    def ask(line: bytes) -> Frame:
        """The one answer to what is sent; one too many would be the next one's."""
        os.write(port, line)
        got: list[Frame] = []
        while not got:
            got += decoder.feed(os.read(port, 4096))
        (frame,) = got
        return frame

    def content(number: int) -> bytes:
        answer = ask(Frame(Command.READ, number, 5, DATA).encode())
        assert answer == Frame(Command.READ | ANSWER, number, 5, DATA, answer.payload)
        return answer.payload

    def write(number: int, data: bytes) -> Frame:
        return Frame(Command.WRITE, number, len(data), DATA, data)

    try:
        for number in (7, 7):
            # What follows a SYNC is new, even with its number; then the number says what is not.
            assert ask(Frame(Command.SYNC, number, 0, 0).encode()).command == Command.SYNC | ANSWER
            done = Frame(Command.WRITE | ANSWER, number, 5, DATA)
            assert ask(write(number, b"first").encode()) == done
            assert ask(write(number, b"other").encode()) == done
            assert content(8) == b"first"
            assert ask(write(9, b"third").encode()).number == 9
            assert content(10) == b"third"
        # Broken frames do nothing and are not answered, and the next one is found.
        good = write(20, b"fifth").encode()
        long = write(21, bytes(1500)).encode()
        lies = Frame(Command.WRITE, 22, 4, DATA, b"fifth").encode()
        cut, changed = good[:-4] + good[-1:], good.replace(b"fifth", b"sixth")
        for broken in (long, lies, cut, changed, b"\xc0" * 3 + b"\xdb\xc0\xdb\x00"):
            os.write(port, broken)
            assert content(30) == b"third"
        assert ask(good).number == 20
        assert content(31) == b"fifth"
        # A count of nothing, and addresses without memory or register.
        assert ask(write(40, b"").encode()).count == 0
        nowhere = Frame(Command.WRITE, 41, 4, 0x00F00000, b"none")
        assert ask(nowhere.encode()).number == 41
        for address in (nowhere.address, REGISTERS_BASE + 4 * 1000):
            assert ask(Frame(Command.READ, 42, 4, address).encode()).payload == bytes(4)
    finally:
        os.close(port)


def test_what_is_wrong_is_said(board: Boards) -> None:
    port = board()
    with pytest.raises(DeviceError, match="build id"):
        UartDevice(TINY.with_(queue_depth=8), link(port), memory=MEMORY)
    with UartDevice(TINY, link(port), memory=MEMORY) as device:
        with pytest.raises(CapacityError, match="1 bytes at 0x8000 are not in the board's memory"):
            device.write(MEMORY.program, b"x")
        with pytest.raises(CapacityError, match="a smaller model or fewer tokens"):
            device.read(DATA, MEMORY.data + 1)
        with pytest.raises(DeviceError, match="multiple of 64"):
            device.run(8)


def test_nobody_answers() -> None:
    master, slave = pty.openpty()
    try:
        tty.setraw(slave)
        with pytest.raises(LinkError, match=r"does not answer \(3 attempts, .* 9600 baud\)"):
            SerialLink(os.ttyname(slave), baud=BAUD, timeout=0.01, attempts=3)
        sent = FrameDecoder().feed(os.read(master, 4096))
        assert [(frame.command, frame.number) for frame in sent] == 3 * [(Command.SYNC, 1)]
    finally:
        os.close(slave)
        os.close(master)
    with pytest.raises(LinkError, match=r"--port /dev/none: .*No such file"):
        SerialLink("/dev/none", baud=BAUD)


def test_impossible_arguments() -> None:
    with pytest.raises(AfternormError, match=r"1 to 1024 bytes, not 1025"):
        SerialLink("/dev/none", baud=BAUD, payload=1025)
    with pytest.raises(AfternormError, match=r"program window has 64 to .* not 100"):
        BoardMemory(program=100, data=64)
