# SPDX-License-Identifier: Apache-2.0
"""Runs a job on the whole accelerator: loads it, starts it, waits, reads back.

The job comes as a file of host words and the result goes into one, so the bench
itself knows no instruction and no memory map beyond the registers.
`afternorm.simulation` makes the one and compares the other with the golden machine.

Parameters: ``job`` and ``result``, files; ``max_cycles``, the bound on the run;
``disturb``, the probability of a host read in a cycle while the program runs;
``crash_first``, whether another program is to stop the machine first, and a reset to revive it.
"""

import time

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout

from afternorm.memory_map import (
    ADDRESS_BITS,
    REGISTERS,
    RESET_CYCLES,
    Region,
    Register,
    Status,
    address,
)
from tb.stream import PERIOD_NS, parameters, rng


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


@cocotb.test()
async def run_job(dut):
    options = parameters()
    job = np.load(options["job"])
    cocotb.start_soon(Clock(dut.clk, PERIOD_NS, unit="ns").start())
    host = Host(dut)
    dut.rst.value = 1
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 2)

    async def load(which: str) -> None:
        words = zip(job[f"{which}_address"].tolist(), job[f"{which}_data"], strict=True)
        for at, data in words:
            await host.write(at, int.from_bytes(data.tobytes(), "little"))

    await host.write(address(Region.REGISTERS, Register.START), 0)
    if options["crash_first"]:
        await load("crash")
        await host.write(address(Region.REGISTERS, Register.CONTROL), 1)
        await with_timeout(RisingEdge(dut.interrupt), 1000 * PERIOD_NS, "ns")
        status = await host.read(address(Region.REGISTERS, Register.STATUS))
        assert status == Status.ERROR, "the program before the job did not stop the machine"
        await host.write(address(Region.REGISTERS, Register.CONTROL), 2)
        await ClockCycles(dut.clk, RESET_CYCLES + 4)
    await load("write")
    began = time.perf_counter()
    await host.write(address(Region.REGISTERS, Register.CONTROL), 1)
    await ClockCycles(dut.clk, 3)

    async def disturb() -> None:
        random = rng("disturb")
        targets = job["read_address"].tolist()
        while not int(dut.interrupt.value):
            if random.random() < options["disturb"]:
                await host.read(random.choice(targets))
            await RisingEdge(dut.clk)

    if not int(dut.interrupt.value):
        other = cocotb.start_soon(disturb()) if options["disturb"] else None
        await with_timeout(RisingEdge(dut.interrupt), options["max_cycles"] * PERIOD_NS, "ns")
        if other is not None:
            await other
    seconds = time.perf_counter() - began

    registers = [await host.read(address(Region.REGISTERS, n)) for n in range(REGISTERS)]
    words = [
        np.frombuffer((await host.read(at)).to_bytes(host.bytes, "little"), dtype=np.uint8)
        for at in job["read_address"].tolist()
    ]
    np.savez(
        options["result"],
        registers=np.array(registers, dtype=np.uint32),
        read_data=np.array(words, dtype=np.uint8).reshape(len(words), host.bytes),
        seconds=seconds,
    )
