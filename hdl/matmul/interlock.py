# SPDX-License-Identifier: Apache-2.0
"""When the loader of `hdl.matmul.sequencer` reads and its streamer starts: `go`, and interlocks.

All that is decided within one cycle is here, apart from addresses and counters, so that synthesis
maps it for depth alone.
"""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from afternorm.config import Config
from hdl.memory.scratchpad import bank_bits

CONDITIONS = data.StructLayout(
    {
        "last_block": 1,  # along K, of its column tile
        "one_row": 1,
        "adds": 1,  # to accumulators
        "tap_a": 1,  # its rows have statistics,
        "tap_b": 1,  # or its columns
        "rows_after_tap": 1,  # its rows wait for the last block at the tap;
        "after_tap": 1,  # so do its columns,
        "after_burst": 1,  # or for the burst before
    }
)
"""What of a weight tile decides when it is loaded and streamed."""


class Interlock(wiring.Component):
    """Paces loader and streamer.

    Parameters
    ----------
    config
        Sizes.
    row_period
        Cycles from tile to tile, at least, where the second adds to accumulators.
    tap_period
        Cycles between two blocks at the tap, at least, where the second adds to statistics.

    Members
    -------
    i_valid, i_ready, i_tap_b, i_stat_first
        The next column tile; its columns have statistics, which begin with it.
    weights : In(CONDITIONS)
        The weight tile being loaded.
    a_bank, b_bank : In
        Banks of the next reads.
    b_last : In(1)
        The next block of B is the last of its burst.
    next_row_last : In(1)
        The row after the present one is the last of its tile.
    held, loaded, fresh : Out(1)
        There is a weight tile; all blocks of it were read; none was.
    new, moves, go : Out(1)
        The next weight tile is the first of a column tile.  The loader goes on to it in the next
        cycle.  The streamer goes on to the present one in the next cycle.
    b_valid, b_accepted, b_refused, b_ends : Out(1)
        A block of B is wanted, and is read or not; it is the last of its burst.
    a_valid, first, more, tapped : Out(1)
        A row of A is read; it is the first of its tile; one of the same tile follows; it passes
        the tap.
    """

    def __init__(self, *, config: Config, row_period: int, tap_period: int) -> None:
        self.row_period = row_period
        self.tap_period = tap_period
        bank = bank_bits(config)
        super().__init__(
            {
                "i_valid": In(1),
                "i_ready": Out(1),
                "i_tap_b": In(1),
                "i_stat_first": In(1),
                "weights": In(CONDITIONS),
                "a_bank": In(bank),
                "b_bank": In(bank),
                "b_last": In(1),
                "next_row_last": In(1),
                "held": Out(1),
                "loaded": Out(1),
                "fresh": Out(1),
                "new": Out(1),
                "moves": Out(1),
                "go": Out(1),
                "b_valid": Out(1),
                "b_accepted": Out(1),
                "b_refused": Out(1),
                "b_ends": Out(1),
                "a_valid": Out(1),
                "first": Out(1),
                "more": Out(1),
                "tapped": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        weights, asks, tapping = self.weights, self.b_valid, self.tapped

        def timer(start: Value, frozen: Value | int, period: int, name: str) -> tuple[Value, Value]:
            """Whether fewer than `period` cycles went by since `start`, frozen ones not counted.

            Now; and in the next cycle, if it neither starts nor is frozen.
            """
            left = Signal(range(period), name=name)
            runs = Signal(name=f"{name}_runs")
            still = runs & (left != 1)
            with m.If(start):
                m.d.sync += [left.eq(period - 1), runs.eq(period > 1)]
            with m.Elif(~Value.cast(frozen)):
                m.d.sync += [left.eq(left - 1), runs.eq(still)]
            return runs, still

        burst_starts = self.b_accepted & self.fresh
        passes = tapping | (weights.tap_b & self.b_accepted)
        rows_wait, _ = timer(self.go, 0, self.row_period, "rows")
        _, burst_still = timer(burst_starts, self.b_refused, self.tap_period, "burst")
        tap_wait, tap_still = timer(passes, 0, self.tap_period, "tap")

        m.d.comb += [
            self.b_refused.eq(asks & self.a_valid & (self.a_bank == self.b_bank)),
            self.b_accepted.eq(asks & ~self.b_refused),
            self.b_ends.eq(self.b_accepted & self.b_last),
            self.go.eq(
                (self.loaded | self.b_ends)
                & ~self.more
                & ~(weights.adds & rows_wait)
                # A tap of A in progress counts as one that is passing: it is seen a cycle later.
                & ~(weights.rows_after_tap & (tap_wait | tapping))
            ),
            self.new.eq(~self.held | weights.last_block),
            self.moves.eq(~self.held | self.go),
            self.i_ready.eq(~self.held | (self.go & weights.last_block)),
        ]

        # The streamer.
        m.d.sync += [
            self.a_valid.eq(self.go | self.more),
            self.first.eq(self.go),
            self.more.eq(Mux(self.go, ~weights.one_row, self.more & ~self.next_row_last)),
            tapping.eq(Mux(self.go, weights.tap_a, tapping & self.more)),
        ]

        # The loader.
        with m.If(self.moves):
            m.d.sync += [
                self.held.eq(~self.new | self.i_valid),
                self.loaded.eq(0),
                self.fresh.eq(1),
            ]
        with m.Elif(self.b_accepted):
            m.d.sync += [self.loaded.eq(self.b_last), self.fresh.eq(0)]

        # Whether a burst whose columns have statistics waits in the next cycle.  Where the loader
        # moves, all that was asked for has been read.
        after_tap = tapping | (weights.tap_b & asks) | tap_still
        after_burst = (asks & self.fresh) | burst_still
        first_waits = (
            Mux(self.i_stat_first, after_burst, after_tap)
            | (self.held & weights.tap_a)
            | (~self.held & tapping & self.more)
        )
        still_waits = (
            (weights.after_tap & (tapping | tap_still))
            | (weights.after_burst & burst_still)
            | (tapping & self.more)
        )
        with m.If(self.moves):
            first_asks = self.i_valid & ~(self.i_tap_b & first_waits)
            m.d.sync += asks.eq(Mux(self.new, first_asks, ~(weights.tap_b & after_burst)))
        with m.Elif(asks):
            m.d.sync += asks.eq(self.b_refused | ~self.b_last)
        with m.Else():
            m.d.sync += asks.eq(self.held & ~self.loaded & ~(weights.tap_b & still_waits))
        return m
