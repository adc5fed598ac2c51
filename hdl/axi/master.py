# SPDX-License-Identifier: Apache-2.0
"""The AXI4 master: the machine's ways to DRAM on the five channels of a bus.

One ID, incrementing bursts of whole beats, cut at 4 KiB; everything in order.
Reads and writes are independent of each other.

An error response (SLVERR or DECERR) sets `error`, with the address.  From then
on no write is issued: see `hdl.axi.write`.  Reads that the machine still asks
for go on, as they change nothing.  `clear`, which holds while the machine is
being reset, forgets the error once everything that was begun is complete.

Proved for runs of any length, whatever the machine and the bus do (``tb/axi_rules.sv``, 64
bits): valid and payload of AW, W and AR hold until ready; bursts are incrementing, of whole
beats, aligned, and stay within 4 KiB; after an error response no address is offered and no
byte is written until the error is forgotten.  Watched in every bench, not proved
(``tb/axi_rules.py``): the same, and that no data are offered before their address, that
WLAST marks the last beat of each burst and no other, and that R and B answer every burst once.

Method: AMBA AXI and ACE Protocol Specification, ARM IHI 0022, chapter A3.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS
from hdl.axi.ports import CACHE, INCREMENTING, MASTER, PROTECTION, master_members
from hdl.axi.read import AxiRead
from hdl.axi.write import AxiWrite
from hdl.interfaces import DramRead, DramWrite

OUTSTANDING = 16
"""AXI bursts under way, in each direction, unless stated otherwise."""


class AxiMaster(wiring.Component):
    """`DramRead` and `DramWrite` ports onto AXI4.

    Parameters
    ----------
    config : sizes.
    outstanding : AXI bursts under way at most, in each direction; at least 4.

    Members
    -------
    read, write : in. The ports.
    m_axi_* : the bus.
    clear : in. Forget the error, as soon as nothing is under way.
    error, error_address : out. A response was an error; the byte that the beat or, of a write,
        the burst begins at. The first one stays until `clear`.
    idle : out. Nothing is under way.

    Raises
    ------
    ValueError
        If `outstanding` is below 4.
    """

    def __init__(self, *, config: Config, outstanding: int = OUTSTANDING):
        if outstanding < 4:
            raise ValueError(f"outstanding must be at least 4, not {outstanding}")
        self.config = config
        self.outstanding = outstanding
        super().__init__(
            {
                "read": In(DramRead(config)),
                "write": In(DramWrite(config)),
                **master_members(config),
                "clear": In(1),
                "error": Out(1),
                "error_address": Out(DRAM_ADDRESS),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = AxiRead(config=self.config, outstanding=self.outstanding)
        m.submodules.writer = writer = AxiWrite(config=self.config, outstanding=self.outstanding)
        wiring.connect(m, wiring.flipped(self.read), reader.dram)
        wiring.connect(m, wiring.flipped(self.write), writer.dram)

        def port(name: str) -> Signal:
            return getattr(self, f"{MASTER}{name}")

        for unit in (reader, writer):
            for name, member in unit.signature.members.items():
                if f"{MASTER}{name}" in self.signature.members:
                    its = getattr(unit, name)
                    m.d.comb += port(name).eq(its) if member.flow == Out else its.eq(port(name))
        for channel in ("aw", "ar"):
            m.d.comb += [
                port(f"{channel}size").eq(exact_log2(self.config.dram_width // 8)),
                port(f"{channel}burst").eq(INCREMENTING),
                port(f"{channel}cache").eq(CACHE),
                port(f"{channel}prot").eq(PROTECTION),
            ]

        happens = reader.error | writer.error
        m.d.comb += [
            self.idle.eq(reader.idle & writer.idle),
            writer.stop.eq(self.error | happens),
        ]
        with m.If(happens):
            m.d.sync += self.error.eq(1)
            with m.If(~self.error):
                m.d.sync += self.error_address.eq(
                    Mux(reader.error, reader.error_address, writer.error_address)
                )
        with m.Elif(self.clear & self.idle):
            m.d.sync += [self.error.eq(0), self.error_address.eq(0)]
        return m
