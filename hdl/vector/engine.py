# SPDX-License-Identifier: Apache-2.0
"""The vector engine of a tile: E lanes, the semantics of `golden.machine.Machine._vector`.

Slots of `hdl.vector.walk` enter a pipeline that never stalls::

    0         a slot is issued; an MX block is read
    2         its elements, converted to floats meanwhile
    request   vector memory, accumulators and scales are read
    capture   operands of the chunk meet in registers
    x         the lanes begin, after the reduction tree's time
    write     vector memory, quantizer

A pass takes ``rows * chunks * max(1, words)`` cycles, twice that for a gate, and a constant
(`latency` to the last write); words are those read of the vector memory for a chunk (two for a
row and a column scale in one instruction).  The next instruction follows without a bubble.
Cycles are lost, with a pulse of `conflict`, where a block read or write is refused.  Blocks to
be written wait in a queue in which each has its place before its first element is read.

`done` (and `early`, which is the same) pulses when the last write of an instruction was accepted.
A vector memory word that a chunk writes can be read by later slots `latency` cycles on; of what
an instruction reads, it must itself write only words that it has read before.
"""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Out

from afternorm.config import Config
from afternorm.isa import Flag, Opcode, Operand, Source
from golden.mx import MANTISSA_SHIFT
from hdl.arith.delay import delay
from hdl.arith.format import check_range, float_layout
from hdl.arith.int_to_float import IntToFloat
from hdl.interfaces import (
    ACC_LATENCY,
    SCALE_LATENCY,
    SCRATCHPAD_LATENCY,
    VECTOR_MEMORY_LATENCY,
    AccumulatorRead,
    ReadPort,
    ScaleRead,
    TreePort,
    WritePort,
    block_layout,
    engine_members,
    floats_layout,
    scratchpad_read,
    scratchpad_write,
)
from hdl.memory.delay_line import delay_line
from hdl.mx.quantizer import MXQuantizer, float_element
from hdl.once import once
from hdl.vector.lane import VectorLane, one
from hdl.vector.walk import VectorWalk

assert ACC_LATENCY == SCALE_LATENCY == VECTOR_MEMORY_LATENCY

_MANTISSA_BITS = 8
_FIFO_LATENCY = 2
"""Cycles from a block's entry into the queue to its offer to the scratchpad."""


