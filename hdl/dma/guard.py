# SPDX-License-Identifier: Apache-2.0
"""Keeps the bursts that go to DRAM whole when their writer is reset.

DRAM waits for every beat of a burst that was asked for.  So while `flush` is
high no request is taken, and beats that are still owed are sent without a
strobe; `idle` says that everything was written.  Otherwise requests and beats
pass, each through a register: the latency is one cycle, the throughput a burst
every second cycle and a beat a cycle.  A beat waits for its request.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from afternorm.config import Config
from hdl.interfaces import BURST_BITS, DramWrite

OUTSTANDING = 16
"""Bursts that are asked for and not yet written, at most."""


class WriteGuard(wiring.Component):
    """A writer's way to a `DramWrite` port.

    Parameters
    ----------
    config : sizes.

    Members
    -------
    writer : in. The writer's port.
    dram : out. The port.
    flush : in. Take no requests, complete what is owed.
    idle : out. No burst is outstanding.
    """

    def __init__(self, *, config: Config):
        self.config = config
        super().__init__(
            {
                "writer": In(DramWrite(config)),
                "dram": Out(DramWrite(config)),
                "flush": In(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.lengths = lengths = SyncFIFOBuffered(width=BURST_BITS, depth=OUTSTANDING)
        request, beats = self.dram.request, self.dram.beats
        unwritten = Signal(range(OUTSTANDING + 1))

        free = ~request.valid & (unwritten != OUTSTANDING) & ~self.flush
        m.d.comb += [
            self.writer.request.ready.eq(free),
            lengths.w_en.eq(free & self.writer.request.valid),
            lengths.w_data.eq(self.writer.request.payload.beats),
        ]
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(lengths.w_en):
            m.d.sync += [request.valid.eq(1), request.payload.eq(self.writer.request.payload)]
        m.d.sync += unwritten.eq(unwritten + lengths.w_en - self.dram.written)
        m.d.comb += [
            self.writer.written.eq(self.dram.written & ~self.flush),
            self.idle.eq(unwritten == 0),
        ]

        left = Signal(BURST_BITS)  # beats of the burst that are not yet in the register
        passes = Signal()
        room = (left != 0) & (~beats.valid | beats.ready)
        last = left == 1
        m.d.comb += [
            self.writer.beats.ready.eq(room & ~self.flush),
            passes.eq(room & (self.writer.beats.valid | self.flush)),
            lengths.r_en.eq((left == 0) | (passes & last)),
        ]
        with m.If(beats.ready):
            m.d.sync += beats.valid.eq(0)
        with m.If(passes):
            m.d.sync += [
                left.eq(left - 1),
                beats.valid.eq(1),
                beats.payload.data.eq(self.writer.beats.payload.data),
                beats.payload.strobe.eq(Mux(self.flush, 0, self.writer.beats.payload.strobe)),
                beats.payload.last.eq(last),
            ]
        with m.If(lengths.r_rdy & lengths.r_en):
            m.d.sync += left.eq(lengths.r_data)
        return m
