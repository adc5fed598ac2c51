# SPDX-License-Identifier: Apache-2.0
"""Program fetch: instructions from DRAM, in order, ahead of their turn.

From `address` on, instructions of `INSTRUCTION_BYTES` each are read in bursts of
as many as the buffer has room for (and a burst may have).  What was asked for
always has a place in the buffer, so beats are never held up.  Fetching stops
when END is handed over or at `halt`; beats that are still on their way then are
dropped, and a new start waits until the last of them has come.  Up to
`fetch_depth` instructions behind END may be read: memory must answer them, but
what they hold does not matter.

From a start to the first request are three cycles, from an instruction's last
beat to `o` two; the throughput is one instruction in ``512 / dram_width`` cycles.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS, INSTRUCTION_BITS, INSTRUCTION_BYTES, Opcode
from hdl.interfaces import BURST_BITS, DramRead
from hdl.scheduler.checker import HEADER_LAYOUT

SLOT_BITS = 8 * INSTRUCTION_BYTES
NUMBER_BITS = min(32, DRAM_ADDRESS - exact_log2(INSTRUCTION_BYTES))
"""Bits of an instruction's place in DRAM, in units of `INSTRUCTION_BYTES`."""


class Fetch(wiring.Component):
    """Reads a program and hands it over instruction by instruction.

    Parameters
    ----------
    config : sizes.

    Members
    -------
    start, address : in. A pulse: begin at that address, in units of `INSTRUCTION_BYTES`;
        `address` holds until `o` has its first instruction.
    halt : in. Hand over nothing more and ask for nothing more, until the next start; a start
        in the same cycle counts.
    o : stream out. Instructions.  At `halt` what is offered is withdrawn.
    dram : out. Reads.
    """

    def __init__(self, *, config: Config):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(NUMBER_BITS),
                "halt": In(1),
                "o": Out(stream.Signature(INSTRUCTION_BITS)),
                "dram": Out(DramRead(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self.config.fetch_depth
        width = self.config.dram_width
        beats = SLOT_BITS // width
        longest = min(depth, ((1 << BURST_BITS) - 1) // beats)
        request = self.dram.request

        waiting = Signal()
        active = Signal()
        place = Signal(NUMBER_BITS, reset_less=True)
        reserved = Signal(range(depth + 1))  # asked for and not yet handed over
        owed = Signal(range(depth + 1))  # asked for and not yet received
        count = Signal(range(longest + 1))  # of the next burst; 0: none is being made

        m.submodules.buffer = buffer = SyncFIFOBuffered(width=INSTRUCTION_BITS, depth=depth)
        drained = (owed == 0) & (buffer.level == 0)
        with m.If(self.start):
            m.d.sync += [waiting.eq(1), active.eq(0)]
        with m.Elif(self.halt):
            m.d.sync += [waiting.eq(0), active.eq(0)]
        with m.Elif(waiting & drained):
            m.d.sync += [waiting.eq(0), active.eq(1), place.eq(self.address), reserved.eq(0)]

        # Beats: the first is the lowest part of the instruction.
        beat = self.dram.beats
        m.d.comb += beat.ready.eq(1)
        part = Signal(range(max(2, beats)))
        slot = Signal(SLOT_BITS)
        received = Signal()
        m.d.comb += [
            slot.eq(beat.payload),
            received.eq(beat.valid & (part == beats - 1)),
        ]
        if beats > 1:
            earlier = Signal(SLOT_BITS - width, reset_less=True)
            m.d.comb += slot.eq(Cat(earlier, beat.payload))
            with m.If(beat.valid):
                m.d.sync += [
                    earlier.eq(slot[width:]),
                    part.eq(Mux(received, 0, part + 1)),
                ]

        handed = Signal()
        m.d.comb += [
            buffer.w_en.eq(received & active),
            buffer.w_data.eq(slot),
            buffer.r_en.eq(handed | ~active),
            self.o.valid.eq(buffer.r_rdy & active & ~self.halt),
            self.o.payload.eq(buffer.r_data),
            handed.eq(self.o.valid & self.o.ready),
        ]
        header = HEADER_LAYOUT(buffer.r_data[: HEADER_LAYOUT.size])
        with m.If(handed & (header.opcode == Opcode.END)):
            m.d.sync += active.eq(0)

        # Requests: first how many instructions, then their burst.
        issue = Signal()
        room = depth - reserved
        m.d.comb += issue.eq(active & (count != 0) & ~request.valid)
        with m.If(~active | issue):
            m.d.sync += count.eq(0)
        with m.Elif(count == 0):
            m.d.sync += count.eq(Mux(room > longest, longest, room))
        with m.If(issue):
            m.d.sync += [
                request.valid.eq(1),
                request.payload.address.eq(place * INSTRUCTION_BYTES),
                request.payload.beats.eq(count * beats),
                place.eq(place + count),
            ]
        with m.Elif(request.ready):
            m.d.sync += request.valid.eq(0)
        asked = Mux(issue, count, 0)
        m.d.sync += owed.eq(owed + asked - received)
        with m.If(active):
            m.d.sync += reserved.eq(reserved + asked - handed)
        return m
