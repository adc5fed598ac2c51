# SPDX-License-Identifier: Apache-2.0
"""The exp engine: rows of scores in the accumulators to MX blocks of ``2**score``.

For each row m and each block of columns of an `Opcode.EXP`::

    key[c]  = key_base + tile * key_tile + c            query = query_base + m
    P[m, c] = 0 where c >= cols, key >= length, or (causal and key > query), else 2**score[m, c]

goes as one MX block to scratchpad word ``p_base + m * p_row + block * p_block``: bit by bit as
`golden.units.exp2_blocks`.  A row's masked columns are always its last ones, so one subtraction a
chunk and a comparison with a constant a lane make the mask.  No row maximum is needed: the float
exponent of a score's power takes its place (see `docs/architecture.md`).

X = min(C, block) scores are read a cycle, row by row, block by block, without a bubble between
chunks, blocks, rows and, where the earlier has at least `SETUP_CYCLES` + 1 chunks, instructions.
The datapath never stalls: a block is begun only when the queue at the end has room for it, and
the queue is deep enough that it does not run out while `p` is ready.  An instruction of M rows and
N columns takes ``M * ceil(N / block) * block / X + overhead`` cycles from its transfer on `i` to
`done` if the engine was idle and `p` is always ready.

`early` and `done` are the same pulse, a cycle after `p` accepted the instruction's last block.
`conflict` is high while `p` waits.  `drain` needs no action: this engine reads accumulators and
writes the scratchpad, so that no instruction reads what an earlier one of its own writes, and
writes are in order.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Out
from amaranth.utils import ceil_log2, exact_log2

from afternorm.config import Config
from afternorm.isa import Flag, Opcode
from hdl.arith.delay import delay
from hdl.arith.format import check_range
from hdl.exp.lane import ExpLane
from hdl.exp.table import PORTS, SIGNIFICAND_BITS, ExpTable
from hdl.interfaces import (
    ACC_LATENCY,
    AccumulatorRead,
    block_layout,
    body_layout,
    engine_members,
    floats_layout,
    scratchpad_write,
)
from hdl.mx import MXQuantizer, element_layout
from hdl.once import once

SETUP_CYCLES = 3
"""Cycles in which an instruction's constants are computed, beside the one before it."""
_KEY_BITS = 22
"""A signed difference of keys and queries: 16 bits, over up to 16 tiles, plus the rows."""
_FIFO_LATENCY = 2
"""Of `SyncFIFOBuffered`, from write to read."""


