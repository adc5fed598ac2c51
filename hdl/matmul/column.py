# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""One column's accumulators: ``acc[bank][address] = round((first ? 0 : acc) + round(dot * 2**e))``.

A dot product enters the small float in one rounding and is added to its accumulator in another
(`hdl.arith`).  The read-modify-write is a pipeline of `read_to_write` cycles that takes one entry
a cycle: read (two cycles: memory, bank multiplexer and register), add, write.  An accumulator
must not be read again in the `read_to_write` cycles after its last read; `hdl.matmul.sequencer`
sees to that.

Each bank has one write and one read port.  The read port serves the read-modify-write when it
wants the bank, and the drain otherwise: programs never drain a bank that is being accumulated.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from afternorm.config import Config
from hdl.arith.delay import delay
from hdl.arith.float_add import FloatAdd
from hdl.arith.format import float_layout
from hdl.arith.int_to_float import IntToFloat
from hdl.once import once


def accumulator_depth(config: Config) -> int:
    """Floats of one column in one bank, with what the addresses leave unused."""
    tiles, rows = config.column_tiles, config.rows_max
    if tiles & (tiles - 1):
        return tiles << ceil_log2(rows)
    return tiles * rows


def accumulator_address(config: Config, *, row: Value, tile: Value) -> Value:
    """Address of a row and column tile: side by side, the one that fills its bits below."""
    if config.column_tiles & (config.column_tiles - 1):
        return Cat(row, tile)
    return Cat(tile, row)


class AccumulatorColumn(wiring.Component):
    """The accumulators of one column of the array, all banks, and their adder.

    Parameters
    ----------
    config
        Sizes.
    dot_width
        Bits of a dot product with its sign.

    Members
    -------
    dot, exponent : In(signed(dot_width)), In(signed(12))
        The entry: `entry_to_read` cycles before its `read`.
    read : In(1)
        An entry is due.
    adds : In(banks)
        One-hot, the bank of the accumulator that it is added to; 0 if it starts an accumulator.
    read_bank, read_address : In
        Its accumulator.
    write, write_bank, write_address : In
        `read` and its place once more, `read_to_write` cycles later.
    drain_address : In(unsigned, banks)
        What each bank reads in this cycle where no entry wants it.
    exp_bank, vector_bank : In
        Bank whose drained float goes to `exp_data`, `vector_data`: one cycle after its address.
    exp_data, vector_data : Out(float)
        The float, two cycles after its address.
    overflow : Out(1)
        An entry, or its sum, was saturated.
    """

    READ_LATENCY = 2

    def __init__(self, *, config: Config, dot_width: int) -> None:
        self.config = config
        self._convert = once(IntToFloat, fraction_bits=config.fraction_bits, width=dot_width)
        self._add = once(FloatAdd, fraction_bits=config.fraction_bits)
        self.depth = accumulator_depth(config)
        self.layout = float_layout(config.fraction_bits)
        bank = unsigned(ceil_log2(config.acc_banks))
        address = unsigned(ceil_log2(self.depth))
        super().__init__(
            {
                "dot": In(signed(dot_width)),
                "exponent": In(signed(12)),
                "read": In(1),
                "adds": In(config.acc_banks),
                "read_bank": In(bank),
                "read_address": In(address),
                "write": In(1),
                "write_bank": In(bank),
                "write_address": In(address),
                "drain_address": In(data.ArrayLayout(address, config.acc_banks)),
                "exp_bank": In(bank),
                "vector_bank": In(bank),
                "exp_data": Out(self.layout),
                "vector_data": Out(self.layout),
                "overflow": Out(1),
            }
        )

    @property
    def entry_to_read(self) -> int:
        """Cycles from an entry at `dot` to its `read`."""
        return self._convert.latency - self.READ_LATENCY

    @property
    def read_to_write(self) -> int:
        """Cycles from an entry's `read` to its `write`."""
        return self.READ_LATENCY + self._add.latency

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.convert = convert = self._convert
        m.submodules.add = add = self._add

        banks = []
        for b in range(self.config.acc_banks):
            # Nobody looks at what a bank reads where it is being written.
            memory = Memory(shape=self.layout, depth=self.depth, init=[], attrs={"no_rw_check": 1})
            m.submodules[f"bank_{b}"] = memory
            read_port = memory.read_port()
            write_port = memory.write_port()
            m.d.comb += [
                read_port.addr.eq(Mux(self.adds[b], self.read_address, self.drain_address[b])),
                write_port.addr.eq(self.write_address),
                write_port.data.eq(add.o),
                write_port.en.eq(self.write & (self.write_bank == b)),
            ]
            banks.append(read_port.data.as_value())

        words = Array(banks)

        bank = delay(m, self.read_bank, 1, name="bank")
        starts = delay(m, ~self.adds.any(), 1, name="starts")
        # An entry plus zero is the entry: it is a float of the format already.
        augend = delay(m, Mux(starts, 0, words[bank]), 1, name="augend")
        live = Signal(self.READ_LATENCY)
        overflow = Signal()
        m.d.sync += [
            live.eq(Cat(self.read, live)),
            overflow.eq((convert.overflow & live[-1]) | (add.overflow & self.write)),
        ]
        m.d.comb += [
            convert.i.eq(self.dot),
            convert.exponent.eq(self.exponent),
            add.a.eq(augend),
            add.b.eq(convert.o),
            self.exp_data.eq(delay(m, words[self.exp_bank], 1, name="exp_register")),
            self.vector_data.eq(delay(m, words[self.vector_bank], 1, name="vector_register")),
            self.overflow.eq(overflow),
        ]
        return m
