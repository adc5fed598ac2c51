# SPDX-License-Identifier: Apache-2.0
"""Reads of DRAM over AXI: the AR and R channels of the master.

Up to `outstanding` AXI bursts are asked for ahead of their data.  Beats pass
without a register, so `RREADY` is the reader's and a beat a cycle can pass; the
address is in a register, two cycles after the request.  The end of a burst is
counted; `RLAST` and `RID` carry nothing that is not known.

A beat with an error response is passed on as it is, and `error` tells of it:
what to do about it is the machine's affair.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS
from hdl.axi.ports import ERROR_BIT, LENGTH_BITS
from hdl.axi.split import Splitter
from hdl.interfaces import DramRead


class AxiRead(wiring.Component):
    """A `DramRead` port onto the AR and R channels.

    Parameters
    ----------
    config : sizes.
    outstanding : AXI bursts that are asked for and not yet complete, at most.

    Members
    -------
    dram : in. The port.
    arvalid, araddr, arlen : out; arready : in. The AR channel.
    rvalid, rdata, rresp : in; rready : out. The R channel.
    error, error_address : out. A beat comes with an error; the address of its first byte.
    idle : out. Nothing is outstanding.
    """

    def __init__(self, *, config: Config, outstanding: int):
        self.config = config
        self.outstanding = outstanding
        super().__init__(
            {
                "dram": In(DramRead(config)),
                "arvalid": Out(1),
                "araddr": Out(DRAM_ADDRESS),
                "arlen": Out(LENGTH_BITS),
                "arready": In(1),
                "rvalid": In(1),
                "rdata": In(config.dram_width),
                "rresp": In(2),
                "rready": Out(1),
                "error": Out(1),
                "error_address": Out(DRAM_ADDRESS),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.splitter = splitter = Splitter(config=self.config)
        wiring.connect(m, wiring.flipped(self.dram.request), splitter.i)
        note = data.StructLayout({"address": DRAM_ADDRESS, "length": LENGTH_BITS})
        m.submodules.notes = notes = SyncFIFOBuffered(width=note.size, depth=self.outstanding)

        part = splitter.o.payload
        issue = splitter.o.valid & splitter.o.ready
        new = note(notes.w_data)
        m.d.comb += [
            splitter.o.ready.eq((~self.arvalid | self.arready) & notes.w_rdy),
            notes.w_en.eq(issue),
            new.address.eq(part.address),
            new.length.eq(part.length),
        ]
        with m.If(self.arready):
            m.d.sync += self.arvalid.eq(0)
        with m.If(issue):
            m.d.sync += [
                self.arvalid.eq(1),
                self.araddr.eq(part.address),
                self.arlen.eq(part.length),
            ]

        # The burst whose beats are coming.
        current = note(notes.r_data)
        number = Signal(LENGTH_BITS)
        last, passed = number == current.length, self.rvalid & self.rready
        m.d.comb += [
            self.dram.beats.valid.eq(self.rvalid & notes.r_rdy),
            self.dram.beats.payload.eq(self.rdata),
            self.rready.eq(self.dram.beats.ready & notes.r_rdy),
            notes.r_en.eq(passed & last),
            self.error.eq(passed & self.rresp[ERROR_BIT]),
            self.error_address.eq(
                current.address + (number << exact_log2(self.config.dram_width // 8))
            ),
            self.idle.eq(~splitter.o.valid & (notes.level == 0)),
        ]
        with m.If(passed):
            m.d.sync += number.eq(Mux(last, 0, number + 1))
        return m