class ExpEngine(wiring.Component):
    """Engine of `Opcode.EXP` in one tile.

    Parameters
    ----------
    config : Config
        Sizes of the accelerator.
    tile : int | Value
        This tile's number: an integer or a constant value.

    Members
    -------
    i, early, done, busy, conflict, flags
        As `hdl.interfaces.engine_members`; `Flag.EXP_RANGE` is the only flag.
    acc : Out(AccumulatorRead(config))
        Scores.
    p : Out(scratchpad_write(config))
        Blocks.

    Attributes
    ----------
    lanes : int
        Scores a cycle, X.
    overhead : int
        Cycles of an instruction beside those in which it reads.
    queue_depth : int
        Blocks that are begun while `p` is not ready.
    """

    def __init__(self, config: Config, tile: int | Value) -> None:
        if isinstance(tile, int):
            check_range("tile", tile, 0, config.tiles - 1)
        self.config = config
        self.tile = tile
        self.lanes = min(config.columns, config.block)
        self._splitters = [
            once(ExpLane, fraction_bits=config.fraction_bits) for _ in range(self.lanes)
        ]
        self._tables = [once(ExpTable) for _ in range(self.lanes // PORTS)]
        self._quantizer = MXQuantizer(
            block=config.block, lanes=self.lanes, significand_bits=SIGNIFICAND_BITS
        )
        super().__init__(
            {
                **engine_members(Opcode.EXP),
                "acc": Out(AccumulatorRead(config)),
                "p": Out(scratchpad_write(config)),
            }
        )

    @property
    def overhead(self) -> int:
        """Cycles of an instruction beside those in which it reads."""
        accept, start, done = 1, 1, 1
        before_first_read = accept + SETUP_CYCLES + start
        after_last_read = self._block_latency + done
        return before_first_read + after_last_read - 1  # from first to last read it is one less

    @property
    def queue_depth(self) -> int:
        """Blocks that may be under way; at full rate the last returns its credit in time."""
        chunks = self.config.block // self.lanes
        first_read_to_credit = chunks + self._block_latency
        return 1 << ceil_log2(-(-first_read_to_credit // chunks))

    @property
    def _select_latency(self) -> int:
        """Cycles to take a block's lanes from a wider word."""
        return int(self.config.columns > self.lanes)

    @property
    def _lane_latency(self) -> int:
        """Cycles from a read to its split scores."""
        return ACC_LATENCY + self._select_latency + self._splitters[0].latency

    @property
    def _block_latency(self) -> int:
        """Cycles from a block's last read to the block at `p`."""
        table = self._tables[0].latency
        return self._lane_latency + table + self._quantizer.latency + _FIFO_LATENCY

    def elaborate(self, platform: object) -> Module:
        m = Module()
        c = self.config
        chunks = c.block // self.lanes
        sections = c.columns // self.lanes  # an accumulator word holds this many blocks' lanes
        body_type = body_layout(Opcode.EXP)
        column = range(c.acc_width + 1)

        # Setup of the next instruction.
        body = Signal(body_type, reset_less=True)
        waiting = Signal()
        setup = Signal(SETUP_CYCLES)
        prepared = Signal()
        start = Signal()
        offset = Signal(_KEY_BITS, reset_less=True)
        keys_left = Signal(signed(_KEY_BITS), reset_less=True)
        queries_left = Signal(signed(_KEY_BITS), reset_less=True)
        accept = Signal()
        m.d.comb += [
            self.i.ready.eq(~waiting),
            accept.eq(self.i.valid & self.i.ready),
        ]
        m.d.sync += setup.eq(Cat(accept, setup))
        with m.If(accept):
            m.d.sync += [waiting.eq(1), body.eq(self.i.payload.body)]
        with m.If(setup[0]):
            m.d.sync += [
                offset.eq(_times(body.key_tile, self.tile)),
                keys_left.eq(body.length - body.key_base),
                queries_left.eq(body.query_base - body.key_base),
            ]
        with m.If(setup[1]):
            m.d.sync += [
                keys_left.eq(keys_left - offset),
                queries_left.eq(queries_left - offset),
            ]
        columns_valid = Signal(column, reset_less=True)
        last_block_index = Signal(range(c.acc_width // c.block), reset_less=True)
        second_row = Signal.like(self.p.address, reset_less=True)
        with m.If(setup[2]):
            m.d.sync += [
                columns_valid.eq(_clamp(keys_left, body.cols)),
                queries_left.eq(queries_left + 1),  # a query sees its own key
                last_block_index.eq((body.cols - 1) >> exact_log2(c.block)),
                second_row.eq(body.p_base + body.p_row),
                prepared.eq(1),
            ]
        with m.If(start):
            m.d.sync += [waiting.eq(0), prepared.eq(0)]

        # The loops: chunk within block within row.
        now = Signal(body_type, reset_less=True)
        active = Signal()
        free = Signal(range(self.queue_depth + 1), init=self.queue_depth)
        has_room = Signal(init=1)  # free != 0
        read = Signal()
        chunk = Signal(range(chunks))
        block = Signal(range(c.acc_width // c.block))
        row = Signal(range(c.rows_max), reset_less=True)
        word = Signal.like(self.acc.tile, reset_less=True)
        section = Signal(range(sections))
        first_column = Signal(column)
        limit = Signal(column, reset_less=True)
        causal_limit = Signal(signed(_KEY_BITS), reset_less=True)
        last_block = Signal.like(block, reset_less=True)
        rows_left = Signal(range(c.rows_max + 1), reset_less=True)
        in_last_block = Signal()
        in_last_row = Signal()
        address = Signal.like(self.p.address, reset_less=True)
        next_row = Signal.like(self.p.address, reset_less=True)
        first_chunk = Signal()
        last_chunk = Signal()
        row_ends = Signal()
        ends = Signal()
        m.d.comb += [
            first_chunk.eq(chunk == 0),
            last_chunk.eq(chunk == chunks - 1),
            row_ends.eq(last_chunk & in_last_block),
            ends.eq(row_ends & in_last_row),
            read.eq(active & (~first_chunk | has_room)),
            start.eq(prepared & (~active | (read & ends))),
            self.acc.valid.eq(read),
            self.acc.bank.eq(now.bank),
            self.acc.row.eq(row),
            self.acc.tile.eq(word),
        ]
        with m.If(read):
            m.d.sync += [
                chunk.eq(chunk + 1),
                first_column.eq(first_column + self.lanes),
                section.eq(section + 1),
            ]
            with m.If(section == sections - 1):
                m.d.sync += [section.eq(0), word.eq(word + 1)]
            with m.If(last_chunk):
                m.d.sync += [
                    chunk.eq(0),
                    block.eq(block + 1),
                    in_last_block.eq(block + 1 == last_block),
                    address.eq(address + now.p_block),
                ]
            with m.If(row_ends):
                m.d.sync += [
                    block.eq(0),
                    in_last_block.eq(last_block == 0),
                    first_column.eq(0),
                    section.eq(0),
                    word.eq(now.acc_tile),
                    row.eq(row + 1),
                    rows_left.eq(rows_left - 1),
                    in_last_row.eq(rows_left == 2),
                    causal_limit.eq(causal_limit + 1),
                    address.eq(next_row),
                    next_row.eq(next_row + now.p_row),
                ]
            with m.If(ends):
                m.d.sync += active.eq(0)
        with m.If(start):
            m.d.sync += [
                active.eq(1),
                now.eq(body),
                row.eq(0),
                word.eq(body.acc_tile),
                limit.eq(columns_valid),
                causal_limit.eq(queries_left),
                last_block.eq(last_block_index),
                in_last_block.eq(last_block_index == 0),
                rows_left.eq(body.rows),
                in_last_row.eq(body.rows == 1),
                address.eq(body.p_base),
                next_row.eq(second_row),
            ]

        # Masks: so many of the row's columns, less those before the chunk, are valid.
        row_limit = Signal(column)
        m.d.sync += row_limit.eq(Mux(now.causal, _clamp(causal_limit, limit), limit))
        valid_columns = Signal(signed(len(row_limit) + 1))
        m.d.sync += valid_columns.eq(row_limit - delay(m, first_column, 1))
        masked = Signal(self.lanes)
        m.d.sync += masked.eq(_mask(delay(m, valid_columns, self._lane_latency - 3), self.lanes))

        # Lanes.
        table_latency = self._tables[0].latency
        under_way = Signal(self._lane_latency + table_latency)
        m.d.sync += under_way.eq(Cat(read, under_way))
        scores = self.acc.data
        if sections > 1:
            words = data.ArrayLayout(floats_layout(c, self.lanes), sections)(scores.as_value())
            scores = delay(m, words[delay(m, section, ACC_LATENCY)], self._select_latency)
        elements = data.ArrayLayout(element_layout(SIGNIFICAND_BITS), self.lanes)
        powers = Signal(elements)
        saturated = Signal(self.lanes)
        for index, splitter in enumerate(self._splitters):
            m.submodules[f"lane{index}"] = splitter
            table, port = self._tables[index // PORTS], index % PORTS
            m.d.comb += [
                splitter.i.eq(scores[index]),
                saturated[index].eq(splitter.saturated),
                table.i[port].eq(splitter.fraction),
                powers[index].significand.eq(table.o[port]),
                powers[index].exponent.eq(delay(m, splitter.integer, table.latency)),
                powers[index].zero.eq(delay(m, masked[index], table.latency)),
            ]
        for index, table in enumerate(self._tables):
            m.submodules[f"table{index}"] = table
        out_of_range = Signal()
        m.d.sync += out_of_range.eq(under_way[-1 - table_latency] & (saturated & ~masked).any())
        m.d.comb += self.flags[Flag.EXP_RANGE].eq(out_of_range)

        # Blocks, and beside them their addresses, queued when they were begun.
        m.submodules.quantizer = quantizer = self._quantizer
        blocks = SyncFIFOBuffered(width=block_layout(c.block).size, depth=self.queue_depth)
        target_layout = data.StructLayout({"address": len(address), "last": 1})
        targets = SyncFIFOBuffered(width=target_layout.size, depth=self.queue_depth)
        m.submodules.blocks = blocks
        m.submodules.targets = targets
        target = target_layout(targets.r_data)
        # A block's last chunk ends the instruction if its first does so in the last block.
        final = in_last_block & in_last_row
        written = Signal()
        begins = Signal()
        m.d.comb += [
            quantizer.i_valid.eq(under_way[-1]),
            quantizer.i.eq(powers),
            blocks.w_en.eq(quantizer.o_valid),
            blocks.w_data.eq(quantizer.o),
            begins.eq(read & first_chunk),
            targets.w_en.eq(begins),
            targets.w_data.eq(Cat(address, final)),
            self.p.valid.eq(blocks.r_rdy),  # its address came long before
            self.p.address.eq(target.address),
            self.p.data.eq(blocks.r_data),
            written.eq(self.p.valid & self.p.ready),
            blocks.r_en.eq(written),
            targets.r_en.eq(written),
            self.conflict.eq(self.p.valid & ~self.p.ready),
            self.early.eq(self.done),
            self.busy.eq(waiting | active | (free != self.queue_depth) | self.done),
        ]
        m.d.sync += [
            free.eq(free - begins + written),
            has_room.eq(written | (free > 1) | ((free == 1) & ~begins)),
            self.done.eq(written & target.last),
        ]
        return m


def _times(value: Value, factor: int | Value) -> Value:
    """``value * factor`` by additions: no multiplier for so small a constant."""
    total: Value = Const(0)
    for bit, takes in enumerate(Value.cast(factor)):
        total = total + Mux(takes, value << bit, 0)
    return total


def _clamp(value: Value, limit: Value) -> Value:
    """Signed `value`, not below zero and not above `limit`."""
    return Mux(value < 0, 0, Mux(value < limit, value, limit))[: len(limit)]


def _mask(valid_columns: Value, lanes: int) -> Value:
    """A bit a lane: not one of the first `valid_columns`, which may be negative or many."""
    bits = exact_log2(lanes)
    some, all_ = ~valid_columns[-1], valid_columns[bits:-1].any()
    # Compared bit by bit: yosys would spend a carry chain a lane on `<=`.
    below = [
        Const(((1 << lanes) - 1) >> (lane + 1) << (lane + 1), lanes).bit_select(
            valid_columns[:bits], 1
        )
        for lane in range(lanes)
    ]
    return Cat(~(some & (all_ | first)) for first in below)
