# SPDX-License-Identifier: Apache-2.0
"""The ways into a simulated system (`tb.system`): the host port, and the DRAM's back door."""

import cocotb
from cocotb.clock import Clock
from cocotb.handle import Immediate
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout

from afternorm.isa import INSTRUCTION_BYTES
from afternorm.memory_map import ADDRESS_BITS, REGISTERS, Cause, Region, Register, address
from tb.stream import PERIOD_NS


class Host:
    """The host port of the accelerator."""

    def __init__(self, dut):
        self.dut = dut
        self.bytes = (len(dut.response__payload) + 7) // 8
        dut.request__valid.value = 0
        dut.response__ready.value = 0

    async def _request(self, word: int) -> None:
        self.dut.request__payload.value = word
        self.dut.request__valid.value = 1
        await RisingEdge(self.dut.clk)
        while not int(self.dut.request__ready.value):
            await RisingEdge(self.dut.clk)
        self.dut.request__valid.value = 0

    async def write(self, at: int, value: int) -> None:
        """Write one host word."""
        await self._request(at | 1 << ADDRESS_BITS | value << (ADDRESS_BITS + 1))

    async def read(self, at: int) -> int:
        """Read one host word."""
        self.dut.response__ready.value = 1
        await self._request(at)
        while True:
            await RisingEdge(self.dut.clk)
            if int(self.dut.response__valid.value):
                self.dut.response__ready.value = 0
                # Icarus starts memories from X: lanes of a word that nobody wrote read as zeros.
                return self.dut.response__payload.value.resolve("zeros").to_unsigned()

    async def registers(self) -> list[int]:
        """All registers, by index."""
        return [await self.read(address(Region.REGISTERS, index)) for index in range(REGISTERS)]

    async def control(self, value: int) -> None:
        """Write the control register."""
        await self.write(address(Region.REGISTERS, Register.CONTROL), value)

    async def reset(self) -> None:
        """Reset everything but the memories."""
        await self.control(2)
        while await self.read(address(Region.REGISTERS, Register.CONTROL)):
            pass

    async def start(self, program: int) -> None:
        """Start the program at a DRAM address in units of instructions."""
        low = program * INSTRUCTION_BYTES
        every = (1 << len(Cause)) - 1
        for register, value in (
            (Register.PROGRAM_LOW, low & 0xFFFFFFFF),
            (Register.PROGRAM_HIGH, low >> 32),
            (Register.IRQ_ENABLE, every),
            (Register.IRQ_CAUSE, every),
        ):
            await self.write(address(Region.REGISTERS, register), value)
        await self.control(1)

    async def stopped(self, max_cycles: int) -> None:
        """Wait until the program is done, or stopped with an error."""
        if not int(self.dut.interrupt.value):
            await with_timeout(RisingEdge(self.dut.interrupt), max_cycles * PERIOD_NS, "ns")


class BackDoor:
    """The DRAM's contents, at any byte; a beat a cycle."""

    def __init__(self, dut):
        self.dut = dut
        self.bytes = (len(dut.back_data) + 7) // 8
        dut.back_enable.value = 0

    async def _beats(self, first: int, count: int) -> bytes:
        """Whole beats."""
        self.dut.back_enable.value = 1
        self.dut.back_write.value = 0
        answers = []
        for number in range(count + 1):
            self.dut.back_address.value = first + min(number, count - 1)
            await RisingEdge(self.dut.clk)
            # Of the request before: this edge's answer comes after it.
            answers.append(self.dut.back_answer.value)
        self.dut.back_enable.value = 0
        return b"".join(
            answer.to_unsigned().to_bytes(self.bytes, "little") for answer in answers[1:]
        )

    async def read(self, at: int, count: int) -> bytes:
        """`count` bytes from `at` on."""
        if not count:
            return b""
        first, skip = divmod(at, self.bytes)
        data = await self._beats(first, -(-(skip + count) // self.bytes))
        return data[skip : skip + count]

    async def write(self, at: int, data: bytes) -> None:
        """Write `data` from `at` on."""
        first, skip = divmod(at, self.bytes)
        if skip:
            data = (await self._beats(first, 1))[:skip] + data
        if over := len(data) % self.bytes:
            data += (await self._beats(first + len(data) // self.bytes, 1))[over:]
        self.dut.back_enable.value = 1
        self.dut.back_write.value = 1
        for number, start in enumerate(range(0, len(data), self.bytes)):
            self.dut.back_address.value = first + number
            self.dut.back_data.value = int.from_bytes(data[start : start + self.bytes], "little")
            await RisingEdge(self.dut.clk)
        self.dut.back_enable.value = 0


async def power_up(dut) -> tuple[Host, BackDoor]:
    """Start the clock, where it is not the simulation's own (``tb/clocked.cpp``), and reset."""
    if cocotb.SIM_NAME != "Verilator":
        # A deposited clock waits until the design was evaluated once in vain, at both of its edges.
        Clock(dut.clk, PERIOD_NS, unit="ns", set_action=Immediate).start()
    host, door = Host(dut), BackDoor(dut)
    dut.rst.value = 1
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 2)
    return host, door
