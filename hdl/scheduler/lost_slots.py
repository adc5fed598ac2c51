# SPDX-License-Identifier: Apache-2.0
"""Says to whom each idle slot of the array is lost.

An idle slot is a cycle in which no row of A is requested.  Where the matrix engine has an
instruction whose rows are not all through, the slot is the engine's own.  Otherwise the next
instruction came too late, and what counts is why its front end had not let it go `latency`
cycles ago, as it takes so many from there to the first row:

* it waited for semaphores: lost to the engine that signals the first one missing (in the order
  of the instruction's fields);
* there was none, as the scheduler had another engine's instruction for which that engine's
  queue had no place: lost to that engine;
* there was none: lost to `Lost.FETCH`;
* anything else, as a SYNC that waits for the engine: the engine's own.

So a late instruction's slots are lost to whoever it waited for, to the last one, loading of
weights included, and those in which it could not have begun anyway are the engine's.  A product
of fewer than C columns is loaded faster than that: up to C - 1 of the slots behind it then go
where those before it went.

Who signals a semaphore is a table, written while an instruction is checked.  It holds
one engine a semaphore: the one of the instruction that came last, before the one that waits.

Everything comes from registers and is seen some cycles later, which `latency` leaves time for:
nothing here lengthens the way of a grant or of a row.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from afternorm.config import Config
from afternorm.isa import SIGNALS, WAITS, Engine
from afternorm.memory_map import Lost
from hdl.arith.delay import delay, delay_valid
from hdl.memory.delay_line import delay_line

DISPATCH_TO_HEAD = 3
"""Cycles from an instruction's dispatch into an empty queue to the first in which it asks."""
_FOUND = 3
"""Cycles from a state of the front end to the cause that follows from it."""


class LostSlots(wiring.Component):
    """Attributes idle slots.

    Parameters
    ----------
    config : sizes.
    latency : cycles from an instruction's way out of the front end to its first row, of C columns.

    Members
    -------
    names, engine : in. The semaphores that the scheduler's instruction signals, and its engine;
        constant for as many cycles as there are names, or longer.
    blocked : in. That engine's queue has no place for it.
    asking, waits : in. The matmul front end's head is not granted; the semaphores it waits for.
    available : in. The semaphores that can be taken.
    empty : in. The front end has no instruction, in its head or offered.
    entered : in. An instruction that is no SYNC left the head one cycle ago.
    row, last : in. A row of A is requested; it is the last of its instruction.
    o_row : out. `row`, a cycle late.
    o_lost : out. Whose the slot is if there is no `o_row`: a bit a `Lost`.
    """

    def __init__(self, *, config: Config, latency: int):
        self.config = config
        self.latency = latency
        self.name_bits = ceil_log2(config.semaphores + 1)
        super().__init__(
            {
                "names": In(data.ArrayLayout(6, SIGNALS + 1)),
                "engine": In(Engine),
                "blocked": In(1),
                "asking": In(1),
                "waits": In(data.ArrayLayout(6, WAITS)),
                "available": In(config.semaphores),
                "empty": In(1),
                "entered": In(1),
                "row": In(1),
                "last": In(1),
                "o_row": Out(1),
                "o_lost": Out(len(Lost)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # By name, which is the semaphore's number plus one; 0 is none.
        m.submodules.table = table = Memory(
            shape=Engine, depth=self.config.semaphores + 1, init=[], attrs={"no_rw_check": 1}
        )
        write, read = table.write_port(), table.read_port()
        turn = Signal(range(SIGNALS + 1))
        m.d.sync += turn.eq(turn + 1)
        m.d.comb += [
            write.en.eq(1),
            write.addr.eq(self.names[turn]),
            write.data.eq(self.engine),
        ]

        # The head stays in the cycle after it asked.
        available = Signal(self.config.semaphores)
        asking = Signal()
        missing = Signal(WAITS)
        first = Signal(self.name_bits)
        m.d.sync += [available.eq(self.available), asking.eq(self.asking)]
        for n in range(WAITS):
            m.d.comb += missing[n].eq(~Cat(1, available).bit_select(self.waits[n], 1))
        for n in reversed(range(WAITS)):
            with m.If(missing[n]):
                m.d.sync += first.eq(self.waits[n])
        m.d.comb += read.addr.eq(first)
        waited = Signal()
        m.d.sync += waited.eq(asking & missing.any())
        waited = delay(m, waited, _FOUND - 2, name="waited")

        empty = delay(m, self.empty, _FOUND, name="empty")
        ahead = delay(
            m,
            Cat(self.engine, self.blocked),
            DISPATCH_TO_HEAD + _FOUND,
            name="dispatch",
        )
        cause = Signal(Lost)
        with m.If(waited):
            m.d.comb += cause.eq(read.data)
        with m.Elif(empty & ahead[-1]):
            m.d.comb += cause.eq(ahead[:-1])
        with m.Elif(empty):
            m.d.comb += cause.eq(Lost.FETCH)

        # A slot is seen a cycle late.
        row = Signal()
        last = Signal()
        m.d.sync += [row.eq(self.row), last.eq(self.last)]
        late = delay_line(m, cause, self.latency + 1 - _FOUND, name="cause")
        entered = delay_valid(m, self.entered, self.latency)
        # Instructions whose rows could have begun, and are not all through; fewer than none where
        # a narrow product was faster than that.
        begun = Signal(signed(6))
        within = Signal()
        m.d.sync += begun.eq(begun + entered - last)
        with m.If(row):
            m.d.sync += within.eq(~last)
        m.d.comb += [
            self.o_row.eq(row),
            self.o_lost.eq(1 << Mux(within | (begun > 0), Lost.MATMUL, late)),
        ]
        return m
