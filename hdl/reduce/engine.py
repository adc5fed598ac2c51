# SPDX-License-Identifier: Apache-2.0
"""The reduce engine: statistics of rows (SCAN, or as the matmul engine streams), then row scales.

REDUCE reads the statistics of a row a cycle, sums them over the tiles if it is told to,
and writes the row's scales::

    issue ──► statistics ──► (reduction tree) ──► scale unit ──► scale memory

Rows follow each other without a gap, from issue to write.  `early` comes in the cycle after the
write of the first row: a reader may then read row m after m cycles.  `done` comes in the
cycle after the write of the last row.  A REDUCE starts behind the former one while that is still
in flight, unless it has `drain` set or asks for another mode, tree, inv_d or eps,
which the pipeline holds once; so the reductions of many heads are as dense as one, if
they have three rows or more (an instruction takes three cycles at least).

SCAN reads blocks from the scratchpad, k for k and m for m as the matmul engine does,
and sends them past the tap.  It runs alone.  Where its rows are fewer than the
tap's `min_period` it pauses after each column of blocks.  `early` and `done` come
together, when the last block's statistics can be read.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from afternorm.config import Config
from afternorm.isa import Flag, Opcode, Scale
from hdl.arith.delay import delay, delay_valid
from hdl.interfaces import (
    SCRATCHPAD_LATENCY,
    Tap,
    TreePort,
    body_layout,
    engine_members,
    scratchpad_read,
)
from hdl.memory.scale_memory import ScaleWrite
from hdl.reduce.scale import ScaleUnit
from hdl.reduce.tap import STATISTICS_LATENCY, StatisticsTap
from hdl.reduce.tree import tree_latency

IN_FLIGHT = 16
"""REDUCE instructions that may wait in the pipeline behind the one being written."""

START_CYCLES = 2
"""Cycles from the acceptance of an instruction by an idle engine to its first read."""

CHOICE_CYCLES = 1
"""Cycles to take a tile's own sums or those of all."""


