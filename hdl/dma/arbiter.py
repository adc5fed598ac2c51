# SPDX-License-Identifier: Apache-2.0
"""Several readers of DRAM onto one port; the first has precedence.

A request passes through a register, and the reader's number is noted; as beats
come in the order of the requests, the notes say whose they are.  The latency is
one cycle on the way out and none on the way back, the throughput a burst every
second cycle and a beat a cycle.

A reset of the readers must not leave beats on their way to whoever asks next:
while `flush` is high no request is taken, and beats are dropped; `idle` says
that none is left.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from afternorm.config import Config
from hdl.interfaces import BURST_BITS, DramRead

OUTSTANDING = 16
"""Bursts that are asked for and not yet complete, at most."""


class ReadArbiter(wiring.Component):
    """Readers onto one `DramRead` port.

    Parameters
    ----------
    config : sizes.
    ports : readers.

    Members
    -------
    readers : in. Their ports, by precedence.
    dram : out. The port.
    flush : in. Take no requests, drop all beats.
    idle : out. No burst is outstanding.
    """

    def __init__(self, *, config: Config, ports: int):
        self.config = config
        self.ports = ports
        super().__init__(
            {
                "readers": In(DramRead(config)).array(ports),
                "dram": Out(DramRead(config)),
                "flush": In(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        note = data.StructLayout({"reader": ceil_log2(self.ports), "beats": BURST_BITS})
        m.submodules.notes = notes = SyncFIFOBuffered(width=note.size, depth=OUTSTANDING)
        request, beats = self.dram.request, self.dram.beats

        free = ~request.valid & notes.w_rdy & ~self.flush
        taken = note(notes.w_data)
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        for number, reader in reversed(list(enumerate(self.readers))):
            with m.If(reader.request.valid & free):
                m.d.comb += [
                    notes.w_en.eq(1),
                    taken.reader.eq(number),
                    taken.beats.eq(reader.request.payload.beats),
                ]
                m.d.sync += [request.valid.eq(1), request.payload.eq(reader.request.payload)]
            earlier = [other.request.valid for other in list(self.readers)[:number]]
            m.d.comb += reader.request.ready.eq(free & ~Cat(earlier).any())

        # The burst whose beats are coming.
        current = Signal(note)
        left = Signal(BURST_BITS)
        passed = Signal()
        last = left == 1
        enter = notes.r_rdy & ((left == 0) | (passed & last))
        m.d.comb += notes.r_en.eq(enter)
        with m.If(enter):
            m.d.sync += [current.eq(notes.r_data), left.eq(note(notes.r_data).beats)]
        with m.Elif(passed):
            m.d.sync += left.eq(left - 1)
        ready = Signal(self.ports)
        for number, reader in enumerate(self.readers):
            mine = (left != 0) & (current.reader == number)
            m.d.comb += [
                reader.beats.valid.eq(beats.valid & mine & ~self.flush),
                reader.beats.payload.eq(beats.payload),
                ready[number].eq(mine & (reader.beats.ready | self.flush)),
            ]
        m.d.comb += [
            beats.ready.eq(ready.any()),
            passed.eq(beats.valid & beats.ready),
            self.idle.eq(~request.valid & (notes.level == 0) & (left == 0)),
        ]
        return m
