# SPDX-License-Identifier: Apache-2.0
"""The vector memory of a tile: words of E floats, for the vector engine and the host.

One word is read and one written a cycle.  The engine's ports are always ready; the host has a
port in the cycles in which the engine leaves it.  Data come `VECTOR_MEMORY_LATENCY` cycles
after a read was accepted; a write is seen by the reads of later cycles.  What a read gives that
meets a write of the same word in the same cycle is not defined: block RAMs differ in it.
"""

from amaranth.hdl import Module, Mux, Signal
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
    host_read : In(ReadPort)
        The host's reads; ready while `read` is not valid.
    host_write : In(WritePort)
        The host's writes; ready while `write` is not valid.
    """

    def __init__(self, *, config: Config) -> None:
        self.config = config
        words = floats_layout(config, config.lanes)
        super().__init__(
            {
                "read": In(ReadPort(config.vector_depth, words)),
                "write": In(WritePort(config.vector_depth, words)),
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
        engine_reads, engine_writes = self.read.valid, self.write.valid
        m.d.comb += [
            self.read.ready.eq(1),
            self.write.ready.eq(1),
            self.host_read.ready.eq(~engine_reads),
            self.host_write.ready.eq(~engine_writes),
            read.addr.eq(Mux(engine_reads, self.read.address, self.host_read.address)),
            write.en.eq(engine_writes | self.host_write.valid),
            write.addr.eq(Mux(engine_writes, self.write.address, self.host_write.address)),
            write.data.eq(
                Mux(engine_writes, self.write.data.as_value(), self.host_write.data.as_value())
            ),
            self.read.data.eq(register),
            self.host_read.data.eq(register),
        ]
        m.d.sync += register.eq(read.data)
        return m
