# SPDX-License-Identifier: Apache-2.0
"""When the matrix engine reads what: loads blocks of B and streams rows of A, tile by tile.

A *weight tile* is one block along K of one column tile: L <= C blocks of B, then M rows of A.
The order is ``for column tile: for block k: for row m``.  The *loader* reads the blocks of B of
a weight tile in a burst, in descending order of columns; the *streamer* reads one row of A a
cycle.  They meet in one event, `go`: the burst of tile j is complete (its last read is being
accepted) and the streamer is free (its last row is being read).  Then the streamer starts
tile j and the loader tile j + 1, both in the next cycle, which is the earliest that
`hdl.matmul.array` allows.  So the period of tiles is max(M, C, `min_period` where it applies):
no idle slot for M >= C, between instructions neither, since the loader takes the next column
tile while the streamer works on the current one.

Reads go before all others in the scratchpad, and those of A before those of B: where both want
one bank, B waits.  Whether a block of B is wanted in the next cycle is decided in this one, so that
the scratchpad's arbitration begins at registers.

Three interlocks keep read-modify-writes of a row apart by their latency:

* Tiles that add to accumulators start `min_period` cycles or more after the one before.
* Bursts whose columns add to statistics, in the same way.  Cycles in which a read of B is refused
  do not count, so the distance holds column by column.
* A tile that goes on with the statistics of an earlier instruction waits until the last block
  passed the tap `tap_period` cycles ago, as rows then need not be at the same place.

They cost nothing when M >= `min_period`.  An instruction's `drain` needs no action here: the
engine writes nothing but accumulators and statistics, in the order of its instructions, and
the interlocks do not care about which instruction a tile belongs to.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from afternorm.config import Config
from afternorm.isa import Stats
from hdl.matmul.accumulator import row_layout
from hdl.matmul.interlock import CONDITIONS, Interlock
from hdl.matmul.tiler import tile_layout
from hdl.memory.scratchpad import bank_of


def tap_layout(config: Config) -> data.StructLayout:
    """What accompanies a block to the statistics tap; the members of `hdl.interfaces.Tap`."""
    return data.StructLayout(
        {
            "valid": 1,
            "from_b": 1,
            "entry": ceil_log2(config.stat_depth),
            "first": 1,
            "owned": 1,
            "squares": 1,
        }
    )


def issue_layout(config: Config) -> data.StructLayout:
    """What accompanies the reads accepted in a cycle.

    `swap` : the row of A is the first of its tile.
    `b_valid`, `b_first` : a block of B was read; it is the first of its burst.
    `tap` : what the tap is to make of one of the blocks.
    `early` : the instruction's last block of the tap was read, before or now.
    """
    return data.StructLayout(
        {"swap": 1, "b_valid": 1, "b_first": 1, "tap": tap_layout(config), "early": 1}
    )


class Sequencer(wiring.Component):
    """Loader and streamer.

    Parameters
    ----------
    config
        Sizes.
    tile
        Number of this tile, which blocks it owns depends on it: an integer or a constant value.
    min_period
        Least distance of two tiles where the second adds to accumulators of the first.
    tap_period
        Least distance of two blocks at the tap where the second adds to statistics of the first.

    Members
    -------
    i : In(stream)
        Column tiles.
    a_valid, a_address : Out
        A row of A is read, and where.
    b_valid, b_address : Out
        A block of B is wanted, and where.  It is read unless A is in the same bank.
    b_refused : Out(1)
        It is not.
    issue : Out(issue_layout)
        What accompanies the reads accepted in this cycle.
    row : Out(row_layout)
        The row of A among them, if there is one.
    active : Out(1)
        A tile is being loaded or streamed.
    """

    def __init__(
        self, *, config: Config, tile: int | Value, min_period: int, tap_period: int
    ) -> None:
        if isinstance(tile, int) and not 0 <= tile < config.tiles:
            raise ValueError(f"tile must be 0 to {config.tiles - 1}, not {tile}")
        if min_period < 1 or tap_period < 1:
            raise ValueError(f"periods must be positive, not {min_period} and {tap_period}")
        self.config = config
        self.tile = tile
        self.min_period = min_period
        self.tap_period = tap_period
        address = unsigned(ceil_log2(config.scratchpad_depth))
        super().__init__(
            {
                "i": In(stream.Signature(tile_layout(config))),
                "a_valid": Out(1),
                "a_address": Out(address),
                "b_valid": Out(1),
                "b_address": Out(address),
                "b_refused": Out(1),
                "issue": Out(issue_layout(config)),
                "row": Out(row_layout(config)),
                "active": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        body = self.i.payload.body
        address = self.a_address.shape()
        entry = tap_layout(config)["entry"].shape

        # -- what the next weight tile is; constant until `go`
        weights = Signal(
            data.StructLayout(
                {
                    "rows": ceil_log2(config.rows_max + 1),
                    "conditions": CONDITIONS,
                    "bank": self.row.bank.shape(),
                    "tile": self.row.tile.shape(),
                    "last_column": range(config.columns),
                    "a_address": address,
                    "a_row": address,
                    "a_block": address,
                    "b_start": address,
                    "b_col": address,
                    "b_block": address,
                    "blocks_left": body.blocks.shape(),
                    "stat_entry": entry,
                    "stat_last_entry": entry,
                    "stat_adds": 1,
                    "stat_squares": 1,
                    "stat_owned": body.stat_owned.shape(),
                    "early_of_a": 1,  # `early` comes with its rows
                    "last_tile": 1,
                }
            ),
            reset_less=True,
        )
        conditions = weights.conditions
        last_block, tap_of_b = conditions.last_block, conditions.tap_b

        # -- when
        m.submodules.interlock = lock = Interlock(
            config=config,
            row_period=max(self.min_period, self.tap_period),
            tap_period=self.tap_period,
        )
        b_entry = Signal(entry, reset_less=True)
        b_left = Signal(range(config.columns), reset_less=True)
        b_last = Signal(reset_less=True)
        m.d.comb += [
            lock.i_valid.eq(self.i.valid),
            self.i.ready.eq(lock.i_ready),
            lock.i_tap_b.eq(body.stats == Stats.B),
            lock.i_stat_first.eq(body.stat_first),
            lock.weights.eq(conditions),
            lock.a_bank.eq(bank_of(config, self.a_address)),
            lock.b_bank.eq(bank_of(config, self.b_address)),
            lock.b_last.eq(b_last),
            self.a_valid.eq(lock.a_valid),
            self.b_valid.eq(lock.b_valid),
            self.b_refused.eq(lock.b_refused),
        ]

        # -- which tile owns block k: owner = k // stat_owned, kept up to this tile and beyond
        owner = Signal(range(self.config.tiles + 1), reset_less=True)
        position = Signal(body.stat_owned.shape(), reset_less=True)
        owned = Signal()
        m.d.comb += owned.eq((weights.stat_owned == 0) | (owner == self.tile))

        # -- from weight tile to weight tile
        # The interlock's answers come late, so they enable registers and do not choose what these
        # take: what is taken without need, from the tiler or when a burst ends early, is not
        # looked at.
        b_start = weights.b_start + weights.b_block
        with m.If(lock.moves):
            with m.If(lock.new):
                m.d.sync += [
                    weights.rows.eq(body.rows),
                    conditions.one_row.eq(body.rows == 1),
                    weights.bank.eq(body.bank),
                    weights.tile.eq(self.i.payload.tile),
                    weights.last_column.eq(self.i.payload.last_column),
                    weights.a_address.eq(body.a_base),
                    weights.a_row.eq(body.a_row),
                    weights.a_block.eq(body.a_block),
                    weights.b_start.eq(self.i.payload.b_address),
                    weights.b_col.eq(body.b_col),
                    weights.b_block.eq(body.b_block),
                    weights.blocks_left.eq(body.blocks - 1),
                    conditions.last_block.eq(body.blocks == 1),
                    conditions.adds.eq(body.accumulate),
                    conditions.tap_a.eq(self.i.payload.first & (body.stats == Stats.A)),
                    conditions.tap_b.eq(body.stats == Stats.B),
                    weights.stat_entry.eq(body.stat_base),
                    weights.stat_last_entry.eq(self.i.payload.entry),
                    weights.stat_adds.eq(~body.stat_first),
                    weights.stat_squares.eq(body.stat_squares),
                    weights.stat_owned.eq(body.stat_owned),
                    conditions.rows_after_tap.eq(
                        self.i.payload.first & (body.stats == Stats.A) & ~body.stat_first
                    ),
                    conditions.after_tap.eq(~body.stat_first),
                    conditions.after_burst.eq(body.stat_first),
                    weights.early_of_a.eq(self.i.payload.first & (body.stats != Stats.B)),
                    weights.last_tile.eq(self.i.payload.last),
                    owner.eq(0),
                    position.eq(1),
                ]
            with m.Else():
                m.d.sync += [
                    weights.a_address.eq(weights.a_address + weights.a_block),
                    weights.b_start.eq(b_start),
                    weights.blocks_left.eq(weights.blocks_left - 1),
                    conditions.last_block.eq(weights.blocks_left == 1),
                    conditions.adds.eq(1),
                    weights.stat_adds.eq(1),
                    conditions.rows_after_tap.eq(0),
                    conditions.after_tap.eq(0),
                    conditions.after_burst.eq(1),
                    position.eq(position + 1),
                ]
                with m.If(position == weights.stat_owned):
                    m.d.sync += position.eq(1)
                    with m.If(owner <= self.tile):
                        m.d.sync += owner.eq(owner + 1)
        with m.If(lock.moves | lock.b_accepted):
            with m.If(~lock.held | lock.loaded | b_last):
                last_column = Mux(lock.new, self.i.payload.last_column, weights.last_column)
                m.d.sync += [
                    self.b_address.eq(Mux(lock.new, self.i.payload.b_address, b_start)),
                    b_entry.eq(Mux(lock.new, self.i.payload.entry, weights.stat_last_entry)),
                    b_left.eq(last_column),
                    b_last.eq(last_column == 0),
                ]
            with m.Else():
                m.d.sync += [
                    self.b_address.eq(self.b_address - weights.b_col),
                    b_entry.eq(b_entry - 1),
                    b_left.eq(b_left - 1),
                    b_last.eq(b_left == 1),
                ]

        # -- the streamer
        rows = Signal(
            data.StructLayout(
                {
                    "a_row": address,
                    "left": weights.rows.shape(),
                    "place": self.row.shape(),
                    "tap": tap_layout(config),
                    "early": 1,
                    "early_ahead": 1,
                }
            ),
            reset_less=True,
        )
        with m.If(~lock.more):
            m.d.sync += [
                self.a_address.eq(weights.a_address),
                rows.a_row.eq(weights.a_row),
                rows.left.eq(weights.rows - 1),
                rows.place.count.eq(weights.last_column + 1),
                rows.place.bank.eq(weights.bank),
                rows.place.row.eq(0),
                rows.place.tile.eq(weights.tile),
                rows.place.first.eq(~conditions.adds),
                rows.place.done.eq(weights.last_tile & last_block),
                rows.tap.entry.eq(weights.stat_entry),
                rows.tap.first.eq(~weights.stat_adds),
                rows.tap.owned.eq(owned),
                rows.tap.squares.eq(weights.stat_squares),
                rows.early.eq(weights.early_of_a & last_block),
                rows.early_ahead.eq(weights.early_of_a),
            ]
        with m.Else():
            m.d.sync += [
                self.a_address.eq(self.a_address + rows.a_row),
                rows.left.eq(rows.left - 1),
                rows.place.row.eq(rows.place.row + 1),
                rows.tap.entry.eq(rows.tap.entry + 1),
            ]
        m.d.comb += lock.next_row_last.eq(rows.left == 1)

        # -- what goes with the reads
        b_early = Signal()  # due: after the early pulses of the rows before
        b_early_now = Signal()
        m.d.comb += b_early_now.eq(b_early & ~(lock.a_valid & rows.early_ahead))
        with m.If(lock.b_ends & tap_of_b & weights.last_tile & last_block):
            m.d.sync += b_early.eq(1)
        with m.Elif(b_early_now):
            m.d.sync += b_early.eq(0)

        issue = self.issue
        with m.If(tap_of_b & lock.b_accepted):
            m.d.comb += [
                issue.tap.valid.eq(1),
                issue.tap.from_b.eq(1),
                issue.tap.entry.eq(b_entry),
                issue.tap.first.eq(~weights.stat_adds),
                issue.tap.owned.eq(owned),
                issue.tap.squares.eq(weights.stat_squares),
            ]
        with m.Else():
            m.d.comb += [
                issue.tap.eq(rows.tap),
                issue.tap.valid.eq(lock.tapped),
                issue.tap.from_b.eq(0),
            ]
        m.d.comb += [
            issue.swap.eq(lock.first),
            issue.b_valid.eq(lock.b_accepted),
            issue.b_first.eq(lock.fresh),
            issue.early.eq((rows.early & lock.a_valid & ~lock.more) | b_early_now),
            self.row.eq(rows.place),
            self.row.done.eq(rows.place.done & ~lock.more),
            self.active.eq(lock.held | lock.a_valid),
        ]
        return m
