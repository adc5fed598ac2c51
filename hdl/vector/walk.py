# SPDX-License-Identifier: Apache-2.0
"""The walk of a vector pass: rows, chunks of E columns, and the reads of each chunk.

An instruction becomes a sequence of slots, one cycle each.  The vector memory has one read port,
so a chunk has as many slots as it needs words of it (x, p, q, in this order), and at least one;
two where it needs two words of the scale memory (one scale by row, the other by column).  All
other reads belong to the last slot, with which the chunk is complete (`fire`).  A gated chunk
is two chunks, the second `gate_offset` chunks further on.

Addresses are kept by adding strides; the sum of a row's base and a chunk's index is left to the
pipeline behind.  Two instructions are held, one being walked and the next one decoded, so that
none waits for another, except behind one of a single slot, which takes two cycles; the first slot
comes three cycles after the instruction.  A gate whose x are MX blocks needs the product of two
fields, which is added up bit by bit in the decoding stage: such an instruction is decoded in up
to 9 cycles.
"""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from afternorm.config import Config
from afternorm.isa import BODIES, Opcode, Operand, Pair, Source
from hdl.interfaces import body_layout, engine_payload

_BITS = dict(BODIES[Opcode.VECTOR])
_WORDS = data.StructLayout({"x": 1, "p": 1, "q": 1})


