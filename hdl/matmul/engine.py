# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""The matrix engine: executes `Opcode.MATMUL`, ``acc[m, n] (+)= sum over k of a[m, k] * b[n, k]``.

::

    i -> ColumnTiler -> Sequencer -> a, b (scratchpad)
                            |             |
                            |       SystolicArray -> Accumulators -> exp_read, vector_read
                            |             |               |
                            +---- tap ----+             done

One row of A enters the array a cycle, and where M >= C no cycle is lost between weight tiles
or instructions; see `hdl.matmul.sequencer` for the timing, `hdl.matmul.array` for why it is
right, `golden.machine.Machine` for the exact meaning.

From the read of a row of A to the write of its column c it takes ``latency + c`` cycles.  A
product whose reads of B are never refused and whose M >= C takes
``ideal + C + latency + C - 1`` cycles from its first read to its last write, with
``ideal = blocks * ceil(cols / C) * rows``.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from afternorm.config import Config
from afternorm.isa import Flag, Opcode
from hdl.arith.delay import delay, delay_valid
from hdl.interfaces import (
    SCRATCHPAD_LATENCY,
    AccumulatorRead,
    OperandRead,
    Tap,
    engine_members,
)
from hdl.matmul.accumulator import Accumulators
from hdl.matmul.array import SystolicArray
from hdl.matmul.sequencer import Sequencer
from hdl.matmul.tiler import ColumnTiler
from hdl.memory.delay_line import delay_line


def offer_to_row(config: Config) -> int:
    """Cycles from the offer of an instruction to an idle engine to its first row, of C columns."""
    return ColumnTiler.period + config.columns


