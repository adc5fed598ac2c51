# SPDX-License-Identifier: Apache-2.0
"""Cuts a product into column tiles: C columns each, and what is left over in the last.

For each tile: the number of its columns L, the address of the first block of B to load (columns
are loaded in descending order, so that is column L-1), and its place in the accumulators.  One
tile takes `period` = 4 cycles, beside the loading of the one before, and needs one multiplier
for ``(L - 1) * b_col``.

The instruction is kept beside its last tile, so that its stream moves on before that tile is
taken: neither `ready` depends on the other.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from afternorm.config import Config
from afternorm.isa import Opcode
from hdl.interfaces import body_layout, engine_payload


def tile_layout(config: Config) -> data.StructLayout:
    """A column tile.

    `body` : the instruction.
    `b_address` : block 0 of the tile's last column.
    `last_column` : L - 1.
    `tile` : its place in the accumulator bank.
    `entry` : statistics entry of the tile's last column, where columns have statistics.
    `first`, `last` : it is the first, the last tile of the instruction.
    """
    return data.StructLayout(
        {
            "body": body_layout(Opcode.MATMUL),
            "b_address": ceil_log2(config.scratchpad_depth),
            "last_column": range(config.columns),
            "tile": ceil_log2(config.column_tiles),
            "entry": ceil_log2(config.stat_depth),
            "first": 1,
            "last": 1,
        }
    )


class ColumnTiler(wiring.Component):
    """Makes column tiles of instructions.

    Parameters
    ----------
    config
        Sizes.

    Members
    -------
    i : In(stream)
        Instructions, `Opcode.MATMUL`.
    o : Out(stream)
        Their tiles, in order.
    """

    period = 4
    """Cycles from tile to tile, at least."""

    def __init__(self, *, config: Config) -> None:
        self.config = config
        self.tile = tile_layout(config)
        super().__init__(
            {
                "i": In(stream.Signature(engine_payload(Opcode.MATMUL))),
                "o": Out(stream.Signature(self.tile)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        columns = self.config.columns
        tile = self.tile
        body = body_layout(Opcode.MATMUL)(self.i.payload.body)
        count = range(self.config.acc_width + 1)

        # What follows the tile that was taken last.
        fresh = Signal(init=1)
        rest = Signal(count, reset_less=True)
        b_column = Signal(tile["b_address"].shape, reset_less=True)
        following = Signal(tile["tile"].shape, reset_less=True)
        entry = Signal(tile["entry"].shape, reset_less=True)

        # The tile in the making.
        left = Signal(count)
        m.d.comb += left.eq(Mux(fresh, body.cols, rest))
        kept = Signal(body.shape(), reset_less=True)
        first = Signal(reset_less=True)
        last = Signal(reset_less=True)
        place = Signal(tile["tile"].shape, reset_less=True)
        last_column = Signal(tile["last_column"].shape, reset_less=True)
        offset = Signal(tile["b_address"].shape, reset_less=True)
        b_address = Signal(tile["b_address"].shape, reset_less=True)
        last_entry = Signal(tile["entry"].shape, reset_less=True)

        with m.FSM():
            with m.State("COLUMNS"):
                m.d.sync += [
                    last.eq(left <= columns),
                    last_column.eq(Mux(left <= columns, left - 1, columns - 1)),
                    rest.eq(left - columns),
                    place.eq(Mux(fresh, body.acc_tile, following)),
                ]
                with m.If(fresh):
                    m.d.sync += [b_column.eq(body.b_base), entry.eq(body.stat_base)]
                with m.If(self.i.valid):
                    m.next = "OFFSET"
            with m.State("OFFSET"):
                m.d.sync += offset.eq(last_column * body.b_col)
                m.next = "ADDRESS"
            with m.State("ADDRESS"):
                m.d.sync += [
                    b_address.eq(b_column + offset),
                    last_entry.eq(entry + last_column),
                    first.eq(fresh),
                    kept.eq(body),
                ]
                m.d.comb += self.i.ready.eq(last)
                m.next = "OFFER"
            with m.State("OFFER"):
                # What follows does not wait for `ready`, which comes late: it is the same in
                # every cycle of the offer.
                m.d.comb += self.o.valid.eq(1)
                m.d.sync += [
                    fresh.eq(last),
                    b_column.eq(b_address + kept.b_col),
                    following.eq(place + 1),
                    entry.eq(last_entry + 1),
                ]
                with m.If(self.o.ready):
                    m.next = "COLUMNS"

        m.d.comb += [
            self.o.payload.body.eq(kept),
            self.o.payload.b_address.eq(b_address),
            self.o.payload.last_column.eq(last_column),
            self.o.payload.tile.eq(place),
            self.o.payload.entry.eq(last_entry),
            self.o.payload.first.eq(first),
            self.o.payload.last.eq(last),
        ]
        return m