def slot_layout(config: Config) -> data.StructLayout:
    """One slot: what is read in it, and what becomes of its chunk.

    `drain` : the first slot of an instruction that waits for the earlier ones.
    `fire` : the chunk's last slot.  `last` : the instruction's last slot.
    `starts_block` : the first slot of the chunks of an MX block to write; `m_address` is its
    address, `m_last` says that it is the instruction's last.
    `words` : which word is read of the vector memory, at ``word_base + word_index``.
    `block_read`, `block_address` : a block is read; `block_chunk` is its chunk that is wanted.
    `acc_*` : columns of the accumulators.
    `scale_word_base`, `scale_column` : the scale word, plus ``word_index`` if by column.
    `load_a` : the operand a is read in this slot.
    `count` : lanes of the chunk that are below `cols`, 0 to E.
    `first_half` : the function's half of a gated chunk, which is not written.
    """
    c = config
    vector_bits = ceil_log2(c.vector_depth)
    return data.StructLayout(
        {
            "drain": 1,
            "fire": 1,
            "last": 1,
            "starts_block": 1,
            "m_address": ceil_log2(c.scratchpad_depth),
            "m_last": 1,
            "words": _WORDS,
            "word_base": vector_bits,
            "word_index": _BITS["cols"],
            "block_read": 1,
            "block_address": ceil_log2(c.scratchpad_depth),
            "block_chunk": range(c.block // c.lanes),
            "acc_bank": ceil_log2(c.acc_banks),
            "acc_row": ceil_log2(c.rows_max),
            "acc_tile": ceil_log2(c.column_tiles),
            "acc_chunk": range(c.columns // c.lanes),
            "scale_word_base": ceil_log2(c.scale_depth // c.lanes),
            "scale_column": 1,
            "scale_lane": range(c.lanes),
            "load_a": 1,
            "count": range(c.lanes + 1),
            "first_half": 1,
            "source": Source,
            "tree": 1,
            "a": Operand,
            "b": Operand,
            "function": 3,
            "pair": Pair,
            "to_vector": 1,
            "y_base": vector_bits,
            "y_index": _BITS["cols"],
            "to_blocks": 1,
        }
    )


class VectorWalk(wiring.Component):
    """Instructions to slots.

    Parameters
    ----------
    config
        Sizes.

    Members
    -------
    i : In(stream)
        Vector instructions.
    o : Out(stream)
        Slots; ``o.valid`` does not wait for ``o.ready``.
    busy : Out(1)
        An instruction is being decoded or walked.
    """

    def __init__(self, *, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(engine_payload(Opcode.VECTOR))),
                "o": Out(stream.Signature(slot_layout(config))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        c = self.config
        body_shape = body_layout(Opcode.VECTOR)
        lane_bits, block_bits = exact_log2(c.lanes), exact_log2(c.block // c.lanes)
        o = Signal(slot_layout(c))  # the slot that enters the output register next
        # A second register behind the output's: the walk does not see `ready`, which comes late.
        spare = Signal(o.shape(), reset_less=True)
        spare_valid = Signal()
        advance = Signal()
        walking = Signal()
        m.d.comb += advance.eq(~spare_valid)
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [
                self.o.payload.eq(Mux(spare_valid, spare.as_value(), o.as_value())),
                self.o.valid.eq(spare_valid | walking),
                spare_valid.eq(0),
            ]
        with m.Elif(advance):
            m.d.sync += spare_valid.eq(walking)
        with m.If(advance):
            m.d.sync += spare.eq(o)

        # Decoding stage.
        waiting = Signal()
        drain = Signal()
        body = Signal(body_shape, reset_less=True)
        offset_base = Signal(_BITS["x_base"], reset_less=True)  # of the gated half's blocks
        offset_step = Signal(_BITS["x_base"], reset_less=True)
        offset_left = Signal(_BITS["gate_offset"], reset_less=True)
        multiplying = Signal()  # offset_left != 0
        decoded = Signal()
        taken = Signal()
        m.d.comb += [
            self.i.ready.eq(~waiting),
            decoded.eq(waiting & ~multiplying),
        ]
        with m.If(multiplying):
            m.d.sync += [
                multiplying.eq(offset_left[1:].any()),
                offset_base.eq(offset_base + Mux(offset_left[0], offset_step, 0)),
                offset_step.eq(offset_step << 1),
                offset_left.eq(offset_left >> 1),
            ]
        with m.If(taken):
            m.d.sync += waiting.eq(0)
        with m.If(self.i.valid & self.i.ready):
            new = body_shape(self.i.payload.body)
            gated_blocks = (new.source == Source.BLOCKS) & (new.pair == Pair.GATE)
            m.d.sync += [
                waiting.eq(1),
                drain.eq(self.i.payload.drain),
                body.eq(new),
                offset_base.eq(new.x_base),
                offset_step.eq(new.x_block),
                offset_left.eq(new.gate_offset >> block_bits),
                multiplying.eq(gated_blocks & new.gate_offset[block_bits:].any()),
            ]

        by_lane = Signal(_BITS["cols"] + 1 - lane_bits)
        chunks = Signal(_BITS["cols"] + 1)
        rest = Signal(block_bits)
        short = Signal()
        one_chunk = Signal()
        m.d.comb += [
            by_lane.eq((body.cols + (c.lanes - 1)) >> lane_bits),
            rest.eq(Mux(body.to_blocks, -by_lane, 0)),
            chunks.eq(by_lane + rest),
            # One chunk, without the sum: what ends a row is asked often, so it has a register.
            short.eq((body.cols <= c.lanes) & (~body.to_blocks | (c.block == c.lanes))),
        ]
        by_vector = (body.a == Operand.VECTOR, body.b == Operand.VECTOR)
        rotate = body.pair == Pair.ROTATE
        need = Signal(_WORDS)
        kinds = Signal(data.ArrayLayout(_WORDS, 3))
        slots = Signal(range(3))
        mixed = Signal()  # two words of the scale memory
        m.d.comb += [
            need.x.eq(body.source == Source.VECTOR),
            need.p.eq(by_vector[0] | rotate),
            need.q.eq(by_vector[1] | rotate),
            mixed.eq(
                ((body.a == Operand.ROW_SCALE) & (body.b == Operand.COLUMN_SCALE))
                | ((body.a == Operand.COLUMN_SCALE) & (body.b == Operand.ROW_SCALE))
            ),
        ]
        with m.Switch(Cat(need, mixed)):
            for pattern in range(16):
                words = [n for n in range(3) if pattern >> n & 1]
                with m.Case(pattern):
                    m.d.comb += slots.eq(max(1, len(words), 2 * (pattern >> 3)) - 1)
                    for slot, word in enumerate(words):
                        m.d.comb += kinds[slot].as_value()[word].eq(1)
        tiles_offset, chunk_offset = _divide(body.gate_offset, c.columns // c.lanes)

        # Walking stage: the instruction, how much of it is left, and where it is.
        now = Signal(body_shape, reset_less=True)
        first = Signal()
        now_drain = Signal()
        now_chunks = Signal.like(chunks, reset_less=True)
        now_kinds = Signal.like(kinds, reset_less=True)
        now_slots = Signal.like(slots, reset_less=True)
        now_mixed = Signal()
        now_acc = Signal(
            data.ArrayLayout(
                data.StructLayout({"chunk": o.acc_chunk.shape(), "tile": o.acc_tile.shape()}), 2
            )
        )
        slot = Signal(range(3))
        half = Signal()
        chunks_left = Signal.like(chunks, reset_less=True)
        rows_left = Signal(_BITS["rows"], reset_less=True)
        columns_left = Signal(_BITS["cols"], reset_less=True)
        m_chunk = Signal(block_bits, reset_less=True)
        row = Signal(o.acc_row.shape(), reset_less=True)
        entry = Signal(_BITS["scale_base"], reset_less=True)
        base = {
            name: Signal(bits, name=f"{name}_row_base", reset_less=True)
            for name, bits in (
                ("x", _BITS["x_base"]),
                ("p", _BITS["p_base"]),
                ("q", _BITS["q_base"]),
                ("y", _BITS["y_base"]),
                ("m", _BITS["m_base"]),
            )
        }
        gated_base = Signal(_BITS["x_base"], reset_less=True)
        m_address = Signal(_BITS["m_base"], reset_less=True)
        # Of the two halves of a gated chunk.
        halves = (0, 1)
        index = [Signal(_BITS["cols"], name=f"index_{h}", reset_less=True) for h in halves]
        acc = [Signal(now_acc[h].shape(), name=f"acc_{h}", reset_less=True) for h in halves]
        block = [Signal(_BITS["x_base"], name=f"block_{h}", reset_less=True) for h in halves]
        block_chunk = [Signal(block_bits, name=f"block_chunk_{h}", reset_less=True) for h in halves]

        gate = now.pair == Pair.GATE
        # Registers, as much depends on them: of the slot that is made now.
        last_slot = Signal()
        last_half = Signal()
        last_chunk = Signal()
        last_row = Signal()
        chunk_ends = Signal()  # with it
        m.d.comb += [
            self.busy.eq(walking | waiting | self.o.valid),
            taken.eq(
                decoded & (~walking | (advance & o.last)),
            ),
        ]
        by_column = now_mixed & Mux(
            last_slot, now.b == Operand.COLUMN_SCALE, now.a == Operand.COLUMN_SCALE
        ) | ~now_mixed & ((now.a == Operand.COLUMN_SCALE) | (now.b == Operand.COLUMN_SCALE))
        words = now_kinds[slot]
        in_second = half == 1
        m.d.comb += [
            o.drain.eq(first & now_drain),
            o.fire.eq(last_slot),
            o.last.eq(chunk_ends & last_chunk & last_row),
            o.starts_block.eq(now.to_blocks & (m_chunk == 0) & ~half & (slot == 0)),
            o.m_address.eq(m_address),
            o.m_last.eq(last_row & (chunks_left == c.block // c.lanes)),
            o.words.eq(words),
            o.word_base.eq(Mux(words.x, base["x"], Mux(words.p, base["p"], base["q"]))),
            o.word_index.eq(Mux(half, index[1], index[0])),
            o.block_read.eq(
                last_slot & (now.source == Source.BLOCKS) & (gate | (block_chunk[0] == 0))
            ),
            o.block_address.eq(Mux(half, block[1], block[0])),
            o.block_chunk.eq(Mux(half, block_chunk[1], block_chunk[0])),
            o.acc_bank.eq(now.bank),
            o.acc_row.eq(row),
            o.acc_tile.eq(Mux(half, acc[1].tile, acc[0].tile)),
            o.acc_chunk.eq(Mux(half, acc[1].chunk, acc[0].chunk)),
            o.scale_word_base.eq(Mux(by_column, now.scale_base, entry) >> lane_bits),
            o.scale_column.eq(by_column),
            o.scale_lane.eq(entry[:lane_bits]),
            o.load_a.eq(
                Mux(
                    now.a == Operand.VECTOR,
                    words.p,
                    Mux(now_mixed, slot + 1 == now_slots, last_slot),
                )
            ),
            o.count.eq(Mux(columns_left[lane_bits:].any(), c.lanes, columns_left[:lane_bits])),
            o.first_half.eq(~last_half),
            o.source.eq(now.source),
            o.tree.eq(now.tree),
            o.a.eq(now.a),
            o.b.eq(now.b),
            o.function.eq(Mux(in_second, 0, now.function)),
            o.pair.eq(now.pair),
            o.to_vector.eq(now.to_vector),
            o.y_base.eq(base["y"]),
            o.y_index.eq(index[0]),
            o.to_blocks.eq(now.to_blocks),
        ]

        def start_row(body: Value, acc_start: Value) -> list[Value]:
            """What is the same at the start of each row."""
            return [
                columns_left.eq(body.cols),
                index[0].eq(0),
                index[1].eq(body.gate_offset),
                *(acc[h].eq(acc_start[h]) for h in halves),
                block_chunk[0].eq(0),
                block_chunk[1].eq(body.gate_offset),
            ]

        with m.If(advance & walking):
            m.d.sync += [
                first.eq(0),
                slot.eq(slot + 1),
                last_slot.eq(slot + 1 == now_slots),
                chunk_ends.eq((slot + 1 == now_slots) & last_half),
            ]
            with m.If(last_slot):
                m.d.sync += [
                    slot.eq(0),
                    last_slot.eq(now_slots == 0),
                    half.eq(gate & ~half),
                    last_half.eq(~gate | ~half),
                    chunk_ends.eq((now_slots == 0) & (~gate | ~half)),
                ]
            with m.If(chunk_ends):
                m.d.sync += [
                    chunks_left.eq(chunks_left - 1),
                    last_chunk.eq(chunks_left == 2),
                    columns_left.eq(
                        Mux(
                            columns_left[lane_bits:].any(),
                            columns_left - c.lanes,
                            0,
                        )
                    ),
                    m_chunk.eq(m_chunk + 1),
                ]
                with m.If(m_chunk == c.block // c.lanes - 1):
                    m.d.sync += m_address.eq(m_address + now.m_block)
                for h in halves:
                    last_acc_chunk = acc[h].chunk == c.columns // c.lanes - 1
                    m.d.sync += [
                        index[h].eq(index[h] + 1),
                        acc[h].chunk.eq(Mux(last_acc_chunk, 0, acc[h].chunk + 1)),
                        acc[h].tile.eq(acc[h].tile + last_acc_chunk),
                        block_chunk[h].eq(block_chunk[h] + 1),
                    ]
                    with m.If(block_chunk[h] == c.block // c.lanes - 1):
                        m.d.sync += block[h].eq(block[h] + now.x_block)
                with m.If(last_chunk):
                    m.d.sync += [
                        chunks_left.eq(now_chunks),
                        last_chunk.eq(one_chunk),
                        rows_left.eq(rows_left - 1),
                        last_row.eq(rows_left == 2),
                        m_chunk.eq(0),
                        row.eq(row + 1),
                        entry.eq(entry + 1),
                        *(b.eq(b + now[f"{name}_row"]) for name, b in base.items()),
                        gated_base.eq(gated_base + now.x_row),
                        block[0].eq(base["x"] + now.x_row),
                        block[1].eq(gated_base + now.x_row),
                        m_address.eq(base["m"] + now.m_row),
                        *start_row(now, now_acc),
                    ]
            with m.If(o.last):
                m.d.sync += walking.eq(0)
        with m.If(taken):
            acc_start = [
                Cat(C(0, len(chunk_offset)), body.acc_tile[: len(acc[0].tile)]),
                Cat(chunk_offset, (body.acc_tile + tiles_offset)[: len(acc[1].tile)]),
            ]
            m.d.sync += [
                walking.eq(1),
                now.eq(body),
                first.eq(1),
                now_drain.eq(drain),
                now_chunks.eq(chunks),
                now_kinds.eq(kinds),
                now_slots.eq(slots),
                now_mixed.eq(mixed),
                *(now_acc[h].eq(acc_start[h]) for h in halves),
                slot.eq(0),
                last_slot.eq(slots == 0),
                half.eq(0),
                last_half.eq(body.pair != Pair.GATE),
                chunk_ends.eq((slots == 0) & (body.pair != Pair.GATE)),
                chunks_left.eq(chunks),
                last_chunk.eq(short),
                one_chunk.eq(short),
                rows_left.eq(body.rows),
                last_row.eq(body.rows == 1),
                m_chunk.eq(0),
                row.eq(0),
                entry.eq(body.scale_base),
                *(b.eq(body[f"{name}_base"]) for name, b in base.items()),
                gated_base.eq(offset_base),
                block[0].eq(body.x_base),
                block[1].eq(offset_base),
                m_address.eq(body.m_base),
                *start_row(body, acc_start),
            ]
        return m


def _divide(value: Value, divisor: int) -> tuple[Value, Value]:
    """Quotient and remainder of an integer of up to 8 bits by a constant."""
    if divisor & (divisor - 1) == 0:
        bits = exact_log2(divisor)
        return value[bits:], value[:bits]
    reciprocal = -(-(1 << 16) // divisor)
    quotient = (value * reciprocal)[16:24]
    return quotient, (value - quotient * divisor)[: ceil_log2(divisor)]
