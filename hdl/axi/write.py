# SPDX-License-Identifier: Apache-2.0
"""Writes of DRAM over AXI: the AW, W and B channels of the master.

A burst of the DRAM port is written when all AXI bursts that it was cut into are
answered.  Addresses go ahead of the data by up to `outstanding` AXI bursts; a
burst's data are offered after its address is, whether or not that was accepted,
as a subordinate may wait for both.  All channels are registered; a beat a cycle
can pass.

Once `stop` is high no address is issued any more.  Bursts whose address was
issued are completed without strobes; all others are taken from the port and
called written without reaching the bus, so that nobody waits for them forever.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS
from hdl.axi.ports import ERROR_BIT, LENGTH_BITS
from hdl.axi.split import Splitter
from hdl.interfaces import DramWrite


class AxiWrite(wiring.Component):
    """A `DramWrite` port onto the AW, W and B channels.

    Parameters
    ----------
    config : sizes.
    outstanding : AXI bursts that are issued and not yet answered, at most.

    Members
    -------
    dram : in. The port.
    awvalid, awaddr, awlen : out; awready : in. The AW channel.
    wvalid, wdata, wstrb, wlast : out; wready : in. The W channel.
    bvalid, bresp : in; bready : out. The B channel.
    stop : in. Issue no address and write no byte any more.
    error, error_address : out. A burst was answered with an error; the address of its first byte.
    idle : out. Nothing is outstanding.
    """

    def __init__(self, *, config: Config, outstanding: int):
        self.config = config
        self.outstanding = outstanding
        super().__init__(
            {
                "dram": In(DramWrite(config)),
                "awvalid": Out(1),
                "awaddr": Out(DRAM_ADDRESS),
                "awlen": Out(LENGTH_BITS),
                "awready": In(1),
                "wvalid": Out(1),
                "wdata": Out(config.dram_width),
                "wstrb": Out(config.dram_width // 8),
                "wlast": Out(1),
                "wready": In(1),
                "bvalid": In(1),
                "bresp": In(2),
                "bready": Out(1),
                "stop": In(1),
                "error": Out(1),
                "error_address": Out(DRAM_ADDRESS),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self.outstanding
        m.submodules.splitter = splitter = Splitter(config=self.config)
        wiring.connect(m, wiring.flipped(self.dram.request), splitter.i)
        # What the W channel is to send, and what the B channel is to answer; `skipped`: nothing.
        sent = data.StructLayout({"length": LENGTH_BITS, "skipped": 1})
        m.submodules.unsent = unsent = SyncFIFOBuffered(width=sent.size, depth=depth)
        answered = data.StructLayout({"address": DRAM_ADDRESS, "last": 1, "skipped": 1})
        m.submodules.unanswered = unanswered = SyncFIFOBuffered(width=answered.size, depth=depth)

        part = splitter.o.payload
        issue = splitter.o.valid & splitter.o.ready
        to_send, to_answer = sent(unsent.w_data), answered(unanswered.w_data)
        m.d.comb += [
            splitter.o.ready.eq((~self.awvalid | self.awready) & unsent.w_rdy & unanswered.w_rdy),
            unsent.w_en.eq(issue),
            to_send.length.eq(part.length),
            to_send.skipped.eq(self.stop),
            unanswered.w_en.eq(issue),
            to_answer.address.eq(part.address),
            to_answer.last.eq(part.last),
            to_answer.skipped.eq(self.stop),
        ]
        with m.If(self.awready):
            m.d.sync += self.awvalid.eq(0)
        with m.If(issue & ~self.stop):
            m.d.sync += [
                self.awvalid.eq(1),
                self.awaddr.eq(part.address),
                self.awlen.eq(part.length),
            ]

        # Beats.
        sending = sent(unsent.r_data)
        number = Signal(LENGTH_BITS)
        last = number == sending.length
        beats = self.dram.beats
        taken = beats.valid & beats.ready
        m.d.comb += [
            beats.ready.eq(unsent.r_rdy & (sending.skipped | ~self.wvalid | self.wready)),
            unsent.r_en.eq(taken & last),
        ]
        with m.If(self.wready):
            m.d.sync += self.wvalid.eq(0)
        with m.If(taken):
            m.d.sync += number.eq(Mux(last, 0, number + 1))
            with m.If(~sending.skipped):
                m.d.sync += [
                    self.wvalid.eq(1),
                    self.wdata.eq(beats.payload.data),
                    self.wstrb.eq(Mux(self.stop, 0, beats.payload.strobe)),
                    self.wlast.eq(last),
                ]

        # Answers.
        expected = answered(unanswered.r_data)
        swallowed = Signal(range(depth + 1))  # skipped bursts that are sent and not yet answered
        swallows = Signal()
        passes = Signal()
        passed = self.bvalid & self.bready
        m.d.comb += [
            self.bready.eq(unanswered.r_rdy & ~expected.skipped),
            swallows.eq(unsent.r_en & unsent.r_rdy & sending.skipped),
            passes.eq(unanswered.r_rdy & expected.skipped & (swallowed != 0)),
            unanswered.r_en.eq(passed | passes),
            self.dram.written.eq(unanswered.r_en & expected.last),
            self.error.eq(passed & self.bresp[ERROR_BIT]),
            self.error_address.eq(expected.address),
            self.idle.eq(~splitter.o.valid & (unanswered.level == 0)),
        ]
        m.d.sync += swallowed.eq(swallowed + swallows - passes)
        return m
