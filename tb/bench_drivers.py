# SPDX-License-Identifier: Apache-2.0
"""The C driver and the Python driver run programs on the accelerator behind its AXI wrapper.

A driver runs in a thread of its own; while it waits for a register, the simulation goes on.

Parameters: ``library``, the shared object of the C driver; ``config``, the sizes.
"""

import ctypes

import cocotb
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles
from cocotbext.axi import AddressSpace, AxiBus, AxiLiteBus, AxiLiteMaster, AxiSlave, MemoryRegion

from afternorm.config import Config
from afternorm.driver.python import DeviceError, Driver, ProgramError
from afternorm.isa import INSTRUCTION_BYTES, Engine, Error, Instruction, Opcode, Target
from afternorm.memory_map import EXPONENT_BYTES, Cause, Counter, Lost, Register, Status
from tb.stream import parameters, rng, start

RAM_BYTES = 1 << 20
"""What lies beyond answers with SLVERR."""
COUNT = 300
SOURCE, EXPONENTS, TARGET, TARGET_EXPONENTS = 0x10000, 0x18000, 0x20008, 0x28006
"""Where blocks lie, and where they are copied to."""
COPY, CRASH, OUTSIDE, LONG = 0x1000, 0x2000, 0x3000, 0x4000
"""Where programs lie."""
BEYOND = 0x12_3456_7000
"""An address that nothing answers to; a multiple of a page."""


def copies() -> list[Instruction]:
    """Copy blocks by way of the scratchpad."""
    fields = {"target": Target.BLOCKS, "count": COUNT, "base": 100, "shared": 1}
    source = {"dram": SOURCE, "exponents": EXPONENTS}
    target = {"dram": TARGET, "exponents": TARGET_EXPONENTS}
    return [
        Instruction(Opcode.LOAD, {**fields, **source}, signals=(3,)),
        Instruction(Opcode.STORE, {**fields, **target}, waits=(3,)),
    ]


def programs() -> dict[int, list[Instruction]]:
    outside = {"target": Target.BLOCKS, "count": COUNT, "dram": BEYOND, "exponents": EXPONENTS}
    end = [Instruction(Opcode.END)]
    return {
        COPY: copies() + end,
        CRASH: [
            Instruction(Opcode.SYNC, {"engine": Engine.EXP}),
            Instruction(Opcode.LOAD, {"count": 0}),
            *end,
        ],
        OUTSIDE: [Instruction(Opcode.LOAD, outside), *end],
        LONG: 200 * copies() + end,
    }


class Bench:
    """The accelerator between its buses, in reset until `begin`."""

    def __init__(self, dut):
        self.dut = dut
        self.memory = MemoryRegion(RAM_BYTES)
        space = AddressSpace(1 << 40)
        space.register_region(self.memory, 0)
        for name in ("m_axi", "s_axil"):
            dut._log.getChild(name).setLevel("WARNING")
        self.slave = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=space)
        self.lite = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        for interface in (
            self.slave.write_if,
            self.slave.read_if,
            self.lite.write_if,
            self.lite.read_if,
        ):
            interface.log.setLevel("CRITICAL")
        self.accesses = 0

    async def begin(self) -> None:
        await start(self.dut)
        for place, program in programs().items():
            for number, instruction in enumerate(program):
                data = instruction.pack().to_bytes(INSTRUCTION_BYTES, "little")
                await self.memory.write(place + number * INSTRUCTION_BYTES, data)

    async def read32(self, offset: int) -> int:
        self.accesses += 1
        answer = await self.lite.read(offset, 4)
        assert answer.resp == 0, f"read of {offset:#x}: {answer.resp!r}"
        return int.from_bytes(answer.data, "little")

    async def write32(self, offset: int, value: int) -> None:
        self.accesses += 1
        answer = await self.lite.write(offset, value.to_bytes(4, "little"))
        assert answer.resp == 0, f"write of {offset:#x}: {answer.resp!r}"

    async def fill(self, name: str) -> bytes:
        """New blocks at the source; what a copy must leave at the target."""
        values = rng(name)
        exponents = b"".join(
            values.randrange(-512, 512).to_bytes(EXPONENT_BYTES, "little", signed=True)
            for _ in range(COUNT)
        )
        blocks = values.randbytes(COUNT * Config(**parameters()["config"]).block)
        await self.memory.write(SOURCE, blocks)
        await self.memory.write(EXPONENTS, exponents)
        await self.memory.write(TARGET, bytes(len(blocks)))
        return blocks + exponents

    async def copied(self) -> bytes:
        size = COUNT * Config(**parameters()["config"]).block
        blocks = await self.memory.read(TARGET, size)
        exponents = await self.memory.read(TARGET_EXPONENTS, COUNT * EXPONENT_BYTES)
        return bytes(blocks) + bytes(exponents)

    async def interrupt(self) -> int:
        await ClockCycles(self.dut.clk, 2)
        return int(self.dut.interrupt.value)


