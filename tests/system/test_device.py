# SPDX-License-Identifier: Apache-2.0
"""The simulated device: bytes in and out of DRAM, programs, errors, and its end."""

import gc
import random
import shutil
from collections.abc import Iterator

import pytest

from afternorm.config import preset
from afternorm.device import RtlDevice
from afternorm.errors import AfternormError, ToolError
from afternorm.isa import INSTRUCTION_BYTES, Engine, Error, Instruction, Opcode, Target
from afternorm.memory_map import EXPONENT_BYTES, Status
from afternorm.simulation import DRAM_BYTES, SimulationError

TINY = preset("tiny")
COUNT = 40
SOURCE, EXPONENTS = 0x10000, 0x18000
TARGET, TARGET_EXPONENTS = 0x20008, 0x28006
"""Where blocks lie, and where they are copied to: not at the start of a beat."""
COPY, CRASH = 0x1000, 0x2000
"""Where programs lie."""
CYCLES = 100_000
"""More than any program here takes."""


def assemble(*instructions: Instruction) -> bytes:
    return b"".join(i.pack().to_bytes(INSTRUCTION_BYTES, "little") for i in instructions)


def copy(*, shared: int = 1) -> bytes:
    """A program that copies blocks by way of the scratchpad."""
    fields = {"target": Target.BLOCKS, "count": COUNT, "base": 100, "shared": shared}
    return assemble(
        Instruction(Opcode.LOAD, {**fields, "dram": SOURCE, "exponents": EXPONENTS}, signals=(3,)),
        Instruction(
            Opcode.STORE,
            {**fields, "dram": TARGET, "exponents": TARGET_EXPONENTS},
            waits=(3,),
        ),
        Instruction(Opcode.END),
    )


CRASHES = assemble(
    Instruction(Opcode.SYNC, {"engine": Engine.EXP}),
    Instruction(Opcode.LOAD, {"count": 0}),
    Instruction(Opcode.END),
)


@pytest.fixture
def device() -> Iterator[RtlDevice]:
    image = bytearray(CRASH + len(CRASHES))
    image[COPY : COPY + len(copy())] = copy()
    image[CRASH:] = CRASHES
    with RtlDevice(TINY, bytes(image), max_cycles=CYCLES) as device:
        yield device


def check_copy(device: RtlDevice, seed: int) -> int:
    """Copy random blocks; the cycles that it took."""
    rng = random.Random(seed)
    blocks = rng.randbytes(COUNT * TINY.block)
    values = [rng.randrange(-512, 512) for _ in range(COUNT)]
    exponents = b"".join(v.to_bytes(EXPONENT_BYTES, "little", signed=True) for v in values)
    device.write(SOURCE, blocks)
    device.write(EXPONENTS, exponents)
    device.write(TARGET - 3, bytes([77]) * (len(blocks) + 6))
    run = device.run(COPY)
    assert (run.status, run.error, run.flags) == (Status.DONE, Error.NONE, 0)
    margin = bytes([77]) * 3
    assert device.read(TARGET - 3, len(blocks) + 6) == margin + blocks + margin
    assert device.read(TARGET_EXPONENTS, len(exponents)) == exponents
    assert 0 < run.engine(Engine.LOAD).busy <= run.cycles
    return run.cycles


def test_any_bytes(device: RtlDevice, seed: int) -> None:
    rng = random.Random(seed)
    low, size = 0x30000, 300
    expected = bytearray(size)
    for _ in range(60):
        first = rng.randrange(size)
        data = rng.randbytes(rng.choice([0, 1, 2, 7, 8, 9, rng.randrange(size)]))[: size - first]
        device.write(low + first, data)
        expected[first : first + len(data)] = data
        first = rng.randrange(size)
        count = rng.randrange(size - first + 1)
        assert device.read(low + first, count) == expected[first : first + count]
    assert device.read(low, size) == expected
    assert device.read(COPY, len(copy())) == copy()


def test_the_last_byte(device: RtlDevice) -> None:
    device.write(DRAM_BYTES - 1, b"x")
    assert device.read(DRAM_BYTES - 2, 2) == b"\0x"


def test_programs_one_after_the_other(device: RtlDevice, seed: int) -> None:
    assert check_copy(device, seed) == check_copy(device, seed + 1)


def test_an_error_does_not_stay(device: RtlDevice, seed: int) -> None:
    run = device.run(CRASH)
    assert (run.status, run.error, run.error_index) == (Status.ERROR, Error.OPERAND, 1)
    check_copy(device, seed)
    assert device.run(CRASH).error == Error.OPERAND


