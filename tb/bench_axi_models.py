# SPDX-License-Identifier: Apache-2.0
"""What a host did with the golden machine, done again with the accelerator behind its buses.

Every byte that the host read must be the same, and so must the flags of every program.

Parameters: ``config``; ``stall``, the probability of a pause on each channel of both buses;
``recording``, a file with what `tb.recording.Recorder` made; ``max_cycles`` of a program;
``corrupt`` (flip a bit of what is read first).
"""

import pickle
from pathlib import Path

import cocotb
from cocotb.clock import Clock

from afternorm.config import Config
from afternorm.memory_map import Status
from tb.axi import PERIOD_NS, Registers, memory
from tb.axi_rules import AxiMonitor
from tb.stream import parameters, ticks


@cocotb.test()
async def replays(dut):
    options = parameters()
    recording = pickle.loads(Path(options["recording"]).read_bytes())
    config = Config(**options["config"])
    ram = memory(dut, stall=options["stall"])
    registers = Registers(dut, config, stall=options["stall"])
    rules = AxiMonitor(dut)
    cocotb.start_soon(Clock(dut.clk, PERIOD_NS, unit="ns").start())
    dut.rst.value = 1
    await ticks(dut, 4)
    dut.rst.value = 0
    await ticks(dut, 2)
    ram.write(0, recording.image)
    programs = compared = cycles = 0
    corrupt = options["corrupt"]
    for number, (command, *arguments) in enumerate(recording.commands):
        if command == "write":
            ram.write(*arguments)
        elif command == "run":
            program, flags = arguments
            assert await registers.run(program, options["max_cycles"]) == Status.DONE
            assert await registers.read("FLAGS") == flags, f"flags of program {programs}"
            programs += 1
            cycles += await registers.read("CYCLES")
        else:
            address, data = arguments
            if corrupt:
                ram.write(address, bytes([ram.read(address, 1)[0] ^ 1]))
                corrupt = False
            got = ram.read(address, len(data))
            assert got == data, f"command {number}: bytes from {address:#x} on differ"
            compared += len(data)
    assert programs > 1 and compared > 100
    assert rules.idle
    beats, written = len(rules.beats), sum(count for _, count in rules.written)
    cocotb.log.info(
        "%d programs, %d cycles, %d beats read, %d written, %d bytes compared",
        *(programs, cycles, beats, written, compared),
    )
