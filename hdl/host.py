# SPDX-License-Identifier: Apache-2.0
"""The host port: one stream of requests and one of answers, onto every memory and register.

The map is `afternorm.memory_map`'s.  Requests are served in order, one at a
time: a write takes two cycles, a read five (of a block six) to the first chance of its answer.
Memories serve the host only in cycles that no engine wants, so the port may be
used while a program runs without disturbing its timing.  A bus wrapper needs no
more than these two streams.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from afternorm.config import Config
from afternorm.memory_map import (
    ADDRESS_BITS,
    ALL_TILES,
    INDEX_BITS,
    REGISTER_BITS,
    TILE_BITS,
    Region,
    float_slot,
    host_width,
)
from hdl.interfaces import (
    SCALE_LATENCY,
    SCRATCHPAD_LATENCY,
    VECTOR_MEMORY_LATENCY,
    ReadPort,
    WritePort,
    floats_layout,
    scratchpad_read,
    scratchpad_write,
)
from hdl.memory.scale_memory import scale_word_layout

assert SCALE_LATENCY == VECTOR_MEMORY_LATENCY < SCRATCHPAD_LATENCY

ADDRESS_LAYOUT = data.StructLayout(
    {"index": INDEX_BITS, "tile": TILE_BITS, "region": ADDRESS_BITS - INDEX_BITS - TILE_BITS}
)


class TileHost(wiring.Signature):
    """The host's ways into a tile, seen from the host port.

    Members
    -------
    block_read, block_write : the scratchpad; `mantissas` and `exponent` say which half is
        written.
    vector_read, vector_write : the vector memory.
    scale_read : the scale memory.
    """

    def __init__(self, config: Config):
        word = floats_layout(config, config.lanes)
        super().__init__(
            {
                "block_read": Out(scratchpad_read(config)),
                "block_write": Out(scratchpad_write(config)),
                "mantissas": Out(1),
                "exponent": Out(1),
                "vector_read": Out(ReadPort(config.vector_depth, word)),
                "vector_write": Out(WritePort(config.vector_depth, word)),
                "scale_read": Out(
                    ReadPort(config.scale_depth // config.lanes, scale_word_layout(config))
                ),
            }
        )


class HostPort(wiring.Component):
    """Host requests onto memories and registers.

    Parameters
    ----------
    config : sizes.

    Members
    -------
    request : stream in. Address, whether it writes, and data (`host_width` bits).
    response : stream out. The word of each read, in order.
    tiles : the tiles' memories.
    register_write, register_index, register_out, register_strobe : out. A register write, with
        a strobe bit a byte.
    register_in : in. The register at `register_index`, a cycle later.
    """

    def __init__(self, *, config: Config):
        self.config = config
        self.width = host_width(config)
        request = data.StructLayout({"address": ADDRESS_BITS, "write": 1, "data": self.width})
        super().__init__(
            {
                "request": In(stream.Signature(request)),
                "response": Out(stream.Signature(self.width)),
                "tiles": Out(TileHost(config)).array(config.tiles),
                "register_write": Out(1),
                "register_index": Out(INDEX_BITS),
                "register_out": Out(REGISTER_BITS),
                "register_strobe": Out(REGISTER_BITS // 8),
                "register_in": In(REGISTER_BITS),
            }
        )

    def _floats(self, word: Value) -> Value:
        """Lanes in slots of a host word, from the packed lanes."""
        slot = float_slot(self.config)
        return Cat(lane.as_value() | Const(0, slot) for lane in word)

    def _unslotted(self, word: Value) -> Value:
        slot, width = float_slot(self.config), self.config.float_width
        return Cat(word[lane * slot : lane * slot + width] for lane in range(self.config.lanes))

    def elaborate(self, platform):
        m = Module()
        c = self.config
        request = Signal(self.request.payload.shape())
        address = ADDRESS_LAYOUT(request.address)
        pending = Signal(c.tiles)
        accepted = Signal(c.tiles)
        waited = Signal(range(SCRATCHPAD_LATENCY))
        chosen = Signal(range(max(2, c.tiles)))

        scale_region = (address.region == Region.SCALE0) | (address.region == Region.SCALE1)
        in_scratchpad = (address.region == Region.MANTISSAS) | (address.region == Region.EXPONENTS)
        in_vector = address.region == Region.VECTOR
        latency = Mux(in_scratchpad, SCRATCHPAD_LATENCY, VECTOR_MEMORY_LATENCY)

        m.d.comb += [
            self.register_index.eq(address.index),
            self.register_out.eq(request.data),
            self.register_strobe.eq(~request.data[REGISTER_BITS:]),
        ]

        for tile, port in enumerate(self.tiles):
            active = pending[tile]
            m.d.comb += [
                port.block_read.valid.eq(active & ~request.write & in_scratchpad),
                port.block_read.address.eq(address.index),
                port.block_write.valid.eq(active & request.write & in_scratchpad),
                port.block_write.address.eq(address.index),
                port.block_write.data.mantissas.as_value().eq(request.data),
                port.block_write.data.exponent.eq(request.data),
                port.mantissas.eq(address.region == Region.MANTISSAS),
                port.exponent.eq(address.region == Region.EXPONENTS),
                port.vector_read.valid.eq(active & ~request.write & in_vector),
                port.vector_read.address.eq(address.index),
                port.vector_write.valid.eq(active & request.write & in_vector),
                port.vector_write.address.eq(address.index),
                port.vector_write.data.as_value().eq(self._unslotted(request.data)),
                port.scale_read.valid.eq(active & ~request.write & scale_region),
                port.scale_read.address.eq(address.index),
                accepted[tile].eq(
                    (port.block_read.valid & port.block_read.ready)
                    | (port.block_write.valid & port.block_write.ready)
                    | (port.vector_read.valid & port.vector_read.ready)
                    | (port.vector_write.valid & port.vector_write.ready)
                    | (port.scale_read.valid & port.scale_read.ready)
                    # what nobody serves must not hold up the host
                    | (active & ~(in_scratchpad | in_vector | (scale_region & ~request.write)))
                ),
            ]

        word = Signal(self.width)
        with m.Switch(address.region):
            for region, pick in (
                (Region.MANTISSAS, lambda port: port.block_read.data.mantissas.as_value()),
                (Region.EXPONENTS, lambda port: port.block_read.data.exponent),
                (Region.VECTOR, lambda port: self._floats(port.vector_read.data)),
                (Region.SCALE0, lambda port: self._floats(port.scale_read.data.scale0)),
                (Region.SCALE1, lambda port: self._floats(port.scale_read.data.scale1)),
            ):
                with m.Case(region):
                    m.d.comb += word.eq(Array(pick(port) for port in self.tiles)[chosen])
            with m.Case(Region.REGISTERS):
                m.d.comb += word.eq(self.register_in)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.request.ready.eq(1)
                new = ADDRESS_LAYOUT(self.request.payload.address)
                m.d.sync += [
                    request.eq(self.request.payload),
                    waited.eq(0),
                    chosen.eq(new.tile),
                    pending.eq(0),
                ]
                with m.If(self.request.valid):
                    with m.If(new.region == Region.REGISTERS):
                        pass
                    with m.Elif((new.tile == ALL_TILES) & self.request.payload.write):
                        m.d.sync += pending.eq(-1)
                    with m.Else():
                        m.d.sync += pending.eq(1 << new.tile)
                    m.next = "SERVE"
            with m.State("SERVE"):
                m.d.sync += pending.eq(pending & ~accepted)
                with m.If((pending & ~accepted) == 0):
                    with m.If(request.write):
                        m.d.comb += self.register_write.eq(address.region == Region.REGISTERS)
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "READ"
            with m.State("READ"):
                m.d.sync += [waited.eq(waited + 1), self.response.payload.eq(word)]
                with m.If(waited == latency - 1):
                    m.d.sync += self.response.valid.eq(1)
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                with m.If(self.response.ready):
                    m.d.sync += self.response.valid.eq(0)
                    m.next = "IDLE"
        return m
