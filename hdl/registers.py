# SPDX-License-Identifier: Apache-2.0
"""Registers of the accelerator: control, status, flags and counters.

The map is `afternorm.memory_map`'s.  Counters count while a program runs and
are cleared by its start.  A written reset bit holds everything but memories and
host port in reset for `RESET_CYCLES` cycles, long enough for every pipeline to
run empty, and longer while `unsettled`; a start in that time takes effect after it.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from afternorm.isa import Engine, Flag
from afternorm.memory_map import COUNTER_BITS, REGISTERS, RESET_CYCLES, Counter, Register, Status
from hdl.scheduler.frontend import INDEX_BITS


class Registers(wiring.Component):
    """Control, status and counters.

    Members
    -------
    write, index, w_data : in. A register write.
    r_data : out. The register at `index`, a cycle later.
    start, start_address : out. To scheduler and fetch.
    reset : out. Soft reset.
    unsettled : in. Something outside the machine still answers to it.
    status, error, error_index : in. From the scheduler.
    flags : in. Pulses, by `afternorm.isa.Flag`.
    operand_read, row_issued, result_written : in. What the matmul engine does in this cycle.
    busy, waiting, starved, conflict : in. By engine.
    """

    def __init__(self):
        engines = len(Engine)
        super().__init__(
            {
                "write": In(1),
                "index": In(8),
                "w_data": In(COUNTER_BITS),
                "r_data": Out(COUNTER_BITS),
                "start": Out(1),
                "start_address": Out(COUNTER_BITS),
                "reset": Out(1),
                "unsettled": In(1),
                "status": In(2),
                "error": In(3),
                "error_index": In(INDEX_BITS),
                "flags": In(len(Flag)),
                "operand_read": In(1),
                "row_issued": In(1),
                "result_written": In(1),
                "busy": In(engines),
                "waiting": In(engines),
                "starved": In(engines),
                "conflict": In(engines),
            }
        )

    def elaborate(self, platform):
        m = Module()
        values = {register: Signal(COUNTER_BITS, name=register.name) for register in Register}
        cycles = values[Register.CYCLES]
        running = self.status == Status.RUNNING

        def counter(name: str, event) -> Value:
            count = Signal(COUNTER_BITS, name=name)
            with m.If(self.start):
                m.d.sync += count.eq(0)
            with m.Elif(running & event):
                m.d.sync += count.eq(count + 1)
            return count

        m.d.comb += values[Register.STATUS].eq(self.status)
        m.d.comb += values[Register.ERROR].eq(Cat(self.error, Const(0, 5), self.error_index))
        m.d.comb += cycles.eq(counter("cycles", 1))
        m.d.comb += values[Register.ROWS].eq(counter("rows", self.row_issued))
        flags = values[Register.FLAGS]
        m.d.sync += flags.eq(Mux(self.start, 0, flags) | self.flags)

        for event, first, last in (
            (self.operand_read, Register.FIRST_READ, None),
            (self.row_issued, Register.FIRST_ROW, Register.LAST_ROW),
            (self.result_written, None, Register.LAST_RESULT),
        ):
            seen = Signal(name=f"seen{last or first}")
            m.d.sync += seen.eq(~self.start & (seen | event))
            if first is not None:
                with m.If(running & event & ~seen):
                    m.d.sync += values[first].eq(cycles)
            if last is not None:
                with m.If(running & event):
                    m.d.sync += values[last].eq(cycles)

        words = [values.get(index, Const(0)) for index in range(Register.ENGINES)]
        for engine in Engine:
            for kind in Counter:
                name = kind.name.lower()
                words.append(counter(f"{engine.name.lower()}_{name}", getattr(self, name)[engine]))
        assert len(words) == REGISTERS
        m.d.sync += self.r_data.eq(Array(words)[self.index])

        resetting, starting = Signal(range(RESET_CYCLES + 1)), Signal()
        m.d.comb += [
            self.reset.eq(resetting.any()),
            self.start.eq(starting & ~self.reset),
            values[Register.CONTROL].eq(Cat(starting, self.reset)),
        ]
        with m.If(~self.reset):
            m.d.sync += starting.eq(0)
        with m.If((resetting > 1) | ~self.unsettled):
            m.d.sync += resetting.eq(resetting - resetting.any())
        with m.If(self.write & (self.index == Register.START)):
            m.d.sync += values[Register.START].eq(self.w_data)
        with m.If(self.write & (self.index == Register.CONTROL)):
            with m.If(self.w_data[0] & ~running):
                m.d.sync += starting.eq(1)
            with m.If(self.w_data[1]):
                m.d.sync += resetting.eq(RESET_CYCLES)
        m.d.comb += self.start_address.eq(values[Register.START])
        return m
