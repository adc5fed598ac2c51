# SPDX-License-Identifier: Apache-2.0
"""Registers of the accelerator: control, status, interrupts, flags, counters, constants.

What registers there are and what is in them comes from `afternorm.register_map`.
Counters count while a program runs and are cleared by its start.  A written
reset bit holds everything but memories and host port in reset for
`RESET_CYCLES` cycles, long enough for every pipeline to run empty, and longer
while `unsettled`; a start in that time takes effect after it.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS, Engine, Flag
from afternorm.memory_map import (
    INDEX_BITS,
    PROGRAM_BITS,
    REGISTER_BITS,
    RESET_CYCLES,
    Cause,
    Counter,
    Lost,
    Register,
    Status,
)
from afternorm.register_map import Access, register_map
from hdl.counters import Counters
from hdl.scheduler.frontend import INDEX_BITS as INSTRUCTION_INDEX_BITS


class Registers(wiring.Component):
    """Control, status, interrupts and counters.

    Parameters
    ----------
    config : sizes, which can be read.

    Members
    -------
    write, index, w_data, strobe : in. A register write; of `w_data`, the bytes with a strobe.
    r_data : out. The register at `index`, a cycle later; zero where there is none.
    start, program : out. To scheduler and fetch; `program` counts instructions.
    stop : out. From the request until no program runs.
    reset : out. Soft reset.
    machine_reset : out. The same, and a cycle after any other reset: a register that drives no
        logic, as its way to all the machine's registers is the longest of all.
    interrupt : out. An enabled cause is set.
    unsettled : in. Something outside the machine still answers to it.
    status, error, error_index : in. From the scheduler.
    error_address : in. Of a bus error.
    flags : in. Pulses, by `afternorm.isa.Flag`.
    operand_read, row_issued, result_written : in. What the matmul engine does in this cycle.
    busy, waiting, starved, conflict : in. By engine.
    row_seen, lost : in. A cycle late: a row entered, else whose slot it is, a bit a `Lost`.
    """

    def __init__(self, *, config: Config):
        self.config = config
        engines = len(Engine)
        super().__init__(
            {
                "write": In(1),
                "index": In(INDEX_BITS),
                "w_data": In(REGISTER_BITS),
                "strobe": In(REGISTER_BITS // 8),
                "r_data": Out(REGISTER_BITS),
                "start": Out(1),
                "program": Out(PROGRAM_BITS),
                "stop": Out(1),
                "reset": Out(1),
                "machine_reset": Out(1, init=1),
                "interrupt": Out(1),
                "unsettled": In(1),
                "status": In(3),
                "error": In(3),
                "error_index": In(INSTRUCTION_INDEX_BITS),
                "error_address": In(DRAM_ADDRESS),
                "flags": In(len(Flag)),
                "operand_read": In(1),
                "row_issued": In(1),
                "result_written": In(1),
                "busy": In(engines),
                "waiting": In(engines),
                "starved": In(engines),
                "conflict": In(engines),
                "row_seen": In(1),
                "lost": In(len(Lost)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        entries = {entry.name: entry for entry in register_map(self.config)}
        enabled = Cat(bit.replicate(8) for bit in self.strobe)
        written = {
            name: self.write & (self.index == entry.index)
            for name, entry in entries.items()
            if entry.mask(Access.RW, Access.W1S, Access.W1C)
        }
        ones = self.w_data & enabled

        def stored(register: Register) -> Value:
            """What the host wrote, by fields, from the lowest bit of the register up."""
            entry = entries[register.name]
            value = Signal(REGISTER_BITS, name=register.name.lower(), init=entry.reset)
            kept = (value & ~enabled) | ones
            with m.If(written[register.name]):
                m.d.sync += value.eq(kept & entry.mask(Access.RW))
            return value

        # The words, field by field; what nothing here drives is a constant of the map.
        values: dict[tuple[str, str], Value] = {}

        def show(register: Register, *fields) -> None:
            names = [field.name for field in entries[register.name].fields]
            values.update({(register.name, n): v for n, v in zip(names, fields, strict=True)})

        running = self.status == Status.RUNNING
        cycles = Signal(REGISTER_BITS)

        def counter(name: str, event) -> Value:
            count = Signal(REGISTER_BITS, name=name)
            with m.If(self.start):
                m.d.sync += count.eq(0)
            with m.Elif(running & event):
                m.d.sync += count.eq(count + 1)
            return count

        m.d.comb += cycles.eq(counter("cycle_counter", 1))
        flags = Signal(len(Flag))
        m.d.sync += flags.eq(Mux(self.start, 0, flags) | self.flags)
        show(Register.STATUS, self.status)
        show(Register.ERROR, self.error)
        show(Register.ERROR_INDEX, self.error_index)
        show(Register.ERROR_ADDRESS_LOW, self.error_address[:REGISTER_BITS])
        show(Register.ERROR_ADDRESS_HIGH, self.error_address[REGISTER_BITS:])
        show(Register.FLAGS, *flags)
        show(Register.CYCLES, cycles)
        show(Register.ROWS, counter("rows", self.row_issued))

        for event, first, last in (
            (self.operand_read, Register.FIRST_READ, None),
            (self.row_issued, Register.FIRST_ROW, Register.LAST_ROW),
            (self.result_written, None, Register.LAST_RESULT),
        ):
            seen = Signal(name=f"seen{last or first}")
            m.d.sync += seen.eq(~self.start & (seen | event))
            for register, latest in ((first, False), (last, True)):
                if register is not None:
                    at = Signal(REGISTER_BITS, name=register.name.lower())
                    with m.If(running & event & (latest | ~seen)):
                        m.d.sync += at.eq(cycles)
                    show(register, at)
        m.submodules.engines = engines = Counters(
            count=len(Engine) * len(Counter), width=REGISTER_BITS
        )
        events = [
            (f"{engine.name}_{kind.name}", getattr(self, kind.name.lower())[engine])
            for engine in Engine
            for kind in Counter
        ]
        m.d.comb += [
            engines.events.eq(Mux(running, Cat(event for _, event in events), 0)),
            engines.clear.eq(self.start),
            engines.index.eq(self.index - Register.ENGINES),
        ]
        for name, _ in events:
            values[name, entries[name].fields[0].name] = engines.value

        # Idle slots count from the first row on, and once there is another row behind them.
        was_running = Signal()
        between = Signal()
        m.d.sync += [
            was_running.eq(running),
            between.eq(~self.start & (between | self.row_seen)),
        ]
        for lost in Lost:
            name = f"LOST_{lost.name}"
            slots = Signal(REGISTER_BITS, name=f"{name.lower()}_so_far")
            count = Signal(REGISTER_BITS, name=name.lower())
            with m.If(self.start):
                m.d.sync += [slots.eq(0), count.eq(0)]
            with m.Elif(was_running & self.row_seen):
                m.d.sync += count.eq(slots)
            with m.Elif(was_running & between & self.lost[lost]):
                m.d.sync += slots.eq(slots + 1)
            values[name, entries[name].fields[0].name] = count

        # Control.
        resetting = Signal(range(RESET_CYCLES + 1))
        starting = Signal()
        following = Signal.like(resetting)
        asked = Mux(written["CONTROL"], ones, 0)
        m.d.comb += [self.start.eq(starting & ~self.reset), following.eq(resetting)]
        m.d.sync += [
            resetting.eq(following),
            self.reset.eq(following.any()),
            self.machine_reset.eq(following.any()),
        ]
        with m.If(~self.reset):
            m.d.sync += starting.eq(0)
        with m.If((resetting > 1) | (self.reset & ~self.unsettled)):
            m.d.comb += following.eq(resetting - 1)
        needs_reset = (self.status == Status.ERROR) | (self.status == Status.STOPPED)
        with m.If(asked[0] & ~running & (~needs_reset | self.reset | asked[1])):
            m.d.sync += starting.eq(1)
        with m.If(asked[1]):
            m.d.comb += following.eq(RESET_CYCLES)
        m.d.sync += self.stop.eq(running & (self.stop | asked[2]))
        show(Register.CONTROL, starting, self.reset, self.stop)

        low, high = stored(Register.PROGRAM_LOW), stored(Register.PROGRAM_HIGH)
        (field,) = entries[Register.PROGRAM_LOW.name].fields
        m.d.comb += self.program.eq(Cat(low[field.low :], high))
        show(Register.PROGRAM_LOW, low[field.low :])
        show(Register.PROGRAM_HIGH, high)

        # Interrupts: causes are how a program ended.
        enable = stored(Register.IRQ_ENABLE)
        cause = Signal(len(Cause))
        ends = {
            Cause.DONE: Status.DONE,
            Cause.ERROR: Status.ERROR,
            Cause.STOPPED: Status.STOPPED,
        }
        happened = Cat(was_running & (self.status == ends[each]) for each in Cause)
        cleared = Mux(written["IRQ_CAUSE"], ones[: len(Cause)], 0)
        m.d.sync += [
            cause.eq(Mux(self.reset, 0, cause & ~cleared) | happened),
        ]
        m.d.comb += self.interrupt.eq((cause & enable).any())
        show(Register.IRQ_ENABLE, *enable[: len(Cause)])
        show(Register.IRQ_CAUSE, *cause)

        m.d.sync += self.r_data.eq(0)
        with m.Switch(self.index):
            for entry in entries.values():
                with m.Case(entry.index):
                    for field in entry.fields:
                        value = values.get((entry.name, field.name), Const(field.reset))
                        m.d.sync += self.r_data[field.low :][: field.width].eq(value)
        return m
