# SPDX-License-Identifier: Apache-2.0
"""The row scales of a tile: written one entry at a time, read E neighbouring entries at a time.

Entry `n` lies in lane ``n % E`` of word ``n // E`` of two memories, for scale0 and
scale1.  A write is seen by the reads of later cycles; a read takes `SCALE_LATENCY`
cycles, a new one may start in each.  The host has whole words, while the machine
leaves them to it.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from afternorm.config import Config
from hdl.arith.format import float_layout
from hdl.interfaces import ReadPort, ScaleRead, WritePort, floats_layout


class ScaleWrite(wiring.Signature):
    """A write of one row's scales, seen from the writer; always accepted.

    Members
    -------
    valid, entry : out. The request.
    scale0, scale1 : out. The scales.
    """

    def __init__(self, config: Config) -> None:
        layout = float_layout(config.fraction_bits)
        super().__init__(
            {
                "valid": Out(1),
                "entry": Out(ceil_log2(config.scale_depth)),
                "scale0": Out(layout),
                "scale1": Out(layout),
            }
        )


def scale_word_layout(config: Config) -> data.StructLayout:
    """A word as the host sees it: E entries' scale0, then their scale1."""
    lanes = floats_layout(config, config.lanes)
    return data.StructLayout({"scale0": lanes, "scale1": lanes})


class ScaleMemory(wiring.Component):
    """Memory of row scales.

    Parameters
    ----------
    config
        Sizes: `scale_depth`, `lanes`, `fraction_bits`.

    Members
    -------
    write : In(ScaleWrite)
        The reduce engine's results.
    read : In(ScaleRead)
        The vector unit's reads.
    host_read : In(ReadPort)
        A word, `SCALE_LATENCY` cycles after acceptance; ready while `read` is not valid.
    host_write : In(WritePort)
        A word; ready while `write` is not valid.
    """

    def __init__(self, *, config: Config) -> None:
        self.config = config
        words = config.scale_depth // config.lanes
        word = scale_word_layout(config)
        super().__init__(
            {
                "write": In(ScaleWrite(config)),
                "read": In(ScaleRead(config)),
                "host_read": In(ReadPort(words, word)),
                "host_write": In(WritePort(words, word)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self.config.lanes
        layout = floats_layout(self.config, lanes)

        write_word = Signal(self.host_write.address.shape())
        lane_enable = Signal(lanes)
        read_word = Signal(self.read.word.shape())
        m.d.comb += [
            self.host_read.ready.eq(~self.read.valid),
            self.host_write.ready.eq(~self.write.valid),
            read_word.eq(Mux(self.read.valid, self.read.word, self.host_read.address)),
        ]
        lane_bits = exact_log2(lanes)
        with m.If(self.write.valid):
            m.d.comb += [
                write_word.eq(self.write.entry[lane_bits:]),
                lane_enable.eq(1 << self.write.entry[:lane_bits]),
            ]
        with m.Else():
            m.d.comb += [
                write_word.eq(self.host_write.address),
                lane_enable.eq(self.host_write.valid.replicate(lanes)),
            ]

        for name in ("scale0", "scale1"):
            memory = Memory(
                shape=layout,
                depth=self.config.scale_depth // lanes,
                init=[],
                attrs={"no_rw_check": 1},
            )
            m.submodules[name] = memory
            write_port = memory.write_port(granularity=1)
            read_port = memory.read_port()
            m.d.comb += [
                write_port.addr.eq(write_word),
                write_port.en.eq(lane_enable),
                write_port.data.eq(
                    Mux(
                        self.write.valid,
                        getattr(self.write, name).as_value().replicate(lanes),
                        getattr(self.host_write.data, name).as_value(),
                    )
                ),
                read_port.addr.eq(read_word),
            ]
            read_data = Signal(layout, reset_less=True)
            m.d.sync += read_data.eq(read_port.data)
            m.d.comb += [
                getattr(self.read, name).eq(read_data),
                getattr(self.host_read.data, name).eq(read_data),
            ]
        return m
