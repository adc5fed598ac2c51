# SPDX-License-Identifier: Apache-2.0
r"""One tile: scratchpad, array with accumulators, statistics, exp, vector unit, memories.

All tiles execute the same instructions in lock-step on their own data::

    scratchpad --A, B--> matmul --accumulators--> exp ----P----> scratchpad
        |                  |                \--> vector <--> vector memory
        |                  `-- tap --> reduce --> scales ---^   \--> scratchpad
        `-- scan ------------------------^  \--> tree

What differs between tiles is the tile's number, which decides the blocks of a
row that it counts and the keys that it sees, and the host's accesses, which
take only cycles that nobody else wants.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from afternorm.config import Config
from afternorm.isa import ENGINE_OF, Engine
from hdl.arith.delay import delay
from hdl.exp.engine import ExpEngine
from hdl.host import TileHost
from hdl.interfaces import (
    ReadPort,
    TreePort,
    WritePort,
    engine_payload,
    floats_layout,
    scratchpad_read,
    scratchpad_write,
)
from hdl.matmul.engine import MatmulEngine
from hdl.memory.scale_memory import ScaleMemory
from hdl.memory.scratchpad import Scratchpad
from hdl.memory.vector_memory import VectorMemory
from hdl.reduce.engine import ReduceEngine
from hdl.reduce.tree import tree_latency
from hdl.vector.engine import VectorEngine

TILE_ENGINES = (Engine.MATMUL, Engine.EXP, Engine.VECTOR, Engine.REDUCE)
"""The engines that every tile has; gather network, load and store engine are shared."""


class Tile(wiring.Component):
    """One tile of the accelerator.

    Parameters
    ----------
    config : sizes.

    Members
    -------
    number : in. The tile's number, constant.
    i_<engine> : streams in. Instructions.
    early, done, busy, conflict : out. By engine.
    flags : out. Pulses.
    operand_read, row_issued, last_row_issued, result_written : out. What the matmul engine does.
    tree, tree_statistics : to the reduction tree and back; whether the floats are statistics.
    tree_overflow : in. A lane of the sum was saturated.
    gather_read, gather_write : the gather network's scratchpad ports.
    load_blocks, load_floats : the load engine's ports to scratchpad and vector memory.
    load_enable : in. This tile takes what they carry.
    store_blocks, store_floats : the store engine's ports.
    host : the host's ways in.
    """

    def __init__(self, *, config: Config):
        self.config = config
        streams = {}
        for engine in TILE_ENGINES:
            opcodes = [opcode for opcode, its in ENGINE_OF.items() if its == engine]
            streams[f"i_{engine.name.lower()}"] = In(stream.Signature(engine_payload(*opcodes)))
        engines = len(TILE_ENGINES)
        words = floats_layout(config, config.lanes)
        super().__init__(
            {
                "number": In(range(config.tiles)),
                **streams,
                "early": Out(engines),
                "done": Out(engines),
                "busy": Out(engines),
                "conflict": Out(engines),
                "flags": Out(6),
                "operand_read": Out(1),
                "row_issued": Out(1),
                "last_row_issued": Out(1),
                "result_written": Out(1),
                "tree": Out(TreePort(config)),
                "tree_statistics": Out(1),
                "tree_overflow": In(config.lanes),
                "gather_read": In(scratchpad_read(config)),
                "gather_write": In(scratchpad_write(config)),
                "load_blocks": In(scratchpad_write(config)),
                "load_floats": In(WritePort(config.vector_depth, words)),
                "load_enable": In(1),
                "store_blocks": In(scratchpad_read(config)),
                "store_floats": In(ReadPort(config.vector_depth, words)),
                "host": In(TileHost(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.reduce = reduce = ReduceEngine(config=c, tile=self.number)
        m.submodules.matmul = matmul = MatmulEngine(
            config=c, tile=self.number, tap_period=reduce.tap_min_period
        )
        m.submodules.exp = exp = ExpEngine(config=c, tile=self.number)
        m.submodules.vector = vector = VectorEngine(config=c, tree_latency=tree_latency(c))
        m.submodules.scratchpad = scratchpad = Scratchpad(config=c)
        m.submodules.vector_memory = vector_memory = VectorMemory(config=c)
        m.submodules.scale_memory = scale_memory = ScaleMemory(config=c)
        engines = {
            Engine.MATMUL: matmul,
            Engine.EXP: exp,
            Engine.VECTOR: vector,
            Engine.REDUCE: reduce,
        }

        for engine, unit in engines.items():
            wiring.connect(m, wiring.flipped(getattr(self, f"i_{engine.name.lower()}")), unit.i)
            m.d.comb += [
                self.done[engine].eq(unit.done),
                self.busy[engine].eq(unit.busy),
                self.conflict[engine].eq(unit.conflict),
            ]
            if engine != Engine.MATMUL:
                m.d.comb += self.early[engine].eq(unit.early)
        # The statistics of a product are readable when its last block is through the tap.
        m.d.comb += self.early[Engine.MATMUL].eq(delay(m, matmul.early, reduce.tap_latency))
        flags = Signal(6)
        m.d.sync += flags.eq(matmul.flags | exp.flags | vector.flags | reduce.flags)
        m.d.comb += [
            self.flags.eq(flags),
            self.operand_read.eq(matmul.operand_read),
            self.row_issued.eq(matmul.row_issued),
            self.last_row_issued.eq(matmul.last_row_issued),
            self.result_written.eq(matmul.result_written),
        ]

        wiring.connect(m, matmul.a, scratchpad.read_a)
        wiring.connect(m, matmul.b, scratchpad.read_b)
        wiring.connect(m, vector.blocks, scratchpad.read_vector)
        wiring.connect(m, reduce.scan, scratchpad.read_scan)
        wiring.connect(m, wiring.flipped(self.gather_read), scratchpad.read_gather)
        wiring.connect(m, exp.p, scratchpad.write_exp)
        wiring.connect(m, vector.m, scratchpad.write_vector)
        wiring.connect(m, wiring.flipped(self.gather_write), scratchpad.write_gather)
        wiring.connect(m, wiring.flipped(self.load_blocks), scratchpad.write_load)
        wiring.connect(m, wiring.flipped(self.store_blocks), scratchpad.read_store)
        wiring.connect(m, wiring.flipped(self.load_floats), vector_memory.dma_write)
        wiring.connect(m, wiring.flipped(self.store_floats), vector_memory.dma_read)
        m.d.comb += [
            scratchpad.load_enable.eq(self.load_enable),
            vector_memory.dma_enable.eq(self.load_enable),
        ]

        wiring.connect(m, exp.acc, matmul.exp_read)
        wiring.connect(m, vector.acc, matmul.vector_read)
        wiring.connect(m, matmul.tap, reduce.tap)
        wiring.connect(m, reduce.scale, scale_memory.write)
        wiring.connect(m, vector.scale, scale_memory.read)
        wiring.connect(m, vector.memory_read, vector_memory.read)
        wiring.connect(m, vector.memory_write, vector_memory.write)

        # One tree serves both; a program never has both use it at a time.
        m.d.comb += [
            self.tree.valid.eq(vector.tree.valid | reduce.tree.valid),
            self.tree_statistics.eq(reduce.tree.valid),
            self.tree.o.eq(Mux(reduce.tree.valid, reduce.tree.o, vector.tree.o)),
            vector.tree.i.eq(self.tree.i),
            reduce.tree.i.eq(self.tree.i),
            reduce.tree_overflow.eq(self.tree_overflow[:2].any()),
        ]

        host = self.host
        wiring.connect(m, wiring.flipped(host.block_read), scratchpad.read_host)
        wiring.connect(m, wiring.flipped(host.block_write), scratchpad.write_host)
        m.d.comb += [
            scratchpad.host_mantissas.eq(host.mantissas),
            scratchpad.host_exponent.eq(host.exponent),
        ]
        wiring.connect(m, wiring.flipped(host.vector_read), vector_memory.host_read)
        wiring.connect(m, wiring.flipped(host.vector_write), vector_memory.host_write)
        wiring.connect(m, wiring.flipped(host.scale_read), scale_memory.host_read)
        return m