def test_memory_that_was_never_written_is_no_program(device: RtlDevice) -> None:
    assert device.run(0x40000).error == Error.OPCODE


def test_latency_and_stalls(seed: int) -> None:
    """They cost cycles and change nothing else."""
    image = bytes(COPY) + copy()
    with RtlDevice(TINY, image, max_cycles=CYCLES) as device:
        fast = check_copy(device, seed)
    with RtlDevice(TINY, image, latency=200, max_cycles=CYCLES) as device:
        slow = check_copy(device, seed)
    # The instructions, the blocks, and the blocks' way back.
    assert slow > max(fast, 3 * 200)
    for stall in (0.3, 0.9):
        with RtlDevice(TINY, image, stall=stall, seed=seed, max_cycles=CYCLES) as device:
            assert check_copy(device, seed) > fast


def test_a_reset_amid_transfers(seed: int) -> None:
    """What is under way to and from DRAM when a program stops does not reach the next one."""
    fields = {"target": Target.BLOCKS, "count": 900, "base": 1000, "exponents": 0x1A0000}
    stops = assemble(
        Instruction(Opcode.LOAD, {**fields, "dram": 0x100000}),
        Instruction(Opcode.STORE, {**fields, "dram": 0x180000, "base": 4000}),
        Instruction(Opcode.EXP, {"rows": 0}),
    )
    with RtlDevice(
        TINY, stops.ljust(COPY, b"\0") + copy(), latency=500, stall=0.5, max_cycles=CYCLES
    ) as device:
        for number in range(3):
            run = device.run(0)
            assert (run.error, run.error_index) == (Error.OPERAND, 2)
            assert run.engine(Engine.LOAD).busy and run.engine(Engine.STORE).busy
            check_copy(device, seed + number)


@pytest.mark.slow
def test_the_widest_beats(seed: int) -> None:
    """A beat holds several blocks and a whole instruction."""
    with RtlDevice(
        TINY.with_(dram_width=512), bytes(COPY) + copy(), stall=0.3, max_cycles=CYCLES
    ) as device:
        check_copy(device, seed)
        device.write(0x30001, b"unaligned")
        assert device.read(0x2FFFF, 12) == b"\0\0unaligned\0"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not installed")
def test_icarus(seed: int) -> None:
    with RtlDevice(
        TINY, bytes(COPY) + copy(), simulator="icarus", stall=0.3, max_cycles=CYCLES
    ) as device:
        check_copy(device, seed)


@pytest.mark.slow
def test_threads(seed: int) -> None:
    """The same machine on two threads."""
    with RtlDevice(
        TINY, bytes(COPY) + copy(), stall=0.3, seed=seed, threads=2, max_cycles=CYCLES
    ) as device:
        check_copy(device, seed)


def test_threads_that_a_simulator_has_not() -> None:
    with pytest.raises(ToolError, match="icarus simulates on one thread, not 2: leave --threads"):
        RtlDevice(TINY, simulator="icarus", threads=2)


def test_a_dead_simulation(device: RtlDevice) -> None:
    device.process.kill()
    with pytest.raises(SimulationError, match="the simulation ended"):
        device.read(0, 8)
    with pytest.raises(SimulationError, match="closed"):
        device.run(COPY)


def test_the_end_of_the_process() -> None:
    device = RtlDevice(TINY)
    process = device.process
    device.read(0, 1)
    device.close()
    assert process.returncode == 0
    device = RtlDevice(TINY)
    process = device.process
    del device
    gc.collect()
    assert process.returncode == 0


def test_a_program_without_end() -> None:
    """Beyond its bound a program ends the simulation."""
    with (
        RtlDevice(TINY, copy(), max_cycles=40) as device,
        pytest.raises(SimulationError, match="SimTimeoutError"),
    ):
        device.run(0)


@pytest.mark.parametrize(
    ("address", "count"), [(DRAM_BYTES, 1), (-1, 1), (0, -1), (DRAM_BYTES - 3, 4)]
)
def test_bytes_that_are_not_there(device: RtlDevice, address: int, count: int) -> None:
    with pytest.raises(AfternormError, match="not within"):
        device.read(address, count)


def test_impossible_arguments(device: RtlDevice) -> None:
    with pytest.raises(AfternormError, match="multiple of 64"):
        device.run(8)
    with pytest.raises(AfternormError, match="at least 2 cycles, not 1"):
        RtlDevice(TINY, latency=1)
    with pytest.raises(AfternormError, match=r"below 1, not 1.0"):
        RtlDevice(TINY, stall=1.0)
