# SPDX-License-Identifier: Apache-2.0
"""Runs a job on the whole accelerator: loads it, starts it, waits, reads back.

The job comes as a file of host words and the result goes into one, so the bench
itself knows no instruction and no memory map beyond the registers.  Programs lie
in DRAM from the start.  `afternorm.simulation` makes the one and compares the
other with the golden machine.

Parameters: ``job`` and ``result``, files; ``max_cycles``, the bound on the run;
``disturb``, the probability of a host read in a cycle while the program runs;
``crash_first``, where another program lies, in units of instructions, that is to
stop the machine first, so that a reset must revive it; or null.
"""

import time

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from afternorm.memory_map import Region, Register, Status, address
from tb.host import power_up
from tb.stream import parameters, rng


@cocotb.test()
async def run_job(dut):
    options = parameters()
    job = np.load(options["job"])
    host, door = await power_up(dut)

    if options["crash_first"] is not None:
        await host.start(options["crash_first"])
        await host.stopped(options["max_cycles"])
        status = await host.read(address(Region.REGISTERS, Register.STATUS))
        assert status == Status.ERROR, "the program before the job did not stop the machine"
        await host.reset()
    words = zip(job["write_address"].tolist(), job["write_data"], strict=True)
    for at, data in words:
        await host.write(at, int.from_bytes(data.tobytes(), "little"))
    began = time.perf_counter()
    await host.start(0)

    async def disturb() -> None:
        random = rng("disturb")
        targets = job["read_address"].tolist()
        while not int(dut.interrupt.value):
            if random.random() < options["disturb"]:
                await host.read(random.choice(targets))
            await RisingEdge(dut.clk)

    other = cocotb.start_soon(disturb()) if options["disturb"] else None
    await host.stopped(options["max_cycles"])
    if other is not None:
        await other
    seconds = time.perf_counter() - began

    registers = await host.registers()
    words = [
        np.frombuffer((await host.read(at)).to_bytes(host.bytes, "little"), dtype=np.uint8)
        for at in job["read_address"].tolist()
    ]
    dram = b"".join([await door.read(at, count) for at, count in job["dram_ranges"].tolist()])
    np.savez(
        options["result"],
        registers=np.array(registers, dtype=np.uint32),
        read_data=np.array(words, dtype=np.uint8).reshape(len(words), host.bytes),
        dram=np.frombuffer(dram, dtype=np.uint8),
        seconds=seconds,
    )