class VectorEngine(wiring.Component):
    """Vector engine of one tile.

    Parameters
    ----------
    config
        Sizes.
    tree_latency
        Cycles from ``tree.o`` to ``tree.i``, `hdl.reduce.tree.tree_latency`.

    Members
    -------
    i, early, done, busy, conflict, flags
        See `hdl.interfaces.engine_members`.
    acc, blocks, scale, memory_read
        Reads of accumulators, scratchpad, scale memory and vector memory.
    memory_write, m
        Writes of vector memory and scratchpad.
    tree
        Sums over the tiles.
    """

    def __init__(self, *, config: Config, tree_latency: int) -> None:
        check_range("tree_latency", tree_latency, 0, 256)
        self.config = config
        self.tree_latency = tree_latency
        f = config.fraction_bits
        self._converters = [
            once(IntToFloat, fraction_bits=f, width=_MANTISSA_BITS) for _ in range(config.lanes)
        ]
        self._lanes = [once(VectorLane, fraction_bits=f) for _ in range(config.lanes)]
        self._quantizer = MXQuantizer(
            block=config.block, lanes=config.lanes, significand_bits=f + 1
        )
        words = floats_layout(config, config.lanes)
        super().__init__(
            {
                **engine_members(Opcode.VECTOR),
                "acc": Out(AccumulatorRead(config)),
                "blocks": Out(scratchpad_read(config)),
                "scale": Out(ScaleRead(config)),
                "memory_read": Out(ReadPort(config.vector_depth, words)),
                "memory_write": Out(WritePort(config.vector_depth, words)),
                "m": Out(scratchpad_write(config)),
                "tree": Out(TreePort(config)),
            }
        )

    @property
    def _at_capture(self) -> int:
        """Cycles from a slot's issue to the arrival of what it reads."""
        select = 1
        return SCRATCHPAD_LATENCY + select + self._converters[0].latency

    @property
    def _at_request(self) -> int:
        """Cycles from a slot's issue to its reads, except that of a block."""
        return self._at_capture - VECTOR_MEMORY_LATENCY

    @property
    def _at_x(self) -> int:
        """Cycles from a slot's issue to the chunk's elements."""
        return self._at_capture + 1

    @property
    def latency(self) -> int:
        """Cycles from the issue of a chunk's last slot to its write to the vector memory."""
        output_register = 1
        return self._at_x + self.tree_latency + self._lanes[0].latency + output_register

    @property
    def vector_latency(self) -> int:
        """Cycles from an instruction's transfer to `done`, less its slots, if it makes no blocks.

        Three cycles to the first slot; one from the last write to `done`.
        """
        return 3 + (self.latency - 1) + 1

    @property
    def blocks_latency(self) -> int:
        """Cycles from an instruction's transfer to `done`, less its slots, if it makes blocks."""
        return self.vector_latency + self._quantizer.latency + _FIFO_LATENCY

    @property
    def _queue_depth(self) -> int:
        """Blocks under way at full speed."""
        chunks = self.config.block // self.config.lanes
        cycles = chunks + self.latency + self._quantizer.latency + _FIFO_LATENCY + 1
        return -(-cycles // chunks) + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        c = self.config
        f = c.fraction_bits
        lanes = range(c.lanes)
        words_layout = floats_layout(c, c.lanes)
        m.submodules.walk = walk = VectorWalk(config=c)
        wiring.connect(m, wiring.flipped(self.i), walk.i)
        slot = walk.o.payload

        # Issue: room for the block to write, for the instruction, and the block to read.
        depth = self._queue_depth
        room = Signal(range(depth + 1), init=depth)
        underway_max = self.latency + self._quantizer.latency + 8
        underway = Signal(range(underway_max + 1))  # instructions walked and not done
        issued = Signal()
        may_issue = Signal()
        # Registered, as the way from here over the scratchpad's arbiter and back is long.  They
        # may be set a cycle late; what waits for them never sees them fall.
        has_room = Signal(init=1)
        has_order = Signal(init=1)
        idle = Signal(init=1)
        finished = Signal()
        written = self.m.valid & self.m.ready
        m.d.comb += [
            may_issue.eq(
                ~(slot.drain & ~idle) & ~(slot.starts_block & ~has_room) & ~(slot.last & ~has_order)
            ),
            self.blocks.valid.eq(walk.o.valid & may_issue & slot.block_read),
            self.blocks.address.eq(slot.block_address),
            walk.o.ready.eq(may_issue & (self.blocks.ready | ~slot.block_read)),
            issued.eq(walk.o.valid & walk.o.ready),
            self.conflict.eq(
                (self.blocks.valid & ~self.blocks.ready) | (self.m.valid & ~self.m.ready)
            ),
            self.busy.eq(walk.busy | (underway != 0)),
            self.done.eq(finished),
            self.early.eq(finished),
        ]
        begins, ends = issued & slot.starts_block, issued & slot.last
        m.d.sync += [
            room.eq(room + written - begins),
            has_room.eq((room > 1) | ((room == 1) & ~begins)),
            underway.eq(underway + ends - finished),
            has_order.eq((underway < underway_max - 1) | ((underway == underway_max - 1) & ~ends)),
            idle.eq(((underway == 0) | ((underway == 1) & finished)) & ~ends),
        ]

        # What goes along with the slot.  Valids survive no reset, the rest is don't care then.
        fires = Signal(self._at_x)
        m.d.sync += fires.eq(Cat(issued & slot.fire, fires))
        by_scale = (Operand.ROW_SCALE, Operand.COLUMN_SCALE)
        scales = Cat(operand == each for operand in (slot.a, slot.b) for each in by_scale)
        memory_reads, acc_reads, scale_reads = (
            Signal(self._at_request, name=name)
            for name in ("memory_reads", "acc_reads", "scale_reads")
        )
        m.d.sync += [
            memory_reads.eq(Cat(issued & slot.words.as_value().any(), memory_reads)),
            acc_reads.eq(Cat(issued & slot.fire & (slot.source == Source.ACC), acc_reads)),
            scale_reads.eq(Cat(issued & scales.any(), scale_reads)),
        ]

        # Requests.
        to_request = self._at_request - 1

        def added(base: Value, index: Value, name: str) -> Value:
            register = Signal(len(base), name=name, reset_less=True)
            m.d.sync += register.eq(base + index)
            return register

        address = added(slot.word_base, slot.word_index, "address")
        scale_word = added(
            slot.scale_word_base, Mux(slot.scale_column, slot.word_index, 0), "scale_word"
        )
        y_address = added(slot.y_base, slot.y_index, "y_address")
        m.d.comb += [
            self.memory_read.valid.eq(memory_reads[-1]),
            self.memory_read.address.eq(delay(m, address, to_request, name="address")),
            self.acc.valid.eq(acc_reads[-1]),
            self.acc.bank.eq(delay(m, slot.acc_bank, self._at_request, name="acc_bank")),
            self.acc.row.eq(delay(m, slot.acc_row, self._at_request, name="acc_row")),
            self.acc.tile.eq(delay(m, slot.acc_tile, self._at_request, name="acc_tile")),
            self.scale.valid.eq(scale_reads[-1]),
            self.scale.word.eq(delay(m, scale_word, to_request, name="scale_word")),
        ]

        # Blocks: a block read once serves its chunks, so it is kept.
        block = Signal(block_layout(c.block))
        kept = Signal.like(block, reset_less=True)
        block_read = delay(m, slot.block_read, SCRATCHPAD_LATENCY, name="block_read")
        block_chunk = delay(m, slot.block_chunk, SCRATCHPAD_LATENCY, name="block_chunk")
        m.d.comb += block.eq(Mux(block_read, self.blocks.data.as_value(), kept.as_value()))
        m.d.sync += kept.eq(block)
        exponent = Signal(signed(12), reset_less=True)
        m.d.sync += exponent.eq(block.exponent - MANTISSA_SHIFT)
        mantissas = block.mantissas.as_value().word_select(block_chunk, c.lanes * _MANTISSA_BITS)
        mantissas = delay(m, mantissas, 1, name="mantissas")
        converted = Signal(words_layout)
        converted_overflow = Signal(c.lanes)
        for lane, convert in enumerate(self._converters):
            m.submodules[f"convert_{lane}"] = convert
            m.d.comb += [
                convert.i.eq(mantissas.word_select(lane, _MANTISSA_BITS).as_signed()),
                convert.exponent.eq(exponent),
                converted[lane].eq(convert.o),
                converted_overflow[lane].eq(convert.overflow),
            ]

        # Capture.
        at_capture = slot.shape()(delay_line(m, slot.as_value(), self._at_capture, name="slot"))
        memory_words = at_capture.words
        fire = fires[self._at_capture - 1]
        arrived = delay(m, memory_reads[-1], VECTOR_MEMORY_LATENCY, name="arrived")
        within = Signal(c.lanes)
        m.d.comb += within.eq(Cat(lane < at_capture.count for lane in lanes))

        def scale_operand(kind: Value, words: data.View, absent: Value) -> list[Value]:
            """One of the operands per lane, from the words of the scale memory."""
            by_row = words.as_value().word_select(at_capture.scale_lane, len(absent))
            return [
                Mux(
                    kind == Operand.NONE,
                    absent,
                    Mux(kind == Operand.ROW_SCALE, by_row, words[lane].as_value()),
                )
                for lane in lanes
            ]

        memory_data = self.memory_read.data
        acc_words = self.acc.data.as_value().word_select(at_capture.acc_chunk, words_layout.size)
        acc_words = words_layout(acc_words)
        zero = C(0, float_layout(f).size)
        scale_a = scale_operand(at_capture.a, self.scale.scale0, one(f))
        scale_b = scale_operand(at_capture.b, self.scale.scale1, zero)
        x, a, b, u, v = (
            Signal(words_layout, name=name, reset_less=True) for name in ("x", "a", "b", "u", "v")
        )
        x_overflow = Signal(c.lanes, reset_less=True)
        from_memory = at_capture.source == Source.VECTOR
        from_blocks = at_capture.source == Source.BLOCKS
        for lane in lanes:
            word = memory_data[lane].as_value()
            source = Mux(
                from_memory,
                word,
                Mux(from_blocks, converted[lane].as_value(), acc_words[lane].as_value()),
            )
            with m.If(Mux(from_memory, arrived & memory_words.x, fire)):
                m.d.sync += [
                    x[lane].as_value().eq(source & within[lane].replicate(len(source))),
                    x_overflow[lane].eq(from_blocks & converted_overflow[lane] & within[lane]),
                ]
            with m.If(at_capture.load_a):
                m.d.sync += (
                    a[lane].as_value().eq(Mux(at_capture.a == Operand.VECTOR, word, scale_a[lane]))
                )
            m.d.sync += (
                b[lane].as_value().eq(Mux(at_capture.b == Operand.VECTOR, word, scale_b[lane]))
            )
            with m.If(memory_words.p):
                m.d.sync += u[lane].as_value().eq(word)
            m.d.sync += v[lane].as_value().eq(word)

        # The tree's time, in which the operands wait.
        at_x = delay(m, at_capture.as_value(), 1, name="at_x")
        at_x = slot.shape()(at_x)
        tree_latency = self.tree_latency
        m.d.comb += [self.tree.valid.eq(fires[-1] & at_x.tree), self.tree.o.eq(x)]
        summed = delay_line(m, at_x.tree, tree_latency, name="summed")
        first = self._lanes[0]
        waited_x = delay_line(m, x.as_value(), tree_latency, name="x_line")
        waited_overflow = delay_line(m, x_overflow, tree_latency, name="x_overflow_line")
        waited_a = delay_line(m, a.as_value(), tree_latency, name="a_line")
        waited_b = delay_line(m, b.as_value(), tree_latency + first.at_add, name="b_line")
        waited_u = delay_line(m, u.as_value(), tree_latency + first.at_pair, name="u_line")
        waited_v = delay_line(m, v.as_value(), tree_latency + first.at_pair, name="v_line")
        select = delay_line(
            m, at_x.function, tree_latency + first.at_function, name="function_line"
        )
        pair = delay_line(
            m, Cat(at_x.first_half, at_x.pair), tree_latency + first.at_pair, name="pair_line"
        )
        # Only a chunk's first half may be held, not the slots before it is complete.
        to_pair = tree_latency + first.at_pair
        shift = Signal(max(1, to_pair))
        m.d.sync += shift.eq(Cat(fires[-1], shift))
        hold = shift[to_pair - 1] & pair[0]
        for lane, unit in enumerate(self._lanes):
            m.submodules[f"lane_{lane}"] = unit
            own = words_layout(waited_x)[lane].as_value()
            m.d.comb += [
                unit.x.eq(Mux(summed, self.tree.i[lane].as_value(), own)),
                unit.x_overflow.eq(waited_overflow[lane]),
                unit.a.eq(words_layout(waited_a)[lane]),
                unit.b.eq(words_layout(waited_b)[lane]),
                unit.u.eq(words_layout(waited_u)[lane]),
                unit.v.eq(words_layout(waited_v)[lane]),
                unit.select.eq(select),
                unit.pair.eq(pair[1:]),
                unit.first_half.eq(hold),
                unit.partner.eq(self._lanes[lane ^ 1].y),
            ]

        # Write.
        fate_layout = data.StructLayout(
            {
                "y_address": len(y_address),
                "count": slot.count.shape(),
                "to_vector": 1,
                "to_blocks": 1,
                "last": 1,
                "first_half": 1,
            }
        )
        fate_in = Signal(fate_layout, reset_less=True)  # with y_address, a cycle from the issue
        m.d.comb += fate_in.y_address.eq(y_address)
        for name in ("count", "to_vector", "to_blocks", "last", "first_half"):
            m.d.comb += fate_in[name].eq(delay(m, slot[name], 1, name=f"fate_{name}"))
        fate = fate_layout(
            delay_line(m, fate_in.as_value(), self.latency - 1 - 1, name="fate_line")
        )
        to_output = first.latency - first.at_pair
        shift_out = Signal(to_output)
        m.d.sync += shift_out.eq(Cat(shift[to_pair - 1], shift_out))
        leaves = shift_out[-1] & ~fate.first_half
        within_o = Signal(c.lanes)
        m.d.comb += within_o.eq(Cat(lane < fate.count for lane in lanes))
        o = Signal(words_layout, reset_less=True)
        overflow, to_vector, to_blocks, vector_last = (
            Signal(name=name) for name in ("overflow", "to_vector", "to_blocks", "vector_last")
        )
        o_address = Signal(len(y_address), reset_less=True)
        m.d.sync += [
            *(
                o[lane]
                .as_value()
                .eq(unit.o.as_value() & within_o[lane].replicate(len(unit.o.as_value())))
                for lane, unit in enumerate(self._lanes)
            ),
            overflow.eq(
                leaves
                & Cat(unit.overflow & within_o[n] for n, unit in enumerate(self._lanes)).any()
            ),
            to_vector.eq(leaves & fate.to_vector),
            to_blocks.eq(leaves & fate.to_blocks),
            vector_last.eq(leaves & fate.last & ~fate.to_blocks),
            o_address.eq(fate.y_address),
        ]
        m.d.comb += [
            self.memory_write.valid.eq(to_vector),
            self.memory_write.address.eq(o_address),
            self.memory_write.data.eq(o),
            self.flags[Flag.VECTOR_OVERFLOW].eq(overflow),
        ]

        # Blocks, and their addresses, which are known when they are begun.
        m.submodules.quantizer = quantizer = self._quantizer
        m.d.comb += quantizer.i_valid.eq(to_blocks)
        for lane in lanes:
            m.d.comb += quantizer.i[lane].eq(float_element(o[lane]))
        block_bits = block_layout(c.block).size
        target = data.StructLayout({"address": len(slot.m_address), "last": 1})
        m.submodules.queue = queue = SyncFIFOBuffered(width=block_bits, depth=depth)
        m.submodules.targets = targets = SyncFIFOBuffered(width=target.size, depth=depth)
        m.d.comb += [
            queue.w_en.eq(quantizer.o_valid),
            queue.w_data.eq(quantizer.o),
            queue.r_en.eq(written),
            targets.w_en.eq(begins),
            targets.w_data.eq(Cat(slot.m_address, slot.m_last)),
            targets.r_en.eq(written),
            self.m.valid.eq(queue.r_rdy),
            self.m.address.eq(target(targets.r_data).address),
            self.m.data.eq(queue.r_data),
        ]

        # Instructions end in order, whichever way their last word goes.
        m.submodules.order = order = SyncFIFOBuffered(width=1, depth=underway_max)
        blocks_ended = Signal(range(underway_max + 1))
        words_ended = Signal(range(underway_max + 1))
        m.d.comb += [
            order.w_en.eq(ends),
            order.w_data.eq(slot.to_blocks),
            finished.eq(order.r_rdy & Mux(order.r_data, blocks_ended != 0, words_ended != 0)),
            order.r_en.eq(finished),
        ]
        m.d.sync += [
            blocks_ended.eq(
                blocks_ended + (written & target(targets.r_data).last) - (finished & order.r_data)
            ),
            words_ended.eq(words_ended + vector_last - (finished & ~order.r_data)),
        ]
        return m