# -- C ---------------------------------------------------------------------------------------------

READ = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t)
WRITE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32)
HOOK = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)
OK, FAILED, ABORTED, TIMEOUT, BUSY, UNUSABLE, ALIGNMENT, RANGE, MISMATCH = range(0, -9, -1)
BASE = 0x4000_0000


class CBus(ctypes.Structure):
    _fields_ = [("read32", READ), ("write32", WRITE), ("context", ctypes.c_void_p)]


class CDevice(ctypes.Structure):
    _fields_ = [("base", ctypes.c_size_t), ("bus", ctypes.POINTER(CBus))]


class CError(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("index", ctypes.c_uint32), ("address", ctypes.c_uint64)]


class CCounters(ctypes.Structure):
    _fields_ = [
        ("machine", ctypes.c_uint32 * (Register.LAST_RESULT - Register.CYCLES + 1)),
        ("lost", ctypes.c_uint32 * len(Lost)),
        ("engine", ctypes.c_uint32 * len(Counter) * len(Engine)),
    ]


@cocotb.test()
async def c_driver(dut):
    bench = Bench(dut)
    await bench.begin()
    library = ctypes.CDLL(parameters()["library"])
    library.afternorm_error_string.restype = ctypes.c_char_p
    library.afternorm_read.restype = ctypes.c_uint32
    library.afternorm_take_interrupts.restype = ctypes.c_uint32
    failures = []

    def guarded(access):
        """An exception cannot pass through C: keep it."""

        def call(_, address, *value):
            try:
                return resume(access)(address - BASE, *value) or 0
            except Exception as error:
                failures.append(error)
                return 0

        return call

    bus = CBus(READ(guarded(bench.read32)), WRITE(guarded(bench.write32)), None)
    device = CDevice()
    here = ctypes.byref(device)
    polls = []

    async def pause():
        await ClockCycles(dut.clk, 50)

    @HOOK
    def sleep(_):
        polls.append(1)
        resume(pause)()
        return True

    @HOOK
    def give_up(_):
        return False

    def call(name, *arguments):
        result = getattr(library, f"afternorm_{name}")(*arguments)
        assert not failures, failures
        return result

    def begin(program):
        return call("start", here, ctypes.c_uint64(program))

    def wait(limit=0, hook=sleep):
        return call("wait", here, limit, hook, None)

    def reset():
        assert call("reset", here, 100, sleep, None) == OK

    def stop_info():
        info = CError()
        call("get_error", here, ctypes.byref(info))
        return info.code, info.index, info.address

    @bridge
    def first():
        assert call("init", here, ctypes.c_size_t(BASE + 4), ctypes.byref(bus)) == MISMATCH
        assert call("init", here, ctypes.c_size_t(BASE), ctypes.byref(bus)) == OK
        assert call("get_status", here) == Status.IDLE
        assert (begin(COPY + 8), begin(1 << 40)) == (ALIGNMENT, RANGE)
        assert wait() == OK  # nothing runs
        call("enable_interrupts", here, 1 << Cause.DONE)
        assert begin(COPY) == OK
        assert begin(COPY) == BUSY
        assert wait(limit=1, hook=None) == TIMEOUT
        assert wait(hook=give_up) == TIMEOUT
        assert wait() == OK
        assert polls
        assert call("get_status", here) == Status.DONE

    expected = await bench.fill("first")
    await first()
    assert await bench.copied() == expected
    assert await bench.interrupt() == 1

    @bridge
    def second():
        assert call("get_flags", here) == 0
        counters = CCounters()
        call("get_counters", here, ctypes.byref(counters))
        machine, engines = counters.machine, counters.engine
        for register in range(Register.CYCLES, Register.LAST_RESULT + 1):
            assert machine[register - Register.CYCLES] == call("read", here, 4 * register)
        for lost in Lost:
            assert counters.lost[lost] == call("read", here, 4 * (Register.LOST + lost))
        for engine in Engine:
            for counter in Counter:
                index = Register.ENGINES + len(Counter) * engine + counter
                assert engines[engine][counter] == call("read", here, 4 * index)
        cycles = machine[0]
        assert COUNT < engines[Engine.LOAD][Counter.BUSY] < cycles
        assert COUNT < engines[Engine.STORE][Counter.BUSY] < cycles
        assert engines[Engine.MATMUL][Counter.BUSY] == 0
        assert engines[Engine.MATMUL][Counter.STARVED] > 0.9 * cycles

        assert begin(CRASH) == OK
        assert wait() == FAILED
        assert stop_info() == (Error.OPERAND, 1, 0)
        assert call("error_string", Error.OPERAND) == b"impossible count or selector"
        assert begin(COPY) == UNUSABLE
        reset()
        assert begin(OUTSIDE) == OK
        assert wait() == FAILED
        code, _, address = stop_info()
        assert (code, address) == (Error.BUS, BEYOND)
        reset()
        assert begin(LONG) == OK
        call("stop", here)
        assert wait() == ABORTED
        assert begin(COPY) == UNUSABLE
        reset()
        assert call("get_status", here) == Status.IDLE
        assert begin(COPY) == OK
        assert wait() == OK

    assert await bench.interrupt() == 1
    take = bridge(call)
    assert await take("take_interrupts", here) == 1 << Cause.DONE
    assert await bench.interrupt() == 0
    assert await take("take_interrupts", here) == 0
    expected = await bench.fill("second")
    await second()
    assert await bench.copied() == expected
    assert bench.accesses > 100


