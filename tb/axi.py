# SPDX-License-Identifier: Apache-2.0
"""What benches on AXI share: memory with pauses and errors, and registers by name.

Memory and register accesses are those of cocotbext-axi (`AxiRam`, `AxiLiteMaster`).
"""

import logging
import random
import warnings
from collections.abc import Iterator

from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam, AxiResp

from afternorm.config import Config
from afternorm.memory_map import REGISTER_BITS, Cause, Register, Status
from afternorm.register_map import REGISTER_BYTES, register_map
from tb.stream import PERIOD_NS, bounded, rng

# It uses some of cocotb's older names.
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"cocotbext\.axi")

ERROR_RESPONSES = (AxiResp.SLVERR, AxiResp.DECERR)


def pauses(generator: random.Random, stall: float) -> Iterator[bool]:
    """Whether a channel pauses, cycle by cycle."""
    while True:
        yield generator.random() < stall


def memory(dut, *, stall: float = 0.0, size: int = 1 << 40) -> AxiRam:
    """Memory on the bus ``m_axi``, its five channels paused with probability `stall`."""
    logging.getLogger(f"cocotb.{dut._name}").setLevel(logging.WARNING)
    ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=size)
    pause(ram, stall)
    return ram


def pause(ram: AxiRam, stall: float) -> None:
    """Pause the five channels with probability `stall`."""
    for interface, names in ((ram.write_if, ("aw", "w", "b")), (ram.read_if, ("ar", "r"))):
        for name in names:
            channel = getattr(interface, f"{name}_channel")
            channel.clear_pause_generator()
            channel.pause = False
            if stall:
                channel.set_pause_generator(pauses(rng(f"axi {name}"), stall))


class Fault:
    """An error response instead of one that a memory gives.

    Parameters
    ----------
    ram : the memory.
    channel : ``r`` or ``b``.
    number : of the beat that is read, or of the burst that is written, counted from now on.
    response : SLVERR or DECERR.
    """

    def __init__(self, ram: AxiRam, channel: str, number: int, response: AxiResp):
        interface = ram.read_if if channel == "r" else ram.write_if
        self._channel = getattr(interface, f"{channel}_channel")
        self._field = f"{channel}resp"
        self._left, self._response = number, response
        self._send = self._channel.send
        self._channel.send = self._answer
        self.given = False
        """Whether it was answered."""

    async def _answer(self, transaction) -> None:
        if not self._left:
            setattr(transaction, self._field, self._response)
            self.given = True
        self._left -= 1
        await self._send(transaction)

    def remove(self) -> None:
        """Answer as the memory does."""
        self._channel.send = self._send


class Registers:
    """The registers on the bus ``s_axil``."""

    def __init__(self, dut, config: Config, *, stall: float = 0.0):
        logging.getLogger(f"cocotb.{dut._name}").setLevel(logging.WARNING)
        self.dut = dut
        self.entries = {entry.name: entry for entry in register_map(config)}
        bus = AxiLiteBus.from_prefix(dut, "s_axil")
        self.master = AxiLiteMaster(bus, dut.clk, dut.rst)
        if stall:
            for interface, names in (
                (self.master.write_if, ("aw", "w", "b")),
                (self.master.read_if, ("ar", "r")),
            ):
                for name in names:
                    channel = getattr(interface, f"{name}_channel")
                    channel.set_pause_generator(pauses(rng(f"axil {name}"), stall))

    async def read_at(self, offset: int) -> tuple[int, AxiResp]:
        """The word at an offset, and the response."""
        answer = await self.master.read(offset, REGISTER_BYTES)
        return int.from_bytes(answer.data, "little"), answer.resp

    async def write_at(self, offset: int, data: bytes) -> AxiResp:
        """Write bytes; the response."""
        return (await self.master.write(offset, data)).resp

    async def read(self, name: str) -> int:
        """A register."""
        value, response = await self.read_at(self.entries[name].offset)
        assert response == AxiResp.OKAY, f"{name}: {response!r}"
        return value

    async def write(self, name: str, value: int) -> None:
        """Write a register."""
        data = value.to_bytes(REGISTER_BYTES, "little")
        response = await self.write_at(self.entries[name].offset, data)
        assert response == AxiResp.OKAY, f"{name}: {response!r}"

    def bit(self, register: str, field: str) -> int:
        """A field of one bit."""
        (found,) = (f for f in self.entries[register].fields if f.name == field)
        return found.mask

    async def start(self, program: int) -> None:
        """Start the program at a byte address, with all interrupts enabled."""
        every = (1 << len(Cause)) - 1
        await self.write(Register.PROGRAM_LOW.name, program & ((1 << REGISTER_BITS) - 1))
        await self.write(Register.PROGRAM_HIGH.name, program >> REGISTER_BITS)
        await self.write(Register.IRQ_ENABLE.name, every)
        await self.write(Register.IRQ_CAUSE.name, every)
        await self.write(Register.CONTROL.name, self.bit("CONTROL", "start"))

    async def interrupted(self, cycles: int) -> Status:
        """Wait for the interrupt; the status then."""

        async def wait() -> None:
            if not int(self.dut.interrupt.value):
                await RisingEdge(self.dut.interrupt)

        await bounded(wait(), cycles=cycles)
        return Status(await self.read(Register.STATUS.name))

    async def run(self, program: int, cycles: int) -> Status:
        """Run the program at a byte address to its end; the status then."""
        await self.start(program)
        return await self.interrupted(cycles)

    async def reset(self) -> None:
        """Soft reset, to its end."""
        await self.write(Register.CONTROL.name, self.bit("CONTROL", "reset"))
        while await self.read(Register.CONTROL.name):
            pass


__all__ = ["ERROR_RESPONSES", "PERIOD_NS", "Fault", "Registers", "memory", "pause", "pauses"]
