# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""Row statistics of passing blocks: ``s1 += sum(m) * 2**(e-6)``, ``s2 += sum(m*m) * 2**(2*(e-6))``.

The integer sums of a block are exact, enter the float format in one rounding
each, and are added to the row's entry of the statistics memory, or start it.
One block a cycle passes and nothing stalls; what `latency` counts is::

    1         split the mantissas
    log2(B)   adder trees, a register a level
    3         sum of the squares from three partial sums
    4 or 5    integers to floats; meanwhile the entry is read
    5         add
    1         write

Squares take no multiplier.  With ``m = 16*h + l`` (h signed, l unsigned, four bits each)
``m*m = 256*h*h + l*l + 16*((h+l)**2 - h*h - l*l)``, as in Karatsuba's product: three tables
of four, four and five inputs are summed over the block, and combined once, at the end.
"""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from afternorm.config import Config
from hdl.arith.delay import delay
from hdl.arith.float_add import FloatAdd
from hdl.arith.format import float_layout
from hdl.arith.int_to_float import IntToFloat
from hdl.interfaces import ReadPort, Tap
from hdl.once import once

STATISTICS_LATENCY = 2
"""Cycles from a statistics memory read to its data."""

_MANTISSA_SHIFT = 6
_COMBINE_STAGES = 3


def statistics_layout(fraction_bits: int) -> data.StructLayout:
    """An entry of the statistics memory: the sum of the elements, and of their squares."""
    layout = float_layout(fraction_bits)
    return data.StructLayout({"s1": layout, "s2": layout})


def statistics_read(config: Config) -> ReadPort:
    """A statistics reader's port: one entry a request, `STATISTICS_LATENCY`."""
    return ReadPort(config.stat_depth, statistics_layout(config.fraction_bits))


def tap_min_period(config: Config) -> int:
    """Cycles after which, at the earliest, a block of the same entry may pass the tap."""
    return STATISTICS_LATENCY + once(FloatAdd, fraction_bits=config.fraction_bits).latency + 1