class MatmulEngine(wiring.Component):
    """The matrix engine of a tile.

    Parameters
    ----------
    config
        Sizes.
    tile
        Number of this tile: an integer or a constant value.
    tap_period
        Cycles after which the statistics tap may see a row again; by default as many as the
        accumulators need (`Accumulators.min_period`), whose addition is the same.

    Members
    -------
    i, early, done, busy, conflict, flags
        As in `hdl.interfaces.engine_members`.  `early`: the tap has seen the instruction's last
        block, or would have seen it in the first column tile's last row.  `done`: the last
        accumulator is being written, a drain read accepted in the next cycle sees it.
        `conflict`: a read of B was refused.
    a, b : Out(OperandRead)
        Reads of A's and B's blocks.
    tap : Out(Tap)
        Blocks whose statistics are wanted.
    exp_read, vector_read : In(AccumulatorRead)
        Drain ports; this is the memory's side.
    row_issued : Out(1)
        A row of A was requested.  It enters the array `SCRATCHPAD_LATENCY` cycles later.
    last_row_issued : Out(1)
        It is the last one of its instruction.
    result_written : Out(1)
        Accumulators are written.
    operand_read : Out(1)
        A block of A or B was requested.
    """

    TAP_LATENCY = SCRATCHPAD_LATENCY + 1
    """Cycles from a block's request to `tap`."""

    def __init__(self, *, config: Config, tile: int | Value, tap_period: int | None = None) -> None:
        self.config = config
        self.tile = tile
        self._array = SystolicArray(rows=config.rows, columns=config.columns)
        self._accumulators = Accumulators(config=config, dot_width=self._array.dot_width)
        self._tiler = ColumnTiler(config=config)
        self._sequencer = Sequencer(
            config=config,
            tile=tile,
            min_period=self._accumulators.min_period,
            tap_period=self._accumulators.min_period if tap_period is None else tap_period,
        )
        super().__init__(
            {
                **engine_members(Opcode.MATMUL),
                "a": Out(OperandRead(config)),
                "b": Out(OperandRead(config)),
                "tap": Out(Tap(config)),
                "exp_read": In(AccumulatorRead(config)),
                "vector_read": In(AccumulatorRead(config)),
                "row_issued": Out(1),
                "last_row_issued": Out(1),
                "result_written": Out(1),
                "operand_read": Out(1),
            }
        )

    @property
    def min_period(self) -> int:
        """Least distance of two weight tiles, where the second adds to the accumulators."""
        return max(self._sequencer.min_period, self._sequencer.tap_period)

    @property
    def latency(self) -> int:
        """Cycles from a row's request to the write of its column 0."""
        return self._control_latency + self._accumulators.control_to_write

    @property
    def _control_latency(self) -> int:
        """Cycles from a row's request to its control at the accumulators."""
        return SCRATCHPAD_LATENCY + self._array.latency + self._accumulators.entry_to_control

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.array = array = self._array
        m.submodules.accumulators = accumulators = self._accumulators
        m.submodules.tiler = tiler = self._tiler
        m.submodules.sequencer = sequencer = self._sequencer

        connect(m, flipped(self.i), tiler.i)
        connect(m, tiler.o, sequencer.i)
        m.d.comb += [
            self.a.valid.eq(sequencer.a_valid),
            self.a.address.eq(sequencer.a_address),
            self.b.valid.eq(sequencer.b_valid),
            self.b.address.eq(sequencer.b_address),
            self.row_issued.eq(sequencer.a_valid),
            self.last_row_issued.eq(sequencer.a_valid & sequencer.row.done),
            self.operand_read.eq(sequencer.a_valid | sequencer.issue.b_valid),
            self.conflict.eq(sequencer.b_refused),
        ]

        issue = sequencer.issue
        m.d.comb += [
            array.a.eq(self.a.data),
            array.swap.eq(delay_valid(m, issue.swap, SCRATCHPAD_LATENCY)),
            array.b.eq(self.b.data),
            array.b_valid.eq(delay_valid(m, issue.b_valid, SCRATCHPAD_LATENCY)),
            array.b_first.eq(delay(m, issue.b_first, SCRATCHPAD_LATENCY, name="b_first")),
        ]

        from_b = delay(m, issue.tap.from_b, SCRATCHPAD_LATENCY, name="tap_from_b")
        block = Mux(from_b, self.b.data.as_value(), self.a.data.as_value())
        tapped = delay(m, issue.tap, self.TAP_LATENCY, name="tap")
        m.d.comb += [
            self.tap.valid.eq(delay_valid(m, issue.tap.valid, self.TAP_LATENCY)),
            self.tap.block.eq(
                delay(m, block, self.TAP_LATENCY - SCRATCHPAD_LATENCY, name="tap_block")
            ),
            self.tap.entry.eq(tapped.entry),
            self.tap.first.eq(tapped.first),
            self.tap.owned.eq(tapped.owned),
            self.tap.squares.eq(tapped.squares),
            self.early.eq(delay_valid(m, issue.early, self.TAP_LATENCY)),
        ]

        m.d.comb += [
            accumulators.i_valid.eq(delay_valid(m, sequencer.a_valid, self._control_latency)),
            accumulators.i.eq(delay_line(m, sequencer.row, self._control_latency, name="row")),
            accumulators.dots.eq(array.dots),
            accumulators.exponents.eq(array.exponents),
            self.result_written.eq(accumulators.written),
            self.done.eq(accumulators.done),
            self.flags[Flag.ACCUMULATOR_OVERFLOW].eq(accumulators.overflow),
        ]
        connect(m, flipped(self.exp_read), accumulators.exp_read)
        connect(m, flipped(self.vector_read), accumulators.vector_read)

        # Rows in the pipelines: none once the last one had the time to reach the last column.
        through = self._control_latency + accumulators.latency
        ahead = Signal(range(through + 1))
        with m.If(sequencer.a_valid):
            m.d.sync += ahead.eq(through)
        with m.Elif(ahead != 0):
            m.d.sync += ahead.eq(ahead - 1)
        m.d.comb += self.busy.eq(self.i.valid | tiler.o.valid | sequencer.active | (ahead != 0))
        return m
