# SPDX-License-Identifier: Apache-2.0
"""When the matrix engine reads what: loads blocks of B and streams rows of A, tile by tile.

A *weight tile* is one block along K of one column tile: L <= C blocks of B, then M rows of A.
The order is ``for column tile: for block k: for row m``.  The *loader* reads the blocks of B of
a weight tile in a burst, in descending order of columns; the *streamer* reads one row of A a
cycle.  They meet in one event, `go`: the burst of tile j is complete (its last read is being
accepted) and the streamer is free (its last row is being accepted).  Then the streamer starts
tile j and the loader tile j + 1, both in the next cycle, which is the earliest that
`hdl.matmul.array` allows.  So the period of tiles is max(M, C, `min_period` where it applies):
no idle slot for M >= C, between instructions neither, since the loader takes the next column
tile while the streamer works on the current one.

Reads of A go first in the scratchpad; where one is refused all the same, its row comes later.
A refused read of B delays its burst.

Three interlocks keep read-modify-writes of a row apart by their latency:

* Tiles that add to accumulators start `min_period` cycles or more after the one before.  Cycles
  in which a read of A is refused do not count, so the distance holds row by row.
* Bursts whose columns add to statistics, in the same way.
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
from hdl.matmul.tiler import tile_layout


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
    a, b : Out(stream)
        Addresses to read.
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
                "a": Out(stream.Signature(address)),
                "b": Out(stream.Signature(address)),
                "issue": Out(issue_layout(config)),
                "row": Out(row_layout(config)),
                "active": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        body = self.i.payload.body
        address = self.a.payload.shape()
        entry = tap_layout(config)["entry"].shape
        go = Signal()

        # -- what the next weight tile is; constant until `go`
        weights = Signal(
            data.StructLayout(
                {
                    "rows": ceil_log2(config.rows_max + 1),
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
                    "adds": 1,  # to accumulators
                    "stats": body.stats.shape(),
                    "stat_entry": entry,
                    "stat_last_entry": entry,
                    "stat_adds": 1,
                    "stat_squares": 1,
                    "stat_owned": body.stat_owned.shape(),
                    "continues": 1,  # the statistics of an earlier instruction
                    "after_tap": 1,  # its columns wait for the last block at the tap,
                    "after_burst": 1,  # or for the burst before
                    "first_tile": 1,
                    "last_tile": 1,
                }
            ),
            reset_less=True,
        )
        last_block = Signal()
        m.d.comb += last_block.eq(weights.blocks_left == 0)
        tap_of_b = weights.stats == Stats.B

        # -- the loader's burst
        held = Signal()  # there is a weight tile
        loaded = Signal(reset_less=True)
        fresh = Signal(reset_less=True)  # no block of it was read yet
        b_address = Signal(address, reset_less=True)
        b_entry = Signal(entry, reset_less=True)
        b_left = Signal(range(config.columns), reset_less=True)
        b_accepted = Signal()
        complete = Signal()
        m.d.comb += [
            self.b.payload.eq(b_address),
            b_accepted.eq(self.b.valid & self.b.ready),
            complete.eq(held & (loaded | (b_accepted & (b_left == 0)))),
        ]
        with m.If(b_accepted):
            m.d.sync += [
                fresh.eq(0),
                loaded.eq(b_left == 0),
                b_left.eq(b_left - 1),
                b_address.eq(b_address - weights.b_col),
                b_entry.eq(b_entry - 1),
            ]

        # -- which tile owns block k: owner = k // stat_owned, kept up to this tile and beyond
        owner = Signal(range(self.config.tiles + 1), reset_less=True)
        position = Signal(body.stat_owned.shape(), reset_less=True)
        owned = Signal()
        m.d.comb += owned.eq((weights.stat_owned == 0) | (owner == self.tile))

        # -- from weight tile to weight tile
        m.d.comb += self.i.ready.eq(~held | (go & last_block))
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                held.eq(1),
                weights.rows.eq(body.rows),
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
                weights.adds.eq(body.accumulate),
                weights.stats.eq(body.stats),
                weights.stat_entry.eq(body.stat_base),
                weights.stat_last_entry.eq(self.i.payload.entry),
                weights.stat_adds.eq(~body.stat_first),
                weights.stat_squares.eq(body.stat_squares),
                weights.stat_owned.eq(body.stat_owned),
                weights.continues.eq(~body.stat_first),
                weights.after_tap.eq((body.stats == Stats.B) & ~body.stat_first),
                weights.after_burst.eq((body.stats == Stats.B) & body.stat_first),
                weights.first_tile.eq(self.i.payload.first),
                weights.last_tile.eq(self.i.payload.last),
                owner.eq(0),
                position.eq(1),
                loaded.eq(0),
                fresh.eq(1),
                b_address.eq(self.i.payload.b_address),
                b_entry.eq(self.i.payload.entry),
                b_left.eq(self.i.payload.last_column),
            ]
        with m.Elif(go):
            b_start = weights.b_start + weights.b_block
            m.d.sync += [
                held.eq(~last_block),
                weights.a_address.eq(weights.a_address + weights.a_block),
                weights.b_start.eq(b_start),
                weights.blocks_left.eq(weights.blocks_left - 1),
                weights.adds.eq(1),
                weights.stat_adds.eq(1),
                weights.continues.eq(0),
                weights.after_tap.eq(0),
                weights.after_burst.eq(tap_of_b),
                position.eq(position + 1),
                loaded.eq(0),
                fresh.eq(1),
                b_address.eq(b_start),
                b_entry.eq(weights.stat_last_entry),
                b_left.eq(weights.last_column),
            ]
            with m.If(position == weights.stat_owned):
                m.d.sync += position.eq(1)
                with m.If(owner <= self.tile):
                    m.d.sync += owner.eq(owner + 1)

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
        streaming = Signal()
        swap = Signal(reset_less=True)
        a_accepted = Signal()
        last_row = Signal()
        free = Signal()
        m.d.comb += [
            self.a.valid.eq(streaming),
            a_accepted.eq(streaming & self.a.ready),
            last_row.eq(rows.left == 0),
            free.eq(~streaming | (a_accepted & last_row)),
        ]
        tap_of_a = weights.first_tile & (weights.stats == Stats.A)
        early_of_a = weights.first_tile & (weights.stats != Stats.B)
        with m.If(go):
            m.d.sync += [
                streaming.eq(1),
                swap.eq(1),
                self.a.payload.eq(weights.a_address),
                rows.a_row.eq(weights.a_row),
                rows.left.eq(weights.rows - 1),
                rows.place.count.eq(weights.last_column + 1),
                rows.place.bank.eq(weights.bank),
                rows.place.row.eq(0),
                rows.place.tile.eq(weights.tile),
                rows.place.first.eq(~weights.adds),
                rows.place.done.eq(weights.last_tile & last_block),
                rows.tap.valid.eq(tap_of_a),
                rows.tap.from_b.eq(0),
                rows.tap.entry.eq(weights.stat_entry),
                rows.tap.first.eq(~weights.stat_adds),
                rows.tap.owned.eq(owned),
                rows.tap.squares.eq(weights.stat_squares),
                rows.early.eq(early_of_a & last_block),
                rows.early_ahead.eq(early_of_a),
            ]
        with m.Elif(a_accepted):
            m.d.sync += [
                streaming.eq(~last_row),
                swap.eq(0),
                self.a.payload.eq(self.a.payload + rows.a_row),
                rows.left.eq(rows.left - 1),
                rows.place.row.eq(rows.place.row + 1),
                rows.tap.entry.eq(rows.tap.entry + 1),
            ]

        # -- interlocks
        def timer(start: Value, frozen: Value, period: int, name: str) -> Value:
            """Whether fewer than `period` cycles went by since `start`, frozen ones not counted."""
            left, runs = Signal(range(period), name=name), Signal(name=f"{name}_runs")
            with m.If(start):
                m.d.sync += [left.eq(period - 1), runs.eq(period > 1)]
            with m.Elif(runs & ~frozen):
                m.d.sync += [left.eq(left - 1), runs.eq(left != 1)]
            return runs

        a_refused = streaming & ~self.a.ready
        b_refused = self.b.valid & ~self.b.ready
        tapped = Signal()
        rows_wait = timer(go, a_refused, max(self.min_period, self.tap_period), "rows_timer")
        burst_wait = timer(b_accepted & fresh, b_refused, self.tap_period, "burst_timer")
        # A tap of A in progress counts as one that is passing: it is seen a cycle later only.
        a_taps = streaming & rows.tap.valid
        tap_wait = timer(tapped, C(0), self.tap_period, "tap_timer")

        m.d.comb += [
            go.eq(
                complete
                & free
                & ~(weights.adds & rows_wait)
                & ~(tap_of_a & weights.continues & (tap_wait | a_taps))
            ),
            # The shadow registers are free once the row with the swap is on its way.
            self.b.valid.eq(
                held
                & ~loaded
                & ~(
                    fresh
                    & (
                        (streaming & swap & ~self.a.ready)
                        | (weights.after_tap & tap_wait)
                        | (weights.after_burst & burst_wait)
                        | (tap_of_b & a_taps)
                    )
                )
            ),
        ]

        # -- what goes with the reads
        b_early = Signal()  # due: after the early pulses of the rows before
        b_early_now = Signal()
        m.d.comb += b_early_now.eq(b_early & ~(streaming & rows.early_ahead))
        with m.If(b_accepted & (b_left == 0) & tap_of_b & weights.last_tile & last_block):
            m.d.sync += b_early.eq(1)
        with m.Elif(b_early_now):
            m.d.sync += b_early.eq(0)

        issue = self.issue
        with m.If(tap_of_b & b_accepted):
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
                issue.tap.valid.eq(rows.tap.valid & a_accepted),
            ]
        m.d.comb += [
            tapped.eq(issue.tap.valid),
            issue.swap.eq(swap & a_accepted),
            issue.b_valid.eq(b_accepted),
            issue.b_first.eq(fresh),
            issue.early.eq((rows.early & a_accepted & last_row) | b_early_now),
            self.row.eq(rows.place),
            self.row.done.eq(rows.place.done & last_row),
            self.active.eq(held | streaming),
        ]
        return m