class StatisticsTap(wiring.Component):
    """Statistics of the blocks that pass, and the memory that holds them.

    Parameters
    ----------
    config
        Sizes: `block`, `fraction_bits`, `stat_depth`.

    Members
    -------
    i : In(Tap)
        The blocks.  One of the same entry comes `min_period` cycles later at the earliest.
    read : In(ReadPort)
        The reduction's access to the statistics, always ready, `STATISTICS_LATENCY`.
    overflow : Out(1)
        `latency` cycles after a block: one of its operations overflowed.
    """

    def __init__(self, *, config: Config) -> None:
        self.config = config
        super().__init__(
            {"i": In(Tap(config)), "read": In(statistics_read(config)), "overflow": Out(1)}
        )
        self._add = [once(FloatAdd, fraction_bits=config.fraction_bits) for _ in range(2)]
        block = exact_log2(config.block)
        # |sum(m)| <= 128 * block, sum(m*m) <= 16384 * block; with a sign
        self._convert = [
            once(IntToFloat, fraction_bits=config.fraction_bits, width=width + block)
            for width in (9, 16)
        ]

    @property
    def min_period(self) -> int:
        """`tap_min_period` of the configuration."""
        return tap_min_period(self.config)

    @property
    def latency(self) -> int:
        """Cycles from a block to the first read that sees it in its entry."""
        return self._sum_stages + self._convert_stages + self._add[0].latency + 1

    @property
    def _sum_stages(self) -> int:
        return 1 + exact_log2(self.config.block) + _COMBINE_STAGES

    @property
    def _convert_stages(self) -> int:
        return max(convert.latency for convert in self._convert)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.convert_s1, m.submodules.convert_s2 = self._convert
        m.submodules.add_s1, m.submodules.add_s2 = self._add
        layout = statistics_layout(self.config.fraction_bits)
        block = self.i.block
        sums = self._sum_stages
        converted = sums + self._convert_stages
        added = converted + self._add[0].latency

        valid = Signal(added)  # bit n: a block is n + 1 cycles behind the tap
        m.d.sync += valid.eq(Cat(self.i.valid, valid))

        # Integer sums
        elements: list[Value] = []
        tables: tuple[list[Value], ...] = ([], [], [])  # h*h, l*l, (h+l)**2
        for n in range(self.config.block):
            mantissa = Signal(signed(8), name=f"mantissa_{n}", reset_less=True)
            middle = Signal(5, name=f"middle_{n}", reset_less=True)  # -8..22, modulo 32
            m.d.sync += [
                mantissa.eq(block.mantissas[n]),
                middle.eq(block.mantissas[n][4:].as_signed() + block.mantissas[n][:4]),
            ]
            elements.append(mantissa)
            tables[0].append(_square(mantissa[4:], lowest=-8, highest=7))
            tables[1].append(_square(mantissa[:4], lowest=0, highest=15))
            tables[2].append(_square(middle, lowest=-8, highest=22))
        total = delay(m, _tree(m, elements, "sum"), _COMBINE_STAGES, name="sum")
        high = _tree(m, tables[0], "high")
        low = _tree(m, tables[1], "low")
        middle = _tree(m, tables[2], "middle")

        # 256*high + low + 16*(middle - high - low) = 16*(middle + outer) - outer
        outer = Signal(signed(len(high) + 5), reset_less=True)
        m.d.sync += outer.eq((high << 4) - low)
        all_three = Signal(signed(len(high) + 5), reset_less=True)
        m.d.sync += all_three.eq(delay(m, middle, 1, name="middle_delay") + outer)
        squares = Signal(self._convert[1].width - 1, reset_less=True)
        m.d.sync += squares.eq((all_three << 4) - delay(m, outer, 1, name="outer_delay"))

        # To floats: a block that is not counted enters as zeros
        owned = delay(m, self.i.owned, sums, name="owned")
        squared = delay(m, self.i.owned & self.i.squares, sums, name="squared")
        exponent = Signal(signed(11))
        m.d.comb += [
            exponent.eq(delay(m, block.exponent, sums, name="exponent") - _MANTISSA_SHIFT),
            self._convert[0].i.eq(Mux(owned, total, 0)),
            self._convert[0].exponent.eq(exponent),
            self._convert[1].i.eq(Mux(squared, squares, 0)),
            self._convert[1].exponent.eq(exponent << 1),
        ]
        values = []
        entering = C(0, 1)  # overflow on the way to a float
        for convert in self._convert:
            wait = self._convert_stages - convert.latency  # conversions differ in width
            values.append(delay(m, convert.o, wait, name="value"))
            entering |= delay(m, convert.overflow, wait, name="value_overflow")

        # Read, add, write; a block that starts its entry is added to zero, which is exact
        m.submodules.memory = memory = Memory(
            shape=layout, depth=self.config.stat_depth, init=[], attrs={"no_rw_check": 1}
        )
        entry_port = memory.read_port()
        read_port = memory.read_port()
        write_port = memory.write_port()

        read_stage = converted - STATISTICS_LATENCY
        read_entry = delay(m, self.i.entry, read_stage, name="entry")
        goes_on = delay(m, ~self.i.first, converted - 1, name="goes_on")
        former = Signal(layout, reset_less=True)
        m.d.comb += [
            entry_port.addr.eq(read_entry),
            entry_port.en.eq(valid[read_stage - 1]),
            write_port.addr.eq(delay(m, read_entry, added - read_stage, name="write_entry")),
            write_port.en.eq(valid[added - 1]),
            write_port.data.s1.eq(self._add[0].o),
            write_port.data.s2.eq(self._add[1].o),
        ]
        m.d.sync += former.eq(Mux(goes_on, entry_port.data.as_value(), C(0, layout.size)))
        for add, value, addend in zip(self._add, values, (former.s1, former.s2), strict=True):
            m.d.comb += [add.a.eq(addend), add.b.eq(value)]

        read_data = Signal(layout, reset_less=True)
        m.d.sync += read_data.eq(read_port.data)
        m.d.comb += [
            read_port.addr.eq(self.read.address),
            read_port.en.eq(self.read.valid),
            self.read.data.eq(read_data),
            self.read.ready.eq(1),
        ]

        entered = delay(m, entering, self._add[0].latency, name="entering_overflow")
        m.d.sync += self.overflow.eq(
            valid[added - 1] & (entered | self._add[0].overflow | self._add[1].overflow)
        )
        return m


def _square(index: Value, *, lowest: int, highest: int) -> Value:
    """The square of the number from `lowest` to `highest` that is `index` modulo its range.

    A truth table for each bit, which no synthesizer takes for a memory.
    """
    size = 1 << len(index)
    numbers = range(lowest, highest + 1)
    bits = max(number * number for number in numbers).bit_length()
    tables = [
        sum((number * number >> bit & 1) << number % size for number in numbers)
        for bit in range(bits)
    ]
    return Cat(C(table, size).bit_select(index, 1) for table in tables)


def _tree(m: Module, values: list[Value], name: str) -> Value:
    """The sum of `values`, a power of two of them, with a register after each level."""
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=True)
        values = [delay(m, left + right, 1, name=name) for left, right in pairs]
    return values[0]
