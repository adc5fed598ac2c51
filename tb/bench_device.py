# SPDX-License-Identifier: Apache-2.0
"""Serves `afternorm.device.RtlDevice`: writes and reads of DRAM, and programs, until it is closed.

Between commands the simulation stands still.

Parameters: ``connection``, the file descriptor of the connection to the device;
``max_cycles``, the bound on a program.
"""

from multiprocessing.connection import Connection

import cocotb
import numpy as np

from afternorm.memory_map import Register, Status
from tb.host import power_up
from tb.stream import parameters


@cocotb.test()
async def serve(dut):
    options = parameters()
    host, door = await power_up(dut)
    with Connection(options["connection"]) as connection:
        while True:
            try:
                command, *arguments = connection.recv()
            except EOFError:  # closed
                return
            answer = None
            if command == "write":
                await door.write(*arguments)
            elif command == "read":
                answer = await door.read(*arguments)
            elif command == "run":
                await host.start(*arguments)
                await host.stopped(options["max_cycles"])
                registers = await host.registers()
                if registers[Register.STATUS] == Status.ERROR:
                    await host.reset()
                answer = np.array(registers, dtype=np.uint32)
            else:
                raise ValueError(f"unknown command {command!r}")
            connection.send(answer)
