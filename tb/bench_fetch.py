# SPDX-License-Identifier: Apache-2.0
"""Programs from a model of DRAM: each to its END or halted somewhere, one right after the other.

What is handed over must be the program, from its start, with nothing left out
and nothing after its END; nothing is asked for too far ahead.

Parameters: ``width`` of a beat in bits, ``depth`` of the buffer in instructions;
``stall``, the probability of a stall on each stream.
"""

import cocotb
from cocotb.triggers import RisingEdge
from cocotb.utils import get_sim_time

from afternorm.isa import INSTRUCTION_BITS, INSTRUCTION_BYTES, Opcode
from hdl.interfaces import BURST_BITS
from tb.stream import PERIOD_NS, Driver, Monitor, bounded, parameters, rng, start, ticks

ROUNDS = 40
LENGTH = 60
SLOT_BITS = 8 * INSTRUCTION_BYTES
ROUND_CYCLES = 20_000
"""Bound on a program's cycles, with the heaviest stalls."""
STARTUP = 24
"""Cycles from a start to the first instruction, when nothing stalls, and a few more."""


class Memory:
    """DRAM of random slots, on the design's read port."""

    def __init__(self, dut, width, stall):
        self.width = width
        self.random = rng("memory")
        self.slots = {}
        self.asked = []
        self.beats = Driver(dut, "dram__beats", stall=stall)
        Monitor(dut, "dram__request", stall=stall, on_receive=self._serve)

    def slot(self, place):
        """What lies at a place, in units of instructions: no END, unless it was put there."""
        if place not in self.slots:
            opcode = self.random.randrange(Opcode.END)
            self.slots[place] = self.random.getrandbits(SLOT_BITS) >> 4 << 4 | opcode
        return self.slots[place]

    def _serve(self, payload):
        address, count = payload & ((1 << 40) - 1), payload >> 40
        assert 0 < count < 1 << BURST_BITS
        place, part = divmod(address, INSTRUCTION_BYTES)
        assert part == 0
        data = count * self.width // 8
        assert data % INSTRUCTION_BYTES == 0
        slots = range(place, place + data // INSTRUCTION_BYTES)
        self.asked.append(slots)
        mask = (1 << self.width) - 1
        for each in slots:
            word = self.slot(each)
            self.beats.send(word >> at & mask for at in range(0, SLOT_BITS, self.width))


@cocotb.test()
async def programs(dut):
    options = parameters()
    stall, depth = options["stall"], options["depth"]
    memory = Memory(dut, options["width"], stall)
    random = rng("programs")
    dut.start.value = 0
    dut.halt.value = 1
    dut.o__ready.value = 0
    await start(dut)
    halted = ended = 0
    for number in range(ROUNDS):
        base = random.randrange(1 << 32)
        length = random.randrange(1, LENGTH)
        memory.slots[base + length] = random.getrandbits(SLOT_BITS) | Opcode.END
        wanted = length + 1
        if halts := random.random() < 0.5:
            wanted = random.randrange(wanted)
        dut.start.value = 1
        dut.address.value = base
        await RisingEdge(dut.clk)
        dut.start.value = 0
        dut.halt.value = 0
        began = get_sim_time("ns")
        # A halt comes a while after the last instruction, whatever the fetch is doing then.
        spare = random.randrange(30) if halts else 0
        handed = []
        while len(handed) < wanted or spare:
            cycles = (get_sim_time("ns") - began) / PERIOD_NS
            assert cycles < ROUND_CYCLES, f"round {number}: {len(handed)} of {wanted}"
            spare -= len(handed) == wanted
            ready = len(handed) < wanted and random.random() >= stall
            dut.o__ready.value = int(ready)
            await RisingEdge(dut.clk)
            if ready and int(dut.o__valid.value):
                handed.append(int(dut.o__payload.value))
            for slots in memory.asked:
                if base <= slots.start <= base + LENGTH + depth:
                    assert slots.stop <= base + len(handed) + depth
        program = [memory.slot(base + n) & (1 << INSTRUCTION_BITS) - 1 for n in range(wanted)]
        assert handed == program, f"round {number}"
        if not halts:
            ended += 1
            cycles = (get_sim_time("ns") - began) / PERIOD_NS
            if not stall:
                # Beats of the program before may still be on their way.
                drain = depth * SLOT_BITS // options["width"]
                assert cycles <= drain + wanted * SLOT_BITS // options["width"] + STARTUP
            # The scheduler still runs: nothing may follow the END.
            dut.o__ready.value = 1
            for _ in range(random.randrange(40)):
                await RisingEdge(dut.clk)
                assert not int(dut.o__valid.value)
        halted += halts
        dut.halt.value = 1
        dut.o__ready.value = 0
        await ticks(dut, random.choice([0, 1, 2, random.randrange(100)]))
    assert halted and ended
    await bounded(memory.beats.wait(), cycles=ROUND_CYCLES)
