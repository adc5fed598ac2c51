# SPDX-License-Identifier: Apache-2.0
"""Bursts of the DRAM ports cut into AXI bursts, which stay within 4 KiB.

A burst of the DRAM ports has at most 255 beats, so 4 KiB are the only limit.
The latency is one cycle, the throughput an AXI burst a cycle and, as the next
burst is taken when the last part of one has gone, a burst every second cycle.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS
from hdl.axi.ports import LENGTH_BITS, PAGE_BITS
from hdl.interfaces import burst_layout


def part_layout() -> data.StructLayout:
    """An AXI burst: its first byte's address, beats less one, and whether it ends the burst."""
    return data.StructLayout({"address": DRAM_ADDRESS, "length": LENGTH_BITS, "last": 1})


class Splitter(wiring.Component):
    """Cuts bursts at multiples of 4 KiB.

    Parameters
    ----------
    config : sizes.

    Members
    -------
    i : stream in. Bursts.
    o : stream out. Their parts, in order.
    """

    def __init__(self, *, config: Config):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(burst_layout(config))),
                "o": Out(stream.Signature(part_layout())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beat_shift = exact_log2(self.config.dram_width // 8)

        # Beats of the burst's rest, and of the page's: both less one.
        place = Signal(DRAM_ADDRESS - beat_shift)
        left = Signal(LENGTH_BITS)
        room = ~place[: PAGE_BITS - beat_shift]
        page = place[PAGE_BITS - beat_shift :]
        burst, part = self.i.payload, self.o.payload
        m.d.comb += [
            self.i.ready.eq(~self.o.valid),
            part.address[beat_shift:].eq(place),
            part.last.eq(left <= room),
            part.length.eq(Mux(part.last, left, room)),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                place.eq(burst.address[beat_shift:]),
                left.eq(burst.beats - 1),
                self.o.valid.eq(1),
            ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [
                left.eq(left - room - 1),
                place.eq((page + 1) << (PAGE_BITS - beat_shift)),
                self.o.valid.eq(~part.last),
            ]
        return m
