# SPDX-License-Identifier: Apache-2.0
"""The vector engine with memories around it, so that a bench need not act in each cycle.

All memories can be written and read through one wide port each while the engine
is idle.  The scratchpad refuses reads and writes at random, as often as
`refuse_reads` and `refuse_writes` say (in 256ths).
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from afternorm.config import Config
from afternorm.isa import Opcode
from hdl.arith.delay import delay
from hdl.interfaces import (
    ACC_LATENCY,
    SCRATCHPAD_LATENCY,
    ReadPort,
    WritePort,
    block_layout,
    engine_payload,
    floats_layout,
)
from hdl.memory.scale_memory import ScaleMemory, scale_word_layout
from hdl.memory.vector_memory import VectorMemory
from hdl.vector.engine import VectorEngine

_RANDOM_TAPS = (31, 21, 1, 0)


def acc_words(config: Config) -> int:
    """Words of C floats in the accumulators, the banks and rows padded to powers of two."""
    bits = sum(ceil_log2(size) for size in (config.acc_banks, config.rows_max, config.column_tiles))
    return 1 << bits


class VectorHarness(wiring.Component):
    """Vector engine and memories.

    Parameters
    ----------
    config : sizes; of one tile.
    tree_latency : time of the reduction tree, which gives back what it gets.

    Members
    -------
    i : instructions.
    accepted, done, early, busy, conflict, overflow : what the engine says.
    touches : the engine reads or writes a memory.
    vector_read, vector_write : the host's ports of the vector memory.
    scale_write, acc_write, block_write, block_read : likewise; always ready.
    """

    def __init__(self, *, config: Config, tree_latency: int) -> None:
        c = self.config = config
        self.engine = VectorEngine(config=c, tree_latency=tree_latency)
        words = floats_layout(c, c.lanes)
        super().__init__(
            {
                "i": In(stream.Signature(engine_payload(Opcode.VECTOR))),
                **dict.fromkeys(
                    ("accepted", "done", "early", "busy", "conflict", "overflow", "touches"),
                    Out(1),
                ),
                "refuse_reads": In(9),
                "refuse_writes": In(9),
                "vector_read": In(ReadPort(c.vector_depth, words)),
                "vector_write": In(WritePort(c.vector_depth, words)),
                "scale_write": In(WritePort(c.scale_depth // c.lanes, scale_word_layout(c))),
                "acc_write": In(WritePort(acc_words(c), floats_layout(c, c.columns))),
                "block_write": In(WritePort(c.scratchpad_depth, block_layout(c.block))),
                "block_read": In(ReadPort(c.scratchpad_depth, block_layout(c.block))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        c = self.config
        m.submodules.engine = engine = self.engine
        m.submodules.vector_memory = vector = VectorMemory(config=c)
        m.submodules.scale_memory = scale = ScaleMemory(config=c)
        wiring.connect(m, wiring.flipped(self.i), engine.i)
        wiring.connect(m, engine.memory_read, vector.read)
        wiring.connect(m, engine.memory_write, vector.write)
        wiring.connect(m, engine.scale, scale.read)
        wiring.connect(m, wiring.flipped(self.vector_read), vector.host_read)
        wiring.connect(m, wiring.flipped(self.vector_write), vector.host_write)
        wiring.connect(m, wiring.flipped(self.scale_write), scale.host_write)
        m.d.comb += [
            self.accepted.eq(self.i.valid & self.i.ready),
            self.done.eq(engine.done),
            self.early.eq(engine.early),
            self.busy.eq(engine.busy),
            self.conflict.eq(engine.conflict),
            self.overflow.eq(engine.flags.any()),
            self.touches.eq(
                Cat(
                    engine.memory_read.valid,
                    engine.memory_write.valid,
                    engine.acc.valid,
                    engine.scale.valid,
                    engine.blocks.valid,
                    engine.m.valid,
                ).any()
            ),
        ]

        # Accumulators.
        m.submodules.acc = acc = Memory(
            shape=floats_layout(c, c.columns), depth=acc_words(c), init=[]
        )
        acc_write, acc_read = acc.write_port(), acc.read_port()
        m.d.comb += [
            self.acc_write.ready.eq(1),
            acc_write.en.eq(self.acc_write.valid),
            acc_write.addr.eq(self.acc_write.address),
            acc_write.data.eq(self.acc_write.data),
            acc_read.addr.eq(Cat(engine.acc.tile, engine.acc.row, engine.acc.bank)),
        ]
        asked = delay(m, engine.acc.valid, ACC_LATENCY - 1)
        register = Signal(acc_read.data.shape())
        m.d.sync += register.as_value().eq(Mux(asked, acc_read.data.as_value(), -1))
        m.d.comb += engine.acc.data.eq(register)

        # A tree of one tile: what it gives when not asked is not what it got.
        tree_valid = delay(m, engine.tree.valid, engine.tree_latency)
        tree_data = delay(m, engine.tree.o.as_value(), engine.tree_latency)
        m.d.comb += engine.tree.i.as_value().eq(Mux(tree_valid, tree_data, -1))

        # Scratchpad.
        random = Signal(32, init=0x1234_5678)
        m.d.sync += random.eq(Cat(Cat(random[tap] for tap in _RANDOM_TAPS).xor(), random[:-1]))
        scrambled = Cat(random[n * 7 % 32] for n in range(16))
        m.submodules.blocks = blocks = Memory(
            shape=block_layout(c.block), depth=c.scratchpad_depth, init=[]
        )
        write, read = blocks.write_port(), blocks.read_port()
        asked = engine.blocks.valid & engine.blocks.ready
        m.d.comb += [
            engine.blocks.ready.eq(scrambled[:8] >= self.refuse_reads),
            engine.m.ready.eq(scrambled[8:] >= self.refuse_writes),
            self.block_write.ready.eq(1),
            self.block_read.ready.eq(1),
            write.en.eq(self.block_write.valid | (engine.m.valid & engine.m.ready)),
            write.addr.eq(Mux(self.block_write.valid, self.block_write.address, engine.m.address)),
            write.data.eq(
                Mux(
                    self.block_write.valid,
                    self.block_write.data.as_value(),
                    engine.m.data.as_value(),
                )
            ),
            read.addr.eq(
                Mux(self.block_read.valid, self.block_read.address, engine.blocks.address)
            ),
        ]
        # What nobody asked for is rubbish.
        given = delay(m, asked | self.block_read.valid, 1)
        word = Mux(given, read.data.as_value(), 0x55)
        word = delay(m, word, SCRATCHPAD_LATENCY - 1, name="word")
        m.d.comb += [engine.blocks.data.eq(word), self.block_read.data.eq(word)]
        return m
