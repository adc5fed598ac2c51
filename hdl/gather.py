# SPDX-License-Identifier: Apache-2.0
"""The gather network: every tile gets the activation blocks of all tiles.

A GATHER instruction reads ``rows x blocks`` blocks of each tile in turn and
writes them, one block a cycle, at the same addresses of all tiles.  All tiles
see the same requests, so they stay in lock-step; of the data read, only those
of the tile whose turn it is are used.  One instruction takes
``tiles * rows * blocks`` cycles and a constant; it runs beneath computation and
takes only scratchpad cycles that no engine wants.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from afternorm.config import Config
from afternorm.isa import Opcode
from hdl.arith.delay import delay
from hdl.interfaces import (
    SCRATCHPAD_LATENCY,
    block_layout,
    body_layout,
    engine_members,
    scratchpad_read,
    scratchpad_write,
)


class Gather(wiring.Component):
    """All-gather of scratchpad blocks over the tiles.

    Parameters
    ----------
    config : sizes.

    Members
    -------
    read, write : the request to all tiles, and what tile 0 answers (all tiles answer alike).
    tile_data : in. What each tile read, in place of ``read.data``.

    `early` and `done` pulse when the last block was accepted by the scratchpads.
    """

    def __init__(self, *, config: Config):
        self.config = config
        super().__init__(
            {
                **engine_members(Opcode.GATHER),
                "read": Out(scratchpad_read(config)),
                "write": Out(scratchpad_write(config)),
                "tile_data": In(data.ArrayLayout(block_layout(config.block), config.tiles)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        address_bits = ceil_log2(c.scratchpad_depth)
        body = Signal(body_layout(Opcode.GATHER), reset_less=True)
        reading = Signal()

        row = Signal(12, reset_less=True)
        block = Signal(12, reset_less=True)
        tile = Signal(range(max(2, c.tiles)), reset_less=True)
        last_block = block == body.blocks - 1
        last_row = row == body.rows - 1
        last_tile = tile == c.tiles - 1
        last = last_block & last_row & last_tile

        # Source and destination, with the address where the row and the tile began.
        src = Signal(address_bits, reset_less=True)
        src_row = Signal.like(src)
        dst = Signal.like(src)
        dst_row = Signal.like(src)
        dst_tile = Signal.like(src)

        depth = 2 * SCRATCHPAD_LATENCY + 4
        entry = data.StructLayout({"address": address_bits, "block": block_layout(c.block)})
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=entry.size, depth=depth)
        outstanding = Signal(range(depth + 1))
        room = outstanding != depth

        m.d.comb += [
            self.i.ready.eq(~self.busy),
            self.read.valid.eq(reading & room),
            self.read.address.eq(src),
            self.conflict.eq(
                (self.read.valid & ~self.read.ready) | (self.write.valid & ~self.write.ready)
            ),
        ]
        accepted = self.read.valid & self.read.ready

        with m.If(self.i.valid & self.i.ready):
            new = body_layout(Opcode.GATHER)(self.i.payload.body)
            m.d.sync += [
                body.eq(new),
                reading.eq(1),
                self.busy.eq(1),
                *(counter.eq(0) for counter in (row, block, tile)),
                *(address.eq(new.src_base) for address in (src, src_row)),
                *(address.eq(new.dst_base) for address in (dst, dst_row, dst_tile)),
            ]
        with m.If(accepted):
            m.d.sync += [
                block.eq(block + 1),
                src.eq(src + body.src_block),
                dst.eq(dst + body.dst_block),
            ]
            with m.If(last_block):
                next_src, next_dst = src_row + body.src_row, dst_row + body.dst_row
                m.d.sync += [
                    block.eq(0),
                    row.eq(row + 1),
                    *(address.eq(next_src) for address in (src, src_row)),
                    *(address.eq(next_dst) for address in (dst, dst_row)),
                ]
                with m.If(last_row):
                    next_tile = dst_tile + body.dst_tile
                    m.d.sync += [
                        row.eq(0),
                        tile.eq(tile + 1),
                        *(address.eq(body.src_base) for address in (src, src_row)),
                        *(address.eq(next_tile) for address in (dst, dst_row, dst_tile)),
                    ]
            with m.If(last):
                m.d.sync += reading.eq(0)

        latency = SCRATCHPAD_LATENCY + 1
        arrived_tile = delay(m, tile, SCRATCHPAD_LATENCY)
        chosen = Signal(block_layout(c.block), reset_less=True)
        m.d.sync += chosen.eq(self.tile_data[arrived_tile])
        incoming = Signal(entry)
        m.d.comb += [
            incoming.address.eq(delay(m, dst, latency)),
            incoming.block.eq(chosen),
            fifo.w_en.eq(delay(m, accepted, latency)),
            fifo.w_data.eq(incoming.as_value()),
        ]

        outgoing = entry(fifo.r_data)
        written = self.write.valid & self.write.ready
        m.d.comb += [
            self.write.valid.eq(fifo.r_rdy),
            self.write.address.eq(outgoing.address),
            self.write.data.eq(outgoing.block),
            fifo.r_en.eq(written),
        ]
        m.d.sync += outstanding.eq(outstanding + accepted - written)

        finished = self.busy & ~reading & written & (outstanding == 1)
        with m.If(finished):
            m.d.sync += self.busy.eq(0)
        m.d.comb += [self.done.eq(finished), self.early.eq(finished)]
        return m