class ReduceEngine(wiring.Component):
    """Engine for REDUCE and SCAN.

    Parameters
    ----------
    config
        Sizes.
    tile
        Number of the tile, which says what blocks it owns: an integer or a constant value.

    Members
    -------
    i, early, done, busy, conflict, flags
        As in `hdl.interfaces.engine_members`.  A flag comes no later than `done`.
    tap : In(Tap)
        Blocks that the matmul engine streams; none while a SCAN runs.
    scan : Out(ReadPort)
        Scratchpad reads.
    tree : Out(TreePort)
        To the reduction tree: s1 in lane 0, s2 in lane 1.
    tree_overflow : In(1)
        Lane 0 or 1 of `tree.i` was saturated.
    scale : Out(ScaleWrite)
        To the scale memory.
    """

    def __init__(self, *, config: Config, tile: int | Value) -> None:
        if isinstance(tile, int) and not 0 <= tile < config.tiles:
            raise ValueError(f"tile must be 0 to {config.tiles - 1}, not {tile}")
        self.config = config
        self.tile = tile
        super().__init__(
            {
                **engine_members(Opcode.REDUCE, Opcode.SCAN),
                "tap": In(Tap(config)),
                "scan": Out(scratchpad_read(config)),
                "tree": Out(TreePort(config)),
                "tree_overflow": In(1),
                "scale": Out(ScaleWrite(config)),
            }
        )
        self._tap = StatisticsTap(config=config)
        self._scale = ScaleUnit(fraction_bits=config.fraction_bits)

    @property
    def tap_latency(self) -> int:
        """Cycles from a block on `tap` to a REDUCE that starts and sees it."""
        return self._tap.latency

    @property
    def tap_min_period(self) -> int:
        """Cycles after which, at the earliest, a block of the same entry may come on `tap`."""
        return self._tap.min_period

    def latency(self, mode: Scale, *, tree: bool) -> int:
        """Cycles from the acceptance of a REDUCE by an idle engine to its `early`."""
        return (
            START_CYCLES
            + STATISTICS_LATENCY
            + (tree_latency(self.config) if tree else 0)
            + CHOICE_CYCLES
            + self._scale.mode_latency(mode)
            + 1
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.tap = tap = self._tap
        m.submodules.scale = scale = self._scale
        # Where the rows of each instruction in flight are to be written
        entry_bits = len(self.scale.entry)
        row_bits = self.config.rows_max.bit_length()
        m.submodules.targets = targets = SyncFIFO(width=entry_bits + row_bits, depth=IN_FLIGHT)

        # The next instruction waits in a register of its own
        staged = Signal()
        opcode = Signal(4)
        drain = Signal()
        body = Signal(self.i.payload.body.shape(), reset_less=True)
        start = Signal()
        m.d.comb += self.i.ready.eq(~staged)
        with m.If(start):
            m.d.sync += staged.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                staged.eq(1),
                opcode.eq(self.i.payload.opcode),
                drain.eq(self.i.payload.drain),
                body.eq(self.i.payload.body),
            ]
        reduce = body_layout(Opcode.REDUCE)(body[: body_layout(Opcode.REDUCE).size])
        is_scan = opcode == Opcode.SCAN

        in_flight = Signal(range(IN_FLIGHT + 2))  # one is being written
        scanning = Signal()
        issuing = Signal()
        last_row = Signal()
        mode = Signal.like(reduce.mode, reset_less=True)
        use_tree = Signal()
        inv_d = Signal.like(scale.inv_d, reset_less=True)
        eps = Signal.like(scale.eps, reset_less=True)
        float_width = self.config.float_width
        # The comparison is long, so it has a cycle of its own after the instruction came
        same = Signal()
        has_room = Signal()
        m.d.sync += has_room.eq(in_flight < IN_FLIGHT)
        m.d.sync += same.eq(
            staged
            & ~start
            & (
                Cat(mode, use_tree, inv_d, eps)
                == Cat(
                    reduce.mode, reduce.tree, reduce.inv_d[:float_width], reduce.eps[:float_width]
                )
            )
        )
        behind = same & ~is_scan & ~drain & has_room & (~issuing | last_row)
        m.d.comb += start.eq(staged & ~scanning & ((in_flight == 0) | behind))
        start_reduce = start & ~is_scan

        # REDUCE: issue
        entry = Signal.like(tap.read.address, reset_less=True)
        rows_left = Signal(row_bits, reset_less=True)
        m.d.comb += [
            last_row.eq(rows_left == 1),
            targets.w_en.eq(start_reduce),
            targets.w_data.eq(Cat(reduce.scale_base[:entry_bits], reduce.rows[:row_bits])),
            tap.read.valid.eq(issuing),
            tap.read.address.eq(entry),
        ]
        with m.If(issuing):
            m.d.sync += [entry.eq(entry + 1), rows_left.eq(rows_left - 1)]
            with m.If(last_row):
                m.d.sync += issuing.eq(0)
        with m.If(start_reduce):
            m.d.sync += [
                issuing.eq(1),
                entry.eq(reduce.stat_base),
                rows_left.eq(reduce.rows),
                mode.eq(reduce.mode),
                use_tree.eq(reduce.tree),
                inv_d.eq(reduce.inv_d[:float_width]),
                eps.eq(reduce.eps[:float_width]),
            ]

        # REDUCE: sums of this tile or of all, to the scale unit
        read = delay_valid(m, issuing, STATISTICS_LATENCY)
        sums = tap.read.data
        m.d.comb += [
            self.tree.valid.eq(read & use_tree),
            self.tree.o[0].eq(sums.s1),
            self.tree.o[1].eq(sums.s2),
            scale.mode.eq(mode),
            scale.inv_d.eq(inv_d),
            scale.eps.eq(eps),
        ]
        summed = delay_valid(m, self.tree.valid, tree_latency(self.config))
        chosen = Signal(sums.shape(), reset_less=True)
        entering = Signal()
        with m.If(use_tree):
            m.d.sync += [
                entering.eq(summed),
                chosen.s1.eq(self.tree.i[0]),
                chosen.s2.eq(self.tree.i[1]),
            ]
        with m.Else():
            m.d.sync += [entering.eq(read), chosen.eq(sums)]
        m.d.comb += [
            scale.valid.eq(entering),
            scale.s1.eq(chosen.s1),
            scale.s2.eq(chosen.s2),
        ]

        # REDUCE: write
        target = Signal()
        target_entry = Signal(entry_bits, reset_less=True)
        target_left = Signal(row_bits, reset_less=True)
        target_first = Signal()
        first_written = scale.o_valid & target_first
        last_written = scale.o_valid & (target_left == 1)
        m.d.comb += [
            self.scale.valid.eq(scale.o_valid),
            self.scale.entry.eq(target_entry),
            self.scale.scale0.eq(scale.scale0),
            self.scale.scale1.eq(scale.scale1),
            targets.r_en.eq(~target | last_written),
        ]
        with m.If(scale.o_valid):
            m.d.sync += [
                target_entry.eq(target_entry + 1),
                target_left.eq(target_left - 1),
                target_first.eq(0),
            ]
        with m.If(targets.r_en):
            m.d.sync += [
                target.eq(targets.r_rdy),
                target_entry.eq(targets.r_data[:entry_bits]),
                target_left.eq(targets.r_data[entry_bits:]),
                target_first.eq(1),
            ]
        m.d.sync += in_flight.eq(in_flight + start_reduce - last_written)

        scanned = self._scan(m, body, start & is_scan, scanning)
        m.d.sync += [
            self.early.eq(first_written | scanned),
            self.done.eq(last_written | scanned),
        ]
        m.d.comb += [
            self.busy.eq(staged | scanning | (in_flight != 0)),
            self.conflict.eq(self.scan.valid & ~self.scan.ready),
            self.flags[Flag.STATISTICS_OVERFLOW].eq(tap.overflow),
            self.flags[Flag.SCALE_OVERFLOW].eq(scale.overflow | (summed & self.tree_overflow)),
            self.flags[Flag.ZERO_SUM].eq(scale.zero),
        ]
        return m

    def _scan(self, m: Module, body: Signal, start: Value, scanning: Signal) -> Value:
        """Add the SCAN part; a pulse in the cycle before the last block's statistics can be read.

        `scanning` is set from the cycle after `start` until that pulse.
        """
        tap = self._tap
        layout = body_layout(Opcode.SCAN)
        staged = layout(body[: layout.size])
        scan = Signal(layout, reset_less=True)
        address_bits = len(self.scan.address)

        column = Signal(address_bits, reset_less=True)
        address = Signal(address_bits, reset_less=True)
        entry = Signal.like(tap.i.entry, reset_less=True)
        rows_left = Signal.like(staged.rows, reset_less=True)
        blocks_left = Signal.like(staged.blocks, reset_less=True)
        group = Signal.like(staged.blocks, reset_less=True)  # k // stat_owned
        group_left = Signal.like(staged.stat_owned, reset_less=True)
        first = Signal()
        pause = Signal(range(tap.min_period))
        # What the arbiter is asked, and what its answer ends, stands in registers.
        asks = Signal()
        last_row = Signal()
        last_block = Signal()
        last_of_group = Signal()
        short = Signal()  # fewer rows than the tap's `min_period`

        next_column = Signal(address_bits)
        m.d.comb += [
            next_column.eq(column + scan.a_block),
            self.scan.valid.eq(asks),
            self.scan.address.eq(address),
        ]
        accepted = asks & self.scan.ready
        end = Signal()
        m.d.comb += end.eq(accepted & last_row & last_block)
        with m.If(accepted):
            with m.If(~last_row):
                m.d.sync += [
                    address.eq(address + scan.a_row),
                    entry.eq(entry + 1),
                    rows_left.eq(rows_left - 1),
                    last_row.eq(rows_left == 2),
                ]
            with m.Else():
                m.d.sync += [
                    column.eq(next_column),
                    address.eq(next_column),
                    entry.eq(scan.stat_base),
                    rows_left.eq(scan.rows),
                    last_row.eq(scan.rows == 1),
                    blocks_left.eq(blocks_left - 1),
                    last_block.eq(blocks_left == 2),
                    group_left.eq(group_left - 1),
                    last_of_group.eq(group_left == 2),
                    first.eq(0),
                    # The same entry comes again at least `rows` and the pause after it came.
                    pause.eq(Mux(last_block, 0, tap.min_period - scan.rows)),
                    asks.eq(~short & ~last_block),
                ]
                with m.If(last_of_group):
                    m.d.sync += [
                        group.eq(group + 1),
                        group_left.eq(scan.stat_owned),
                        last_of_group.eq(scan.stat_owned == 1),
                    ]
        with m.If(~asks & (pause != 0)):
            m.d.sync += [pause.eq(pause - 1), asks.eq(pause == 1)]
        with m.If(start):
            m.d.sync += [
                scanning.eq(1),
                asks.eq(1),
                short.eq(staged.rows < tap.min_period),
                scan.eq(staged),
                column.eq(staged.a_base),
                address.eq(staged.a_base),
                entry.eq(staged.stat_base),
                rows_left.eq(staged.rows),
                last_row.eq(staged.rows == 1),
                blocks_left.eq(staged.blocks),
                last_block.eq(staged.blocks == 1),
                group.eq(0),
                group_left.eq(staged.stat_owned),
                last_of_group.eq(staged.stat_owned == 1),
                first.eq(staged.stat_first),
                pause.eq(0),
            ]

        # What the scratchpad returns goes past the tap, else what the matmul engine streams
        owned = (scan.stat_owned == 0) | (group == self.tile)
        returned = delay_valid(m, accepted, SCRATCHPAD_LATENCY)
        side = delay(m, Cat(first, owned, entry), SCRATCHPAD_LATENCY, name="scan_side")
        with m.If(returned):
            m.d.comb += [
                tap.i.block.eq(self.scan.data),
                tap.i.first.eq(side[0]),
                tap.i.owned.eq(side[1]),
                tap.i.entry.eq(side[2:]),
                tap.i.squares.eq(scan.stat_squares),
            ]
        with m.Else():
            m.d.comb += [
                tap.i.block.eq(self.tap.block),
                tap.i.entry.eq(self.tap.entry),
                tap.i.first.eq(self.tap.first),
                tap.i.owned.eq(self.tap.owned),
                tap.i.squares.eq(self.tap.squares),
            ]
        m.d.comb += tap.i.valid.eq(returned | self.tap.valid)

        # `done` is registered, hence one cycle less
        settle = SCRATCHPAD_LATENCY + tap.latency - 1
        settling = Signal(range(settle))
        scanned = settling == 1
        ended = Signal()
        m.d.sync += ended.eq(end)
        with m.If(settling != 0):
            m.d.sync += settling.eq(settling - 1)
        with m.If(ended):
            m.d.sync += settling.eq(settle - 1)
        with m.If(scanned):
            m.d.sync += scanning.eq(0)
        return scanned