# -- Python ----------------------------------------------------------------------------------------


@cocotb.test()
async def python_driver(dut):
    bench = Bench(dut)
    await bench.begin()
    config = Config(**parameters()["config"])

    class Bus:
        read32 = staticmethod(resume(bench.read32))
        write32 = staticmethod(resume(bench.write32))

    async def pause():
        await ClockCycles(dut.clk, 50)

    def refused(text, call, *arguments):
        try:
            call(*arguments)
        except DeviceError as error:
            assert text in str(error), error
        else:
            raise AssertionError(f"no error with {text!r}")

    @bridge
    def run():
        refused("scale_depth=", Driver, Bus(), config.with_(scale_depth=2 * config.scale_depth))
        driver = Driver(Bus(), config)
        assert driver.status() == Status.IDLE
        assert driver.wait() == Status.IDLE
        for address in (COPY + 8, -64, 1 << 40):
            refused("multiple of 64", driver.start, address)
        driver.enable_interrupts(Cause.DONE, Cause.ERROR)
        driver.start(COPY)
        refused("a program runs", driver.start, COPY)
        refused("still runs", driver.wait, 0.0)
        assert driver.wait(poll=resume(pause)) == Status.DONE
        return driver

    expected = await bench.fill("python")
    driver = await run()
    assert await bench.copied() == expected
    assert await bench.interrupt() == 1

    @bridge
    def go_on():
        assert driver.flags() == set()
        counters = driver.counters()
        cycles = counters.machine["cycles"]
        assert COUNT < counters.engines[Engine.LOAD][Counter.BUSY] < cycles
        assert counters.engines[Engine.EXP][Counter.BUSY] == 0
        assert set(counters.lost.values()) == {0}  # no row, no slot
        for program, code, index, address in (
            (CRASH, Error.OPERAND, 1, 0),
            (OUTSIDE, Error.BUS, None, BEYOND),
        ):
            driver.start(program)
            try:
                driver.wait(poll=resume(pause))
            except ProgramError as error:
                stop = error.stop
            assert (stop.code, stop.address) == (code, address)
            assert index in (None, stop.index)
            refused("ERROR: reset", driver.start, COPY)
            driver.soft_reset(timeout=None)
            assert driver.error().code == Error.NONE
        driver.start(LONG)
        driver.stop()
        assert driver.wait(poll=resume(pause)) == Status.STOPPED
        driver.soft_reset(timeout=None)
        driver.start(COPY)
        assert driver.wait() == Status.DONE

    take = bridge(driver.take_interrupts)
    assert await take() == {Cause.DONE}
    assert await bench.interrupt() == 0
    assert await take() == set()
    expected = await bench.fill("again")
    await go_on()
    assert await bench.copied() == expected
