# SPDX-License-Identifier: Apache-2.0
"""The vector memory of a tile: words of E floats, for vector engine, DMA and host.

One word is read and one written a cycle.  The engine's ports are always ready; load and store
engine have a port in the cycles in which the vector engine leaves it, and the host in those that
they leave.  Data come `VECTOR_MEMORY_LATENCY` cycles
after a read was accepted; a write is seen by the reads of later cycles.  What a read gives that
meets a write of the same word in the same cycle is not defined: block RAMs differ in it.
"""

from amaranth.hdl import Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from afternorm.config import Config
from hdl.interfaces import ReadPort, WritePort, floats_layout


class VectorMemory(wiring.Component):
    """Vector memory.

    Parameters
    ----------
    config
        Sizes: `vector_depth`, `lanes`, `fraction_bits`.

    Members
    -------
    read : In(ReadPort)
        The engine's reads; always ready.
    write : In(WritePort)
        The engine's writes; always ready.
    dma_read : In(ReadPort)
        The store engine's reads; ready while `read` is not valid.
    dma_write : In(WritePort)
        The load engine's writes; ready while `write` is not valid.
    dma_enable : In(1)
        The word of `dma_write` is written (else its transfer has no effect).
    host_read : In(ReadPort)
        The host's reads; ready while neither `read` nor `dma_read` is valid.
    host_write : In(WritePort)
        The host's writes; ready while neither `write` nor `dma_write` is valid.
    """

    def __init__(self, *, config: Config) -> None:
        self.config = config
        words = floats_layout(config, config.lanes)
        super().__init__(
            {
                "read": In(ReadPort(config.vector_depth, words)),
                "write": In(WritePort(config.vector_depth, words)),
                "dma_read": In(ReadPort(config.vector_depth, words)),
                "dma_write": In(WritePort(config.vector_depth, words)),
                "dma_enable": In(1),
                "host_read": In(ReadPort(config.vector_depth, words)),
                "host_write": In(WritePort(config.vector_depth, words)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        words = floats_layout(self.config, self.config.lanes)
        m.submodules.memory = memory = Memory(
            shape=words,
            depth=self.config.vector_depth,
            init=[],
            attrs={"no_rw_check": 1},
        )
        read, write = memory.read_port(), memory.write_port()
        register = Signal(words, reset_less=True)
        taken = Const(0)
        for port in (self.read, self.dma_read, self.host_read):
            m.d.comb += [port.ready.eq(~taken), port.data.eq(register)]
            with m.If(port.valid & ~taken):
                m.d.comb += read.addr.eq(port.address)
            taken = taken | port.valid
        taken = Const(0)
        for port, enable in (
            (self.write, 1),
            (self.dma_write, self.dma_enable),
            (self.host_write, 1),
        ):
            m.d.comb += port.ready.eq(~taken)
            with m.If(port.valid & ~taken):
                m.d.comb += [
                    write.en.eq(enable),
                    write.addr.eq(port.address),
                    write.data.eq(port.data.as_value()),
                ]
            taken = taken | port.valid
        m.d.sync += register.eq(read.data)
        return m
