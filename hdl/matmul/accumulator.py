# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""The float accumulators below the array, `acc_banks` banks of ``[rows_max][acc_width]``.

One row of entries (C columns, of which `count` are real) comes a cycle, column c by c cycles
later than column 0: the control of a row, `i`, travels along the columns with one register each.
`i` is due `entry_to_control` cycles after column 0's dot product; column c is written
``control_to_write + c`` cycles after `i`, and `done` appears with the write of column C - 1.

The two drain ports read all C columns of a row at once, `hdl.interfaces.ACC_LATENCY` cycles
after the request.  They must not ask for one bank in the same cycle, nor for a bank that is
being added to.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from afternorm.config import Config
from hdl.arith.delay import delay
from hdl.interfaces import AccumulatorRead
from hdl.matmul.column import (
    AccumulatorColumn,
    accumulator_address,
    accumulator_depth,
)
from hdl.once import once


def row_layout(config: Config) -> data.StructLayout:
    """Where a row of entries goes.

    `count` : entries, from column 0 on.
    `bank`, `row`, `tile` : their accumulators.
    `first` : they start their accumulators instead of adding to them.
    `done` : the row is the last of its instruction.
    """
    return data.StructLayout(
        {
            "count": ceil_log2(config.columns + 1),
            "bank": ceil_log2(config.acc_banks),
            "row": ceil_log2(config.rows_max),
            "tile": ceil_log2(config.column_tiles),
            "first": 1,
            "done": 1,
        }
    )


class Accumulators(wiring.Component):
    """The accumulators of all columns.

    Parameters
    ----------
    config
        Sizes.
    dot_width
        Bits of a dot product with its sign.

    Members
    -------
    i_valid, i : In(1), In(row_layout)
        A row is due.
    dots, exponents : In(signed(dot_width), C), In(signed(12), C)
        Entries as they leave the array.
    exp_read, vector_read : In(AccumulatorRead)
        Drain ports; this is the memory's side.
    written : Out(1)
        An accumulator is written in this cycle.
    done : Out(1)
        An instruction's last accumulator is written in this cycle, or was.
    overflow : Out(1)
        An entry or a sum was saturated.
    """

    def __init__(self, *, config: Config, dot_width: int) -> None:
        self.config = config
        self._columns = [
            once(AccumulatorColumn, config=config, dot_width=dot_width)
            for _ in range(config.columns)
        ]
        super().__init__(
            {
                "i_valid": In(1),
                "i": In(row_layout(config)),
                "dots": In(data.ArrayLayout(signed(dot_width), config.columns)),
                "exponents": In(data.ArrayLayout(signed(12), config.columns)),
                "exp_read": In(AccumulatorRead(config)),
                "vector_read": In(AccumulatorRead(config)),
                "written": Out(1),
                "done": Out(1),
                "overflow": Out(1),
            }
        )

    @property
    def entry_to_control(self) -> int:
        """Cycles from column 0's dot product to `i`."""
        return self._columns[0].entry_to_read - 1

    @property
    def control_to_write(self) -> int:
        """Cycles from `i` to column 0's write."""
        return 1 + self._columns[0].read_to_write

    @property
    def min_period(self) -> int:
        """Least distance of two `i` of the same row: the second reads what the first wrote."""
        return self._columns[0].read_to_write + 1

    @property
    def latency(self) -> int:
        """Cycles from `i` to `done`."""
        return self.control_to_write + self.config.columns - 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        address = unsigned(ceil_log2(accumulator_depth(config)))

        drain = Signal(data.ArrayLayout(address, config.acc_banks))
        ports = (self.exp_read, self.vector_read)
        exp_address, vector_address = (
            accumulator_address(config, row=port.row, tile=port.tile) for port in ports
        )
        exp_bank, vector_bank = (delay(m, port.bank, 1, name="drain_bank") for port in ports)
        for b in range(config.acc_banks):
            exp_wants = self.exp_read.valid & (self.exp_read.bank == b)
            m.d.comb += drain[b].eq(Mux(exp_wants, exp_address, vector_address))

        # One line of registers carries the rows past the columns, to read and then to write.
        # A signal a field, not a struct, makes the columns' modules equal (`hdl.verilog`).
        fields = {
            "count": Mux(self.i_valid, self.i.count, 0),
            "bank": self.i.bank,
            "address": accumulator_address(config, row=self.i.row, tile=self.i.tile),
            "first": self.i.first,
            "done": self.i.done,
        }
        line: list[dict[str, Value]] = []
        for k in range(self.latency):
            registers = {
                name: Signal(len(value), name=f"{name}_{k}") for name, value in fields.items()
            }
            m.d.sync += [registers[name].eq(value) for name, value in fields.items()]
            if k < config.columns:
                # Decoded a cycle ahead, as the memories' addresses depend on it.
                adds = Signal(config.acc_banks, name=f"adds_{k}")
                m.d.sync += [
                    adds[b].eq((fields["count"] > k) & ~fields["first"] & (fields["bank"] == b))
                    for b in range(config.acc_banks)
                ]
                m.d.comb += self._columns[k].adds.eq(adds)
            line.append(registers)
            fields = registers

        written, overflows = [], []
        for c, column in enumerate(self._columns):
            m.submodules[f"column_{c}"] = column
            read, write = line[c], line[c + column.read_to_write]
            m.d.comb += [
                column.dot.eq(self.dots[c]),
                column.exponent.eq(self.exponents[c]),
                column.read.eq(read["count"] > c),
                column.read_bank.eq(read["bank"]),
                column.read_address.eq(read["address"]),
                column.write.eq(write["count"] > c),
                column.write_bank.eq(write["bank"]),
                column.write_address.eq(write["address"]),
                column.drain_address.eq(drain),
                column.exp_bank.eq(exp_bank),
                column.vector_bank.eq(vector_bank),
                self.exp_read.data[c].eq(column.exp_data),
                self.vector_read.data[c].eq(column.vector_data),
            ]
            written.append(column.write)
            overflows.append(column.overflow)
        m.d.comb += [
            self.written.eq(Cat(written).any()),
            self.done.eq((line[-1]["count"] != 0) & line[-1]["done"]),
            self.overflow.eq(Cat(overflows).any()),
        ]
        return m
