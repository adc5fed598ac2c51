# SPDX-License-Identifier: Apache-2.0
"""An engine's front end: its queue, the wait for semaphores, and the signals when it is done.

Instructions leave the queue in order.  The head is granted its semaphores as
soon as they count, even while the engine still works on earlier instructions,
so that an engine that takes its next instruction early never waits for a grant.
Granted, it is offered to the engine once the one before was taken.
What an instruction signals is kept until the engine's `done` (and `early`)
pulse, which come in order too.  A SYNC does not reach the engine: it passes when
all earlier instructions are done, and then signals.

From the queue's output to the engine are two cycles; at most every other cycle an
instruction is offered.  An engine's `ready` reaches one register here and nothing else:
the grant and the queue do not depend on it, as their paths are long enough.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from afternorm.config import Config
from afternorm.isa import SIGNALS, WAITS, Opcode
from hdl.interfaces import engine_payload

INDEX_BITS = 24
"""Of an instruction's number in its program."""
IN_FLIGHT = 8
"""Instructions of an engine that are offered and not done."""
LEAVE_TO_OFFER = 1
"""Cycles from an instruction's way out of the head to its offer."""


def queue_payload(*opcodes: Opcode) -> data.StructLayout:
    """What waits in a queue: semaphore fields, the index in the program, the instruction."""
    return data.StructLayout(
        {
            "waits": data.ArrayLayout(6, WAITS),
            "signals": data.ArrayLayout(6, SIGNALS),
            "early": 6,
            "index": INDEX_BITS,
            "instruction": engine_payload(*opcodes),
        }
    )


class Frontend(wiring.Component):
    """Queue and semaphores of one engine.

    Parameters
    ----------
    config : sizes.
    opcodes : what the engine executes.

    Members
    -------
    i : stream in. Checked instructions in program order.
    o : stream out. To the engine.
    early, done : in. The engine's pulses.
    ask, ask_set, grant : the semaphores' side; see `hdl.scheduler.semaphores`.
    signal, signal_early : out. Sets of semaphores that get a signal in this cycle.
    halt : in. Grant and issue nothing more.
    waiting, starved, idle : out. The head waits for semaphores and nothing else is offered;
        nothing is queued or offered; nothing is queued, offered or in flight.
    index, waits : out. Of the instruction at the head.
    asking : out. The head is not granted.
    empty : out. Nothing is at the head or offered.
    entered : out. An instruction that is no SYNC left the head one cycle ago.
    """

    def __init__(self, *, config: Config, opcodes: tuple[Opcode, ...]):
        self.config = config
        self.opcodes = opcodes
        self.payload = queue_payload(*opcodes)
        semaphores = config.semaphores
        super().__init__(
            {
                "i": In(stream.Signature(self.payload)),
                "o": Out(stream.Signature(engine_payload(*opcodes))),
                "early": In(1),
                "done": In(1),
                "ask": Out(1),
                "ask_set": Out(semaphores),
                "grant": In(1),
                "signal": Out(semaphores),
                "signal_early": Out(semaphores),
                "halt": In(1),
                "waiting": Out(1),
                "starved": Out(1),
                "idle": Out(1),
                "index": Out(INDEX_BITS),
                "waits": Out(data.ArrayLayout(6, WAITS)),
                "asking": Out(1),
                "empty": Out(1),
                "entered": Out(1),
            }
        )

    def _set(self, *fields) -> Value:
        """The set of semaphores that these fields name."""
        names = range(1, self.config.semaphores + 1)
        return Cat(Cat(field == name for field in fields).any() for name in names)

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = SyncFIFOBuffered(
            width=self.payload.size, depth=self.config.queue_depth
        )
        m.d.comb += [
            queue.w_en.eq(self.i.valid),
            queue.w_data.eq(self.i.payload.as_value()),
            self.i.ready.eq(queue.w_rdy),
        ]

        # The head: its set of semaphores is decoded on the way in.
        head = Signal(self.payload, reset_less=True)
        head_valid = Signal()
        head_set = Signal.like(self.ask_set, reset_less=True)
        cleared = Signal()  # the head was granted, and waits for its way out
        offered = Signal(self.payload, reset_less=True)
        offered_valid = Signal()
        leave = Signal()
        enter = Signal()
        queued = self.payload(queue.r_data)
        m.d.comb += [
            enter.eq(queue.r_rdy & ~head_valid),
            queue.r_en.eq(enter),
        ]
        with m.If(enter):
            m.d.sync += [head.eq(queued), head_set.eq(self._set(*queued.waits))]
        m.d.sync += head_valid.eq(enter | (head_valid & ~leave))

        issue = Signal()
        in_flight = Signal(range(IN_FLIGHT + 1))
        room = Signal(init=1)
        m.d.comb += [
            self.ask.eq(head_valid & ~cleared & room & ~self.halt),
            self.ask_set.eq(head_set),
            leave.eq((cleared | self.grant) & (~offered_valid | issue)),
            self.index.eq(head.index),
        ]
        m.d.sync += cleared.eq((cleared | self.grant) & ~leave)
        with m.If(leave):
            m.d.sync += offered.eq(head)
        m.d.sync += offered_valid.eq(leave | (offered_valid & ~issue))

        # In flight from the offer on (an engine may pulse `early` before it lets go of the
        # instruction): what to signal when the engine is done.
        is_sync = offered.instruction.opcode == Opcode.SYNC
        m.submodules.pending = pending = SyncFIFOBuffered(width=6 * SIGNALS, depth=IN_FLIGHT)
        m.submodules.earlies = earlies = SyncFIFOBuffered(width=6, depth=IN_FLIGHT)
        sync_passes = offered_valid & is_sync & (in_flight == 0) & ~self.halt
        m.d.comb += [
            self.o.valid.eq(offered_valid & ~is_sync & ~self.halt),
            self.o.payload.eq(offered.instruction),
            issue.eq((self.o.valid & self.o.ready) | sync_passes),
        ]
        fresh = Signal()
        enters = Signal()
        now_in_flight = Signal.like(in_flight)
        m.d.comb += [
            enters.eq(fresh & ~is_sync),
            pending.w_en.eq(enters),
            pending.w_data.eq(offered.signals.as_value()),
            pending.r_en.eq(self.done),
            earlies.w_en.eq(enters),
            earlies.w_data.eq(offered.early),
            earlies.r_en.eq(self.early),
            now_in_flight.eq(in_flight + enters - self.done),
        ]
        m.d.sync += [
            fresh.eq(leave),
            in_flight.eq(now_in_flight),
            room.eq(now_in_flight != IN_FLIGHT),
        ]

        # What has finished; a SYNC passes while nothing is in flight. Semaphore 0 is none.
        finished = Signal.like(offered.signals)
        finished_early = Signal.like(offered.early)
        signals = offered.signals.as_value()
        m.d.comb += [
            finished.eq(Mux(self.done, pending.r_data, 0) | Mux(sync_passes, signals, 0)),
            finished_early.eq(
                Mux(self.early, earlies.r_data, 0) | Mux(sync_passes, offered.early, 0)
            ),
            self.signal.eq(self._set(*finished)),
            self.signal_early.eq(self._set(finished_early)),
        ]

        m.d.comb += [
            self.waiting.eq(self.ask & ~offered_valid & ~self.grant),
            self.empty.eq(~head_valid & ~offered_valid),
            self.starved.eq(self.empty & ~queue.r_rdy),
            self.idle.eq(self.starved & (in_flight == 0)),
            self.asking.eq(head_valid & ~cleared),
            self.waits.eq(head.waits),
            self.entered.eq(enters),
        ]
        return m
